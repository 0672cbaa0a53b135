"""The end of `train --help`: the names that options take, from the registries."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from tfp_flowvae.distributions.registry import BASES
from tfp_flowvae.flows.image_registry import IMAGE_FLOWS
from tfp_flowvae.flows.registry import FLOWS
from tfp_flowvae.likelihoods import LIKELIHOODS
from tfp_flowvae.networks.registry import NETWORKS
from tfp_flowvae.registry import Entry
from tfp_flowvae.runs.presets import PRESETS

_GRAMMAR = """\
A SPEC is one flow, or several flows joined by +; they are applied to the base sample from left to
right. Options follow a colon. Examples:
  iaf   planar:10   iaf:2,hidden=320x320   householder:4+iaf:2   none
"""


def epilog() -> str:
    """Returns what each registered name stands for."""
    bases = {
        name: f"{entry.summary}{_in_brackets(_describe_options(entry))}"
        for name, entry in BASES.items()
    }
    options = {name: _describe_options(entry) for name, entry in FLOWS.items() if entry.options}
    sections = [
        _list("flows", _summaries(FLOWS)),
        _GRAMMAR,
        _list("options of flows (K is the number of layers)", options),
        _list(
            "flows of images (--model flow)",
            {
                name: f"{entry.summary} [{_describe_options(entry)}]"
                for name, entry in IMAGE_FLOWS.items()
            },
        ),
        _list("bases (in a prior, before its flows: mixture:20, vamp:100+realnvp:4)", bases),
        _list("likelihoods", _summaries(LIKELIHOODS)),
        _list("encoders and decoders", _summaries(NETWORKS)),
        _list("presets", _summaries(PRESETS)),
    ]
    return "\n".join(sections)


def _summaries(registry: Mapping[str, Any]) -> dict[str, str]:
    return {name: entry.summary for name, entry in registry.items()}


def _list(title: str, lines: Mapping[str, str]) -> str:
    """A titled list of names, each with its text wrapped beside it."""
    width = max(map(len, lines)) + 4
    wrapped = [
        textwrap.fill(
            text,
            width=100,
            initial_indent=f"  {name}".ljust(width),
            subsequent_indent=" " * width,
            break_on_hyphens=False,
        )
        for name, text in lines.items()
    ]
    return "\n".join([f"{title}:", *wrapped, ""])


def _describe_options(entry: Entry) -> str:
    """The options of a spec string, each with what it takes and its default."""
    described = []
    for key, option in entry.options.items():
        default = f" (default {option.default})" if option.default else ""
        value = "K" if key == entry.first else f"{key}={option.expected}"
        described.append(value + default)
    return "; ".join(described)


def _in_brackets(text: str) -> str:
    return f" [{text}]" if text else ""
