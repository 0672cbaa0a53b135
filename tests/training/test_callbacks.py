"""The callbacks of a run, in a `fit` of their own."""

import keras
import numpy as np
import pytest

from tfp_flowvae.training.callbacks import AveragedWeights, EpochHistory, StopOnNonFinite


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    return model


def fit(model, *callbacks, x=None, epochs=3, **kwargs):
    x = np.ones((8, 1), np.float32) if x is None else x
    settings = {"batch_size": 1, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(x, x, epochs=epochs, callbacks=list(callbacks), **settings)


def test_non_finite_loss_stops_at_its_step(model):
    x = np.ones((8, 1), np.float32)
    x[4] = np.inf
    watch = StopOnNonFinite()
    fit(model, watch, x=x)
    assert watch.step == 5
    assert not np.isfinite(watch.loss)
    assert int(model.optimizer.iterations) == 5


def test_finite_losses_pass(model):
    watch, history = StopOnNonFinite(), EpochHistory()
    fit(model, watch, history)
    assert watch.step is None
    assert [row["epoch"] for row in history.rows] == [1, 2, 3]
    assert all(row["seconds"] > 0 and "loss" in row for row in history.rows)


def test_the_share_of_clipped_steps_is_the_mean_over_the_epochs():
    history = EpochHistory()
    assert history.clipped == 0.0
    history.on_epoch_begin(0)
    for epoch, share in enumerate((1.0, 0.25)):
        history.on_epoch_end(epoch, {"clipped": share})
    assert history.clipped == 0.625


class Seen(keras.callbacks.Callback):
    """Notes the model's one weight at each epoch's end."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(float(self.model.weights[0].numpy().squeeze()))


def test_averages_are_in_place_from_validation_to_the_epochs_end(model):
    """SGD on (w - 1)^2, by hand: w and its average, which starts at the first step's w."""
    model.compile(optimizer=keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), loss="mse")
    w = start = float(model.weights[0].numpy().squeeze())
    before, after = Seen(), Seen()
    one = np.ones((1, 1), np.float32)
    fit(model, before, AveragedWeights(), after, epochs=5, validation_data=(one, one))
    expected, averages, average = [], [], 0.0
    for step in range(40):
        w -= 0.1 * 2 * (w - 1)
        average = w if step == 0 else 0.5 * average + 0.5 * w
        if step % 8 == 7:
            expected.append(w)
            averages.append(average)
    # A step rounds thrice and shrinks what was off before to 0.8 of it: 3 / (1 - 0.8) roundings.
    # The average adds 2 of its own, and shrinks them to a half.
    rounding = (15 + 4) * np.finfo(np.float32).eps * max(1.0, abs(start))
    np.testing.assert_allclose(before.weights, averages, rtol=0, atol=rounding)
    np.testing.assert_allclose(after.weights, expected, rtol=0, atol=rounding)
    assert abs(averages[0] - expected[0]) > 2 * rounding
    # Keras has the last word: the averages stay in the model.
    last = float(model.weights[0].numpy().squeeze())
    np.testing.assert_allclose(last, averages[-1], rtol=0, atol=rounding)


def test_averaging_leaves_the_training_as_it_is_bit_for_bit(model):
    start, weights = model.get_weights(), []
    x = np.linspace(0.1, 1.3, 8, dtype=np.float32)[:, None]
    for callbacks in ([], [AveragedWeights()]):
        model.set_weights(start)
        model.compile(
            optimizer=keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.9), loss="mse"
        )
        seen = Seen()
        fit(model, *callbacks, seen, x=x, validation_data=(x, x))
        weights.append(seen.weights)
    assert weights[0] == weights[1]
