"""`fit` names the epoch, the step and the layer at which a number is not finite."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

import tfp_flowvae as fv
from tfp_flowvae.training.steps import SingleSteps, StackedSteps

# Ways to run the steps: in a stack, one to a program, eagerly.
STACKED = {"jit_compile": False}
SINGLE = {"jit_compile": False, "steps_per_execution": 1}
EAGER = {"run_eagerly": True}


@pytest.fixture(autouse=True)
def _same_names():
    """Layers are named as in a new process: affine, and not affine_3."""
    keras.backend.clear_session()


def spoil(model, path, place=0, value=np.nan):
    """Puts a value into the first weight whose path ends with `path`; returns its path."""
    weight = next(weight for weight in model.weights if weight.path.endswith(path))
    array = weight.numpy()
    array.flat[place] = value
    weight.assign(array)
    return weight.path


class Jump(keras.optimizers.schedules.LearningRateSchedule):
    """A rate of 1e-3 in the first steps, and another one after them."""

    def __init__(self, steps, after):
        self.steps, self.after = steps, after

    def __call__(self, step):
        return tf.where(tf.cast(step, tf.int32) < self.steps, 1e-3, self.after)


def failed(model, *data, rate=1e-3, how=STACKED, **kwargs):
    """The error of a `fit`."""
    model.compile(keras.optimizers.Adam(rate), **how)
    with pytest.raises(fv.NonFiniteError) as caught:
        model.fit(*data, **{"batch_size": 32, "verbose": 0, "shuffle": False, **kwargs})
    return caught.value


@pytest.mark.parametrize(
    ("posterior", "prior", "path", "layer", "what", "flow_step"),
    [
        ("none", "none", "hidden_0/linear/dense/kernel", "hidden_0/linear/dense", "output", None),
        ("iaf:3,hidden=8", "none", "made_1/output/bias", "iaf/made_1/output", "output", None),
        ("planar:4", "none", "planar/b", "posterior/stack/planar", "output", 3),
        ("lu+affine", "none", "affine/log_scale", "posterior/stack/affine", "output", 1),
        ("none", "realnvp:2,hidden=8", "mlp_0/output/bias", "mlp_0/output", "output", None),
        ("none", "mixture:3", "mixture/logits", None, "weight", None),
    ],
    ids=["encoder", "iaf", "planar", "stack", "prior", "base"],
)
def test_names_the_place_of_a_weight(
    posterior, prior, path, layer, what, flow_step, make_vae, digits
):
    vae = make_vae(posterior, prior, seed=0)
    spoilt = spoil(vae, path, place=2)
    error = failed(vae, digits[:32], how=EAGER)
    assert (error.epoch, error.step) == (1, 1)
    assert (error.what, error.flow_step) == (what, flow_step)
    assert error.layer == layer or error.layer.endswith(layer)
    assert error.parameter == spoilt
    assert np.isnan(error.magnitude)
    assert str(error).startswith("Training failed in epoch 1 at step 1: ")
    assert "initialise or load it anew" in str(error)


class Stretch(fv.flows.ParametricFlow):
    """z = scale z0, whose log-det is -inf for a scale of 0."""

    def parameter_initializers(self):
        return {"scale": ((self.event_size,), "ones")}

    def make_bijector(self, context):
        return tfb.Scale(self.parameters(context)["scale"])


def test_names_a_log_det(make_vae, digits):
    flow = fv.flows.Stack([fv.flows.Affine(), Stretch(name="stretch")])
    vae = make_vae(posterior=flow, seed=0)
    for weight in flow.flows[1].weights:
        weight.assign(tf.zeros_like(weight))
    error = failed(vae, digits[:32], how=EAGER)
    assert (error.what, error.flow_step, error.magnitude) == ("log-det", 1, 0.0)
    assert error.layer.endswith("stretch")
    assert "the log-det of step 1 of 1 of the flow Stretch" in str(error)


ROWS = np.random.default_rng(0).normal(size=(96, 2)).astype(np.float32)


def small():
    """A density of two parameters, shift and log_scale, that compiles quickly."""
    keras.utils.set_random_seed(0)
    return fv.FlowDensity("affine", event_size=2, seed=0)


@pytest.mark.parametrize("how", [STACKED, SINGLE, EAGER], ids=["stacked", "single", "eager"])
def test_names_the_step_that_fails_and_restores_the_state_before_it(how):
    """A learning rate of 1e30 makes the parameters about 1e29 in step 6."""
    density = small()
    error = failed(density, ROWS, rate=Jump(5, 1e30), how=how, epochs=4)
    # exp(log_scale) may be 0 or infinite: step 7 can have a finite loss, step 8 cannot.
    assert error.epoch == 3
    assert error.step in (7, 8)
    assert error.flow_step == 1
    assert error.layer.endswith("affine")
    # Adam's update is at most the learning rate times (1 - beta_1) / sqrt(1 - beta_2).
    assert 1e28 < error.magnitude < 4e30
    assert "Try a lower learning rate, the optimizer's global_clipnorm, or" in str(error)
    assert int(density.optimizer.iterations) == error.step - 1
    assert all(np.isfinite(variable.numpy()).all() for variable in density.variables)


def test_the_state_is_that_of_a_run_of_as_many_steps():
    """The steps that run again are those that ran, bit for bit, in a program of XLA too."""
    states = []
    for epochs in (2, 4):
        density = small()
        density.compile(keras.optimizers.Adam(Jump(6, np.inf)), jit_compile=True)
        fails = pytest.raises(fv.NonFiniteError, match=r"epoch 3 at step 7: a weight")
        with fails if epochs == 4 else contextlib.nullcontext():
            density.fit(ROWS, batch_size=32, epochs=epochs, verbose=0, shuffle=False)
        variables = [*density.variables, *density.optimizer.variables]
        states.append([variable.numpy() for variable in variables])
    for whole, restored in zip(*states, strict=True):
        np.testing.assert_array_equal(whole, restored)


def test_a_failed_model_can_be_trained_with_a_lower_rate():
    density = small()
    failed(density, ROWS, rate=Jump(3, np.inf), epochs=3)
    density.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    losses = density.fit(ROWS, batch_size=32, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


def test_a_step_of_the_odd_last_batch_is_found():
    density = small()
    error = failed(density, ROWS[:80], rate=Jump(2, np.inf))
    assert (error.epoch, error.step, error.what) == (1, 3, "weight")
    assert isinstance(density.train_function, StackedSteps)


@pytest.mark.parametrize("how", [STACKED, SINGLE], ids=["stacked", "single"])
def test_the_last_step_of_a_fit_is_checked(how):
    density = small()
    data = tf.data.Dataset.from_tensor_slices(ROWS).batch(24)
    unknown = data.filter(lambda x: True)  # of unknown length
    error = failed(density, unknown, rate=Jump(3, np.inf), how=how, batch_size=None)
    assert (error.epoch, error.step) == (1, 4)
    assert isinstance(density.train_function, SingleSteps if how is SINGLE else StackedSteps)


class Rooted(keras.layers.Layer):
    """sqrt(|w x|): finite, but not its derivative at 0."""

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return tf.sqrt(tf.abs(self.w * x))


def test_names_the_gradient(make_vae, digits):
    encoder = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(8), Rooted(name="root")]
    )
    vae = make_vae(encoder=encoder, seed=0)
    dense = encoder.layers[1]
    dense.kernel.assign(tf.zeros_like(dense.kernel))  # 0 in front of the root
    error = failed(vae, digits)
    assert (error.step, error.what, error.layer) == (1, "gradient", encoder.layers[-1].path)
    assert "the loss is finite, but not its gradient by" in str(error)
    assert error.magnitude == 1.0


@pytest.mark.parametrize("how", [STACKED, SINGLE], ids=["stacked", "single"])
def test_names_the_data(how):
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    density = fv.FlowDensity("maf:2,hidden=8", event_size=3)
    density.adapt(x)
    x[150, 1] = np.inf
    error = failed(
        density, tf.data.Dataset.from_tensor_slices(x).batch(20), how=how, batch_size=None
    )
    assert (error.epoch, error.step, error.what, error.layer) == (1, 8, "data", None)
    assert str(error).endswith("Leave out the examples with such values, or mend them.")


def test_names_the_flow_of_a_conditional_density():
    density = fv.FlowDensity("affine", event_size=2, context_size=1)

    class Broken(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                spoil(density, "affine/shift_kernel")

    error = failed(density, ROWS, ROWS[:, :1], epochs=3, callbacks=[Broken()])
    assert (error.epoch, error.step, error.what) == (2, 4, "output")
    assert error.layer.endswith("affine")


def test_nothing_is_left_of_the_eager_pass():
    density = small()
    failed(density, ROWS, rate=Jump(1, 1e30), how=EAGER)
    for layer in density._flatten_layers():
        assert not {"call", "bijector"} & set(vars(layer))


def test_under_a_strategy_the_loss_is_named(make_vae, digits):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        vae = make_vae(seed=0)
    spoil(vae, "pixels/dense/bias")
    with strategy.scope():
        error = failed(vae, digits, how={})
    assert (error.epoch, error.step, error.what) == (1, 1, None)
    assert "train on one device" in str(error)
