"""check_bijector catches the mistakes that public planar flows make."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.testing import check_bijector

tfb = tfp.bijectors


class RightPlanar(tfb.Bijector):
    """y = x + u' tanh(w.x + b), written anew and plainly; the wrong ones change one line each."""

    def __init__(self, u, w, b):
        parameters = dict(locals())
        self.u, self.w, self.b = u, w, b
        super().__init__(forward_min_event_ndims=1, dtype=u.dtype, parameters=parameters)

    @classmethod
    def _parameter_properties(cls, dtype):
        ranks = {"u": 1, "w": 1, "b": 0}
        return {n: tfp.util.ParameterProperties(event_ndims=r) for n, r in ranks.items()}

    def _softplus(self, a):
        return tf.math.softplus(a)

    def _squared_length(self):
        return tf.reduce_sum(self.w**2, -1, keepdims=True)

    def _u(self):
        inner = tf.reduce_sum(self.w * self.u, -1, keepdims=True)
        return self.u + (self._softplus(inner) - 1.0 - inner) * self.w / self._squared_length()

    def _log_slope(self, x):
        psi = (1.0 - tf.tanh(self._argument(x)) ** 2)[..., None] * self.w
        return tf.math.log(tf.abs(1.0 + tf.reduce_sum(psi * self._u(), -1)))

    def _argument(self, x):
        return tf.reduce_sum(self.w * x, -1) + self.b

    def _forward(self, x):
        return x + self._u() * tf.tanh(self._argument(x))[..., None]

    def _forward_log_det_jacobian(self, x):
        return self._log_slope(x)

    def _inverse(self, y):
        """Bisection for t + (w.u') tanh(t) = w.y + b, then one Newton step that differentiates."""
        strength = tf.reduce_sum(self.w * self._u(), -1)
        target = self._argument(y)
        low, high = target - tf.abs(strength), target + tf.abs(strength)

        def halve(low, high):
            middle = (low + high) / 2.0
            above = middle + strength * tf.tanh(middle) > target
            return tf.where(above, low, middle), tf.where(above, middle, high)

        interval = (tf.stop_gradient(low), tf.stop_gradient(high))
        low, high = tf.while_loop(lambda *_: True, halve, interval, maximum_iterations=60)
        root = tf.stop_gradient((low + high) / 2.0)
        slope = tf.stop_gradient(1.0 + strength * (1.0 - tf.tanh(root) ** 2))
        root -= (root + strength * tf.tanh(root) - target) / slope
        return y - self._u() * tf.tanh(root)[..., None]

    def _inverse_log_det_jacobian(self, y):
        return -self._forward_log_det_jacobian(self._inverse(y))


class LengthNotSquared(RightPlanar):
    def _squared_length(self):
        return tf.norm(self.w, axis=-1, keepdims=True)


class NeverConstrained(RightPlanar):
    def _u(self):
        return self.u


class LogMissing(RightPlanar):
    def _log_slope(self, x):
        return tf.exp(super()._log_slope(x))


class PsiAfterUpdate(RightPlanar):
    def _log_slope(self, x):
        return super()._log_slope(self._forward(x))


class OverflowingSoftplus(RightPlanar):
    def _softplus(self, a):
        return tf.math.log(1.0 + tf.exp(a))


def planar_arguments(inner, length, dtype):
    """Parameters with w.u = inner and ||w|| = length, and points about the bend."""
    w = length * np.array([0.6, 0.8])
    u = inner * w / length**2 + np.array([0.8, -0.6])
    arguments = [tf.constant(value, dtype) for value in (u, w, 0.1)]
    x = np.random.default_rng(3).standard_normal((12, 2))
    return arguments, tf.constant(x, dtype)


PLANAR_MISTAKES = [
    # w.u = -3 becomes -3 + 2.05 * 0.5 = -1.97 where -0.95 was meant: two points share an image.
    (LengthNotSquared, -3.0, 0.5, "inverse_of_forward"),
    (NeverConstrained, -3.0, 0.5, "inverse_of_forward"),
    (LogMissing, 1.0, 1.5, "forward_log_det"),
    (PsiAfterUpdate, 1.0, 1.5, "forward_log_det"),
    (OverflowingSoftplus, 800.0, 30.0, "finite"),
]


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=lambda d: d.name)
@pytest.mark.parametrize(("wrong", "inner", "length", "name"), PLANAR_MISTAKES)
def test_catches_planar_mistake(wrong, inner, length, name, dtype):
    arguments, x = planar_arguments(inner, length, dtype)
    with pytest.raises(AssertionError, match=rf"^{wrong.__name__} .*property '{name}' does not"):
        check_bijector(wrong(*arguments), x)


def test_accepts_right_planar():
    arguments, x = planar_arguments(-3.0, 0.5, tf.float64)
    check_bijector(RightPlanar(*arguments), x)


@pytest.mark.parametrize(("inner", "length"), [m[1:3] for m in PLANAR_MISTAKES[2:]])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=lambda d: d.name)
def test_accepts_right_planar_where_the_wrong_ones_fail(inner, length, dtype):
    arguments, x = planar_arguments(inner, length, dtype)
    check_bijector(RightPlanar(*arguments), x, properties=[m[3] for m in PLANAR_MISTAKES])


def test_message_names_worst_element_and_tolerance():
    arguments, x = planar_arguments(1.0, 1.5, tf.float64)
    with pytest.raises(AssertionError) as caught:
        check_bijector(LogMissing(*arguments), x)
    wanted = RightPlanar(*arguments).forward_log_det_jacobian(x).numpy()
    error = np.abs(np.exp(wanted) - wanted)
    worst = np.argmax(error / (1e-9 + 1e-9 * np.abs(wanted)))
    for part in (
        f"worst at [{worst}]",
        f"got {np.exp(wanted[worst]):.9g}, wanted {wanted[worst]:.9g}",
        f"off by {error[worst]:.3g} where ",
        "(12 of 12 elements are off)",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
