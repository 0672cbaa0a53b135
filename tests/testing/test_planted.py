"""check_bijector can fail: each planted mistake is caught, under the name of its property."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.bijectors import JointEvaluation
from tfp_flowvae.testing import check_bijector

tfb = tfp.bijectors


class Sinh(tfb.Bijector):
    """y = a sinh(x) + c, right as it stands."""

    def __init__(self, scale=None, name="sinh"):
        parameters = dict(locals())
        self.scale = tf.constant(1.5, tf.float64) if scale is None else scale
        super().__init__(forward_min_event_ndims=0, parameters=parameters, name=name)

    @classmethod
    def _parameter_properties(cls, dtype):
        return {"scale": tfp.util.ParameterProperties(event_ndims=0)}

    def _forward(self, x):
        return self.scale * tf.sinh(x)

    def _inverse(self, y):
        return tf.asinh(y / self.scale)

    def _forward_log_det_jacobian(self, x):
        return tf.math.log(self.scale * tf.cosh(x))

    def _inverse_log_det_jacobian(self, y):
        return -0.5 * tf.math.log(tf.square(self.scale) + tf.square(y))


class WrongInverse(Sinh):
    def _inverse(self, y):
        return tf.asinh(y)


class InverseMissing(Sinh):
    def _inverse(self, y):
        raise NotImplementedError("only what came out of forward is inverted")


class InverseRemembers(Sinh):
    def _forward(self, x):
        self.last = x.numpy()
        return super()._forward(x)

    def _inverse(self, y):
        return tf.constant(self.last)


class WrongInverseLogDet(Sinh):
    def _inverse_log_det_jacobian(self, y):
        return -super()._inverse_log_det_jacobian(y)


class WrongLogDets(Sinh):
    def _forward_log_det_jacobian(self, x):
        return super()._forward_log_det_jacobian(x) + 0.2

    def _inverse_log_det_jacobian(self, y):
        return super()._inverse_log_det_jacobian(y) - 0.2


class GradientNotFinite(Sinh):
    """The 0 / 0 that `tf.where` keeps out of the value enters its gradient."""

    def _forward_log_det_jacobian(self, x):
        cosh = tf.where(x == 0.0, tf.ones_like(x), tf.sinh(x) / tf.tanh(x))
        return tf.math.log(self.scale * cosh)


class DtypeChanges(Sinh):
    def _inverse_log_det_jacobian(self, y):
        return tf.cast(super()._inverse_log_det_jacobian(y), tf.float32)


class GradientOfParameterLost(Sinh):
    def _forward(self, x):
        return tf.stop_gradient(self.scale) * tf.sinh(x)


class OtherPathInGraph(Sinh):
    def _forward_log_det_jacobian(self, x):
        wrong = 0.0 if tf.executing_eagerly() else 0.1
        return super()._forward_log_det_jacobian(x) + wrong


class NeedsNumpy(Sinh):
    def _forward(self, x):
        return super()._forward(x) + 0.0 * float(tf.reduce_max(x).numpy())


class NeedsStaticShape(Sinh):
    def _forward(self, x):
        return super()._forward(x) + tf.zeros([int(x.shape[0])], x.dtype)


class NeedsInterpreter(Sinh):
    def _forward(self, x):
        y = tf.py_function(lambda v: tf.sinh(v), [x], x.dtype)
        return self.scale * tf.ensure_shape(y, x.shape)


class WrongJoint(JointEvaluation, tfb.Bijector):
    """Doubles a vector; the joint method forgets the log-det."""

    def __init__(self):
        super().__init__(forward_min_event_ndims=1)

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    def _forward_and_log_det(self, x):
        return 2.0 * x, x.shape[-1] * tf.math.log(tf.constant(2.0, x.dtype)) * tf.ones_like(
            x[..., 0]
        )

    def _inverse_and_log_det(self, y):
        return 0.5 * y, -self._forward_and_log_det(y)[1]

    def forward_and_log_det(self, x):
        return 2.0 * x, tf.zeros_like(x[..., 0])


X = np.array([-1.2, 0.0, 0.3, 0.9])

MISTAKES = [
    (WrongInverse, "inverse_of_forward", "worst at"),
    (InverseMissing, "dtype", "NotImplementedError: only what came out"),
    (InverseRemembers, "inverse_of_forward", "worst at"),
    (WrongInverseLogDet, "inverse_log_det", "worst at"),
    (WrongLogDets, "forward_log_det", "off by 0.2 "),
    (GradientNotFinite, "finite_gradients", r"worst at \[1\]: got nan"),
    (DtypeChanges, "dtype", "inverse_log_det_jacobian returned float32, wanted float64"),
    (GradientOfParameterLost, "gradients", "'scale', at "),
    (OtherPathInGraph, "graph", "forward_log_det_jacobian, graph against eager"),
    (NeedsNumpy, "graph", "could not be evaluated"),
    (NeedsStaticShape, "dynamic_shape", "could not be evaluated"),
    (NeedsInterpreter, "xla", "could not be evaluated"),
]


def test_accepts_the_bijector_that_the_mistakes_are_planted_in():
    check_bijector(Sinh(tf.constant(1.5, tf.float64)), X)


@pytest.mark.parametrize(
    ("wrong", "name", "detail"), MISTAKES, ids=lambda v: getattr(v, "__name__", None)
)
def test_catches(wrong, name, detail):
    with pytest.raises(AssertionError, match=f"^{wrong.__name__} .*property '{name}' .*{detail}"):
        check_bijector(wrong(tf.constant(1.5, tf.float64)), X)


def test_wrong_inverse_is_hidden_by_the_cache_of_tfp():
    bijector, x = WrongInverse(), tf.constant(X)
    np.testing.assert_array_equal(bijector.inverse(bijector.forward(x)), x)


def test_density_alone_catches_an_error_common_to_both_log_dets():
    with pytest.raises(AssertionError, match=r"'density' .* got 0\.8\d+, wanted 1, off by 0\.1"):
        check_bijector(WrongLogDets(), X, properties=["density"])


def test_density_catches_one_member_of_a_batch():
    right_and_wrong = WrongLogDets(tf.constant([1.0, 2.0], tf.float64))
    with pytest.raises(AssertionError, match="batch member"):
        check_bijector(right_and_wrong, X[:, None], properties=["density"])


def test_density_too_noisy_to_judge_warns():
    cliff = tfb.Chain([tfb.Exp(), tfb.Scale(tf.constant(8.0, tf.float64))])
    with pytest.warns(UserWarning, match="could not judge the density"):
        check_bijector(cliff, X, properties=["density"])


def test_catches_wrong_joint_evaluation():
    with pytest.raises(AssertionError, match=r"'joint' .*forward_and_log_det\(...\)\[1\]"):
        check_bijector(WrongJoint(), np.ones((2, 3)))


def test_catches_wrong_batch_shape():
    class Declared(Sinh):
        @classmethod
        def _parameter_properties(cls, dtype):
            return {"scale": tfp.util.ParameterProperties(event_ndims=1)}

    with pytest.raises(AssertionError, match=r"property 'batch_shape' does not hold"):
        check_bijector(Declared(tf.constant([1.0, 2.0], tf.float64)), X[:, None])


def test_catches_variable_that_is_not_listed():
    hidden = tf.Variable(0.3, dtype=tf.float64, name="hidden")
    bijector = tfb.Inline(
        forward_fn=lambda x: x + hidden,
        inverse_fn=lambda y: y - hidden,
        forward_log_det_jacobian_fn=tf.zeros_like,
        inverse_log_det_jacobian_fn=tf.zeros_like,
        forward_min_event_ndims=0,
    )
    with pytest.raises(AssertionError, match=r"'variables' .* misses 1 that are read.*'hidden"):
        check_bijector(bijector, X)
    check_bijector(bijector, X, skip=["variables"])


def test_catches_what_cannot_be_saved():
    class UsesTable(Sinh):
        def _forward(self, x):
            return super()._forward(x) * table().lookup(tf.constant("one"))

    tables = []

    def table():
        # Reached through a closure, so that no object that is saved holds it.
        if not tables:
            values = tf.lookup.KeyValueTensorInitializer(["one"], tf.constant([1.0], tf.float64))
            tables.append(tf.lookup.StaticHashTable(values, -1.0))
        return tables[0]

    with pytest.raises(AssertionError, match="'saved_model' could not be evaluated"):
        check_bijector(UsesTable(), X, skip=["xla"])


def test_variables_are_put_back():
    scale = tf.Variable(1.7, dtype=tf.float64)
    check_bijector(Sinh(scale), X, properties=["gradients"])
    assert scale.numpy() == 1.7
