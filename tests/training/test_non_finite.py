"""`fit` names the epoch, the step and the layer at which a number is not finite."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flowvae as fv
from tfp_flowvae.training.steps import SingleSteps, StackedSteps

# Ways to run the steps: in a stack, one to a program, eagerly.
STACKED = {"jit_compile": False}
SINGLE = {"jit_compile": False, "steps_per_execution": 1}
EAGER = {"run_eagerly": True}


def spoil(model, path, place=0, value=np.nan):
    """Puts a value into the only weight whose path ends with `path`, or the first of its name."""
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
    keras.backend.clear_session()
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


@pytest.mark.parametrize("how", [STACKED, SINGLE, EAGER], ids=["stacked", "single", "eager"])
def test_names_the_step_that_fails_and_restores_the_state_before_it(how, make_vae, digits):
    """A learning rate of 1e30 makes every weight 1e30 in step 6, and the loss of step 7 infinite."""
    keras.utils.set_random_seed(0)
    vae = make_vae(seed=0)
    rate = Jump(5, 1e30)
    error = failed(vae, digits[:96], rate=rate, how=how, epochs=4)
    assert (error.epoch, error.step) == (3, 7)
    assert error.what == "output"
    # Adam's first step is at most the learning rate divided by 1 - beta_1.
    assert 1e29 < error.magnitude < 1e31
    assert "Try a lower learning rate, global_clipnorm" in str(error)
    assert int(vae.optimizer.iterations) == 6
    assert all(np.isfinite(variable.numpy()).all() for variable in vae.variables)


def test_the_state_is_that_of_a_run_of_as_many_steps(make_vae, digits):
    """The steps that run again are those that ran, bit for bit, in a program of XLA too."""
    states = []
    for epochs in (2, 4):
        keras.utils.set_random_seed(0)
        vae = make_vae(seed=0)
        rates = Jump(6, np.inf)
        vae.compile(keras.optimizers.Adam(rates), jit_compile=True)
        try:
            vae.fit(digits[:192], batch_size=64, epochs=epochs, verbose=0, shuffle=False)
        except fv.NonFiniteError as error:
            assert (epochs, error.epoch, error.step) == (4, 3, 7)
            assert error.what == "weight"
        states.append([variable.numpy() for variable in vae.variables])
    for whole, restored in zip(*states, strict=True):
        np.testing.assert_array_equal(whole, restored)


def test_a_failed_model_can_be_trained_with_a_lower_rate(make_vae, digits):
    vae = make_vae(seed=0)
    failed(vae, digits, rate=1e30, epochs=3)
    vae.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    losses = vae.fit(digits, batch_size=32, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


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
    error = failed(density, tf.data.Dataset.from_tensor_slices(x).batch(20), how=how, batch_size=None)
    assert (error.epoch, error.step, error.what, error.layer) == (1, 8, "data", None)
    assert str(error).endswith("Leave out the examples with such values, or mend them.")


def test_names_the_flow_of_a_conditional_density():
    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    density = fv.FlowDensity("realnvp:2,hidden=8", event_size=3, context_size=1)

    class Broken(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                spoil(density, "mlp_1/output/bias")

    error = failed(density, x, x[:, :1], epochs=3, callbacks=[Broken()])
    assert (error.epoch, error.step, error.what) == (2, 3, "output")
    assert error.layer.endswith("mlp_1/output")


def test_a_step_of_the_odd_last_batch_is_found(make_vae, digits):
    vae = make_vae(seed=0)
    rates = Jump(2, np.inf)
    error = failed(vae, digits[:80], rate=rates, how={"jit_compile": False})
    assert (error.epoch, error.step, error.what) == (1, 3, "weight")
    assert isinstance(vae.train_function, StackedSteps)


def test_the_last_step_of_a_fit_is_checked(make_vae, digits):
    for how in (STACKED, SINGLE):
        vae = make_vae(seed=0)
        rates = Jump(3, np.inf)
        data = tf.data.Dataset.from_tensor_slices(digits[:128]).batch(32)
        unknown = data.filter(lambda x: True)  # of unknown length
        error = failed(vae, unknown, rate=rates, how=how, batch_size=None)
        assert (error.epoch, error.step) == (1, 4)
    assert isinstance(vae.train_function, SingleSteps)


def test_nothing_is_left_of_the_eager_pass(make_vae, digits):
    vae = make_vae("iaf:2,hidden=8", seed=0)
    methods = [set(vars(layer)) for layer in vae._flatten_layers()]
    failed(vae, digits, rate=1e6, epochs=2)
    for layer, before in zip(vae._flatten_layers(), methods, strict=True):
        assert set(vars(layer)) & {"call", "bijector"} == before & {"call", "bijector"} == set()


def test_under_a_strategy_the_loss_is_named(make_vae, digits):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        vae = make_vae(seed=0)
    spoil(vae, "pixels/dense/bias")
    with strategy.scope():
        error = failed(vae, digits, how={})
    assert (error.epoch, error.step, error.what) == (1, 1, None)
    assert "train on one device" in str(error)
