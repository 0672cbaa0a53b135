"""The command `train`."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tfp_flowvae.cli.epilog import epilog
from tfp_flowvae.cli.one_sentence import number, whole_number
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.options import WHOLE_NUMBERS, flag_of, option_of, plain_type
from tfp_flowvae.runs.output import Output
from tfp_flowvae.runs.start import choose_config, resumed_folder
from tfp_flowvae.training.strategy import STRATEGIES

_READERS = {int: whole_number, float: number, str: str, WHOLE_NUMBERS: whole_number}


def add_command(commands: Any, prog: str | None) -> None:
    """Adds the command to the subparsers.

    Args:
      commands: What `add_subparsers` returned.
      prog: How the user called the command, if not as `tfp-flowvae train`.
    """
    parser = commands.add_parser(
        "train",
        help="train a flow VAE on images and export it",
        description="Trains a flow VAE on images; writes a SavedModel, numbers and pictures.",
        epilog=epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **({"prog": prog} if prog else {}),
    )
    parser.set_defaults(run=_run, parser=parser)
    group, kinds = parser, typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        if option_of(field).group:
            group = parser.add_argument_group(option_of(field).group)
        _add_field(group, field, plain_type(kinds[field.name]))
    _add_machine(parser.add_argument_group("machine"))
    _add_output(parser.add_argument_group("output"))


def _add_field(group: Any, field: dataclasses.Field[Any], kind: Any) -> None:
    """Adds the option of a config field. The config checks the value, not the parser."""
    rules = option_of(field)
    default = rules.shown or field.default
    shown = "" if default is None else f" (default: {default})"
    settings: dict[str, Any] = {
        "help": rules.help.replace("%", "%%") + shown,
        "default": argparse.SUPPRESS,
    }
    if kind is bool:
        settings["action"] = argparse.BooleanOptionalAction
    else:
        name = _braces(rules.choices) if rules.choices else rules.metavar or field.name.upper()
        settings |= {"type": _READERS[kind], "metavar": name}
    if kind == WHOLE_NUMBERS:
        settings["nargs"] = rules.length or "+"
    if rules.length:
        settings["metavar"] = tuple(settings["metavar"].split())
    group.add_argument(flag_of(field.name), **settings)


def _braces(words: Iterable[str]) -> str:
    """Words as argparse shows the choices of an option."""
    return "{" + ",".join(words) + "}"


def _add_machine(group: Any) -> None:
    group.add_argument(
        "--strategy",
        default="none",
        metavar=_braces(STRATEGIES),
        help="the devices to train on; none: one device (default); mirrored: all devices of this "
        "machine; multiworker: all devices of the cluster in TF_CONFIG (docs/distributed.md); the "
        "results are the same up to rounding",
    )
    group.add_argument(
        "--stream",
        nargs="?",
        type=Path,
        const=Path("~/.cache/tfp_flowvae"),
        metavar="CACHE",
        help="for data sets larger than memory: decode the images once into the folder CACHE "
        "(default: ~/.cache/tfp_flowvae) and read them from there; the results are the same",
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
        help="continue the run in DIR, or in --output, from its last checkpoint and with its "
        "settings; only --epochs (a cosine schedule then ends at the new number), --learning-rate "
        "and --clip-norm may change",
    )
    group.add_argument(
        "--checkpoint-steps",
        type=whole_number,
        default=0,
        metavar="N",
        help="also write a checkpoint every N steps within an epoch; a multiple of a number near "
        "50, such as 100, is fastest (default: 0, only at the end of each epoch)",
    )
    group.add_argument(
        "--config",
        metavar="FILE",
        help="repeat the run of a config.json; other options override its settings",
    )
    group.add_argument(
        "--preset",
        metavar="NAME",
        help="start from the settings of a preset, see below; other options override them",
    )
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="write logs for TensorBoard into tensorboard/ in the run's folder",
    )
    group.add_argument(
        "--no-report",
        action="store_true",
        help="leave out report.html, the page about the model, which takes seconds; the command "
        "report makes it later",
    )
    group.add_argument(
        "--verbose",
        type=int,
        choices=(0, 1, 2),
        default=1,
        help="0: print the summary only; 1: also the metrics of each epoch, with a progress bar on "
        "a terminal (default); 2: the same without a progress bar",
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
        no_report=arguments.no_report,
        strategy=arguments.strategy,
        stream=arguments.stream,
    )
    config = choose_config(given, arguments.preset, arguments.config, path if resume else None)
    from tfp_flowvae.runs.run import train

    return train(config, output)
