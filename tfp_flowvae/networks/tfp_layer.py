"""The base class of Keras layers that are conditioners of TFP's bijectors as they are."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae import _compat


class TFPLayer(keras.layers.Layer, tf.Module):
    """A Keras layer whose variables TFP finds as well.

    TFP finds variables by walking `tf.Module`s and their attributes. A Keras 3 layer is no
    `tf.Module`, and its variables are no `tf.Variable`s. This layer is one, and it holds the
    `tf.Variable`s under its Keras variables. `trainable_variables` of a bijector that was given
    the layer, and of any distribution around it, are therefore complete once the layer is built; a
    Keras model trains the layer if the layer is one of its attributes.

    The layer computes in the dtype of its variables whatever the precision policy, because the
    log-dets of a flow need it. Inputs are cast to it.

    Args:
      **kwargs: See `keras.layers.Layer`.
    """

    name: Any = None  # Keras assigns it, and the property of tf.Module refuses that

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self._tf_variables = _compat.LiveVariables(self)


def fresh(initializer: Any) -> Any:
    """An initializer of the same kind that draws other numbers, unless it has a seed of its own.

    A random initializer of Keras 3 draws the same numbers whenever it is called, so each layer
    needs one of its own.
    """
    return initializer.clone() if isinstance(initializer, keras.Initializer) else initializer
