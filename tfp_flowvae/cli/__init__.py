"""The command line: `train` and `sample`.

Parsing imports nothing heavy, so that `--help` and a mistyped option are answered at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tfp_flowvae._backend import BackendError, check_backend
from tfp_flowvae._version import __version__
from tfp_flowvae.cli.epilog import epilog
from tfp_flowvae.errors import UserError, nearest
from tfp_flowvae.runs.config import TrainConfig, field_types
from tfp_flowvae.runs.options import flag_of, is_list, plain_type
from tfp_flowvae.runs.plugins import import_plugins
from tfp_flowvae.runs.presets import PRESETS
from tfp_flowvae.runs.resume import resumed_config, resumed_folder
from tfp_flowvae.training.strategy import STRATEGIES

EXIT_INTERRUPTED = 130


def entry_point() -> NoReturn:
    """The console script `tfp-flowvae`."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command line and returns its exit status.

    Args:
      argv: The arguments; those of the process by default.
      prog: How the user called the training command, if not `tfp-flowvae train`.

    Returns:
      0, or 1 when training diverged, 2 for a user's mistake, 75 when another worker of the cluster
      is gone, 130 after Ctrl-C, 143 after SIGTERM.
    """
    try:
        check_backend()
        argv = sys.argv[1:] if argv is None else argv
        import_plugins(argv)
        arguments = _parser(prog).parse_args(argv)
        return arguments.run(arguments)
    except BackendError as error:
        print(f"Error: {error}", file=sys.stderr)
        return UserError.status
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C; nothing was written.", file=sys.stderr)
        return EXIT_INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without repeating the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(UserError.status, f"Error: {message[0].upper()}{message[1:]}.\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command = getattr(arguments, "parser", self)
            known = [o for o in command._option_string_actions if o.startswith("--")]
            name = unknown[0].partition("=")[0]
            hint = nearest(name, known) or f" See {command.prog} --help."
            raise UserError(f"Unknown option {unknown[0]!r}.{hint}")
        return arguments


def _parser(train_prog: str | None) -> _Parser:
    parser = _Parser(
        prog="tfp-flowvae",
        description="Normalizing-flow variational autoencoders for TensorFlow.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tfp_flowvae {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands, train_prog)
    _add_sample(commands)
    return parser


def _add_train(commands: Any, prog: str | None) -> None:
    train = commands.add_parser(
        "train",
        help="train a flow VAE on images and export it",
        description="Trains a flow VAE on images; writes a SavedModel, its numbers and pictures.",
        epilog=epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **({"prog": prog} if prog else {}),
    )
    train.set_defaults(run=_train, parser=train)
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(TrainConfig):
        name = field.metadata["group"]
        group = groups.setdefault(name, None) or train.add_argument_group(name)
        groups[name] = group
        _add_field(group, field)
    _add_machine(train.add_argument_group("machine"))
    _add_output(train.add_argument_group("output"))


def _add_machine(machine: Any) -> None:
    """What a run is computed with, which does not change its numbers."""
    machine.add_argument(
        "--strategy",
        default="none",
        metavar="{" + ",".join(STRATEGIES) + "}",
        help="mirrored: all devices of this machine; multiworker: those of a cluster, by TF_CONFIG "
        "(docs/distributed.md); the numbers stay the same (default: none, one device)",
    )
    machine.add_argument(
        "--stream",
        nargs="?",
        type=Path,
        const=Path("~/.cache/tfp_flowvae"),
        metavar="CACHE",
        help="for data sets larger than memory: decode the images once, into the folder CACHE "
        "(default: ~/.cache/tfp_flowvae), and map them from there; the numbers stay the same",
    )


def _add_output(output: Any) -> None:
    """Where a run begins, and where it goes."""
    output.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where to write the run (default: a new numbered folder under saved_models/)",
    )
    output.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what --output holds, once this run is done",
    )
    output.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="DIR",
        help="go on with the run in DIR, or in --output, from its last checkpoint; its settings "
        "hold, but --epochs may be more (a cosine schedule is then that of the new number)",
    )
    output.add_argument(
        "--checkpoint-steps",
        type=_whole_number,
        default=0,
        metavar="N",
        help="write a checkpoint every N steps too, and not only at each epoch's end; fastest if N "
        "has a divisor near 50, as 100 has (default: 0, no)",
    )
    output.add_argument(
        "--config",
        metavar="FILE",
        help="repeat the run of a config.json; options given override it",
    )
    output.add_argument(
        "--preset",
        metavar="NAME",
        help="start from named settings, see below; options given override them",
    )
    output.add_argument(
        "--tensorboard",
        action="store_true",
        help="log for TensorBoard too, into tensorboard/ in the folder",
    )
    output.add_argument(
        "--verbose",
        type=int,
        choices=(0, 1, 2),
        default=1,
        help="0: summary only; 1: a progress bar (default); 2: a line an epoch",
    )


def _add_field(group: Any, field: dataclasses.Field[Any]) -> None:
    kind, rules = field_types()[field.name], field.metadata
    default = rules["shown"] or field.default
    shown = "" if default is None else f" (default: {default})"
    settings: dict[str, Any] = {
        "help": rules["help"].replace("%", "%%") + shown,
        "default": argparse.SUPPRESS,
    }
    if kind is bool:
        group.add_argument(flag_of(field.name), action=argparse.BooleanOptionalAction, **settings)
        return
    readers: dict[Any, Callable[[str], Any]] = {int: _whole_number, float: _number}
    if is_list(kind):
        settings |= {"nargs": rules["length"] or "+", "type": _whole_number}
    else:
        settings["type"] = readers.get(plain_type(kind), str)
    # Choices are the config's to check; here they only show.
    settings["metavar"] = "{" + ",".join(rules["choices"]) + "}" if rules["choices"] else None
    settings["metavar"] = settings["metavar"] or rules["metavar"] or field.name.upper()
    if rules["length"]:
        settings["metavar"] = tuple(settings["metavar"].split())
    group.add_argument(flag_of(field.name), **settings)


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number is expected, not {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number is expected, not {text!r}") from None


def _train(arguments: argparse.Namespace) -> int:
    given = {
        field.name: getattr(arguments, field.name)
        for field in dataclasses.fields(TrainConfig)
        if hasattr(arguments, field.name)
    }
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    if arguments.preset is not None:
        if arguments.config:
            raise UserError(
                "--preset and --config both say where to start from: give one of them. "
                f"Received: --preset {arguments.preset} --config {arguments.config}."
            )
        given = {**PRESETS.find(arguments.preset).values, **given}
    if arguments.checkpoint_steps < 0:
        raise UserError(
            f"--checkpoint-steps must be at least 0. Received: {arguments.checkpoint_steps}."
        )
    output, resume = arguments.output, arguments.resume is not None
    if resume:
        output = resumed_folder(arguments.resume, output, arguments.overwrite)
        if arguments.config:
            given = dataclasses.asdict(TrainConfig.from_file(arguments.config, **given))
        config = resumed_config(output, given)
    elif arguments.config:
        config = TrainConfig.from_file(arguments.config, **given)
    else:
        config = TrainConfig.from_mapping(given, source="the command line")
    from tfp_flowvae.runs.run import Output, train

    where = Output(
        output,
        overwrite=arguments.overwrite,
        resume=resume,
        checkpoint_steps=arguments.checkpoint_steps,
        verbose=arguments.verbose,
        tensorboard=arguments.tensorboard,
        strategy=arguments.strategy,
        stream=arguments.stream,
    )
    return train(config, where)


def _add_sample(commands: Any) -> None:
    sample = commands.add_parser(
        "sample",
        help="draw images from an exported model",
        description="Draws images from the prior of an exported model into one picture.",
        allow_abbrev=False,
    )
    sample.set_defaults(run=_sample, parser=sample)
    sample.add_argument("path", type=Path, metavar="PATH", help="folder of a run")
    sample.add_argument(
        "-n", type=_whole_number, default=64, metavar="N", help="how many (default: 64)"
    )
    sample.add_argument("--seed", type=_whole_number, default=0, help="of the draw (default: 0)")
    sample.add_argument(
        "--output",
        type=Path,
        default=Path("samples.png"),
        metavar="FILE",
        help="the picture, a .png (default: samples.png)",
    )


def _sample(arguments: argparse.Namespace) -> int:
    from tfp_flowvae.cli.sample import sample_to_picture

    sample_to_picture(arguments.path, arguments.n, arguments.seed, arguments.output)
    print(f"{arguments.n} samples from {arguments.path} written to {arguments.output}")
    return 0
