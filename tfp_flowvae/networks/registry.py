"""The registry of encoders and decoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfp_flowvae.errors import UserError
from tfp_flowvae.registry import Entry, Registry, load, options_of
from tfp_flowvae.spec import parse
from tfp_flowvae.spec_options import Option, sizes, word

if TYPE_CHECKING:
    import keras

NORMS = ("none", "batch", "layer")


@dataclass(frozen=True, kw_only=True)
class NetworkEntry(Entry):
    """What is known of an encoder and its decoder without importing them; see also `Entry`.

    Attributes:
      decoder: The decoder's class, or `module:Class`; `target` is the encoder's.
    """

    decoder: str | type = ""

    def load_decoder(self) -> Any:
        """Imports and returns the decoder's class."""
        return load(self.decoder)


_NETWORKS = "tfp_flowvae.networks"
_ACTIVATIONS = ("elu", "relu", "silu", "softplus", "tanh", "gelu", "linear")


def _options(
    hidden: str = "300x300", channels: str | None = None, activation: str = "elu"
) -> dict[str, Option]:
    """Options with the encoder's defaults."""
    return {
        "hidden": sizes(hidden),
        **({} if channels is None else {"channels": sizes(channels)}),
        "activation": word(*_ACTIVATIONS, default=activation),
        "norm": word(*NORMS),
    }


NETWORKS: Registry[NetworkEntry] = Registry(
    "network",
    "networks",
    {
        "mlp": NetworkEntry(
            summary="dense layers",
            target=f"{_NETWORKS}.mlp:MLPEncoder",
            decoder=f"{_NETWORKS}.mlp:MLPDecoder",
            options=_options(),
            first="hidden",
        ),
        "gated-mlp": NetworkEntry(
            summary="gated dense layers (Tomczak & Welling 2018)",
            target=f"{_NETWORKS}.gated_mlp:GatedMLPEncoder",
            decoder=f"{_NETWORKS}.gated_mlp:GatedMLPDecoder",
            options=_options(activation="linear"),
            first="hidden",
        ),
        "residual-mlp": NetworkEntry(
            summary="dense residual blocks (He et al. 2016)",
            target=f"{_NETWORKS}.residual_mlp:ResidualMLPEncoder",
            decoder=f"{_NETWORKS}.residual_mlp:ResidualMLPDecoder",
            options=_options(),
            first="hidden",
        ),
        "gated-conv": NetworkEntry(
            summary="gated 5 x 5 convolutions (van den Berg et al. 2018)",
            target=f"{_NETWORKS}.gated_conv:GatedConvEncoder",
            decoder=f"{_NETWORKS}.gated_conv:GatedConvDecoder",
            options=_options("256", "32x32x64x64x64", "linear"),
        ),
        "resnet": NetworkEntry(
            summary="convolutional residual blocks (He et al. 2016)",
            target=f"{_NETWORKS}.resnet:ResNetEncoder",
            decoder=f"{_NETWORKS}.resnet:ResNetDecoder",
            options=_options("256", "32x64x64"),
        ),
    },
)


def register_network(
    name: str, *, summary: str, encoder: type, decoder: type, package: str = "custom"
) -> None:
    """Registers an encoder and its decoder under a name, for spec strings and `--help`.

    Args:
      name: The name.
      summary: One line for the command line's help.
      encoder: A Keras layer class, made as `encoder(image_shape, **options)`: from images
        `[B, H, W, C]` to features `[B, F]`.
      decoder: A Keras layer class, made as `decoder(image_shape, event_size, output_channels,
        **options)`: from latent vectors `[B, D]` to `[B, H, W, output_channels]`.
      package: The package under which `.keras` files name the classes.

    Raises:
      UserError: If the name is taken or cannot stand in a spec string.
    """
    import keras

    options = options_of(encoder)
    first = next(iter(options), "")
    entry = NetworkEntry(
        summary=summary, target=encoder, decoder=decoder, options=options, first=first
    )
    NETWORKS.add(name, entry)
    for cls in (encoder, decoder):
        keras.saving.register_keras_serializable(package=package)(cls)


def make_encoder(spec: str, image_shape: Sequence[int], **options: Any) -> keras.layers.Layer:
    """An encoder from images `[..., H, W, C]` to features `[..., F]`.

    Args:
      spec: A name in `NETWORKS` or a spec string, such as `"mlp:128x128,activation=relu"`.
      image_shape: `(H, W, C)`.
      **options: Further arguments of the class; those that are None stay at its defaults.

    Raises:
      UserError: If the spec does not parse, or the network has no such option.
    """
    parsed = parse(NETWORKS, spec)
    options = {**parsed.options, **_known(parsed.name, options)}
    return parsed.entry.load()(tuple(image_shape), **options)


def make_decoder(
    spec: str,
    image_shape: Sequence[int],
    event_size: int,
    *,
    output_channels: int | None = None,
    **options: Any,
) -> keras.layers.Layer:
    """A decoder from latent vectors `[..., D]` to `[..., H, W, output_channels]`.

    Args:
      spec: As in `make_encoder`, with sizes in the decoder's order.
      image_shape: `(H, W, C)`.
      event_size: D.
      output_channels: How many numbers the likelihood takes for each pixel; C where None.
      **options: As in `make_encoder`.

    Raises:
      UserError: If the spec does not parse, or the network has no such option.
    """
    parsed = parse(NETWORKS, spec)
    options = {**parsed.options, **_known(parsed.name, options)}
    make = NETWORKS[parsed.name].load_decoder()
    return make(tuple(image_shape), event_size, output_channels, **options)


def _known(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are given.

    Raises:
      UserError: If one of them is an option of other networks alone.
    """
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        takers = [other for other, entry in NETWORKS.items() if key in entry.options]
        if takers and name not in takers:
            raise UserError(
                f"The network {name!r} has no {key}; those that do are {', '.join(takers)}. "
                f"Received: {key}={value}."
            )
    return given
