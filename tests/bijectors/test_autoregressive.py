"""The parallel inverse against TFP's loop, and the gated update against the paper's formula."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae import bijectors as fvb

SIZE = 6


class Network(tf.Module):
    """Shift and log-scale; entry d depends on entries before d (or after it), not linearly."""

    def __init__(self, strength: float = 1.0, reverse: bool = False, dtype: tf.DType = tf.float64):
        super().__init__()
        rng = np.random.default_rng(3)
        draw = strength * rng.normal(size=(2, SIZE, SIZE))
        self.kernel = tf.Variable(draw, dtype=dtype)
        self.bias = tf.Variable(rng.normal(size=(2, SIZE)), dtype=dtype)
        before = np.triu(np.ones((SIZE, SIZE)), 1)
        self.mask = before.T if reverse else before
        self.calls = 0

    def __call__(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        self.calls += 1
        kernel = self.kernel * self.mask
        shift, raw = (tf.einsum("...i,ij->...j", y, kernel[k]) + self.bias[k] for k in (0, 1))
        return shift + tf.sin(shift), 0.5 * tf.tanh(raw)


def points(*shape: int, seed: int = 0, dtype: tf.DType = tf.float64) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def pair(net, **kwargs) -> tuple[tfb.Bijector, tfb.Bijector]:
    return (
        fvb.ParallelMaskedAutoregressiveFlow(net, **kwargs),
        tfb.MaskedAutoregressiveFlow(net),
    )


def loss_and_gradients(flow, x, sources) -> list[tf.Tensor]:
    weights = tf.range(1, 1 + SIZE, dtype=x.dtype)
    with tf.GradientTape() as tape:
        tape.watch([s for s in sources if not isinstance(s, tf.Variable)])
        y = flow.forward(tf.identity(x))
        log_det = flow.forward_log_det_jacobian(tf.identity(x), 1)
        loss = tf.reduce_sum(weights * tf.sin(y)) + tf.reduce_sum(log_det * y[..., 0])
    return [loss, *tape.gradient(loss, sources)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_same_as_the_loop(reverse, dtype):
    net = Network(reverse=reverse, dtype=dtype)
    ours, theirs = pair(net)
    x = points(7, SIZE, dtype=dtype)
    y = ours.forward(x)
    np.testing.assert_array_equal(y, theirs.forward(tf.identity(x)))
    eps = np.finfo(dtype.as_numpy_dtype).eps
    np.testing.assert_allclose(ours.inverse(tf.identity(y)), x, atol=1e3 * eps, rtol=1e3 * eps)
    assert int(ours.num_passes(x)) <= SIZE


def test_log_dets_against_autodiff():
    flow = fvb.ParallelMaskedAutoregressiveFlow(Network())
    x = points(3, SIZE)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = flow.forward(tf.identity(x))
    wanted = np.linalg.slogdet(tape.batch_jacobian(y, x))[1]
    np.testing.assert_allclose(flow.forward_log_det_jacobian(tf.identity(x), 1), wanted, atol=1e-12)
    np.testing.assert_allclose(
        flow.inverse_log_det_jacobian(tf.identity(y), 1), -wanted, atol=1e-12
    )
    for evaluate, point, sign in (
        (fvb.forward_and_log_det, x, 1.0),
        (fvb.inverse_and_log_det, y, -1.0),
    ):
        _, log_det = evaluate(flow, tf.identity(point))
        np.testing.assert_allclose(log_det, sign * wanted, atol=1e-12)


def test_stops_early_and_never_late():
    x = points(4, SIZE)
    weak, strong = (fvb.ParallelMaskedAutoregressiveFlow(Network(s)) for s in (0.0, 1.0))
    assert int(weak.num_passes(x)) == 3  # the second sees no change; the third takes the gradient
    net = Network()
    flow = fvb.ParallelMaskedAutoregressiveFlow(net)
    flow.forward(x)
    assert net.calls == int(strong.num_passes(x)) <= SIZE
    loose = fvb.ParallelMaskedAutoregressiveFlow(Network(0.01), tolerance=1e-3)
    exact = fvb.ParallelMaskedAutoregressiveFlow(Network(0.01))
    assert int(loose.num_passes(x)) < int(exact.num_passes(x))
    np.testing.assert_allclose(loose.forward(x), exact.forward(tf.identity(x)), atol=1e-3)


def test_nan_stays_where_it_is():
    x = points(2, SIZE).numpy()
    x[1, 2] = np.nan
    ours, theirs = pair(Network())
    y = ours.forward(tf.constant(x)).numpy()
    assert np.isfinite(y[0]).all()
    np.testing.assert_array_equal(y, theirs.forward(tf.constant(x)))


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_gradients_are_the_loops(mode):
    net = Network()
    ours, theirs = pair(net)
    x = points(4, SIZE)
    sources = [x, *net.trainable_variables]

    def evaluate() -> list[tf.Tensor]:
        return loss_and_gradients(ours, x, sources)

    if mode != "eager":
        evaluate = tf.function(evaluate, jit_compile=mode == "xla", autograph=False)
    wanted = loss_and_gradients(theirs, x, sources)
    for got, reference in zip(evaluate(), wanted, strict=True):
        np.testing.assert_allclose(got, reference, rtol=1e-10, atol=1e-10)


def test_gradients_against_differences():
    net = Network()
    flow = fvb.ParallelMaskedAutoregressiveFlow(net)
    x = points(4, SIZE)
    sources = [x, net.kernel]
    gradients = loss_and_gradients(flow, x, sources)[1:]
    direction = points(2, SIZE, SIZE, seed=8)
    ahead_behind = []
    for sign in (1.0, -1.0):
        net.kernel.assign_add(sign * 1e-6 * direction)
        ahead_behind.append(loss_and_gradients(flow, x, [x])[0])
        net.kernel.assign_sub(sign * 1e-6 * direction)
    wanted = (ahead_behind[0] - ahead_behind[1]) / 2e-6
    np.testing.assert_allclose(tf.reduce_sum(gradients[1] * direction), wanted, rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
def test_gradients_in_a_context_that_is_closed_over(compiled):
    net, context, x = Network(), points(4, SIZE), points(4, SIZE, seed=1)

    def gradients(kind) -> list[tf.Tensor]:
        def conditioner(y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            shift, log_scale = net(y)
            return shift * tf.cos(context), log_scale + 0.1 * context

        return loss_and_gradients(kind(conditioner), x, [context, net.kernel])

    ours = lambda: gradients(fvb.ParallelMaskedAutoregressiveFlow)  # noqa: E731
    got = (tf.function(ours, autograph=False) if compiled else ours)()
    wanted = gradients(tfb.MaskedAutoregressiveFlow)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_traced_forward_inside_an_outer_tape():
    net = Network()
    ours, theirs = pair(net)
    x = points(4, SIZE)
    traced = tf.function(ours.forward, autograph=False)
    found = []
    for forward in (traced, theirs.forward):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(forward(tf.identity(x)) ** 2)
        found.append(tape.gradient(loss, net.kernel))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10)


@pytest.mark.parametrize("loss", [tf.reduce_sum, lambda y: tf.reduce_sum(y**2)])
def test_second_derivatives_are_refused(loss):
    flow = fvb.ParallelMaskedAutoregressiveFlow(Network())
    x = points(2, SIZE)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = loss(flow.forward(tf.identity(x)))
        gradient = inner.gradient(value, x)
    with pytest.raises(LookupError, match="differentiated once"):
        outer.gradient(gradient, x)


def test_saved_model_and_dynamic_shapes(tmp_path):
    net = Network()
    ours, theirs = pair(net)
    module = tf.Module()
    module.flow = ours
    unknown = tf.TensorSpec([None, None], tf.float64)
    module.forward = tf.function(ours.forward, input_signature=[unknown], autograph=False)

    @tf.function(input_signature=[unknown], autograph=False)
    def gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(ours.forward(x) ** 2)
        return tape.gradient(loss, x)

    module.gradient = gradient
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    x = points(3, SIZE)
    np.testing.assert_allclose(loaded.forward(x), theirs.forward(x), rtol=1e-12)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(theirs.forward(tf.identity(x)) ** 2)
    np.testing.assert_allclose(loaded.gradient(x), tape.gradient(loss, x), rtol=1e-10)


def test_manners():
    net = Network()
    flow = fvb.ParallelMaskedAutoregressiveFlow(net, tolerance=1e-9)
    base = tfd.MultivariateNormalDiag(tf.zeros(SIZE, tf.float64))
    density = tfd.TransformedDistribution(base, tfb.Chain([tfb.Invert(flow)]))
    assert {id(v) for v in density.trainable_variables} == {id(net.kernel), id(net.bias)}
    copy = flow.copy(name="copied")
    assert (copy.tolerance, copy.name) == (1e-9, "copied")
    x = points(2, SIZE)
    np.testing.assert_array_equal(copy.forward(x), flow.forward(tf.identity(x)))


def test_one_dimension_and_an_unbatched_point():
    flow = fvb.ParallelMaskedAutoregressiveFlow(lambda y: (0.0 * y + 2.0, 0.0 * y + 1.0))
    np.testing.assert_allclose(flow.forward([1.0]), [2.0 + np.e], rtol=1e-6)
    assert int(flow.num_passes([1.0])) == 1
    ours, theirs = pair(Network())
    x = points(SIZE)
    np.testing.assert_array_equal(ours.forward(x), theirs.forward(tf.identity(x)))


def test_context_brings_a_batch():
    net, context = Network(), points(3, SIZE)
    flow = fvb.ParallelMaskedAutoregressiveFlow(lambda y: (net(y)[0] + context, None))
    x = points(SIZE)
    y = flow.forward(x)
    assert y.shape == (3, SIZE)
    np.testing.assert_allclose(flow.inverse(tf.identity(y)), np.broadcast_to(x, (3, SIZE)))


def test_bad_arguments():
    with pytest.raises(ValueError, match="tolerance=-1"):
        fvb.ParallelMaskedAutoregressiveFlow(Network(), tolerance=-1.0)
    with pytest.raises(ValueError, match="Exactly one"):
        fvb.ParallelMaskedAutoregressiveFlow()
    with pytest.raises(TypeError, match="int32"):
        fvb.ParallelMaskedAutoregressiveFlow(lambda y: (y, None)).forward([1, 2])


def test_validate_args_finds_a_conditioner_that_looks_ahead():
    ahead = fvb.ParallelMaskedAutoregressiveFlow(
        lambda y: (0.9 * tf.roll(y, 1, -1) - 0.5 * y, None), validate_args=True
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="autoregressive conditioner"):
        ahead.forward([1.0, 2.0, 3.0])
    fvb.ParallelMaskedAutoregressiveFlow(Network(), validate_args=True).forward(points(2, SIZE))


class Knowing(Network):
    """A network that settles one entry after another by itself, and counts how often it did."""

    solved = 0

    def solve_in_order(self, x, transform):
        self.solved += 1
        y = tf.zeros_like(x)
        for d in range(SIZE):
            out = [value[..., d : d + 1] for value in Network.__call__(self, y)]
            entry = transform(self.at_one_entry(out), x[..., d : d + 1])
            y = tf.concat([y[..., :d], entry, y[..., d + 1 :]], axis=-1)
        self.calls = 0
        return y

    def at_one_entry(self, out):
        return tuple(out)


class KnowingAsOneTensor(Knowing):
    def __call__(self, y):
        return tf.stack(super().__call__(y), axis=-1)

    def at_one_entry(self, out):
        return tf.stack(out, axis=-1)


@pytest.mark.parametrize("network", [Knowing, KnowingAsOneTensor])
@pytest.mark.parametrize("gated", [False, True])
def test_a_conditioner_that_solves_in_order_is_left_to_it(network, gated):
    net, x = network(), points(4, SIZE)
    how = {"bijector_fn": fvb.GatedUpdate(net)} if gated else {"shift_and_log_scale_fn": net}
    ours = fvb.ParallelMaskedAutoregressiveFlow(validate_args=True, **how)
    theirs = tfb.MaskedAutoregressiveFlow(**how)
    sources = [x, *net.trainable_variables]
    wanted = loss_and_gradients(theirs, x, sources)
    assert net.solved == 0
    for got, reference in zip(loss_and_gradients(ours, x, sources), wanted, strict=True):
        np.testing.assert_allclose(got, reference, rtol=1e-10, atol=1e-10)
    assert net.solved > 0
    assert int(ours.num_passes(x)) == 1
    net.calls = 0
    fvb.ParallelMaskedAutoregressiveFlow(**how).forward(x + 1.0)
    assert net.calls == 1  # for the gradients


@pytest.mark.parametrize("left_out", [0, 1])
def test_solving_in_order_without_a_shift_or_a_scale(left_out):
    class Half:
        def __init__(self):
            self.whole = Knowing()

        def __call__(self, y):
            return self.half(self.whole(y))

        def solve_in_order(self, x, transform):
            return self.whole.solve_in_order(x, lambda out, one: transform(self.half(out), one))

        def half(self, out):
            return tuple(None if k == left_out else value for k, value in enumerate(out))

    ours, theirs = pair(Half())
    x = points(3, SIZE)
    np.testing.assert_allclose(ours.forward(x), theirs.forward(tf.identity(x)), rtol=1e-12)


def test_validate_args_finds_a_wrong_solution():
    net = Knowing()
    net.solve_in_order = lambda x, transform: x
    flow = fvb.ParallelMaskedAutoregressiveFlow(net, validate_args=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="autoregressive conditioner"):
        flow.forward(points(2, SIZE))


def test_gated_update_solves_in_order_only_if_its_conditioner_does():
    assert not hasattr(fvb.GatedUpdate(Network()), "solve_in_order")
    assert hasattr(fvb.GatedUpdate(Knowing()), "solve_in_order")


@pytest.mark.parametrize("bias", [1.0, 2.0])
def test_gated_update_is_the_papers(bias):
    net = Network()
    gated = fvb.GatedUpdate(net, forget_bias=bias)
    iaf = tfb.Invert(fvb.ParallelMaskedAutoregressiveFlow(bijector_fn=gated))
    z = points(3, SIZE)
    m, s = (value.numpy() for value in net(z))
    sigma = 1.0 / (1.0 + np.exp(-(s + bias)))
    y, log_det = fvb.forward_and_log_det(iaf, z)
    np.testing.assert_allclose(y, sigma * z + (1.0 - sigma) * m, rtol=1e-12)
    np.testing.assert_allclose(log_det, np.log(sigma).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(iaf.inverse(tf.identity(y)), z, atol=1e-9)
    assert {id(v) for v in iaf.trainable_variables} == {id(net.kernel), id(net.bias)}


def test_gated_update_takes_one_tensor_and_saturates():
    gated = fvb.GatedUpdate(lambda y: tf.stack([y, 0.0 * y - 200.0], axis=-1))
    y = tf.constant([1.0, -2.0])
    bijector = gated(y)
    np.testing.assert_allclose(bijector.inverse(y), y)  # the gate is shut: what is left is m
    assert np.isfinite(bijector.inverse_log_det_jacobian(y, 1))
