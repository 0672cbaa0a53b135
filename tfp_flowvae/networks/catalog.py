"""The encoders and decoders by name: everything that iterates over them starts here.

An entry holds strings and small numbers only, so that the command line can list every network
without importing TensorFlow.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tfp_flowvae.errors import UserError, nearest

if TYPE_CHECKING:
    from tfp_flowvae.networks.image import ImageDecoder, ImageEncoder

NORMS = ("none", "batch", "layer")


@dataclass(frozen=True)
class NetworkEntry:
    """What is known of an encoder and its decoder without importing them.

    Attributes:
      summary: One line for the command line's help.
      encoder: `module:Class` of the encoder.
      decoder: `module:Class` of the decoder.
      sizes: Which size options they take, each with its default in the encoder and the decoder:
        `hidden`, and `channels` where there are convolutions.
      activation: The default activation.
    """

    summary: str
    encoder: str
    decoder: str
    sizes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    activation: str = "elu"

    def load_encoder(self) -> type[ImageEncoder]:
        """Imports and returns the encoder's class."""
        return _load(self.encoder)

    def load_decoder(self) -> type[ImageDecoder]:
        """Imports and returns the decoder's class."""
        return _load(self.decoder)


_DENSE = {"hidden": ((300, 300), (300, 300))}

NETWORKS: Mapping[str, NetworkEntry] = MappingProxyType(
    {
        "mlp": NetworkEntry(
            summary="dense layers",
            encoder="tfp_flowvae.networks.mlp:MLPEncoder",
            decoder="tfp_flowvae.networks.mlp:MLPDecoder",
            sizes=_DENSE,
        ),
        "gated-mlp": NetworkEntry(
            summary="gated dense layers (Tomczak & Welling 2018)",
            encoder="tfp_flowvae.networks.gated_mlp:GatedMLPEncoder",
            decoder="tfp_flowvae.networks.gated_mlp:GatedMLPDecoder",
            sizes=_DENSE,
            activation="linear",
        ),
        "residual-mlp": NetworkEntry(
            summary="dense residual blocks (He et al. 2016)",
            encoder="tfp_flowvae.networks.residual_mlp:ResidualMLPEncoder",
            decoder="tfp_flowvae.networks.residual_mlp:ResidualMLPDecoder",
            sizes=_DENSE,
        ),
        "gated-conv": NetworkEntry(
            summary="gated 5 x 5 convolutions (van den Berg et al. 2018)",
            encoder="tfp_flowvae.networks.gated_conv:GatedConvEncoder",
            decoder="tfp_flowvae.networks.gated_conv:GatedConvDecoder",
            sizes={
                "hidden": ((256,), ()),
                "channels": ((32, 32, 64, 64, 64), (64, 32, 32, 32, 32)),
            },
            activation="linear",
        ),
        "resnet": NetworkEntry(
            summary="convolutional residual blocks (He et al. 2016)",
            encoder="tfp_flowvae.networks.resnet:ResNetEncoder",
            decoder="tfp_flowvae.networks.resnet:ResNetDecoder",
            sizes={"hidden": ((256,), ()), "channels": ((32, 64, 64), (64, 64, 32))},
        ),
    }
)


def find(kind: str) -> NetworkEntry:
    """The entry of this name.

    Raises:
      UserError: If there is none, naming those there are.
    """
    if kind not in NETWORKS:
        raise UserError(
            f"Unknown network {kind!r}: choose from {', '.join(NETWORKS)}.{nearest(kind, NETWORKS)}"
        )
    return NETWORKS[kind]


def make_encoder(
    kind: str,
    image_shape: Sequence[int],
    *,
    hidden: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
    activation: str | None = None,
    norm: str = "none",
    **kwargs: Any,
) -> ImageEncoder:
    """An encoder from images `[..., H, W, C]` to features `[..., hidden[-1]]`.

    Args:
      kind: A name in `NETWORKS`.
      image_shape: `(H, W, C)`.
      hidden: Sizes of the dense layers; the kind's default where None.
      channels: Channels of the convolutions; the kind's default where None.
      activation: The kind's default where None.
      norm: "none", "batch" or "layer".
      **kwargs: See the encoder's class.

    Raises:
      UserError: If the kind is unknown or takes no channels.
    """
    options = _options(kind, 0, hidden, channels, activation)
    return find(kind).load_encoder()(image_shape, **options, norm=norm, **kwargs)


def make_decoder(
    kind: str,
    image_shape: Sequence[int],
    event_size: int,
    *,
    output_channels: int | None = None,
    hidden: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
    activation: str | None = None,
    norm: str = "none",
    **kwargs: Any,
) -> ImageDecoder:
    """A decoder from latent vectors `[..., D]` to `[..., H, W, output_channels]`.

    Args:
      kind: A name in `NETWORKS`.
      image_shape: `(H, W, C)`.
      event_size: D.
      output_channels: How many numbers the likelihood takes for each pixel; C where None.
      hidden: Sizes of the dense layers in the decoder's order; the kind's default where None.
      channels: Channels of the convolutions in the decoder's order; the kind's default where None.
      activation: The kind's default where None.
      norm: "none", "batch" or "layer".
      **kwargs: See the decoder's class.

    Raises:
      UserError: If the kind is unknown or takes no channels.
    """
    options = _options(kind, 1, hidden, channels, activation)
    return find(kind).load_decoder()(
        image_shape, event_size, output_channels, **options, norm=norm, **kwargs
    )


def load_all() -> None:
    """Imports every encoder and decoder.

    Keras finds the class of a saved layer by its registered name, which exists from the moment that
    the class's module is imported.
    """
    for entry in NETWORKS.values():
        entry.load_encoder()
        entry.load_decoder()


def _options(
    kind: str,
    side: int,
    hidden: Sequence[int] | None,
    channels: Sequence[int] | None,
    activation: str | None,
) -> dict[str, Any]:
    entry = find(kind)
    given = {"hidden": hidden, "channels": channels}
    if channels is not None and "channels" not in entry.sizes:
        takers = [name for name, other in NETWORKS.items() if "channels" in other.sizes]
        raise UserError(
            f"The network {kind!r} has no channels; those that do are {', '.join(takers)}. "
            f"Received: channels={tuple(channels)}."
        )
    sizes = {
        name: default[side] if given[name] is None else given[name]
        for name, default in entry.sizes.items()
    }
    return {**sizes, "activation": activation or entry.activation}


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
