"""The registry of flows of images, and which images they take, without importing TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

from tfp_flowvae.errors import UserError
from tfp_flowvae.registry import Entry, Registry
from tfp_flowvae.spec_options import Option, whole_number, word

COUPLINGS = ("affine", "additive", "spline", "mixture")


def _options(levels: str, steps: str) -> dict[str, Option]:
    return {
        "levels": whole_number(levels),
        "steps": whole_number(steps),
        "width": whole_number("64"),
        "coupling": word(*COUPLINGS),
    }


IMAGE_FLOWS: Registry[Entry] = Registry(
    "image flow",
    "image flows",
    {
        "glow": Entry(
            summary="scales of ActNorm, 1 x 1 convolution, coupling (Kingma & Dhariwal 2018)",
            target="tfp_flowvae.flows.image:Glow",
            options=_options("2", "8"),
        ),
        "realnvp-image": Entry(
            summary="scales of checkerboard and channel couplings (Dinh et al. 2017)",
            target="tfp_flowvae.flows.image:RealNVPImage",
            options=_options("2", "3"),
        ),
    },
)
"""The flows of images by name, which `FlowDensity` takes with an `event_shape`.

Example:
  >>> list(IMAGE_FLOWS)
  ['glow', 'realnvp-image']
  >>> sorted(IMAGE_FLOWS["glow"].options)
  ['coupling', 'levels', 'steps', 'width']
"""


def check_no_image_flow(name: str, text: str) -> None:
    """Raises `UserError` if a name in the spec of a flow of vectors is that of a flow of images."""
    if name in IMAGE_FLOWS:
        raise UserError(
            f"{name!r} is a flow of images and stands alone: give it to FlowDensity with an "
            f"event_shape, or to train with --model flow. Received: {text!r}."
        )


def check_levels(name: str, levels: int, image_shape: Sequence[int]) -> None:
    """Refuses images whose height or width cannot be halved so many times.

    Args:
      name: The name of the flow.
      levels: L, how many times it halves them.
      image_shape: `(H, W, C)`.

    Raises:
      UserError: If H or W is no multiple of 2^L.
    """
    height, width, _ = image_shape
    block = 2**levels
    padded = tuple(size + -size % block for size in (height, width))
    if padded == (height, width):
        return
    most = min((size & -size).bit_length() - 1 for size in (height, width))
    fewer = f", or take levels={most}" if most else ""
    raise UserError(
        f"The flow {name!r} with levels={levels} halves images {levels} "
        f"{'time' if levels == 1 else 'times'}, so height and width must be multiples of {block}: "
        f"pad the images to {padded[0]} x {padded[1]} with numpy.pad{fewer}. "
        f"Received: image_shape={tuple(image_shape)}."
    )
