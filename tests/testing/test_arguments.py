"""What check_bijector takes, and what it says of what it does not take."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae import testing
from tfp_flowvae.testing import PROPERTIES, check_bijector

tfb = tfp.bijectors
tfd = tfp.distributions

REFUSED = [
    ({"x": np.array([1, 2])}, TypeError, "x must be float32 or float64. .*x.dtype=int64"),
    ({"x": [1, 2]}, TypeError, "x.dtype=int64"),
    ({"x": np.ones(2, np.float16)}, TypeError, "x.dtype=float16"),
    ({"x": np.ones((0,), np.float32)}, ValueError, r"at least one point.*x.shape=\(0,\)"),
    ({"x": [1.0, np.nan]}, ValueError, "x must be finite"),
    ({"y": np.ones(2)}, TypeError, "y must be float32. .*y.dtype=float64"),
    ({"skip": ["xal"]}, ValueError, r"Did you mean 'xla'\? Received: 'xal'"),
    ({"skip": "jit"}, ValueError, "skip takes names of properties .*Received: 'jit'"),
    ({"properties": ["grahp"]}, ValueError, "Did you mean 'graph'"),
    ({"tolerances": {"value": (0, 0)}}, ValueError, "tolerances takes names of properties"),
    ({"tolerances": {"graph": (-1.0, 0.0)}}, ValueError, r"Received: graph=\(-1.0, 0.0\)"),
    ({"event_ndims": -1}, ValueError, "event_ndims must be an int of at least .*=-1"),
    ({"event_ndims": 2}, ValueError, r"rank 2 or more. Received: x.shape=\(2,\)"),
    ({"bijector": "exp"}, TypeError, "Bijector is needed. Received: 'exp'"),
    ({"bijector": tfb.Split([1, 1])}, ValueError, "one part"),
    ({"bijector": tfb.Scale(np.float64(2.0))}, TypeError, "x must be float64. .*=float32"),
    ({"base": tfd.Normal([0.0, 1.0], 1.0)}, ValueError, "base must have batch shape"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED)
def test_refuses(change, error, message):
    arguments = {"bijector": tfb.Exp(), "x": np.float32([1.0, 2.0]), **change}
    with pytest.raises(error, match=message):
        check_bijector(**arguments)


def test_skip_and_properties_select(monkeypatch):
    called = []
    spies = {name: lambda subject, name=name: called.append(name) for name in PROPERTIES}
    monkeypatch.setattr(testing.check, "PROPERTIES", spies)
    check_bijector(tfb.Exp(), [0.5])
    assert called == list(PROPERTIES)
    called.clear()
    check_bijector(tfb.Exp(), [0.5], properties=["graph", "dtype"], skip=("graph",))
    assert called == ["dtype"]


def test_tolerances_widen_and_narrow():
    loose = tfb.Inline(
        forward_fn=lambda x: x * 2.0,
        inverse_fn=lambda y: y * 0.5001,
        forward_log_det_jacobian_fn=lambda x: np.log(2.0) * tf.ones_like(x),
        forward_min_event_ndims=0,
    )
    x = np.array([1.0, 2.0])
    with pytest.raises(AssertionError, match="'inverse_of_forward'"):
        check_bijector(loose, x, properties=["inverse_of_forward"])
    wide = {"inverse_of_forward": (0.0, 1e-3)}
    check_bijector(loose, x, properties=["inverse_of_forward"], tolerances=wide)


def test_reference_sharpens_a_float32_check():
    """A gradient 1% off is within what float32 differences can tell, not what float64 ones can."""

    def scale(dtype, gradient_of):
        return tfb.Inline(
            forward_fn=lambda x: gradient_of(x) * tf.constant(2.0, dtype),
            inverse_fn=lambda y: y / tf.constant(2.0, dtype),
            forward_log_det_jacobian_fn=lambda x: tf.math.log(tf.constant(2.0, dtype)),
            is_constant_jacobian=True,
            forward_min_event_ndims=0,
        )

    @tf.custom_gradient
    def slightly_wrong(x):
        return tf.identity(x), lambda upstream: 1.01 * upstream

    x = np.float32([0.5, 1.0])
    wrong, right = scale(tf.float32, slightly_wrong), scale(tf.float64, tf.identity)
    check_bijector(wrong, x, properties=["gradients"])
    tight = {"gradients": (1e-4, 1e-4)}
    with pytest.raises(AssertionError, match="with respect to x"):
        check_bijector(wrong, x, properties=["gradients"], reference=right, tolerances=tight)
    check_bijector(
        scale(tf.float32, tf.identity),
        x,
        properties=["gradients", "forward_log_det"],
        reference=right,
        tolerances=tight,
    )


def test_reference_of_other_parameters_is_refused():
    with pytest.raises(ValueError, match="reference must have the bijector's parameters"):
        check_bijector(
            tfb.Scale(np.float32([1.0, 2.0])),
            np.float32([[0.5, 0.5]]),
            reference=tfb.Shift(np.ones(3)),
            properties=["gradients"],
        )


def test_event_of_another_size_is_refused_by_the_log_dets_alone():
    bijector, x = tfb.FillTriangular(), np.random.default_rng(0).standard_normal((4, 3))
    with pytest.raises(ValueError, match="events of 3 numbers that become 4"):
        check_bijector(bijector, x)
    skip = ("forward_log_det", "inverse_log_det", "density")
    check_bijector(bijector, x, skip=skip)


def test_base_integrates_over_a_restricted_domain():
    x = np.array([0.4, 1.5, 3.0])
    gamma = tfd.Gamma(np.float64(3.0), np.float64(1.0))
    check_bijector(tfb.Log(), x, base=gamma, properties=["density"])
    # exp of a normal is positive: the part of the base below zero is not in the domain of log.
    with pytest.raises(AssertionError, match="not finite on samples of the base"):
        check_bijector(tfb.Log(), x, base=tfd.Normal(np.float64(0), 1), properties=["density"])


def test_y_takes_the_inverse_where_forward_was_not():
    """An inverse that is wrong far out alone."""
    bijector = tfb.Inline(
        forward_fn=lambda x: 2.0 * x,
        inverse_fn=lambda y: tf.where(y > 10.0, y, 0.5 * y),
        forward_log_det_jacobian_fn=lambda x: np.log(2.0) * tf.ones_like(x),
        forward_min_event_ndims=0,
    )
    chosen = ["inverse_of_forward", "forward_of_inverse"]
    check_bijector(bijector, [1.0, 2.0], properties=chosen)
    with pytest.raises(AssertionError, match=r"'forward_of_inverse' .*worst at \[1\]"):
        check_bijector(bijector, [1.0, 2.0], y=[1.0, 30.0], properties=chosen)
