"""The callbacks of a run, in a `fit` of their own."""

import os
import signal

import keras
import numpy as np
import pytest

from tfp_flowvae.training.callbacks import EpochHistory, StopOnInterrupt, StopOnNonFinite


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    return model


class At(keras.callbacks.Callback):
    """Runs a function after one batch of one epoch."""

    def __init__(self, batch, function):
        super().__init__()
        self.batch, self.function = batch, function

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.function()


def fit(model, *callbacks, x=None, epochs=3):
    x = np.ones((8, 1), np.float32) if x is None else x
    return model.fit(
        x, x, batch_size=1, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    )


def test_interrupt_finishes_the_step_and_stops(model):
    before = signal.getsignal(signal.SIGINT)
    stop, history = StopOnInterrupt(), EpochHistory()
    fit(model, At(2, lambda: os.kill(os.getpid(), signal.SIGINT)), stop, history)
    assert stop.interrupted
    assert int(model.optimizer.iterations) == 3
    assert [row["epoch"] for row in history.rows] == [1]
    assert signal.getsignal(signal.SIGINT) is before


def test_second_interrupt_raises(model):
    before = signal.getsignal(signal.SIGINT)
    stop = StopOnInterrupt()

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(model, At(2, twice), stop)
    stop.on_train_end()
    assert signal.getsignal(signal.SIGINT) is before


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
