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

    Example:
      >>> entry = NETWORKS["mlp"]
      >>> entry.load().__name__, entry.load_decoder().__name__
      ('MLPEncoder', 'MLPDecoder')
    """

    decoder: str | type = ""

    def load_decoder(self) -> Any:
        """Imports and returns the decoder's class."""
        return load(self.decoder)


_ACTIVATIONS = ("elu", "relu", "silu", "softplus", "tanh", "gelu", "linear")


def _entry(classes: str, summary: str, activation: str = "elu", **shapes: str) -> NetworkEntry:
    """The entry of an `...Encoder` and a `...Decoder`, with the encoder's defaults as options."""
    encoder, decoder = (f"tfp_flowvae.networks.{classes}{end}" for end in ("Encoder", "Decoder"))
    options: dict[str, Option] = {name: sizes(default) for name, default in shapes.items()}
    options["activation"] = word(*_ACTIVATIONS, default=activation)
    options["norm"] = word(*NORMS)
    first = "" if "channels" in options else "hidden"
    return NetworkEntry(
        summary=summary, target=encoder, decoder=decoder, options=options, first=first
    )


NETWORKS: Registry[NetworkEntry] = Registry(
    "network",
    "networks",
    {
        "mlp": _entry("mlp:MLP", "dense layers", hidden="300x300"),
        "gated-mlp": _entry(
            "gated_mlp:GatedMLP",
            "gated dense layers (Tomczak & Welling 2018)",
            "linear",
            hidden="300x300",
        ),
        "residual-mlp": _entry(
            "residual_mlp:ResidualMLP",
            "dense residual blocks (He et al. 2016)",
            hidden="300x300",
        ),
        "gated-conv": _entry(
            "gated_conv:GatedConv",
            "gated 5 x 5 convolutions (van den Berg et al. 2018)",
            "linear",
            hidden="256",
            channels="32x32x64x64x64",
        ),
        "resnet": _entry(
            "resnet:ResNet",
            "convolutional residual blocks (He et al. 2016)",
            hidden="256",
            channels="32x64x64",
        ),
    },
)
"""The networks by name: those of the package and those that `register_network` adds.

Example:
  >>> list(NETWORKS)
  ['mlp', 'gated-mlp', 'residual-mlp', 'gated-conv', 'resnet'...]
"""


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

    Example:
      >>> class CenteredEncoder(fv.networks.MLPEncoder):  # it sees pixels from -1 to 1
      ...     def call(self, x, **kwargs):
      ...         return super().call(2.0 * x - 1.0, **kwargs)
      >>> class CenteredDecoder(fv.networks.MLPDecoder):
      ...     pass
      >>> fv.register_network(
      ...     "centered", summary="dense layers", encoder=CenteredEncoder, decoder=CenteredDecoder
      ... )
      >>> vae = fv.FlowVAE(image_shape=(8, 8, 1), latent_size=2, encoder="centered:hidden=16")
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
    entry, options = _read(spec, options)
    return entry.load()(tuple(image_shape), **options)


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
    entry, options = _read(spec, options)
    return entry.load_decoder()(tuple(image_shape), event_size, output_channels, **options)


def _read(spec: str, options: dict[str, Any]) -> tuple[NetworkEntry, dict[str, Any]]:
    """The entry that a spec names, and its options with those that are given on top.

    Raises:
      UserError: If one of them is an option of other networks alone.
    """
    parsed = parse(NETWORKS, spec)
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        takers = [other for other, entry in NETWORKS.items() if key in entry.options]
        if takers and parsed.name not in takers:
            raise UserError(
                f"The network {parsed.name!r} has no {key}; those that do are "
                f"{', '.join(takers)}. Received: {key}={value}."
            )
    return NETWORKS[parsed.name], {**parsed.options, **given}
