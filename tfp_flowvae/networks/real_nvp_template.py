"""The `real_nvp_default_template` of TFP for Keras 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
import tensorflow as tf

from tfp_flowvae.networks.tfp_layer import TFPLayer, fresh


def real_nvp_default_template(
    hidden_layers: Sequence[int],
    shift_only: bool = False,
    activation: Any = "relu",
    name: str | None = None,
    **kwargs: Any,
) -> RealNVPTemplate:
    """Returns the `tfb.real_nvp_default_template` of TFP 0.25 as a Keras 3 layer.

    Example:
      >>> template = real_nvp_default_template(hidden_layers=[16, 16])
      >>> flow = tfb.RealNVP(num_masked=2, shift_and_log_scale_fn=template)
      >>> flow.forward(tf.zeros([5, 4])).shape
      TensorShape([5, 4])

    Args:
      hidden_layers: Sizes of the hidden layers. [] for none.
      shift_only: Whether there is no log-scale, as in NICE.
      activation: The activation of the hidden layers. None for the identity.
      name: The layer's name.
      **kwargs: Arguments of the dense layers, see `keras.layers.Dense`.

    Returns:
      A `shift_and_log_scale_fn` for `tfb.RealNVP`.
    """
    return RealNVPTemplate(hidden_layers, shift_only, activation, dense=kwargs, name=name)


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class RealNVPTemplate(TFPLayer):
    """Dense layers that condition a `tfb.RealNVP`: what `real_nvp_default_template` returns.

    A call `template(x, output_units)` maps x `[..., d]` to the pair shift and log-scale,
    `[..., output_units]` each, or to shift and None. The log-scales are not bounded. The first call
    fixes the sizes and the dtype, which is that of x.

    Args:
      hidden_layers: Sizes of the hidden layers. [] for none.
      shift_only: Whether there is no log-scale.
      activation: The activation of the hidden layers. None for the identity.
      output_units: Taken from the first call if None.
      dense: Arguments of the dense layers, see `keras.layers.Dense`.
      **kwargs: See `keras.layers.Layer`.

    Example:
      >>> template = RealNVPTemplate(hidden_layers=[16], shift_only=True)
      >>> shift, log_scale = template(tf.zeros([5, 2]), output_units=3)
      >>> shift.shape, log_scale
      (TensorShape([5, 3]), None)
    """

    def __init__(
        self,
        hidden_layers: Sequence[int],
        shift_only: bool = False,
        activation: Any = "relu",
        output_units: int | None = None,
        dense: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._hidden_layers, self._shift_only = tuple(hidden_layers), shift_only
        self._activation = keras.activations.get(activation)
        self._output_units: Any = output_units  # known once the layer is built
        self._dense = dense or {}

    def __call__(
        self, x: Any, output_units: int, **condition_kwargs: Any
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns shift and log-scale for x `[..., d]`.

        Raises:
          NotImplementedError: If there are further arguments: as in TFP, there is no conditioning.
          ValueError: If `output_units` is not that of the first call.
        """
        if condition_kwargs:
            raise NotImplementedError(
                "real_nvp_default_template takes no conditional inputs: write a conditioner of "
                f"your own. Received: {', '.join(condition_kwargs)}."
            )
        if not self.built:
            self._output_units = output_units
            self.dtype_policy = keras.backend.standardize_dtype(x.dtype)
        if output_units != self._output_units:
            raise ValueError(
                f"This template was built for output_units={self._output_units}: make one for each "
                f"coupling. Received: {output_units=}."
            )
        out = super().__call__(x)
        if self._shift_only:
            return out, None
        shift, log_scale = tf.split(out, 2, axis=-1)
        return shift, log_scale

    def build(self, input_shape: Any) -> None:
        """Creates the dense layers for x `[..., d]`."""
        outputs = (1 if self._shift_only else 2) * self._output_units
        sizes = (*self._hidden_layers, outputs)
        activations = [self._activation] * len(self._hidden_layers) + [None]
        self._layers_in_order = []
        for fan_in, units, activation in zip(
            (input_shape[-1], *sizes), sizes, activations, strict=False
        ):
            options = {name: fresh(value) for name, value in self._dense.items()}
            layer = keras.layers.Dense(units, activation, dtype=self.variable_dtype, **options)
            layer.build((None, fan_in))
            self._layers_in_order.append(layer)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps x `[..., d]` to shift and log-scale, next to one another."""
        h = tf.cast(x, self.variable_dtype)
        single = h.shape.rank == 1
        h = h[tf.newaxis] if single else h
        for layer in self._layers_in_order:
            h = layer(h)
        return h[0] if single else h

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, with the sizes of the first call."""
        return {
            **super().get_config(),
            "hidden_layers": self._hidden_layers,
            "shift_only": self._shift_only,
            "activation": keras.activations.serialize(self._activation),
            "output_units": self._output_units,
            "dense": keras.saving.serialize_keras_object(dict(self._dense)),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuilds the layer, and the objects among the arguments of its dense layers."""
        return cls(**{**config, "dense": keras.saving.deserialize_keras_object(config["dense"])})
