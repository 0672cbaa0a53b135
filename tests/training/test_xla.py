"""Where XLA is left out, and why: with convolutions on a processor."""

import re

import keras
import pytest
import tensorflow as tf

from tfp_flowvae import networks
from tfp_flowvae.training.steps import SingleSteps, StackedSteps
from tfp_flowvae.training.xla import xla_suits


def _with_convolutions(make_vae):
    return make_vae(
        encoder=networks.ResNetEncoder((8, 8, 1), hidden=(16,), channels=(2,)),
        decoder=networks.ResNetDecoder((8, 8, 1), 4, channels=(2,)),
    )


@pytest.fixture
def no_accelerator():
    if tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
        pytest.skip("XLA suits all models on an accelerator")


def test_a_dense_model_is_compiled_in_stacks(make_vae, digits):
    vae = make_vae()
    vae.compile("adam")
    vae.fit(digits, batch_size=64, verbose=0)
    assert xla_suits(vae)
    assert vae.jit_compile
    assert isinstance(vae.train_function, StackedSteps)


def test_convolutions_train_step_by_step_without_xla(no_accelerator, make_vae, digits):
    vae = _with_convolutions(make_vae)
    vae.compile("adam")
    losses = vae.fit(digits, batch_size=64, epochs=2, verbose=0).history["loss"]
    assert not xla_suits(vae)
    assert not vae.jit_compile
    assert isinstance(vae.train_function, SingleSteps)
    assert losses[1] < losses[0]


def test_the_users_own_convolutions_are_found(no_accelerator, make_vae):
    inputs = keras.Input((8, 8, 1))
    inner = keras.Sequential([keras.layers.Conv2D(2, 3), keras.layers.Flatten()])
    vae = make_vae(encoder=keras.Model(inputs, keras.layers.Dense(16)(inner(inputs))))
    assert not xla_suits(vae)


def test_who_asks_for_xla_gets_it_without_a_loop(no_accelerator, make_vae, digits):
    vae = _with_convolutions(make_vae)
    vae.compile("adam", jit_compile=True)
    vae.fit(digits[:128], batch_size=64, verbose=0)
    assert vae.jit_compile
    assert isinstance(vae.train_function, SingleSteps)


def test_an_accelerator_has_kernels_of_its_own(make_vae, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    assert xla_suits(_with_convolutions(make_vae))


def _forms(program, *arguments):
    """The layouts of the convolutions that XLA ends up with."""
    text = program.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo")
    return set(re.findall(r"dim_labels=(\S+?)[,\s]", text))


def test_the_reason_still_holds(no_accelerator):
    """Should this fail, XLA's convolutions may have become as fast in a loop as outside."""
    x, kernel = tf.random.normal([4, 8, 8, 2]), tf.random.normal([3, 3, 2, 2])

    def slope(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = tf.reduce_sum(tf.nn.conv2d(x, kernel, 1, "SAME") ** 2)
        return tape.gradient(y, kernel)

    @tf.function(jit_compile=True, autograph=False)
    def looped(x, kernel):
        body = lambda i, k: (i + 1, k - slope(x, k))  # noqa: E731
        return tf.while_loop(lambda i, _: i < 2, body, (0, kernel))[1]

    fast = {"b01f_01io->b01f"}
    assert _forms(tf.function(slope, jit_compile=True), x, kernel) == fast
    assert _forms(looped, x, kernel) > fast
