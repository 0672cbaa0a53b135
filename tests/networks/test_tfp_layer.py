"""The layers that stand in for TFP's: seen by TFP, trained and saved by Keras."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.initializers import Constant
from numpy.testing import assert_array_equal
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae import bijectors as fvb
from tfp_flowvae import networks

IMAGE = (4, 4, 2)


def made_flow(**options):
    made = networks.AutoregressiveNetwork(2, hidden_units=[8], activation="relu", **options)
    return tfb.MaskedAutoregressiveFlow(made), (made,)


def template_flow():
    parts = [networks.real_nvp_default_template([8]) for _ in range(2)]
    couplings = [
        tfb.RealNVP(masked, shift_and_log_scale_fn=part)
        for masked, part in zip((1, -2), parts, strict=True)
    ]
    return tfb.Chain(couplings), parts


def batch_norm_flow():
    layer = keras.layers.BatchNormalization(gamma_initializer=Constant(0.5))
    return tfb.Invert(tfb.Invert(fvb.BatchNormalization(layer))), (layer,)


def glow_flow():
    parts = []

    def coupling(shape):
        parts.append(networks.GlowDefaultNetwork(shape, num_hidden=6))
        return parts[-1]

    def exit_coupling(shape, output_chan):
        parts.append(networks.GlowDefaultExitNetwork(shape, output_chan))
        return parts[-1]

    glow = tfb.Glow(IMAGE, 2, 1, coupling, exit_coupling, seed=1)
    return glow, parts


FLOWS = {
    "AutoregressiveNetwork": (made_flow, (3,)),
    "real_nvp_default_template": (template_flow, (3,)),
    "BatchNormalization": (batch_norm_flow, (3,)),
    "Glow": (glow_flow, IMAGE),
}
every_flow = pytest.mark.parametrize(("make", "shape"), FLOWS.values(), ids=list(FLOWS))


def distribution_of(bijector, shape):
    size = int(np.prod(shape))
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [size]), bijector)


def points(shape, count=40):
    return np.random.default_rng(0).normal(0.3, 0.5, (count, *shape)).astype(np.float32)


class Density(keras.Model):
    """A model whose loss is minus the log-density of the distribution."""

    def __init__(self, distribution, parts):
        super().__init__()
        self.distribution, self.parts = distribution, list(parts)

    def call(self, x):
        return self.distribution.log_prob(tf.identity(x))


@every_flow
def test_tfp_sees_the_variables_that_keras_has(make, shape):
    bijector, parts = make()
    distribution = distribution_of(bijector, shape)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(distribution.log_prob(points(shape)))
    seen = distribution.trainable_variables
    assert all(isinstance(variable, tf.Variable) for variable in seen)
    ours = [weight.value for part in parts for weight in part.trainable_variables]
    assert {id(variable) for variable in ours} <= {id(variable) for variable in seen}
    everything = [weight.value for part in parts for weight in part.weights]
    assert {id(v) for v in everything} <= {id(v) for v in distribution.variables}
    assert len(seen) == len(ours) + (6 if make is glow_flow else 0)  # Glow has some of its own
    gradients = tape.gradient(loss, seen)
    assert all(gradient is not None for gradient in gradients)


@every_flow
def test_a_keras_model_trains_them(make, shape):
    bijector, parts = make()
    distribution = distribution_of(bijector, shape)
    x = points(shape)
    model = Density(distribution, parts)
    model.compile(keras.optimizers.Adam(0.01), loss=lambda _, log_prob: -log_prob)
    model.fit(x, np.zeros(len(x)), epochs=1, batch_size=20, verbose=0)  # which builds them
    count = sum(len(part.trainable_variables) for part in parts)
    assert len(model.trainable_variables) == count > 0
    before = [weight.numpy() for part in parts for weight in part.weights]
    history = model.fit(x, np.zeros(len(x)), epochs=4, batch_size=20, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert len(distribution.trainable_variables) == count + (6 if make is glow_flow else 0)
    after = [weight.numpy() for part in parts for weight in part.weights]
    moved = [not np.array_equal(*pair) for pair in zip(before, after, strict=True)]
    assert all(moved)


def test_tfp_sees_what_keras_has_built_while_tracing():
    made = networks.AutoregressiveNetwork(2, hidden_units=[8])
    x = keras.Input((3,))
    keras.Model(x, made(x))
    assert len(tfb.MaskedAutoregressiveFlow(made).trainable_variables) == 4


@every_flow
def test_an_optimizer_of_keras_takes_what_tfp_sees(make, shape):
    distribution = distribution_of(make()[0], shape)
    x = points(shape)
    before = float(tf.reduce_mean(distribution.log_prob(x)))
    variables = distribution.trainable_variables
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(distribution.log_prob(x))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for _ in range(5):
        step()
    assert float(tf.reduce_mean(distribution.log_prob(x))) > before


def test_constraints_hold_for_what_tfp_sees():
    bijector, _ = made_flow(kernel_constraint="non_neg")
    distribution = distribution_of(bijector, (3,))
    distribution.log_prob(points((3,)))
    variables = distribution.trainable_variables
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.apply_gradients([(tf.ones_like(v), v) for v in variables])
    kernels = [v for v in variables if len(v.shape) == 2]
    assert len(kernels) == 2
    assert all((kernel.numpy() >= 0).all() for kernel in kernels)
    assert any((v.numpy() < 0).any() for v in variables)


def test_regularizers_are_losses_of_a_model():
    bijector, parts = made_flow(kernel_regularizer="l2")
    model = Density(distribution_of(bijector, (3,)), parts)
    model(points((3,)))
    kernels = [w for w in parts[0].weights if len(w.shape) == 2]
    squares = sum(float(tf.reduce_sum(tf.square(kernel))) for kernel in kernels)
    # A float32 sum of 3 * 8 + 8 * 6 squares.
    assert float(sum(model.losses)) == pytest.approx(0.01 * squares, rel=72 * 1.2e-7)


SAVED = {
    "made": (lambda: networks.AutoregressiveNetwork(
        2, hidden_units=[8, 8], activation="tanh", input_order="random", hidden_degrees="random",
        kernel_initializer=keras.initializers.VarianceScaling(0.3), kernel_constraint="max_norm",
    ), (3,)),
    "coupling": (lambda: networks.GlowDefaultNetwork((4, 4, 3), num_hidden=5), (4, 4, 3)),
    "exit": (lambda: networks.GlowDefaultExitNetwork((4, 4, 3), 2, kernel_shape=1), (4, 4, 3)),
    "norm": (lambda: fvb.BatchNormalization().batchnorm, (3,)),
}  # fmt: skip
LOAD = """
import sys
import tfp_flowvae
import keras
import numpy as np
model = keras.saving.load_model(sys.argv[1] + "/model.keras")
x = np.load(sys.argv[1] + "/x.npz")
np.savez(sys.argv[1] + "/y.npz", *model([x[name] for name in x]))
"""


def test_a_keras_file_loads_after_a_bare_import(tmp_path, stir):
    inputs = [keras.Input(shape) for _, shape in SAVED.values()]
    layers = [make() for make, _ in SAVED.values()]
    outputs = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
    model = stir(keras.Model(inputs, outputs))
    x = [points(shape, 3) for _, shape in SAVED.values()]
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", *x)
    command = [sys.executable, "-c", LOAD, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    loaded = np.load(tmp_path / "y.npz")
    for wanted, name in zip(model(x), loaded, strict=True):
        assert_array_equal(loaded[name], wanted)


@keras.saving.register_keras_serializable(package="tests")
class Coupling(keras.layers.Layer):
    """A coupling of RealNVP, as a Keras layer."""

    def __init__(self, template=None, **kwargs):
        super().__init__(**kwargs)
        self.template = template or networks.real_nvp_default_template(
            [8], activation="tanh", kernel_initializer=keras.initializers.Orthogonal()
        )
        self.bijector = tfb.RealNVP(1, shift_and_log_scale_fn=self.template)

    def call(self, x):
        return self.bijector.forward(x)

    def get_config(self):
        return {
            **super().get_config(),
            "template": keras.saving.serialize_keras_object(self.template),
        }

    @classmethod
    def from_config(cls, config):
        template = keras.saving.deserialize_keras_object(config.pop("template"))
        return cls(template=template, **config)


def test_a_template_is_saved_with_its_sizes(tmp_path, stir):
    model = stir(keras.Sequential([Coupling()]))
    x = points((3,))
    wanted = model(x)
    stir(model)
    wanted = model(x)
    model.save(tmp_path / "model.keras")
    assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(x), wanted)


@every_flow
def test_a_checkpoint_of_the_distribution_holds_them(make, shape, tmp_path):
    def built():
        distribution = distribution_of(make()[0], shape)
        distribution.log_prob(points(shape))
        return distribution

    saved, restored = built(), built()
    for variable in saved.trainable_variables:
        variable.assign_add(0.1 * tf.ones_like(variable))
    path = tf.train.Checkpoint(distribution=saved).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(distribution=restored).restore(path).assert_existing_objects_matched()
    for ours, theirs in zip(saved.variables, restored.variables, strict=True):
        assert_array_equal(ours, theirs)


def test_under_mixed_precision_they_compute_in_float32(mixed_bfloat16):
    for make, shape in FLOWS.values():
        if make is batch_norm_flow:  # a layer of Keras's
            continue
        bijector, _ = make()
        log_prob = distribution_of(bijector, shape).log_prob(points(shape))
        assert log_prob.dtype == tf.float32


@pytest.mark.parametrize("leading", [(), (3,), (2, 1, 3)])
def test_glow_takes_any_leading_dimensions(leading, stir, rounding):
    bijector, parts = glow_flow()
    for part in parts:
        stir(part)
    x = tf.random.stateless_normal([*leading, *IMAGE], seed=(1, 2))
    z = bijector.inverse(x)
    assert z.shape == (*leading, np.prod(IMAGE))
    flat = bijector.inverse(tf.reshape(x, [-1, *IMAGE]))
    # Two couplings and an exit of up to three convolutions, of at most 3 * 3 * 6 products.
    wanted = tf.reshape(flat, z.shape)
    np.testing.assert_allclose(z, wanted, **rounding(3 * 3 * 54, wanted))


def test_a_template_refuses_conditions_and_other_sizes():
    template = networks.real_nvp_default_template([4])
    x = tf.ones([2, 3])
    with pytest.raises(NotImplementedError, match=r"no conditional inputs.*Received: c\."):
        template(x, 2, c=x)
    template(x, 2)
    with pytest.raises(ValueError, match=r"output_units=2: make one .*Received: output_units=3\."):
        template(x, 3)
