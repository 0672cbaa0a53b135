"""The commands `evaluate`, `compare` and `score`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tfp_flowvae.cli.one_sentence import whole_number
from tfp_flowvae.data import BINARIZATIONS
from tfp_flowvae.runs.evaluation import compare_runs, evaluate_run
from tfp_flowvae.runs.saved import How
from tfp_flowvae.runs.score import SAMPLES, score_run

_SIZES = ("samples", "seed", "features")


def add_commands(commands: Any) -> None:
    """Adds the commands to what `add_subparsers` returned."""
    parser = commands.add_parser(
        "evaluate",
        help="measure what a trained model is worth",
        description="Measures what the model of a run is worth on images that it was not trained "
        "on, and says how each figure was measured.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_evaluate, parser=parser)
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="the folder of a finished run or an export"
    )
    _add_options(parser)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures, of each image too, to FILE"
    )
    parser.add_argument(
        "--card", action="store_true", help="write the figures into PATH/README.md, the model card"
    )
    _add_compare(commands)
    _add_score(commands)


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare trained models, image by image",
        description="Evaluates several models and prints one table; differences are paired by "
        "image, with standard errors.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_compare, parser=parser)
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="folders of finished runs, or files of evaluate --json, which take no time",
    )
    _add_options(parser)
    parser.add_argument(
        "--across-protocols",
        action="store_true",
        help="compare figures that were measured in different ways or on other data",
    )


def _add_score(commands: Any) -> None:
    parser = commands.add_parser(
        "score",
        help="find images that a trained model finds unlikely",
        description="Gives -log p(x) of each image, and the share of the run's validation images "
        "that are more likely. A high likelihood alone does not prove that an image is typical.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_score, parser=parser)
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="the folder of a finished run or an export"
    )
    add_images(parser)
    _add_split_and_samples(parser, f"default: {SAMPLES['vae']}; {SAMPLES['flow']} for a flow")
    _add_seed(parser)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the scores of all images to FILE"
    )


def add_images(parser: Any) -> None:
    """Adds the options that choose the images."""
    parser.add_argument(
        "--dataset", metavar="NAME|PATH", help="the data set (default: that of the run)"
    )
    parser.add_argument(
        "--binarization",
        choices=BINARIZATIONS,
        help="how images become black and white, always in one fixed draw (default: as in the run)",
    )


def _add_options(parser: Any) -> None:
    add_images(parser)
    _add_split_and_samples(
        parser, "default: 5000, or 200 with --quick; for a flow of images 50, or 5"
    )
    parser.add_argument(
        "--features",
        metavar="SPACE",
        help="the space of Frechet distance, precision and recall: pixels (default) or, for a VAE, "
        "encoder",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer samples and images: about a minute"
    )
    _add_seed(parser)


def _add_split_and_samples(parser: Any, default: str) -> None:
    parser.add_argument(
        "--split",
        choices=("train", "valid", "test"),
        default="test",
        help="which images (default: test)",
    )
    parser.add_argument(
        "--samples",
        type=whole_number,
        metavar="S",
        help="importance samples for each image, or draws of the noise of a flow of images "
        f"({default})",
    )


def _add_seed(parser: Any) -> None:
    parser.add_argument(
        "--seed", type=whole_number, help="the seed of the draws (default: that of the run)"
    )


def _how(arguments: argparse.Namespace) -> How:
    values = vars(arguments)
    return How(
        dataset=arguments.dataset,
        binarization=arguments.binarization,
        split=arguments.split,
        quick=values.get("quick", False),
        sizes={name: values[name] for name in _SIZES if values.get(name) is not None},
    )


def _evaluate(arguments: argparse.Namespace) -> int:
    evaluate_run(arguments.path, _how(arguments), arguments.json, arguments.card)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    compare_runs(arguments.paths, _how(arguments), arguments.across_protocols)
    return 0


def _score(arguments: argparse.Namespace) -> int:
    score_run(arguments.path, _how(arguments), arguments.json)
    return 0
