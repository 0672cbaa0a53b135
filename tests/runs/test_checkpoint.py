"""What a checkpoint holds, and that `fit` resumes from it."""

import keras
import numpy as np
import pytest

from tfp_flowvae.errors import NonFiniteError, UserError
from tfp_flowvae.runs.checkpoint import Checkpoints, Interrupted, Saving, restore
from tfp_flowvae.runs.history import EpochHistory
from tfp_flowvae.runs.store import CheckpointStore

X = np.linspace(0.1, 1.3, 8, dtype=np.float32)[:, None]
STEPS = 8
# Calls of `stop` per epoch: after each step but the last two, and at the end.
ASKED = 7


class Model(keras.Sequential):
    """A model with the check that `FastModel` has."""

    def check_finite(self):
        if not all(np.isfinite(weight).all() for weight in self.get_weights()):
            raise NonFiniteError("a weight is not finite", epoch=1, step=1)


def make_model(units=1):
    keras.utils.set_random_seed(0)
    # Dropout has a seed generator, and Keras numbers the layers differently in each model.
    layers = [keras.layers.Dropout(0.3), keras.layers.Dense(units)]
    model = Model([keras.Input((1,)), *layers])
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss="mse", metrics=["mae"])
    return model


def fit(model, folder, epochs=3, x=X, early=None, **kwargs):
    """Trains, resuming from the folder; returns the rows of the history."""
    store, history = CheckpointStore(folder), EpochHistory()
    start = store.newest()
    facts = lambda: {"config": {}}  # noqa: E731
    saving = Saving(store, start, facts=facts, **kwargs)
    callbacks = [history, *([early] if early else []), Checkpoints(saving, history, STEPS, early)]
    first = start.state["epoch"] if start else 0
    model.fit(
        x, x, batch_size=1, epochs=epochs, initial_epoch=first, shuffle=False, verbose=0,
        callbacks=callbacks,
    )  # fmt: skip
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]


def after(count):
    """Returns a `stop` that is true at this call, counted from 1."""
    calls = []
    return lambda: calls.append(None) or len(calls) == count


def test_a_run_resumed_at_the_end_of_an_epoch_equals_an_uninterrupted_run(tmp_path):
    whole = make_model()
    rows = fit(whole, tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(make_model(), tmp_path / "cut", stop=after(2 * ASKED))
    model = make_model()
    assert fit(model, tmp_path / "cut") == rows
    assert len(rows) == 3
    for one, two in zip(whole.variables, model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    for one, two in zip(whole.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


def test_metrics_are_restored_within_an_epoch(tmp_path):
    model = make_model()
    with pytest.raises(Interrupted):
        fit(model, tmp_path, stop=after(ASKED + 3))
    found = CheckpointStore(tmp_path).newest()
    assert (found.state["epoch"], found.state["step"]) == (1, 3)
    assert len(found.state["rows"]) == 1
    seen = [v.numpy() for v in model.metrics_variables]
    assert any(value.any() for value in seen)
    other, history = make_model(), EpochHistory()
    other.fit(X, X, verbose=0)  # builds its metrics
    callback = Checkpoints(Saving(CheckpointStore(tmp_path), found), history, STEPS)
    callback.set_model(other)
    callback.on_train_begin()
    other.reset_metrics()
    callback.on_epoch_begin(1)
    for value, variable in zip(seen, other.metrics_variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    # The metrics of the next epoch start from zero.
    other.reset_metrics()
    callback.on_epoch_begin(2)
    assert not any(v.numpy().any() for v in other.metrics_variables)


@pytest.mark.parametrize(
    ("every", "steps"), [(0, [8, 16]), (3, [3, 6, 8, 11, 14, 16]), (7, [8, 16])]
)
def test_writes_at_the_end_of_each_epoch_and_every_n_steps(every, steps, tmp_path, monkeypatch):
    written, save = [], CheckpointStore.save

    def noting(self, total, state, arrays):
        written.append(total)
        return save(self, total, state, arrays)

    monkeypatch.setattr(CheckpointStore, "save", noting)
    fit(make_model(), tmp_path, epochs=2, every=every)
    assert written == steps


def test_a_state_that_is_not_finite_is_not_written(tmp_path):
    x = X.copy()
    x[4] = np.nan
    fit(make_model(), tmp_path, epochs=1)
    before = CheckpointStore(tmp_path).files()
    with pytest.raises(NonFiniteError):
        fit(make_model(), tmp_path, epochs=2, x=x, every=6)
    assert CheckpointStore(tmp_path).files() == before


@pytest.mark.parametrize("scheduled", [False, True])
def test_the_learning_rate_is_that_of_the_new_run(scheduled, tmp_path):
    def model(rate):
        made = make_model()
        schedule = keras.optimizers.schedules.CosineDecay(rate, 100)
        made.compile(optimizer=keras.optimizers.Adam(schedule if scheduled else rate), loss="mse")
        return made

    fit(model(0.1), tmp_path, epochs=1)
    resumed = model(0.01)
    fit(resumed, tmp_path, epochs=2)
    step = 2 * STEPS if scheduled else 0
    expected = 0.01 * 0.5 * (1.0 + np.cos(np.pi * step / 100))
    # The schedule's cosine is computed in float32.
    assert float(resumed.optimizer.learning_rate) == pytest.approx(expected, rel=1e-6)


def early_stopping():
    return keras.callbacks.EarlyStopping(
        "loss", mode="max", patience=2, restore_best_weights=True
    )  # the loss falls, so the first epoch is the best


def test_early_stopping_is_restored(tmp_path):
    whole, model = make_model(), make_model()
    rows = fit(whole, tmp_path / "whole", epochs=9, early=early_stopping())
    assert len(rows) == 3
    with pytest.raises(Interrupted):
        fit(make_model(), tmp_path / "cut", epochs=9, early=early_stopping(), stop=after(2 * ASKED))
    assert fit(model, tmp_path / "cut", epochs=9, early=early_stopping()) == rows
    found = CheckpointStore(tmp_path / "cut").newest()
    assert found.stopped_early
    for one, two in zip(whole.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    # The model has the best weights, and the checkpoint those of the last epoch.
    names = sorted(n for n in found.arrays if n.startswith("best/"))
    for weight, name in zip(model.get_weights(), names, strict=True):
        np.testing.assert_array_equal(weight, found.arrays[name])
    assert any(
        not np.array_equal(found.arrays[n], found.arrays[n.replace("best/0000", "model/0001")])
        for n in names[:1]
    )


def test_a_checkpoint_of_another_model_is_one_sentence(tmp_path):
    fit(make_model(), tmp_path, epochs=1)
    found = CheckpointStore(tmp_path).newest()
    with pytest.raises(UserError, match=r"not one of this model.*of shape \(1, 1\) for \(1, 2\)"):
        restore(found, "model", make_model(units=2).variables)
    with pytest.raises(UserError, match="not one of this model"):
        restore(found, "model", make_model().variables[:-1])
