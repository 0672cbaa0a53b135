"""The callbacks of a run, in a `fit` of their own."""

import io
import re

import keras
import numpy as np
import pytest

from tfp_flowvae.runs.history import EpochHistory
from tfp_flowvae.training.callbacks import AveragedWeights, ProgressLine


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    return model


def fit(model, *callbacks, x=None, epochs=3, **kwargs):
    x = np.ones((8, 1), np.float32) if x is None else x
    settings = {"batch_size": 1, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(x, x, epochs=epochs, callbacks=list(callbacks), **settings)


def test_the_history_has_a_row_for_each_epoch(model):
    history = EpochHistory()
    fit(model, history)
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


class Terminal(io.StringIO):
    def isatty(self):
        return True


LOGS = {
    "clipped": 0.0, "elbo": -102.1234, "gradient_norm": 7.0, "kl": 25.5678,
    "log_likelihood": -76.5556, "loss": 102.1234, "val_elbo": -101.4567, "val_loss": 101.4567,
}  # fmt: skip


def shown(monkeypatch, stream, columns, logs=LOGS, steps=500, verbose=1):
    """The lines that two epochs print, each with what it showed before it was written over."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout", stream)
    line = ProgressLine(verbose, ("loss", "elbo", "kl", "val_elbo"))
    line.interval = 0.0
    line.set_params({"epochs": 2, "steps": steps})
    for epoch in range(2):
        line.on_epoch_begin(epoch)
        for last in range(49, steps, 50):
            line.on_train_batch_end(last, {k: v for k, v in logs.items() if "val" not in k})
        line.on_epoch_end(epoch, logs)
    return [text.split("\r") for text in stream.getvalue().split("\n")[:-1]]


def test_progress_is_a_line_that_fits_a_terminal_of_80_columns(monkeypatch):
    lines = shown(monkeypatch, Terminal(), 80)
    assert [texts[0] for texts in lines] == ["Epoch 1/2", "", "Epoch 2/2", ""]
    updates = lines[1][1:]
    assert len(updates) == 11
    assert {len(text) for text in updates} == {79}  # the spaces wipe out what was there before
    middle = r"250/500 \[={10}\.{10}\] \d+s - loss: 102\.12 - elbo: -102\.12 - kl: 25\.57"
    assert re.fullmatch(middle, updates[4].rstrip())
    last = r"500/500 \d+s - loss: 102\.12 - elbo: -102\.12 - kl: 25\.57 - val_elbo: -101\.46"
    assert re.fullmatch(last, updates[-1].rstrip())


@pytest.mark.parametrize("columns", [10, 30, 60, 80, 200])
def test_a_narrow_terminal_gets_fewer_numbers_and_a_shorter_bar(columns, monkeypatch):
    logs = {name: 1000 * value for name, value in LOGS.items()}
    lines = shown(monkeypatch, Terminal(), columns, logs)
    assert max(len(text) for texts in lines for text in texts) < max(columns, 11)
    final = lines[1][-1]
    assert ("loss" in final, "val_elbo" in final) == (columns >= 30, columns >= 200)


@pytest.mark.parametrize(("stream", "verbose"), [(io.StringIO, 1), (io.StringIO, 2), (Terminal, 2)])
def test_where_lines_cannot_be_written_over_an_epoch_is_one(stream, verbose, monkeypatch):
    lines = shown(monkeypatch, stream(), 80, verbose=verbose)
    assert [len(texts) for texts in lines] == [1, 1, 1, 1]
    assert lines[1][0].endswith("kl: 25.57 - val_elbo: -101.46")


def test_the_line_shows_the_seconds_that_are_left_and_in_the_end_those_taken(monkeypatch):
    stream, now = Terminal(), [100.0]
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    line = ProgressLine()
    line.set_params({"epochs": 1, "steps": 10})
    line.on_epoch_begin(0)
    now[0] += 4.0
    line.on_train_batch_end(1, {"loss": 1.0})
    now[0] += 0.05  # too soon for another update
    line.on_train_batch_end(2, {"loss": 1.0})
    now[0] += 20.0
    line.on_epoch_end(0, {"loss": 1.0})
    updates = [text.rstrip() for text in stream.getvalue().split("\r")[1:]]
    assert updates == [" 2/10 [====................] 16s - loss: 1.00", "10/10 24s - loss: 1.00"]
