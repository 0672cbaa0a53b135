"""The command `train`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfp_flowvae.cli.epilog import epilog
from tfp_flowvae.cli.one_sentence import number, whole_number
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.options import field_types, flag_of, is_list, option_of, plain_type
from tfp_flowvae.runs.output import Output
from tfp_flowvae.runs.resume import resumed_folder
from tfp_flowvae.runs.start import choose_config
from tfp_flowvae.training.strategy import STRATEGIES


def add_command(commands: Any, prog: str | None) -> None:
    """Adds the command to the subparsers.

    Args:
      commands: What `add_subparsers` returned.
      prog: How the user called the command, if not as `tfp-flowvae train`.
    """
    parser = commands.add_parser(
        "train",
        help="train a flow VAE on images and export it",
        description="Trains a flow VAE on images; writes a SavedModel, its numbers and pictures.",
        epilog=epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **({"prog": prog} if prog else {}),
    )
    parser.set_defaults(run=_run, parser=parser)
    fields = dataclasses.fields(TrainConfig)
    for title in dict.fromkeys(option_of(field).group for field in fields):
        group = parser.add_argument_group(title)
        for field in fields:
            if option_of(field).group == title:
                _add_field(group, field)
    _add_machine(parser.add_argument_group("machine"))
    _add_output(parser.add_argument_group("output"))


def _add_field(group: Any, field: dataclasses.Field[Any]) -> None:
    """Adds the option of a config field."""
    kind, rules = field_types(TrainConfig)[field.name], option_of(field)
    default = rules.shown or field.default
    shown = "" if default is None else f" (default: {default})"
    settings: dict[str, Any] = {
        "help": rules.help.replace("%", "%%") + shown,
        "default": argparse.SUPPRESS,
    }
    if kind is bool:
        group.add_argument(flag_of(field.name), action=argparse.BooleanOptionalAction, **settings)
        return
    readers: dict[Any, Callable[[str], Any]] = {int: whole_number, float: number}
    if is_list(kind):
        settings |= {"nargs": rules.length or "+", "type": whole_number}
    else:
        settings["type"] = readers.get(plain_type(kind), str)
    # The help shows the choices; the config checks them.
    settings["metavar"] = "{" + ",".join(rules.choices) + "}" if rules.choices else None
    settings["metavar"] = settings["metavar"] or rules.metavar or field.name.upper()
    if rules.length:
        settings["metavar"] = tuple(settings["metavar"].split())
    group.add_argument(flag_of(field.name), **settings)


def _add_machine(group: Any) -> None:
    group.add_argument(
        "--strategy",
        default="none",
        metavar="{" + ",".join(STRATEGIES) + "}",
        help="none: one device (default); mirrored: all devices of this machine; multiworker: all "
        "devices of the cluster in TF_CONFIG (docs/distributed.md); the numbers stay the same",
    )
    group.add_argument(
        "--stream",
        nargs="?",
        type=Path,
        const=Path("~/.cache/tfp_flowvae"),
        metavar="CACHE",
        help="for data sets larger than memory: decode the images once into the folder CACHE "
        "(default: ~/.cache/tfp_flowvae) and read them from there; the numbers stay the same",
    )


def _add_output(group: Any) -> None:
    group.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="the folder to write (default: a new numbered folder under saved_models/)",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the content of --output when the run is complete",
    )
    group.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="DIR",
        help="continue the run in DIR, or in --output, from its last checkpoint; its settings are "
        "kept, but --epochs may be more (a cosine schedule then ends at the new number)",
    )
    group.add_argument(
        "--checkpoint-steps",
        type=whole_number,
        default=0,
        metavar="N",
        help="write a checkpoint also every N steps within an epoch; fastest if N has a divisor "
        "near 50, as 100 has (default: 0, only at the end of each epoch)",
    )
    group.add_argument(
        "--config",
        metavar="FILE",
        help="repeat the run of a config.json; options given override it",
    )
    group.add_argument(
        "--preset",
        metavar="NAME",
        help="start from named settings, see below; options given override them",
    )
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="write TensorBoard logs into tensorboard/ in the folder",
    )
    group.add_argument(
        "--verbose",
        type=int,
        choices=(0, 1, 2),
        default=1,
        help="0: the summary only; 1: a progress bar (default); 2: one line per epoch",
    )


def _run(arguments: argparse.Namespace) -> int:
    values = vars(arguments)
    given = {f.name: values[f.name] for f in dataclasses.fields(TrainConfig) if f.name in values}
    path, resume = arguments.output, arguments.resume is not None
    if resume:
        path = resumed_folder(arguments.resume, path, arguments.overwrite)
    output = Output(
        path,
        overwrite=arguments.overwrite,
        resume=resume,
        checkpoint_steps=arguments.checkpoint_steps,
        verbose=arguments.verbose,
        tensorboard=arguments.tensorboard,
        strategy=arguments.strategy,
        stream=arguments.stream,
    )
    config = choose_config(
        given,
        preset=arguments.preset,
        file=arguments.config,
        resumed=path if resume else None,
    )
    from tfp_flowvae.runs.run import train

    return train(config, output)
