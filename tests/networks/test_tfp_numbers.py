"""Our networks against TFP's own, which run on tf_keras, with the same weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from numpy.testing import assert_allclose, assert_array_equal
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import networks

D, C = 5, 2
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(autouse=True)
def _tfp_computes_in(request):
    """In TFP's networks what is between the dense layers computes in Keras 2's default dtype."""
    previous = tf_keras.backend.floatx()
    tf_keras.backend.set_floatx(request.node.callspec.params["dtype"])
    yield
    tf_keras.backend.set_floatx(previous)


def normal(*shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def assert_same(ours, theirs, x, kernels, context=None):
    """Two results of the same sums of products, up to rounding.

    A sum of n products errs by at most n eps times the sum of their sizes, and an activation whose
    slope is at most 1 passes on an error as a size. So the error of each is at most the number of
    all terms along the way, and a few for biases, activations and the final sum, times eps, times
    the network's value with absolute values for all weights and inputs.
    """
    size, terms = np.abs(x), 0
    for kernel, bias, conditional in kernels:
        size = size @ np.abs(kernel) + np.abs(bias)
        terms += len(kernel) + 4
        if conditional is not None:
            size = size + np.abs(context) @ np.abs(conditional)
            terms += len(conditional)
    atol = 2 * terms * np.finfo(x.dtype).eps * size.max()
    assert ours.dtype == theirs.dtype == x.dtype
    assert_allclose(ours, theirs, rtol=0.0, atol=atol)


CASES = {
    "plain": {},
    "one parameter": {"params": 1},
    "right to left": {"input_order": "right-to-left"},
    "an order": {"input_order": np.array([2, 5, 1, 3, 4])},
    "no hidden layer": {"hidden_units": []},
    "narrow": {"hidden_units": [3, 2, 3]},
    "no activation": {"activation": None},
    "no bias": {"use_bias": False},
    "all layers": {"conditional": True, "conditional_event_shape": C},
    "first layer": {
        "conditional": True,
        "conditional_event_shape": [C],
        "conditional_input_layers": "first_layer",
    },
    "one dimension": {
        "event_shape": 1,
        "conditional": True,
        "conditional_event_shape": C,
        "conditional_input_layers": "first_layer",
    },
    "constrained": {"kernel_constraint": "non_neg", "bias_constraint": "max_norm"},
    "regularized": {"kernel_regularizer": "l2", "bias_regularizer": "l1"},
}


def both(dtype, **options):
    """TFP's network and ours with its weights, and the inputs of a call."""
    options = {"params": 2, "hidden_units": [9, 7], "activation": "tanh", **options}
    options = {"event_shape": [D], **options}
    size = np.atleast_1d(options["event_shape"])[0]
    x = normal(4, size, dtype=dtype)
    conditional = options.get("conditional", False)
    more = {"conditional_input": normal(4, C, dtype=dtype, seed=1)} if conditional else {}
    theirs = tfb.AutoregressiveNetwork(dtype=dtype, **options)
    ours = networks.AutoregressiveNetwork(dtype=dtype, **options)
    for network in (theirs, ours):
        network(x, **more)
    assert [w.shape for w in theirs.get_weights()] == [w.shape for w in ours.get_weights()]
    draws = [normal(*w.shape, dtype=dtype, seed=2) for w in theirs.get_weights()]
    # TFP's weights are zero where its masks are.
    masks = [1 if len(w.shape) == 1 else w != 0 for w in theirs.get_weights()]
    theirs.set_weights([draw * mask for draw, mask in zip(draws, masks, strict=True)])
    return theirs, ours, x, more


@DTYPES
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_autoregressive_network(case, dtype):
    theirs, ours, x, more = both(dtype, **case)
    for mine, its in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        if mine.ndim == 2:
            assert_array_equal(mine != 0, its != 0)  # the same masks
    ours.set_weights(theirs.get_weights())
    conditional = [layer.get_weights()[0] for layer in ours._conditional_layers]
    conditional += [None] * (len(ours._masked_layers) - len(conditional))
    kernels = [
        (*layer.get_weights(), *([] if layer.use_bias else [0.0]), more_kernel)
        for layer, more_kernel in zip(ours._masked_layers, conditional, strict=True)
    ]
    results = [tf.reshape(network(x, **more), [len(x), -1]) for network in (ours, theirs)]
    assert_same(*results, x, kernels, more.get("conditional_input"))
    losses = [sum(map(float, network.losses)) for network in (ours, theirs)]
    count = sum(weight.size for weight in ours.get_weights())  # a sum of as many positive terms
    assert_allclose(*losses, rtol=2 * count * np.finfo("float32").eps)


@DTYPES
def test_a_step_of_the_optimizer_and_the_constraints(dtype, rounding):
    """TFP's gradient of a masked weight is not zero, but its constraint masks the new weight."""
    theirs, ours, x, more = both(dtype, kernel_constraint="non_neg", bias_constraint="non_neg")
    ours.set_weights(theirs.get_weights())
    steps = []
    for library, network in ((tf_keras, theirs), (keras, ours)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(network(x, **more)))
        weights = network.trainable_weights
        steps.append(tape.gradient(loss, weights))
        optimizer = library.optimizers.SGD(1.0)
        optimizer.apply_gradients(zip(steps[-1], weights, strict=True))
    # There and back through three layers of up to 10 inputs, for 4 points.
    terms = 2 * 3 * 10 * len(x)
    for mine, its, gradient in zip(ours.get_weights(), theirs.get_weights(), steps[0], strict=True):
        assert (mine >= 0).all()
        assert_allclose(mine, its, **rounding(terms, mine, gradient))


@DTYPES
@pytest.mark.parametrize(
    ("hidden_layers", "options"),
    [
        ([8, 6], {}),
        ([], {}),
        ([8], {"shift_only": True}),
        ([8], {"activation": None}),
        ([8], {"activation": tf.nn.tanh, "use_bias": False}),
    ],
)
@pytest.mark.filterwarnings("ignore:`tf.layers.dense` is deprecated")
def test_real_nvp_default_template(hidden_layers, options, dtype):
    theirs = tfb.real_nvp_default_template(hidden_layers, **options)
    ours = networks.real_nvp_default_template(hidden_layers, **options)
    x, units = normal(4, 3, dtype=dtype), 2
    for template in (theirs, ours):
        template(tf.constant(x), units)
    weights = [normal(*w.shape, dtype=dtype, seed=i) for i, w in enumerate(ours.get_weights())]
    ours.set_weights(weights)
    # TFP's template lists its variables by name.
    of_name = {variable.name.split("/", 1)[1]: variable for variable in theirs.variables}
    size = 1 if options.get("use_bias") is False else 2
    for i, weight in enumerate(weights):
        layer = "dense" + (f"_{i // size}" if i // size else "")
        of_name[f"{layer}/{('kernel', 'bias')[i % size]}:0"].assign(weight)
    kernels = [
        (weights[i], weights[i + 1] if size == 2 else 0.0, None)
        for i in range(0, len(weights), size)
    ]
    results = [template(tf.constant(x), units) for template in (ours, theirs)]
    for mine, its in zip(*results, strict=True):
        if its is None:
            assert mine is None
            continue
        assert_same(mine, its, x, kernels)
    assert (results[0][1] is None) == bool(options.get("shift_only"))


@DTYPES
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GlowDefaultNetwork", {"num_hidden": 7}),
        ("GlowDefaultNetwork", {"num_hidden": 7, "kernel_shape": 5}),
        ("GlowDefaultExitNetwork", {"output_chan": 2}),
    ],
    ids=["coupling", "wide", "exit"],
)
def test_glow_networks(name, options, dtype):
    theirs = getattr(tfb, name)((4, 6, 3), **options)
    ours = getattr(networks, name)((4, 6, 3), **options, dtype=dtype)
    weights = [normal(*w.shape, dtype=dtype, seed=i) for i, w in enumerate(theirs.get_weights())]
    for network in (theirs, ours):
        assert not network.get_weights()[-1].any()
        assert not network.get_weights()[-2].any()
        network.set_weights(weights)
    x = normal(2, 4, 6, 3, dtype=dtype)
    # A convolution is a sum of products with the kernel's entries of all places and channels: its
    # size is at most that of the largest input times the sum over them.
    size, terms = np.abs(x).max(), 0
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        size = size * np.abs(kernel).sum(axis=(0, 1, 2)).max() + np.abs(bias).max()
        terms += np.prod(kernel.shape[:3]) + 4
    results = [network(x) for network in (ours, theirs)]
    assert results[0].dtype == results[1].dtype == dtype
    assert_allclose(*results, rtol=0.0, atol=2 * terms * np.finfo(dtype).eps * size)


@DTYPES
def test_kernels_start_with_the_spread_of_those_of_tfp(dtype):
    def kernels(library):
        made = library.AutoregressiveNetwork(2, hidden_units=[300, 200], dtype=dtype)
        made(np.zeros([1, 40], dtype))
        glow = library.GlowDefaultNetwork((4, 4, 30), 50)
        return [w for w in (*made.get_weights(), *glow.get_weights()) if w.ndim > 1]

    for mine, its in zip(kernels(networks), kernels(tfb), strict=True):
        # The mean square of n draws has a standard error below sqrt(3 / n) of itself; 5 of those
        # of the difference.
        error = 5 * np.sqrt(2 * 3 / max(1, np.count_nonzero(its)))
        assert_allclose(np.sum(mine**2), np.sum(its**2), rtol=error)
