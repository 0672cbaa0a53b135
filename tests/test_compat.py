"""The private names of TFP and Keras that `tfp_flowvae._compat` uses still exist and do the same.

If one of these tests fails after an upgrade, change that module.
"""

import ast
import inspect
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flowvae
from tfp_flowvae import _compat

tfb = tfp.bijectors


class NoComposite(tfb.Bijector):
    """A bijector that is not a CompositeTensor, like many that users write."""

    def __init__(self):
        super().__init__(forward_min_event_ndims=0, parameters={}, name="no_composite")


@pytest.mark.parametrize("part", [tfb.Exp, NoComposite])
def test_every_chain_and_invert_is_recognised(part):
    assert isinstance(tfb.Chain([part()]), _compat.CHAIN_TYPES)
    assert isinstance(tfb.Invert(part()), _compat.INVERT_TYPES)
    assert not isinstance(part(), (*_compat.CHAIN_TYPES, *_compat.INVERT_TYPES))


@pytest.mark.parametrize(
    "how", [{"num_masked": 2}, {"num_masked": 1}, {"num_masked": -2}, {"fraction_masked": 0.6}]
)
def test_coupling_parts(how):
    calls = []

    def shift_and_log_scale(x, units):
        calls.append(units)
        total = tf.reduce_sum(x, axis=-1, keepdims=True) + tf.zeros(units)
        return tf.sin(total), 0.5 * tf.cos(total)

    def build():
        return tfb.RealNVP(shift_and_log_scale_fn=shift_and_log_scale, **how)

    x = tf.constant(np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32))
    moving, inner, merge = _compat.coupling_parts(build(), x)
    assert calls == [moving.shape[-1]]
    np.testing.assert_array_equal(merge(moving), x)
    np.testing.assert_allclose(merge(inner.forward(moving)), build().forward(x), rtol=1e-6)
    np.testing.assert_allclose(merge(inner.inverse(moving)), build().inverse(x), rtol=1e-6)


def test_autoregressive_inner():
    calls = []

    def shift_and_log_scale(x, context=0.0):
        calls.append(context)
        before = tf.cumsum(x, axis=-1, exclusive=True) + context
        return tf.stack([tf.sin(before), 0.5 * tf.cos(before)], axis=-1)

    flow = tfb.MaskedAutoregressiveFlow(shift_and_log_scale_fn=shift_and_log_scale)
    y = tf.constant(np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32))
    for kwargs in ({}, {"context": 2.0}):
        calls.clear()
        inner = _compat.autoregressive_inner(flow, y, **kwargs)
        assert calls == [kwargs.get("context", 0.0)]
        np.testing.assert_allclose(inner.inverse(y), flow.inverse(y, **kwargs), rtol=1e-6)


def test_live_is_the_variable_itself_under_mixed_precision():
    class Layer(keras.Layer):
        def build(self, _):
            self.scale = self.add_weight(shape=(2,), initializer="ones")

        def call(self, x):
            self.found = _compat.live(self.scale)
            return x * self.scale

    layer = Layer(dtype="mixed_bfloat16")
    layer(tf.ones([3, 2]))
    assert isinstance(layer.found, tf.Variable)
    assert layer.found is layer.scale.value
    assert layer.found.dtype == tf.float32


def test_live_variables_are_found_with_their_constraints():
    class Module(tf.Module):
        def __init__(self, layer):
            super().__init__()
            self.held = _compat.LiveVariables(layer)

    layer = keras.layers.Dense(2, kernel_constraint="non_neg")
    module = Module(layer)
    assert module.variables == ()
    layer.build((None, 3))
    kernel, bias = module.variables
    assert kernel is layer.kernel.value
    assert bias is layer.bias.value
    assert (kernel.constraint, bias.constraint) == (layer.kernel_constraint, None)


def test_as_parameter_converts_values_and_keeps_references():
    converted = _compat.as_parameter([1.0, 2.0], tf.float64, "p")
    assert tf.is_tensor(converted)
    assert converted.dtype == tf.float64
    variable = tf.Variable(1.0)
    deferred = tfp.util.TransformedVariable(1.0, tfb.Softplus())
    for reference in (variable, deferred):
        assert _compat.as_parameter(reference, tf.float32, "p") is reference
        assert _compat.is_ref(reference)
    for value in (1.0, np.ones(2), tf.ones(2), converted):
        assert not _compat.is_ref(value)


def test_no_other_module_uses_private_names():
    """Private: `tensorflow_probability.python`, `keras.src`, `tensorflow.python`."""
    package = pathlib.Path(inspect.getfile(tfp_flowvae)).parent
    private = ("tensorflow_probability.python", "keras.src", "tensorflow.python")
    files = [path for path in package.rglob("*.py") if path.name != "_compat.py"]
    assert len(files) > 10
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            assert not [n for n in names if n.startswith(private)], f"{path.name}:{node.lineno}"


def test_the_loss_that_a_step_of_ones_own_tracks_is_the_one_that_is_logged():
    class Model(keras.Model):
        def train_step(self, data):
            _compat.track_loss(self, tf.constant(3.0), tf.constant(2))
            _compat.track_loss(self, tf.constant(9.0), tf.constant(1))
            return self.get_metrics_result()

    model = Model()
    model.compile(run_eagerly=True)
    assert model.fit(np.zeros((4, 1)), batch_size=4, verbose=0).history == {"loss": [5.0]}


def test_a_keras_variable_made_of_a_variable_is_that_variable():
    """What `flows.adopted.adopt` rests on."""
    variable = tf.Variable([1.0, 2.0])
    assert keras.Variable(variable).value is variable


def test_a_built_model_is_not_built_from_a_batch_and_its_optimizer_is():
    class Model(_compat.BuiltAlready, keras.Model):
        calls = 0

        def _maybe_symbolic_build(self, *args, **kwargs):
            self.calls += 1
            super()._maybe_symbolic_build(*args, **kwargs)
            assert self.optimizer.built

        def _symbolic_build(self, *args, **kwargs):
            raise AssertionError

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        image = keras.Input((2,))
        model = Model(image, keras.layers.Dense(1)(image))
        model.compile("adam", "mse")
    model.fit(np.zeros((4, 2)), np.zeros((4, 1)), batch_size=4, verbose=0)
    assert model.calls == 1
    assert len(model.optimizer.variables) == 6


def test_layers_within_are_in_inference_and_those_after_as_before():
    class Told(keras.layers.Layer):
        def call(self, x, training=None):
            seen.append(training)
            return x

    class Outer(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.told = Told()

        def call(self, x):
            self.told(x)
            with _compat.inference():
                self.told(x)
            return self.told(x)

    seen, outer = [], Outer()
    outer(tf.ones([1]))  # is built here, which calls it too
    for training, wanted in ((True, [True, False, True]), (False, [False] * 3)):
        seen.clear()
        outer(tf.ones([1]), training=training)
        assert seen == wanted
    with _compat.inference():
        outer.told(tf.ones([1]))
    assert seen[3:] == [None]


def test_logs_have_an_axis_where_keras_averages_them_over_workers(monkeypatch):
    logs = {"loss": tf.constant(3.0)}
    assert _compat.as_logs(logs)["loss"].shape == ()
    trainer = inspect.getmodule(keras.Model.make_train_function)
    assert trainer._collective_all_reduce_multi_worker(tf.distribute.get_strategy()) is False
    monkeypatch.setattr(trainer, "_collective_all_reduce_multi_worker", lambda _: True)
    assert _compat.as_logs(logs)["loss"].shape == (1,)
