"""The `AutoregressiveNetwork` of TFP for Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_flowvae import _compat
from tfp_flowvae.networks.building import ensure_built
from tfp_flowvae.networks.degrees import entry_degrees, unit_degrees
from tfp_flowvae.networks.made import masks_of_degrees
from tfp_flowvae.networks.made_sweep import SweepNetwork, sweep
from tfp_flowvae.networks.masked_dense import MaskedDense
from tfp_flowvae.networks.tfp_layer import TFPLayer, fresh

_ORDERS = ("left-to-right", "right-to-left", "random")
_DEGREES = ("equal", "random")
_CONDITIONAL_LAYERS = ("all_layers", "first_layer")


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class AutoregressiveNetwork(TFPLayer):
    """`tfb.AutoregressiveNetwork` of TFP 0.25 as a Keras 3 layer: a MADE.

    Germain, Gregor, Murray & Larochelle (2015), https://arxiv.org/abs/1502.03509. Entry d of the
    output depends on those entries of x alone that come before d in the order.

    With the same weights, in the order of `get_weights`, it puts out the same numbers as TFP's.
    The mask multiplies the kernel in each call. TFP's sets the masked entries to 0 after each step
    of the optimizer, so there they still count in a clipped gradient norm.

    It is a `shift_and_log_scale_fn` as it is, with `params=2`. The log-scales are not bounded.
    `bijectors.ParallelMaskedAutoregressiveFlow` finds the y of its slow direction in the time of
    about one call, by `solve_in_order`.

    Example:
      >>> made = AutoregressiveNetwork(params=2, hidden_units=[16, 16], activation="relu")
      >>> maf = tfb.MaskedAutoregressiveFlow(made)
      >>> maf.forward(tf.zeros([5, 4])).shape
      TensorShape([5, 4])

    Args:
      params: P, how many numbers to put out for each entry.
      event_shape: D, an integer or a list of one. None to take it from the first input.
      conditional: Whether there is a conditional input. It needs `event_shape`.
      conditional_event_shape: C, an integer or a list of one, if `conditional`.
      conditional_input_layers: "all_layers" adds a linear map of the conditional input to the sums
        of each layer, "first_layer" to those of the first. With the latter the first entry in the
        order does not depend on the conditional input unless D = 1, as in TFP.
      hidden_units: Sizes of the hidden layers. None or [] for none.
      input_order: "left-to-right", "right-to-left", "random", or the degrees 1, ..., D of the
        entries in any order.
      hidden_degrees: "equal" spreads the degrees of each hidden layer evenly. "random" draws them,
        as the random order, from Python's global generator when the layer is built; `get_config`
        holds what was drawn. Or the degrees themselves, a list for each hidden layer.
      activation: The activation of the hidden layers. None for the identity.
      use_bias: Whether the masked layers have a bias.
      kernel_initializer: Initializer of all kernels.
      bias_initializer: Initializer of the biases.
      kernel_regularizer: Regularizer of all kernels.
      bias_regularizer: Regularizer of the biases.
      kernel_constraint: Constraint on all kernels.
      bias_constraint: Constraint on the biases.
      validate_args: Has no effect, as in TFP.
      **kwargs: See `keras.layers.Layer`.

    Input shape: x `[..., D]` and, if `conditional`, `conditional_input` `[..., C]`, whose leading
    dimensions broadcast against those of x. Output shape: `[..., D, P]`.

    Raises:
      ValueError: If a shape does not have rank 1, a word is not one of those allowed, or the
        conditional arguments do not fit together.
    """

    def __init__(
        self,
        params: int,
        event_shape: Any = None,
        conditional: bool = False,
        conditional_event_shape: Any = None,
        conditional_input_layers: str = "all_layers",
        hidden_units: Sequence[int] | None = None,
        input_order: str | Sequence[int] = "left-to-right",
        hidden_degrees: str | Sequence[Sequence[int]] = "equal",
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        validate_args: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._params = params
        self._event_size: Any = _size("event_shape", event_shape)  # known once it is built
        self._conditional_size = _size("conditional_event_shape", conditional_event_shape)
        self._conditional = conditional
        if conditional != (self._conditional_size is not None):
            raise ValueError(
                "conditional_event_shape is given if, and only if, conditional is True. "
                f"Received: {conditional=}, {conditional_event_shape=}."
            )
        if conditional and self._event_size is None:
            raise ValueError(
                "A conditional network needs its event_shape in the constructor. "
                f"Received: {conditional=}, {event_shape=}."
            )
        _check_word("conditional_input_layers", conditional_input_layers, _CONDITIONAL_LAYERS)
        _check_word("input_order", input_order, _ORDERS)
        _check_word("hidden_degrees", hidden_degrees, _DEGREES)
        self._conditional_input_layers = conditional_input_layers
        self._hidden_units = tuple(hidden_units or ())
        self._input_order = _as_tuples(input_order)
        self._hidden_degrees = _as_tuples(hidden_degrees)
        self._activation = keras.activations.get(activation)
        self._use_bias, self._validate_args = use_bias, validate_args
        self._kernel = {
            "kernel_initializer": keras.initializers.get(kernel_initializer),
            "kernel_regularizer": keras.regularizers.get(kernel_regularizer),
            "kernel_constraint": keras.constraints.get(kernel_constraint),
        }
        self._bias = {
            "bias_initializer": keras.initializers.get(bias_initializer),
            "bias_regularizer": keras.regularizers.get(bias_regularizer),
            "bias_constraint": keras.constraints.get(bias_constraint),
        }

    @property
    def event_shape(self) -> list[int] | None:
        """`[D]`, or None as long as it is not known."""
        return None if self._event_size is None else [self._event_size]

    @property
    def params(self) -> int:
        """P."""
        return self._params

    def build(self, input_shape: Any) -> None:
        """Draws what is random, and creates the layers for x `[..., D]`."""
        if self._event_size is None:
            self._event_size = input_shape[-1]
        size = self._event_size
        if size is None or input_shape[-1] != size:
            raise ValueError(
                f"{type(self).__name__} takes points [..., {size or 'D'}] whose last dimension is "
                f"known. Received: shape {tuple(input_shape)}."
            )
        self._input_order = entry_degrees(self._input_order, size)
        self._hidden_degrees = unit_degrees(self._hidden_degrees, self._hidden_units, size)
        degrees = [np.array(d) for d in (self._input_order, *self._hidden_degrees)]
        masks = masks_of_degrees(degrees[0], degrees[1:], self._params)
        self._masked_layers, self._conditional_layers = [], []
        # In this order: get_weights then has that of TFP's.
        for k, mask in enumerate(masks):
            fan_in, units = mask.shape
            options = {"dtype": self.variable_dtype, **_fresh(self._kernel)}
            self._masked_layers.append(
                MaskedDense(
                    mask,
                    use_bias=self._use_bias,
                    name=f"masked_{k}",
                    **options,
                    **_fresh(self._bias),
                )
            )
            self._masked_layers[k].build((None, fan_in))
            if self._conditional and (k == 0 or self._conditional_input_layers == "all_layers"):
                options = {"dtype": self.variable_dtype, **_fresh(self._kernel)}
                self._conditional_layers.append(
                    keras.layers.Dense(units, use_bias=False, name=f"conditional_{k}", **options)
                )
                self._conditional_layers[k].build((None, self._conditional_size))

    def call(self, x: tf.Tensor, conditional_input: tf.Tensor | None = None) -> tf.Tensor:
        """Maps x `[..., D]` and the conditional input `[..., C]` to `[..., D, P]`."""
        single = all(len(value.shape) == 1 for value in (x, conditional_input) if value is not None)
        h = _at_least_rank_2(tf.cast(x, self.variable_dtype))
        added = self._added(conditional_input)
        for k, (layer, more) in enumerate(zip(self._masked_layers, added, strict=True)):
            h = layer(h if k == 0 else self._activation(h))
            if more is not None:
                h += more
        out = tf.reshape(h, tf.concat([tf.shape(h)[:-1], [self._event_size, self._params]], 0))
        return out[0] if single else out

    def _added(self, conditional_input: tf.Tensor | None) -> list[tf.Tensor | None]:
        """What the conditional input adds to each layer's sums."""
        if (conditional_input is not None) != self._conditional:
            raise ValueError(
                f"This {type(self).__name__} was made with conditional={self._conditional}: it "
                f"takes {'a' if self._conditional else 'no'} conditional_input. "
                f"Received: {conditional_input=}."
            )
        without: list[tf.Tensor | None] = [None] * len(self._masked_layers)
        if conditional_input is None:
            return without
        c = _at_least_rank_2(tf.cast(conditional_input, self.variable_dtype))
        added = [layer(c) for layer in self._conditional_layers]
        return added + without[len(added) :]

    def solve_in_order(
        self,
        x: tf.Tensor,
        transform: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        conditional_input: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The y with y_d = transform(output_d, x_d), where output is this network's at y.

        See `MADE.solve_in_order`; `conditional_input` `[..., C]` is that of a call. The units of
        each layer are sorted by degree first, since the sweep takes them so.
        """
        ensure_built(self, x.shape)
        added = self._added(conditional_input)
        if conditional_input is not None and len(conditional_input.shape) == 1:
            added = [None if more is None else more[0] for more in added]
        ascending = [np.argsort(d, kind="stable") for d in self._hidden_degrees]
        ends = [*ascending, np.arange(self._event_size * self._params)]
        starts = [np.arange(self._event_size), *ascending]

        def sort(values: tf.Tensor | None, places: np.ndarray) -> tf.Tensor | None:
            return None if values is None else tf.gather(values, places, axis=-1)

        network = SweepNetwork(
            kernels=[
                sort(tf.gather(_compat.live(layer.kernel), rows), columns)
                for layer, rows, columns in zip(self._masked_layers, starts, ends, strict=True)
            ],
            biases=[
                sort(_compat.live(layer.bias), columns)
                if self._use_bias
                else tf.zeros([len(columns)], self.variable_dtype)
                for layer, columns in zip(self._masked_layers, ends, strict=True)
            ],
            degrees=[np.sort(d) for d in self._hidden_degrees],
            activation=self._activation,
            order=np.argsort(self._input_order),
        )
        return sweep(network, x, transform, [sort(*pair) for pair in zip(added, ends, strict=True)])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, with the order and the degrees that were drawn."""
        serializers = {
            "initializer": keras.initializers.serialize,
            "regularizer": keras.regularizers.serialize,
            "constraint": keras.constraints.serialize,
        }
        return {
            **super().get_config(),
            "params": self._params,
            "event_shape": self._event_size,
            "conditional": self._conditional,
            "conditional_event_shape": self._conditional_size,
            "conditional_input_layers": self._conditional_input_layers,
            "hidden_units": list(self._hidden_units),
            "input_order": self._input_order,
            "hidden_degrees": self._hidden_degrees,
            "activation": keras.activations.serialize(self._activation),
            "use_bias": self._use_bias,
            "validate_args": self._validate_args,
            **{
                name: serializers[name.split("_")[1]](value)
                for name, value in {**self._kernel, **self._bias}.items()
            },
        }


def _size(name: str, shape: Any) -> int | None:
    """The integer of a shape of rank 1, which may be given as that integer."""
    sizes = [] if shape is None else np.atleast_1d(shape).tolist()
    if len(sizes) > 1:
        raise ValueError(f"{name} must have rank 1. Received: {name}={shape}.")
    return sizes[0] if sizes else None


def _check_word(name: str, value: Any, allowed: Sequence[str]) -> None:
    if isinstance(value, str) and value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}. Received: {name}={value!r}.")


def _as_tuples(value: Any) -> Any:
    """A word as it is; an array or a list, nested or not, as tuples of integers."""
    if isinstance(value, str | int):
        return value
    return tuple(
        _as_tuples(part) for part in (value.tolist() if hasattr(value, "tolist") else value)
    )


def _fresh(options: dict[str, Any]) -> dict[str, Any]:
    return {name: fresh(value) for name, value in options.items()}


def _at_least_rank_2(x: tf.Tensor) -> tf.Tensor:
    return x[tf.newaxis] if len(x.shape) == 1 else x
