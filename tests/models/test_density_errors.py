"""What FlowDensity refuses, in one sentence each."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flowvae as fv
from tfp_flowvae.errors import UserError

ROWS = np.random.default_rng(0).uniform(size=(40, 2)).astype(np.float32)


def _density(**how):
    density = fv.FlowDensity(**{"flow": "lu", "event_size": 2, **how})
    density.compile("adam", run_eagerly=True)
    return density


def _with(row, column, value):
    rows = ROWS.copy()
    rows[row, column] = value
    return rows


def _column(value):
    return np.stack([ROWS[:, 0], np.full(40, value, np.float32)], axis=-1)


def _refused(message, function, *args, **kwargs):
    with pytest.raises(UserError, match=message) as raised:
        function(*args, **kwargs)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"flow": "iaf:2"}, r"'iaf' needs 2 sequential passes .* use 'maf'.*Received: 'iaf'\.$"),
        ({"flow": "lu+spline-iaf"}, r"'spline-iaf' needs 2 .* use 'spline-maf'"),
        ({"flow": fv.flows.Stack([fv.flows.IAF(2)])}, "'iaf' needs 2 sequential passes"),
        ({"flow": "realnvp", "event_size": 1}, r"size 2 at least: use 'maf' .* event_size=1\.$"),
        ({"flow": "residual", "event_size": 65}, "size 64 at most"),
        ({"event_size": None}, r"give it event_size\. Received: event_size=None\.$"),
        ({"bounds": 3.0}, r"bounds must be \(low, high\).*Received: 3\.0\.$"),
        ({"bounds": ([0, 0, 0], 1)}, r"each of the 2 columns\. Received: 3 of them\.$"),
        ({"bounds": ([0, 2], [1, 2])}, r"below the upper one\. Received: 2 and 2 for column 1\.$"),
        ({"flow": "wobble"}, "Unknown flow or base 'wobble'"),
    ],
)
def test_parts_that_do_not_suit(how, message):
    _refused(message, _density, **how)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([ROWS[:, :1]], r"x must have shape \[\.\.\., 2\]\. Received: x\.shape=\(40, 1\)\.$"),
        ([ROWS[:, 0]], r"x must have shape \[\.\.\., 2\]\. Received: x\.shape=\(40,\)\.$"),
        ([_with(3, 1, np.nan)], r"must be finite.*Received: nan in row 3, column 1 of x\.$"),
        ([_with(5, 0, -np.inf)], r"Received: -inf in row 5, column 0 of x\.$"),
        ([_column(0.1)], r"Column 1 of x is constant.*leave it out\. Received: 0\.1 in every row"),
        ([ROWS, ROWS], r"constructor: no context\. Received: one\.$"),
        ([ROWS[:20]], r"batch of 32 rows.*smaller batch_size\. Received: 20 rows\.$"),
    ],
)
def test_data_that_do_not_suit(data, message):
    _refused(message, _density().fit, *data, verbose=0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([ROWS], r"constructor: \[B, 2\]\. Received: None\.$"),
        ([ROWS, ROWS[:, :1]], r"context must have shape \[\.\.\., 2\]\. .*\(40, 1\)\.$"),
        ([ROWS, _with(0, 0, np.inf)], r"Received: inf in row 0, column 0 of context\.$"),
        ([ROWS, _column(2.0)], r"Column 1 of context is constant"),
    ],
)
def test_contexts_that_do_not_suit(data, message):
    _refused(message, _density(context_size=2).fit, *data, verbose=0)


def test_checks_hold_where_nothing_is_left_to_learn():
    density = _density(standardize=False)
    _refused("Received: nan in row 3", density.fit, _with(3, 1, np.nan), verbose=0)
    _refused("batch of 32 rows", density.fit, ROWS, validation_split=0.5, verbose=0)


@pytest.mark.parametrize(("value", "bounds"), [(1.0, (0, 1)), (0.0, (0, None)), (5.0, (None, 5))])
def test_data_on_or_beyond_a_bound(value, bounds):
    density = _density(bounds=bounds)
    message = rf"Column 1 of x must lie strictly between .* Received: {value:g} in row 7\.$"
    _refused(message, density.fit, _with(7, 1, value), verbose=0)


def test_datasets_that_do_not_suit():
    batches = tf.data.Dataset.from_tensor_slices(_column(0.1)).batch(16)
    _refused("Column 1 of x is constant", _density().fit, batches, verbose=0)
    _refused("endless dataset needs a number of steps", _density().fit, batches.repeat(), verbose=0)
    _refused("at least one row", _density().fit, batches.take(0), verbose=0)
    batches = tf.data.Dataset.from_tensor_slices(_with(20, 1, np.nan)).batch(16)
    _refused("must be finite", _density().fit, batches, verbose=0)
    generator = (ROWS for _ in range(2))
    _refused("call adapt before it.*Received: generator", _density().fit, generator, verbose=0)


@pytest.mark.parametrize("method", ["sample", "sample_and_log_prob", "log_prob", "distribution"])
def test_a_context_that_is_missing_not_wanted_or_of_another_size(method):
    first = {"sample": [3], "sample_and_log_prob": [3], "log_prob": [ROWS], "distribution": []}
    plain, conditional = _density(), _density(context_size=2)
    _refused(r"no context\. Received: one", getattr(plain, method), *first[method], ROWS)
    _refused(r"\[B, 2\]\. Received: None", getattr(conditional, method), *first[method])
    _refused(
        r"context must have shape \[\.\.\., 2\]",
        getattr(conditional, method),
        *first[method],
        ROWS[:, :1],
    )


def test_evaluation_of_other_sizes_is_refused():
    density = fv.FlowDensity("lu", event_size=2)
    density.compile("adam", jit_compile=False)
    with pytest.raises(UserError, match=r"x must have shape"):
        density.evaluate(ROWS[:, :1], verbose=0)


def test_a_dataset_of_keras_is_read_too():
    class Halves(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return (ROWS[20 * index : 20 * index + 20],)

    density = _density()
    density.fit(Halves(), verbose=0)
    np.testing.assert_allclose(
        density.non_trainable_weights[0],
        ROWS.mean(axis=0, dtype=np.float64),
        rtol=float(np.finfo(np.float32).eps),
    )
