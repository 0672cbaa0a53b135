"""`tfp.experimental.util.make_trainable` on every bijector class of the package."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae import bijectors as fvb

tfb, tfd = tfp.bijectors, tfp.distributions

D = 4
CLASSES = [
    cls
    for cls in (getattr(fvb, name) for name in fvb.__all__)
    if inspect.isclass(cls) and issubclass(cls, tfb.Bijector)
]


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


class Shift(tf.Module):
    """A conditioner; entry d depends on the entries before it."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(numbers(D, D))

    def __call__(self, y, units=D):
        kernel = self.kernel * np.triu(np.ones([D, D]), 1)
        return tf.matmul(y, kernel[: y.shape[-1], D - units :])


class ShiftAndLogScale(Shift):
    def __call__(self, y, units=D):
        shift = super().__call__(y, units)
        return shift, tf.tanh(shift)


def layers():
    """For parameters that are lists, of which `make_trainable` makes no variables."""
    return {
        "kernels": [tf.Variable(numbers(D, 3)), tf.Variable(numbers(3, D))],
        "biases": [tf.Variable(numbers(3)), tf.Variable(numbers(D))],
    }


# What a class takes beside the parameters that are made, with variables of its own.
GIVEN = {
    fvb.AdditiveCoupling: lambda: {"mask": fvb.half_mask(D), "shift_fn": Shift()},
    fvb.ContractiveResidual: layers,
    fvb.Coupling: lambda: {
        "mask": fvb.half_mask(D),
        "shift_and_log_scale_fn": ShiftAndLogScale(),
    },
    fvb.ParallelMaskedAutoregressiveFlow: lambda: {"shift_and_log_scale_fn": ShiftAndLogScale()},
}
# The variables that are made, with the shape of each for events [D]; one step, one mirror, M = D.
MADE = {
    fvb.ActNorm: {"log_scale": (D,), "shift": (D,)},
    fvb.HouseholderFlow: {"v": (1, D)},
    fvb.HouseholderSylvester: {"v": (1, D), "r": (D, D), "r_tilde": (D, D), "b": (D,)},
    fvb.HouseholderSylvesterFlow: {
        "v": (1, 1, D),
        "r": (1, D, D),
        "r_tilde": (1, D, D),
        "b": (1, D),
    },
    fvb.LULinear: {"lower": (D, D), "log_diag": (D,), "upper": (D, D), "shift": (D,)},
    fvb.MarginalInverseCDF: {"knots": (D, 16), "scores": (D, 16)},
    fvb.OrthogonalSylvester: {"q": (D, D), "r": (D, D), "r_tilde": (D, D), "b": (D,)},
    fvb.OrthogonalSylvesterFlow: {
        "q": (1, D, D),
        "r": (1, D, D),
        "r_tilde": (1, D, D),
        "b": (1, D),
    },
    fvb.Planar: {"u": (D,), "w": (D,), "b": ()},
    fvb.PlanarFlow: {"u": (1, D), "w": (1, D), "b": (1,)},
    fvb.Radial: {"center": (D,), "alpha": (), "beta": ()},
    fvb.RadialFlow: {"center": (1, D), "alpha": (1,), "beta": (1,)},
    fvb.RationalQuadraticSpline: {
        "bin_widths": (D, 8),
        "bin_heights": (D, 8),
        "knot_slopes": (D, 7),
    },
    fvb.TriangularSylvester: {"r": (D, D), "r_tilde": (D, D), "b": (D,)},
}
# Rotation has a test of its refusal; BatchNormalization has a Keras layer and no parameters; the
# others take images or single numbers.
OTHERS = (
    fvb.Rotation,
    fvb.BatchNormalization,
    fvb.ChannelCoupling,
    fvb.CheckerboardCoupling,
    fvb.Invertible1x1Convolution,
    fvb.LogisticMixtureLogit,
    fvb.Logit,
    fvb.MultiScale,
    fvb.Squeeze,
)
TRAINED = [cls for cls in CLASSES if cls not in OTHERS]
by_name = {"ids": lambda cls: cls.__name__}


def make(cls, batch=()):
    given = GIVEN[cls]() if cls in GIVEN else {}
    return tfp.experimental.util.make_trainable(
        cls,
        batch_and_event_shape=[*batch, D],
        parameter_dtype=tf.float64,
        seed=(0, 1),
        validate_args=True,
        **given,
    )


@pytest.mark.parametrize("cls", TRAINED, **by_name)
def test_a_step_of_training_lowers_the_loss_as_its_gradient_says(cls, assert_slope):
    bijector = make(cls)
    base = tfd.Independent(tfd.Logistic(tf.zeros(D, tf.float64), 0.3), 1)
    model = tfd.TransformedDistribution(base, tfb.Invert(bijector))
    points = tf.constant(0.3 * numbers(20, D))
    variables = bijector.trainable_variables
    assert variables

    def loss():
        # The inverse too: what normalises one way only would leave some of them untouched.
        return -tf.reduce_mean(model.log_prob(tf.identity(points))) + tf.reduce_mean(
            tf.square(bijector.inverse(tf.identity(points)))
        )

    with tf.GradientTape() as tape:
        before = loss()
    gradients = tape.gradient(before, variables)
    assert all(gradient is not None for gradient in gradients)
    norm = tf.linalg.global_norm(gradients)
    assert norm > 0.0
    start = [tf.identity(variable) for variable in variables]

    def moved(step):
        for variable, value, gradient in zip(variables, start, gradients, strict=True):
            variable.assign(value - step * gradient / norm)
        return loss()

    # Means over 20 points, each of up to three steps with sums of D terms, there and back.
    assert_slope(-norm, moved, 20 + 2 * 3 * (D + 10))


@pytest.mark.parametrize("cls", MADE, **by_name)
def test_the_parameters_are_made_with_a_batch(cls):
    bijector = make(cls, batch=(5,))
    made = {variable.name.split(":")[0]: variable for variable in bijector.trainable_variables}
    assert {name: tuple(v.shape[1:]) for name, v in made.items()} == MADE[cls]
    event_ndims = {"x_event_ndims": 0} if bijector.forward_min_event_ndims == 0 else {}
    batch = (5, D) if event_ndims else (5,)
    assert bijector.experimental_batch_shape(**event_ndims) == batch
    points = 0.3 * numbers(3, 5, D)
    assert bijector.forward(points).shape == (3, 5, D)


def test_the_table_has_every_class_with_parameters_of_its_own():
    own = {cls for cls in TRAINED if cls.parameter_properties() and cls not in GIVEN}
    assert own == set(MADE)


@pytest.mark.parametrize(
    ("cls", "shapes"),
    [
        (fvb.PlanarFlow, {"u": (3, D), "w": (3, D), "b": (3,)}),
        (fvb.HouseholderFlow, {"v": (3, D)}),
        (
            fvb.HouseholderSylvesterFlow,
            {"v": (3, 2, D), "r": (3, D, D), "r_tilde": (3, D, D), "b": (3, D)},
        ),
    ],
)
def test_a_function_gives_any_number_of_steps(cls, shapes):
    drawn = {name: numbers(*shape) for name, shape in shapes.items()}
    bijector = tfp.experimental.util.make_trainable(
        cls,
        batch_and_event_shape=[D],
        parameter_dtype=tf.float64,
        initial_parameters=lambda parameter_name, **_: tf.constant(drawn[parameter_name]),
    )
    points = numbers(5, D)
    np.testing.assert_array_equal(bijector.forward(points), cls(**drawn).forward(points))


def test_a_trained_spline_is_one_on_its_interval():
    spline = make(fvb.RationalQuadraticSpline)
    for sizes in (spline.bin_widths, spline.bin_heights):
        assert np.min(sizes) >= 0.1 * 2.0 / 8
        np.testing.assert_allclose(
            tf.reduce_sum(sizes, axis=-1), 2.0, rtol=8 * np.finfo(float).eps
        )  # eight terms
    np.testing.assert_array_equal(spline.forward(np.full(D, 1.5)), np.full(D, 1.5))
