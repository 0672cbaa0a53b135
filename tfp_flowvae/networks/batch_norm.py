"""A batch norm that can treat further inputs as it has treated a batch.

In training, the output of a network with batch norm at x depends on the whole batch X: it is
f(x; s(X)), s(X) the moments of X. A VampPrior needs the same function at its pseudo-inputs u, that
is f(u; s(X)). Another call in training would give f(u; s(U)), the output of another function, and
would move the moving statistics towards those of the pseudo-inputs.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae import _compat


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class BatchNormalization(_compat.RemembersMoments, keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, whose batch moments can be used again.

    Where it has normalised a batch in training within a call of an outer layer, a further call in
    inference within the same outer call uses the moments of that batch and leaves the moving
    statistics alone. All other calls are those of `keras.layers.BatchNormalization`.

    Example:
      >>> norm = BatchNormalization()
      >>> h = norm(tf.random.normal([100, 3]), training=True)  # by the moments of the batch
      >>> norm(tf.zeros([2, 3])).shape  # by the moving statistics
      TensorShape([2, 3])
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Maps `[B, ..., C]` to the same shape."""
        moments = None if training else self.moments_in_this_call()
        if moments is None:
            return super().call(inputs, training=training, mask=mask)
        mean, variance = moments
        outputs = keras.ops.batch_normalization(
            keras.ops.cast(inputs, mean.dtype),
            mean,
            variance,
            axis=self.axis,
            offset=self.beta,
            scale=self.gamma,
            epsilon=self.epsilon,
        )
        return keras.ops.cast(outputs, self.compute_dtype)
