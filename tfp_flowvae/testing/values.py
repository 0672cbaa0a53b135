"""Properties of the values, shapes and log-determinants, all evaluated eagerly."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from tfp_flowvae.bijectors import forward_and_log_det, inverse_and_log_det
from tfp_flowvae.errors import UserError
from tfp_flowvae.testing.compare import assert_close, assert_finite
from tfp_flowvae.testing.subject import Subject, batch_of, event_of, fresh, over_event


def dtype_kept(subject: Subject) -> None:
    """Values and log-dets have the dtype of x."""
    wanted = subject.dtype.name
    # The inverse is asked last: with a wrong dtype coming forward it could not be asked at all.
    for method in subject.methods:
        got = method.call(fresh(method.point)).dtype.name
        if got != wanted:
            raise AssertionError(f"{method.name} returned {got}, wanted {wanted}, the dtype of x")


def finite(subject: Subject) -> None:
    """Values and log-dets are finite at the points given."""
    for method in subject.methods:
        assert_finite(method.name, method.call(fresh(method.point)).numpy())


def batch_shape(subject: Subject) -> None:
    """Declared batch and event shapes are those of the values and log-dets.

    A bijector without `_parameter_properties` declares no batch shape: only the shapes of its
    values and log-dets are compared then.
    """
    bijector, (forward, inverse) = subject.bijector, subject.sides
    _assert_shape(
        "forward_event_shape",
        bijector.forward_event_shape(event_of(subject.x, forward.in_ndims)),
        event_of(subject.y, forward.out_ndims),
    )
    # Seen through an event of x's rank, whose dimensions of size 1 broadcast.
    wanted = subject.batch_shape
    ones = [1] * (subject.x_given.shape.rank - subject.event_ndims)
    for keyword, ndims in (
        ("x_event_ndims", forward.in_ndims),
        ("y_event_ndims", inverse.in_ndims),
    ):
        try:
            declared = bijector.experimental_batch_shape(**{keyword: ndims})
            dynamic = bijector.experimental_batch_shape_tensor(**{keyword: ndims})
        except NotImplementedError:
            break
        what = f"({keyword}={ndims}) against the batch of forward(one event)"
        for method, got in (("", declared), ("_tensor", dynamic)):
            shape = np.broadcast_shapes([int(d) for d in got], ones)
            _assert_shape(f"experimental_batch_shape{method}{what}", shape, wanted)
    for side, point in subject.points():
        got, batch = side.log_det(fresh(point)).shape.as_list(), batch_of(point, side.in_ndims)
        if bijector.is_constant_jacobian:
            got = np.broadcast_shapes(got, batch)
        _assert_shape(f"{side.log_det_name}(...).shape against the batch of its point", got, batch)


def _assert_shape(what: str, got: Iterable[int], wanted: Iterable[int]) -> None:
    got_list, wanted_list = [int(d) for d in got], [int(d) for d in wanted]
    if got_list != wanted_list:
        raise AssertionError(f"{what}: got shape {got_list}, wanted shape {wanted_list}")


def inverse_of_forward(subject: Subject) -> None:
    """inverse(forward(x)) = x."""
    forward, inverse = subject.sides
    y = forward.apply(fresh(subject.x))
    _decoy(subject, forward.apply, subject.x)
    got = inverse.apply(fresh(y))
    noise = subject.rounding(subject.forward_jacobian, subject.x, y, forward)
    assert_close(
        "inverse(forward(x)) against x",
        got.numpy(),
        subject.x.numpy(),
        subject.tolerance("inverse_of_forward", "value"),
        over_event(noise.point, forward.in_ndims),
    )


def forward_of_inverse(subject: Subject) -> None:
    """forward(inverse(y)) = y."""
    forward, inverse = subject.sides
    x = inverse.apply(fresh(subject.y))
    _decoy(subject, inverse.apply, subject.y)
    got = forward.apply(fresh(x))
    noise = subject.rounding(subject.inverse_jacobian, subject.y, x, inverse)
    assert_close(
        "forward(inverse(y)) against y",
        got.numpy(),
        subject.y.numpy(),
        subject.tolerance("forward_of_inverse", "value"),
        over_event(noise.point, inverse.in_ndims),
    )


def _decoy(subject: Subject, method: Callable[[tf.Tensor], tf.Tensor], point: tf.Tensor) -> None:
    """Evaluates at the points in another order, so that one that remembers is found out."""
    if subject.sample_axis:
        method(tf.reverse(point, [0]))


def forward_log_det(subject: Subject) -> None:
    """forward_log_det_jacobian = log |det dy/dx|, the Jacobian by automatic differentiation."""
    _log_det_against_jacobian(subject, 0, "forward_log_det")


def inverse_log_det(subject: Subject) -> None:
    """inverse_log_det_jacobian = log |det dx/dy|, the Jacobian by automatic differentiation."""
    _log_det_against_jacobian(subject, 1, "inverse_log_det")


def _log_det_against_jacobian(subject: Subject, which: int, name: str) -> None:
    side, point = subject.points()[which]
    matrix = subject.inverse_jacobian if which else subject.forward_jacobian
    rows, columns = matrix.shape[-2:]
    if rows != columns:
        raise UserError(
            "A log-det is checked where an event keeps its count of numbers; otherwise pass"
            " skip=('forward_log_det', 'inverse_log_det', 'density')."
            f" Received: events of {columns} numbers that become {rows}."
        )
    value = side.apply(fresh(point))
    assert_close(
        f"{side.log_det_name} against the autodiff Jacobian of {side.name}",
        _full_log_det(side.log_det(fresh(point)), matrix.shape[:-2]),
        np.linalg.slogdet(matrix)[1],
        subject.tolerance(name, "log_det"),
        subject.rounding(matrix, point, value, side).log_det,
    )


def _full_log_det(log_det: tf.Tensor, batch: tuple[int, ...] | list[int]) -> np.ndarray:
    """A constant log-det may come with fewer dimensions than the batch."""
    return np.broadcast_to(log_det.numpy(), batch)


def opposite_log_dets(subject: Subject) -> None:
    """The two log-dets at x and f(x), and at y and f^-1(y), cancel."""
    forward, inverse = subject.sides
    for side, other, point, matrix in (
        (forward, inverse, subject.x, subject.forward_jacobian),
        (inverse, forward, subject.y, subject.inverse_jacobian),
    ):
        value = side.apply(fresh(point))
        batch = batch_of(point, side.in_ndims)
        assert_close(
            f"{side.log_det_name} against minus {other.log_det_name} at the image",
            _full_log_det(side.log_det(fresh(point)), batch),
            -_full_log_det(other.log_det(fresh(value)), batch),
            subject.tolerance("opposite_log_dets", "log_det"),
            subject.rounding(matrix, point, value, side).log_det,
        )


def joint(subject: Subject) -> None:
    """`forward_and_log_det` and `inverse_and_log_det` agree with the separate methods."""
    functions = (forward_and_log_det, inverse_and_log_det)
    for (side, point), function in zip(subject.points(), functions, strict=True):
        value, log_det = function(subject.bijector, fresh(point), side.in_ndims)
        wanted = side.apply(fresh(point)).numpy()
        wanted_log_det = side.log_det(fresh(point)).numpy()
        name = function.__name__
        assert_close(
            f"{name}(...)[0] against {side.name}",
            value.numpy(),
            wanted,
            subject.tolerance("joint", "value"),
        )
        batch = batch_of(point, side.in_ndims)
        assert_close(
            f"{name}(...)[1] against {side.log_det_name}",
            _full_log_det(log_det, batch),
            np.broadcast_to(wanted_log_det, batch),
            subject.tolerance("joint", "log_det"),
        )


def variables(subject: Subject) -> None:
    """Every trainable variable that is read is listed in `bijector.trainable_variables`."""
    with tf.GradientTape() as tape:
        for side, point in subject.points():
            side.apply(fresh(point))
            side.log_det(fresh(point))
    listed = {id(v) for v in subject.bijector.trainable_variables}
    missing = [v for v in tape.watched_variables() if id(v) not in listed]
    if missing:
        raise AssertionError(
            f"bijector.trainable_variables lists {len(listed)} variables and misses"
            f" {len(missing)} that are read, the first {missing[0].name!r} of shape"
            f" {missing[0].shape}; hold them in a tf.Module that the bijector keeps"
        )
