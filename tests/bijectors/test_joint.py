"""Value and log-det together: one conditioner call each, and TFP's own numbers."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae import bijectors as fvb

tfb = tfp.bijectors

D = 4
# A number is rounded in sums of D terms and in ten operations, in up to four parts, there and back.
ROUNDINGS = 2 * 4 * (D + 10)


class Conditioner:
    """A shift and a log-scale for some entries from others, counting its calls."""

    def __init__(self, autoregressive):
        self.calls = 0
        self._autoregressive = autoregressive

    def __call__(self, x, output_units=D, **_):
        self.calls += 1
        if self._autoregressive:
            seen = tf.cumsum(x, axis=-1, exclusive=True)
            return tf.stack([tf.sin(seen), 0.3 * tf.cos(seen)], axis=-1)
        seen = tf.reduce_sum(x, axis=-1, keepdims=True) * tf.range(1.0, output_units + 1.0)
        return tf.sin(seen), 0.3 * tf.cos(seen)


def coupling(conditioner, **kwargs):
    return tfb.RealNVP(shift_and_log_scale_fn=conditioner, **kwargs)


def autoregressive(conditioner):
    return tfb.MaskedAutoregressiveFlow(shift_and_log_scale_fn=conditioner)


def planar():
    rng = np.random.default_rng(3)
    u, w = rng.normal(size=(2, 3, D)).astype(np.float32)
    return fvb.PlanarFlow(u, w, np.zeros(3, np.float32))


def nested(conditioner):
    return tfb.Chain(
        [
            tfb.Invert(tfb.Chain([planar(), tfb.Permute([3, 1, 0, 2])])),
            coupling(conditioner, num_masked=2),
            tfb.Scale(2.0),
            tfb.Invert(
                tfb.Invert(tfb.Chain([tfb.Shift(1.0), coupling(conditioner, num_masked=1)]))
            ),
        ]
    )


# Each case: how to build the bijector, whether the conditioner is autoregressive, and the number of
# conditioner calls in forward and in inverse (None: D passes, which are TFP's).
CASES = {
    "coupling": (lambda c: coupling(c, num_masked=2), False, 1, 1),
    "coupling, uneven": (lambda c: coupling(c, num_masked=3), False, 1, 1),
    "coupling, other half": (lambda c: coupling(c, num_masked=-1), False, 1, 1),
    "coupling, by fraction": (lambda c: coupling(c, fraction_masked=0.5), False, 1, 1),
    "inverted coupling": (lambda c: tfb.Invert(coupling(c, num_masked=2)), False, 1, 1),
    "nested chains": (nested, False, 2, 2),
    "maf": (autoregressive, True, None, 1),
    "iaf": (lambda c: tfb.Invert(autoregressive(c)), True, 1, None),
    "two iafs": (
        lambda c: tfb.Chain(
            [
                tfb.Invert(autoregressive(c)),
                tfb.Permute([3, 2, 1, 0]),
                tfb.Invert(autoregressive(c)),
            ]
        ),
        True,
        2,
        None,
    ),
}
each_case = pytest.mark.parametrize("case", CASES)


def draw_points(seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=(2, 5, D)).astype(np.float32))


@each_case
@pytest.mark.parametrize("traced", [False, True])
def test_runs_each_conditioner_once(case, traced):
    build, is_autoregressive, forward_calls, inverse_calls = CASES[case]
    joint = (
        (fvb.forward_and_log_det, forward_calls),
        (fvb.inverse_and_log_det, inverse_calls),
    )
    for method, expected in joint:
        if expected is None:
            continue
        conditioner = Conditioner(is_autoregressive)
        bijector = build(conditioner)

        def evaluate(x, method=method, bijector=bijector):
            return method(bijector, x)

        (tf.function(evaluate) if traced else evaluate)(draw_points())
        assert conditioner.calls == expected


@each_case
def test_agrees_with_the_two_methods_of_tfp(case, assert_same):
    build, is_autoregressive, *_ = CASES[case]

    def fresh():  # with nothing in its cache
        return build(Conditioner(is_autoregressive))

    assert_same(
        lambda x: fvb.forward_and_log_det(fresh(), x),
        lambda x: (fresh().forward(x), fresh().forward_log_det_jacobian(x, 1)),
        draw_points(),
        ROUNDINGS,
    )
    assert_same(
        lambda x: fvb.inverse_and_log_det(fresh(), x),
        lambda x: (fresh().inverse(x), fresh().inverse_log_det_jacobian(x, 1)),
        draw_points(),
        ROUNDINGS,
    )


@each_case
def test_events_of_more_dimensions(case, assert_same):
    build, is_autoregressive, *_ = CASES[case]
    bijector = build(Conditioner(is_autoregressive))
    x = draw_points()
    for event_ndims in (2, 3):
        for joint, separate in (
            (fvb.forward_and_log_det, bijector.forward_log_det_jacobian),
            (fvb.inverse_and_log_det, bijector.inverse_log_det_jacobian),
        ):
            assert joint(bijector, x, event_ndims)[1].shape == x.shape[:-event_ndims]
            assert_same(
                lambda x, joint=joint, n=event_ndims: joint(bijector, x, n)[1],
                lambda x, separate=separate, n=event_ndims: separate(tf.identity(x), n),
                x,
                ROUNDINGS,
            )


def test_elementwise_bijectors_and_changing_events(assert_same, one_eps, assert_within):
    x = draw_points()
    for bijector, event_ndims in (
        (tfb.Sigmoid(), 0),
        (tfb.Scale([1.0, 2.0, 3.0, 4.0]), 1),
        (tfb.Chain([]), 1),
        (tfb.Identity(), 1),
        (tfb.Chain([tfb.Reshape([2, 2], [4]), tfb.Softplus()]), 1),
    ):

        def both(x, bijector=bijector, n=event_ndims):
            return fvb.forward_and_log_det(bijector, x, n)

        y, log_det = both(x)

        def separate(x, bijector=bijector, n=event_ndims, shape=log_det.shape):
            expected = bijector.forward_log_det_jacobian(tf.identity(x), n)
            return bijector.forward(tf.identity(x)), np.broadcast_to(expected, shape)

        assert_same(both, separate, x, ROUNDINGS)
        back_ndims = bijector.inverse_event_ndims(bijector.forward_event_ndims(event_ndims))
        assert back_ndims == event_ndims
        out_ndims = bijector.forward_event_ndims(event_ndims)

        def inverse(y, bijector=bijector, n=out_ndims, shape=log_det.shape):
            back, log_det = fvb.inverse_and_log_det(bijector, tf.identity(y), n)
            return back, np.broadcast_to(log_det, shape)

        assert_within(inverse(y), (x, -log_det), one_eps(inverse, y, rounds=4), ROUNDINGS)


class Doubling(fvb.JointEvaluation, tfb.Bijector):
    """y = 2 x, as a user would write one; counts its evaluations."""

    def __init__(self):
        self.evaluations = 0
        super().__init__(forward_min_event_ndims=1, parameters={}, name="doubling")

    def _forward_and_log_det(self, x):
        self.evaluations += 1
        return 2.0 * x, tf.fill(x.shape[:-1], x.shape[-1] * np.log(np.float32(2.0)))

    def _inverse_and_log_det(self, y):
        self.evaluations += 1
        return 0.5 * y, tf.fill(y.shape[:-1], -y.shape[-1] * np.log(np.float32(2.0)))


def test_mixin_of_a_user(rounding):
    x = draw_points()
    doubling = Doubling()
    y, log_det = fvb.forward_and_log_det(tfb.Chain([tfb.Invert(tfb.Invert(doubling))]), x)
    assert doubling.evaluations == 1
    np.testing.assert_array_equal(y, 2.0 * x)
    wanted = np.full((2, 5), 4 * np.log(2.0), np.float32)
    np.testing.assert_allclose(log_det, wanted, **rounding(2, wanted))  # a logarithm, a product
    np.testing.assert_array_equal(doubling.forward(x), y)
    np.testing.assert_array_equal(doubling.inverse(tf.identity(y)), x)
    np.testing.assert_array_equal(doubling.forward_log_det_jacobian(x), log_det)
    np.testing.assert_array_equal(doubling.inverse_log_det_jacobian(tf.identity(y)), -log_det)


def test_mixin_without_its_methods_says_so():
    class Half(fvb.JointEvaluation, tfb.Bijector):
        def __init__(self):
            super().__init__(forward_min_event_ndims=1, name="half")

    with pytest.raises(NotImplementedError, match="Half lacks _forward_and_log_det"):
        Half().forward(draw_points())
    with pytest.raises(NotImplementedError, match="Half lacks _inverse_and_log_det"):
        Half().inverse_and_log_det(draw_points())


def test_gradients_pass(assert_slope):
    x = draw_points()
    shift = tf.Variable(0.5)
    bijector = tfb.Chain(
        [
            planar(),
            coupling(lambda x, units: (x[..., :1] * shift + tf.zeros(units), None), num_masked=2),
        ]
    )
    with tf.GradientTape() as tape:
        y, log_det = fvb.forward_and_log_det(bijector, x)
        total = tf.reduce_sum(y[..., 0]) + tf.reduce_sum(log_det)
    analytic = tape.gradient(total, shift)

    def value(step):
        shift.assign(0.5 + step)
        y, log_det = fvb.forward_and_log_det(bijector, tf.identity(x))
        return tf.reduce_sum(y[..., 0]) + tf.reduce_sum(log_det)

    assert_slope(analytic, value, 2 * 2 * 5)  # a sum over values and log-dets of 2 x 5 points


def test_arrays_keep_their_precision():
    x = np.array([1.0 + 2.0**-40, 2.0])
    assert fvb.forward_and_log_det(tfb.Identity(), x)[0].dtype == tf.float64
    assert fvb.forward_and_log_det(tfb.Identity(), [1.0, 2.0])[0].dtype == tf.float32
    double = tfb.Chain([tfb.Shift(tf.zeros(2, tf.float64)), tfb.Exp()])
    assert fvb.forward_and_log_det(double, x)[0].numpy()[0] == np.exp(x[0])
    single = tfb.Chain([tfb.Shift(tf.zeros(2)), tfb.Exp()])  # as TFP's own methods convert
    assert fvb.forward_and_log_det(single, x)[0].dtype == single.forward(x).dtype == tf.float32


def test_new_values_of_variables_are_seen_for_an_old_tensor():
    """TFP's cache is keyed by the tensor, and shared by bijectors over the same variables."""
    log_scale, x = tf.Variable([1.0, 1.0]), tf.ones([3, 2])
    kept = [fvb.forward_and_log_det(tfb.Scale(log_scale=log_scale), x)]
    log_scale.assign([2.0, 2.0])
    kept.append(fvb.forward_and_log_det(tfb.Scale(log_scale=log_scale), x))
    assert [float(np.max(log_det)) for _, log_det in kept] == [2.0, 4.0]
