"""What `export_distribution` and `load_distribution` refuse, in one sentence each."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flowvae as fv
from tfp_flowvae.errors import UserError

tfb, tfd = tfp.bijectors, tfp.distributions


@pytest.mark.parametrize(
    ("distribution", "context_spec", "message"),
    [
        (
            lambda: tfd.Sample(tfd.Normal(0.0, 1.0), tf.Variable([2])),
            None,
            "with a known event shape",
        ),
        (lambda: 3.0, None, "takes a tfd.Distribution, or a function from a context"),
        (lambda: tfd.Normal(0.0, 1.0), tf.TensorSpec([]), "A distribution takes no context"),
        (lambda: lambda c: tfd.Normal(c, 1.0), None, "needs context_spec, a tf.TensorSpec"),
        (
            lambda: lambda c: tfd.MultivariateNormalDiag(tf.zeros(2) + c),
            tf.TensorSpec([None, 3]),
            r"does not take a context of context_spec=TensorSpec\(shape=\(None, 3\)",
        ),
        (lambda: lambda c: c, tf.TensorSpec([]), "must return a tfd.Distribution for a context"),
        (
            lambda: tfd.TransformedDistribution(
                tfd.Normal(0.0, 1.0),
                tfb.Inline(
                    forward_fn=lambda x: tf.numpy_function(np.exp, [x], tf.float32),
                    forward_min_event_ndims=0,
                ),
            ),
            None,
            "runs Python code",
        ),
    ],
)
def test_refusals(distribution, context_spec, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        fv.export_distribution(distribution(), tmp_path / "out", context_spec)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path):
    with pytest.raises(UserError, match="exists; choose another path"):
        fv.export_distribution(tfd.Normal(0.0, 1.0), tmp_path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def fails(served, path, signatures):
        tf.io.gfile.makedirs(path)
        (tmp_path / "seen").write_text(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fails)
    with pytest.raises(UserError, match=r"Cannot write .*: No space left on device"):
        fv.export_distribution(tfd.Normal(0.0, 1.0), tmp_path / "out")
    assert (tmp_path / "seen").read_text() != str(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]


def test_load_refuses_what_is_no_distribution(tmp_path):
    with pytest.raises(UserError, match="holds no SavedModel"):
        fv.load_distribution(tmp_path)
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(UserError, match="holds another SavedModel than export_distribution"):
        fv.load_distribution(tmp_path)
