"""`fit` with many steps to a program: the steps that Keras runs one by one, for every data set."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.training.steps import StackedSteps


class Watch(keras.callbacks.Callback):
    """Notes the step after which each execution ends, and the number of the optimizer's steps."""

    def __init__(self):
        super().__init__()
        self.ends, self.iterations = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.iterations.append(int(self.model.optimizer.iterations))


def _fit(vae, x, steps="auto", jit_compile=False, callbacks=(), **how):
    vae.compile(keras.optimizers.Adam(3e-3), jit_compile=jit_compile, steps_per_execution=steps)
    how = {"epochs": 2, "verbose": 0, "shuffle": False, **how}
    return vae.fit(x, callbacks=list(callbacks), **how).history


def _fresh(make_vae, **parts):
    keras.utils.set_random_seed(0)
    return make_vae("none", "none", seed=0, **parts)


@pytest.mark.parametrize(
    ("count", "jit_compile"),  # batches of 40: 6, or 6 and an odd one
    [
        pytest.param(240, False, marks=pytest.mark.slow),
        (256, False),
        (240, True),
        pytest.param(256, True, marks=pytest.mark.slow),
    ],
)
def test_gives_what_keras_gives_step_by_step(count, jit_compile, make_vae, digits):
    histories, weights = [], []
    for steps in (1, 4, "auto"):
        vae, watch = _fresh(make_vae), Watch()
        histories.append(_fit(vae, digits[:count], steps, jit_compile, [watch], batch_size=40))
        weights.append([w.numpy() for w in vae.weights])
        per_epoch = -(-count // 40)
        assert watch.iterations == [per_epoch, 2 * per_epoch]
        assert isinstance(vae.train_function, StackedSteps) == (steps != 1)
    assert len(watch.ends) == 2  # one program an epoch
    for history, ours in zip(histories[1:], weights[1:], strict=True):
        for name, values in histories[0].items():
            np.testing.assert_allclose(history[name], values, rtol=1e-4, err_msg=name)
        for a, b in zip(ours, weights[0], strict=True):
            np.testing.assert_allclose(a, b, atol=2e-4)


def test_sees_every_image_once_an_epoch(make_vae, digits):
    seen = []

    class Recorder(keras.layers.Layer):
        def call(self, x):
            tf.py_function(lambda v: seen.append(v.numpy()), [x[:, 0, 0, 0]], [])
            return x

    inputs = keras.Input((8, 8, 1))
    encoder = keras.Model(inputs, keras.layers.Flatten()(Recorder()(inputs))[:, :16])
    numbered = np.tile(np.arange(250, dtype=np.float32)[:, None, None, None] / 250, (1, 8, 8, 1))
    vae = _fresh(make_vae, encoder=encoder)
    vae.compile(keras.optimizers.SGD(0.0), steps_per_execution=3, jit_compile=False)
    seen.clear()
    vae.fit(numbered, batch_size=32, epochs=2, verbose=0, shuffle=True)
    values = np.round(np.concatenate(seen) * 250).astype(int)
    for epoch in (values[:250], values[250:]):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(250))
        assert np.any(epoch != np.arange(250))


def test_an_endless_data_set_is_not_overrun(make_vae, digits):
    vae, watch = _fresh(make_vae), Watch()
    batches = tf.data.Dataset.from_tensor_slices(digits).repeat().batch(50)
    _fit(vae, batches, 4, callbacks=[watch], steps_per_epoch=5, epochs=3)
    assert watch.iterations == [5, 10, 15]
    assert watch.ends == [3, 7] * 3  # Keras's convention


@pytest.mark.parametrize(("pause", "ends"), [(3, [2, 5, 8, 11]), (4, [3, 7, 11]), (60, [11])])
def test_pauses_where_it_is_told_to(pause, ends, make_vae, digits):
    vae, watch = _fresh(make_vae), Watch()
    vae.pause_steps = pause
    _fit(vae, digits[:240], callbacks=[watch], batch_size=20, epochs=1)
    assert [min(end, 11) for end in watch.ends] == ends
    assert watch.iterations == [12]


def test_pauses_at_no_more_steps_than_a_stack_has(make_vae, digits):
    vae, watch = _fresh(make_vae), Watch()
    vae.pause_steps = 62
    batches = tf.data.Dataset.from_tensor_slices(digits).repeat().batch(2)
    _fit(vae, batches, callbacks=[watch], steps_per_epoch=124, epochs=1)
    assert watch.ends == [30, 61, 92, 123]


@pytest.mark.parametrize("steps", [1, 2])
def test_goes_on_in_the_middle_of_an_epoch(steps, make_vae, digits):
    vae, watch = _fresh(make_vae), Watch()
    vae.start_step = 3
    batches = tf.data.Dataset.from_tensor_slices(digits).repeat().batch(50)
    _fit(vae, batches, steps, callbacks=[watch], steps_per_epoch=5, epochs=3, initial_epoch=1)
    assert watch.iterations == [2, 7]
    assert vae.start_step == 0


def test_data_that_ends_early_ends_the_training_with_keras_warning(make_vae, digits):
    vae, watch = _fresh(make_vae), Watch()
    batches = tf.data.Dataset.from_tensor_slices(digits[:120]).batch(40)
    with pytest.warns(UserWarning, match="ran out of data"):
        _fit(vae, batches, 2, callbacks=[watch], steps_per_epoch=5, epochs=1)
    assert watch.iterations == [3]


def test_stops_and_starts_where_callbacks_say(make_vae, digits):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch >= 3

    vae = _fresh(make_vae)
    history = _fit(vae, digits, 2, callbacks=[Stop()], batch_size=32, epochs=9, initial_epoch=4)
    assert len(history["loss"]) == 1
    assert int(vae.optimizer.iterations) == 4


def test_averages_of_the_weights_and_a_second_fit(make_vae, digits):
    vae = _fresh(make_vae)
    vae.compile(keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9), jit_compile=False)
    swap = keras.callbacks.SwapEMAWeights()
    vae.fit(digits, batch_size=32, epochs=3, verbose=0, callbacks=[swap])
    first = vae.evaluate(digits, verbose=0, return_dict=True)["loss"]
    vae.fit(digits[:100], batch_size=20, epochs=3, verbose=0)  # other sizes: another S
    assert vae.steps_per_execution == 5
    assert vae.evaluate(digits, verbose=0, return_dict=True)["loss"] < first


def test_evaluates_all_images_whatever_the_stack(make_vae, digits):
    vae = _fresh(make_vae)
    vae.compile("adam", jit_compile=False)
    before = vae.evaluate(digits, batch_size=16, verbose=0, return_dict=True)
    vae.fit(digits, batch_size=16, epochs=1, verbose=0, validation_data=(digits,))
    vae.seed_generator.state.assign([0, 0])
    numbers = [m.count.numpy() for m in vae.metrics if m.name == "elbo"]
    assert vae.steps_per_execution == 16
    vae.evaluate(digits, batch_size=16, verbose=0)
    assert [m.count.numpy() for m in vae.metrics if m.name == "elbo"] == [256.0]
    assert numbers == [256.0]
    assert np.isfinite(before["loss"])


@pytest.mark.parametrize(
    ("shape", "batch_size", "steps", "expected"),
    [
        ((28, 28, 1), 100, 500, 50),  # 16 MiB are 53 such batches
        ((28, 28, 1), 100, 503, 46),  # 11 executions of 46, not 10 of 50 and one of 3
        ((28, 28, 1), 100, 12, 12),
        ((64, 64, 3), 100, 500, 3),
        ((256, 256, 3), 100, 500, 1),
    ],
)
def test_chooses_the_stack_by_memory_and_epoch(shape, batch_size, steps, expected, make_vae):
    vae = make_vae("none", "none")
    batches = tf.data.Dataset.from_tensors(tf.zeros([batch_size, *shape])).repeat()
    vae.compile("adam", jit_compile=False)
    vae.fit(batches, steps_per_epoch=steps, epochs=0, verbose=0, shuffle=False)
    assert vae.steps_per_execution == expected


def test_the_choice_survives_saving(make_vae, digits, tmp_path):
    vae = _fresh(make_vae)
    _fit(vae, digits, batch_size=64)
    vae.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_compile_config()["steps_per_execution"] == "auto"
    assert again.optimizer.iterations == 8


def test_other_batches_run_as_keras_runs_them_or_are_refused(make_vae, digits):
    vae = _fresh(make_vae)
    ragged = tf.data.Dataset.from_tensors(tf.RaggedTensor.from_tensor(digits))
    vae.compile("adam", jit_compile=False, steps_per_execution=2)
    with pytest.raises(ValueError, match="steps_per_execution=1"):
        vae.fit(ragged, epochs=1, verbose=0, shuffle=False)
