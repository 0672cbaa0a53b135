"""What Sylvester flows refuse, each in a sentence that names what was received."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_array_equal

from tfp_flowvae import bijectors as fvb


def square(size):
    return tf.zeros([size, size])


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: fvb.OrthogonalSylvester(tf.zeros([2, 3]), square(3), square(3), tf.zeros([3])),
            ValueError,
            r"M <= D\. Received: D=2, M=3\.",
        ),
        (
            lambda: fvb.OrthogonalSylvester(tf.zeros([3, 2]), square(2), square(3), tf.zeros([2])),
            ValueError,
            r"M is 2 and, in r_tilde, 3\. Received: .*r_tilde\.shape=\(3, 3\)",
        ),
        (
            lambda: fvb.HouseholderSylvester(tf.zeros([0, 2]), square(2), square(2), tf.zeros([2])),
            ValueError,
            r"K is 0 in v\. Received: v\.shape=\(0, 2\)",
        ),
        (
            lambda: fvb.TriangularSylvester(square(2), square(2), tf.zeros([2]), activation="elu"),
            ValueError,
            r"'tanh' or 'isru'\. Received: 'elu'\.",
        ),
        (
            lambda: fvb.TriangularSylvester(square(2), square(2), tf.zeros([2], tf.float64)),
            TypeError,
            r"Received: .*b\.dtype=float64\.",
        ),
        (
            lambda: fvb.TriangularSylvester(square(2), square(2), tf.zeros([2], tf.int32)),
            TypeError,
            r"Received: .*b\.dtype=int32\.",
        ),
        (
            lambda: fvb.TriangularSylvester(square(2), square(2), tf.zeros([2]), [1, 1]),
            ValueError,
            r"each of 0 to 1 once\. Received: permutation=\[1, 1\]\.",
        ),
        (
            lambda: fvb.TriangularSylvester(square(2), square(2), tf.zeros([2]), [0, 1, 2]),
            ValueError,
            r"\[\.\.\., 2\]\. Received: permutation\.shape=\(3,\)\.",
        ),
        (
            lambda: fvb.TriangularSylvester(square(2), square(2), tf.zeros([2]), [0.0, 1.0]),
            TypeError,
            r"int32 or int64\. Received: permutation\.dtype=float64\.",
        ),
        (
            lambda: fvb.TriangularSylvester(
                square(2), square(2), tf.constant([0.0, np.nan]), validate_args=True
            ),
            ValueError,
            r"finite parameters\. Received: b holding nan\.",
        ),
        (
            lambda: fvb.TriangularSylvester(square(2), square(2), tf.zeros([2])).forward([1.0]),
            ValueError,
            r"inputs of shape \[\.\.\., 2\]\. Received: shape \(1,\)\.",
        ),
        (
            lambda: fvb.OrthogonalSylvester(
                tf.zeros([3, 2]), square(2), square(2), tf.zeros([2])
            ).inverse([1.0, 2.0]),
            ValueError,
            r"D=3 takes inputs of shape \[\.\.\., 3\]\. Received: shape \(2,\)\.",
        ),
    ],
)
def test_errors_name_what_was_received(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_validate_args_checks_a_variable_permutation_when_it_is_used():
    order = tf.Variable([0, 1], trainable=False)
    flow = fvb.TriangularSylvester(square(2), square(2), tf.zeros([2]), order, validate_args=True)
    assert_array_equal(flow.forward([1.0, 2.0]), [1.0, 2.0])
    order.assign([1, 1])
    with pytest.raises(tf.errors.InvalidArgumentError, match="each of 0 to D - 1 once"):
        flow.forward([1.0, 3.0])
