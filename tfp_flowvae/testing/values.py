"""Properties of the values, shapes and log-determinants, all evaluated eagerly."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from tfp_flowvae.bijectors import forward_and_log_det, inverse_and_log_det
from tfp_flowvae.errors import UserError
from tfp_flowvae.testing.compare import assert_close, assert_finite
from tfp_flowvae.testing.subject import Evaluation, Subject, batch_of, event_of, fresh, over_event


def dtype_kept(subject: Subject) -> None:
    """Values and log-dets have the dtype of x."""
    wanted = subject.dtype.name
    # Forward comes first: if its dtype is wrong the inverse cannot be evaluated.
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
    for part in subject.evaluations:
        side, batch = part.side, batch_of(part.point, part.side.in_ndims)
        got = side.log_det(fresh(part.point)).shape.as_list()
        if bijector.is_constant_jacobian:
            got = np.broadcast_shapes(got, batch)
        _assert_shape(f"{side.log_det_name}(...).shape against the batch of its point", got, batch)


def _assert_shape(what: str, got: Iterable[int], wanted: Iterable[int]) -> None:
    got_list, wanted_list = [int(d) for d in got], [int(d) for d in wanted]
    if got_list != wanted_list:
        raise AssertionError(f"{what}: got shape {got_list}, wanted shape {wanted_list}")


def inverse_of_forward(subject: Subject) -> None:
    """inverse(forward(x)) = x."""
    _assert_comes_back(subject, "inverse_of_forward", *subject.evaluations)


def forward_of_inverse(subject: Subject) -> None:
    """forward(inverse(y)) = y."""
    _assert_comes_back(subject, "forward_of_inverse", *reversed(subject.evaluations))


def _assert_comes_back(subject: Subject, name: str, there: Evaluation, back: Evaluation) -> None:
    value = there.side.apply(fresh(there.point))
    if subject.sample_axis:
        # The points in another order, so that a bijector that remembers its last call is found out.
        there.side.apply(tf.reverse(there.point, [0]))
    source = there.side.source
    assert_close(
        f"{back.side.name}({there.side.name}({source})) against {source}",
        back.side.apply(fresh(value)).numpy(),
        there.point.numpy(),
        subject.tolerance(name, "value"),
        over_event(there.noise.point, there.side.in_ndims),
    )


def forward_log_det(subject: Subject) -> None:
    """forward_log_det_jacobian = log |det dy/dx|, the Jacobian by automatic differentiation."""
    _assert_log_det(subject, "forward_log_det", subject.evaluations[0])


def inverse_log_det(subject: Subject) -> None:
    """inverse_log_det_jacobian = log |det dx/dy|, the Jacobian by automatic differentiation."""
    _assert_log_det(subject, "inverse_log_det", subject.evaluations[1])


def _assert_log_det(subject: Subject, name: str, part: Evaluation) -> None:
    rows, columns = part.jacobian.shape[-2:]
    if rows != columns:
        raise UserError(
            "A log-det is checked where an event keeps its count of numbers; otherwise pass"
            " skip=('forward_log_det', 'inverse_log_det', 'density')."
            f" Received: events of {columns} numbers that become {rows}."
        )
    assert_close(
        f"{part.side.log_det_name} against the autodiff Jacobian of {part.side.name}",
        part.log_det(),
        np.linalg.slogdet(part.jacobian)[1],
        subject.tolerance(name, "log_det"),
        part.noise.log_det,
    )


def opposite_log_dets(subject: Subject) -> None:
    """The two log-dets at x and f(x), and at y and f^-1(y), cancel."""
    for part, other in (subject.evaluations, subject.evaluations[::-1]):
        wanted = -other.side.log_det(fresh(part.value)).numpy()
        assert_close(
            f"{part.side.log_det_name} against minus {other.side.log_det_name} at the image",
            part.log_det(),
            np.broadcast_to(wanted, part.log_det().shape),
            subject.tolerance("opposite_log_dets", "log_det"),
            part.noise.log_det,
        )


def joint(subject: Subject) -> None:
    """`forward_and_log_det` and `inverse_and_log_det` agree with the separate methods."""
    functions = (forward_and_log_det, inverse_and_log_det)
    for part, function in zip(subject.evaluations, functions, strict=True):
        value, log_det = function(subject.bijector, fresh(part.point), part.side.in_ndims)
        for i, name, got, wanted, kind in (
            (0, part.side.name, value.numpy(), part.value.numpy(), "value"),
            (1, part.side.log_det_name, log_det.numpy(), part.log_det(), "log_det"),
        ):
            assert_close(
                f"{function.__name__}(...)[{i}] against {name}",
                np.broadcast_to(got, wanted.shape) if i else got,
                wanted,
                subject.tolerance("joint", kind),
            )


def variables(subject: Subject) -> None:
    """Every trainable variable that is read is listed in `bijector.trainable_variables`."""
    with tf.GradientTape() as tape:
        for method in subject.methods:
            method.call(fresh(method.point))
    listed = {id(v) for v in subject.bijector.trainable_variables}
    missing = [v for v in tape.watched_variables() if id(v) not in listed]
    if missing:
        raise AssertionError(
            f"bijector.trainable_variables lists {len(listed)} variables and misses"
            f" {len(missing)} that are read, the first {missing[0].name!r} of shape"
            f" {missing[0].shape}; hold them in a tf.Module that the bijector keeps"
        )
