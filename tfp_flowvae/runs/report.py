"""The report of a run: at its end, and again from its folder or an export."""

from __future__ import annotations

import dataclasses
import shlex
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_flowvae._files import written_aside
from tfp_flowvae.data import ImageSplits, load_labels, to_unit
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.config import TrainConfig
from tfp_flowvae.runs.evaluation import check_sizes, measure
from tfp_flowvae.runs.folder import CONFIG, RECORD
from tfp_flowvae.runs.records import HISTORY, METRICS, read_history, read_json
from tfp_flowvae.runs.saved import (
    How,
    fixed_images,
    folder_of,
    has_config,
    load_model_and_images,
    progress_bar,
    read_config,
    read_evaluation,
)

if TYPE_CHECKING:
    from tfp_flowvae.evaluation.figures import DensityEvaluation, Evaluation
    from tfp_flowvae.models import FlowVAE, ImageDensity

    AnyEvaluation = Evaluation | DensityEvaluation

REPORT, EVALUATION = "report.html", "evaluation.json"

# The page shows so many test images at most.
_SHOWN = 1000
# Among so many training images the nearest ones are searched.
_SEARCHED = 50_000
# The KL of each dimension tells models apart; the same model on another machine rounds otherwise.
_SAME_MODEL = 1e-3


def write_run_report(
    folder: Path,
    path: Path,
    model: FlowVAE | ImageDensity,
    splits: ImageSplits,
    config: TrainConfig,
) -> None:
    """Writes report.html at the end of a run, without the figures that take long.

    Args:
      folder: The folder of the run's records, which gets the report.
      path: The run's folder, as the report names it.
      model: The model.
      splits: The images.
      config: The config.

    Raises:
      OSError: If it cannot be written.
      UserError: If the labels cannot be read.
    """
    about: dict[str, Any] = {"seed": config.seed, "evaluation": None}
    if config.model == "vae":
        metrics = read_json(folder / METRICS)
        names = ("free_energy", "log_likelihood", "kl")
        about["free_energy"] = {name: metrics[f"test_{name}"] for name in names}
    page = _page(folder, path, model, splits, config, dataclasses.asdict(config), about)
    _write(folder / REPORT, page)


def report_run(
    path: Path,
    how: How,
    output: Path | None = None,
    figures: Path | None = None,
    evaluate: bool = True,
    show: bool = False,
) -> None:
    """Writes the report of a run or an export.

    The figures of `evaluate` are those in `figures`; or those in the folder's evaluation.json, if
    they are of this model and these images; or they are measured.

    Args:
      path: The folder of a run or an export.
      how: The images, and how the model is evaluated if need be.
      output: The .html file, which is written completely or not at all; by default report.html in
        the folder.
      figures: A file that `evaluate --json` wrote, or None.
      evaluate: Whether to evaluate the model if there are no figures.
      show: Whether to open the report in a browser.

    Raises:
      UserError: If there is no such model, its images do not fit it, a number is not allowed,
        `figures` are not of this model, there is no browser to open, or the file cannot be written.
    """
    folder = folder_of(path)
    output = folder / REPORT if output is None else output
    browser = _browser(output) if show else None
    config = read_config(path, how)
    _check_output(output)
    check_sizes(how)
    given = None if figures is None else read_evaluation(figures)
    model, splits = load_model_and_images(path, config)
    found = _evaluation(folder / EVALUATION, figures, given, model, splits, config)
    if found is None and evaluate:
        found = measure(model, splits, config, how)
    seed = how.sizes.get("seed", config.seed)
    about = {"seed": seed, "evaluation": found}
    if config.model == "vae":
        about["free_energy"] = _free_energy(found, model, splits, config, seed)
    settings = dataclasses.asdict(config) if has_config(path) else {}
    page = _page(folder, path, model, splits, config, settings, about)
    try:
        _write(output, page)
    except OSError as error:
        raise UserError(f"Cannot write {str(output)!r}: {error.strerror}.") from error
    print(f"report    {output} ({len(page) / 1e6:.1f} MB)")
    if browser is not None:
        browser.open(output.absolute().as_uri())


def _check_output(output: Path) -> None:
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output must name an .html file. Received: {str(output)!r}.")
    if not output.absolute().parent.is_dir():
        raise UserError(
            f"The folder of --output {str(output)!r} does not exist; make it first, or choose "
            "another."
        )


def _browser(output: Path) -> webbrowser.BaseBrowser:
    try:
        return webbrowser.get()
    except webbrowser.Error as error:
        raise UserError(
            "--open needs a browser and a display, and there is none here; leave --open out, and "
            f"open {str(output)!r} where there is one."
        ) from error


def _evaluation(
    file: Path,
    figures: Path | None,
    given: AnyEvaluation | None,
    model: FlowVAE | ImageDensity,
    splits: ImageSplits,
    config: TrainConfig,
) -> AnyEvaluation | None:
    """The figures that are given, or those in the folder's file if they are of this model."""
    if given is None and not file.is_file():
        return None
    found = given or read_evaluation(file)
    if _is_of(found, model, fixed_images(splits, config, "test")):
        return found
    if figures is not None:
        raise UserError(
            f"The figures in {str(figures)!r} are of another model or of other images; leave "
            "--figures out, and they are measured."
        )
    return None


def _is_of(found: AnyEvaluation, model: FlowVAE | ImageDensity, images: np.ndarray) -> bool:
    """Whether figures are of a model and of images.

    The images are known by a checksum, a VAE by the KL of each dimension, and a flow of images by
    the bounds of the first images.
    """
    from tfp_flowvae.evaluation.diagnostics import base_kl
    from tfp_flowvae.evaluation.figures import DensityEvaluation
    from tfp_flowvae.evaluation.image_density import same_density
    from tfp_flowvae.evaluation.statistics import checksum
    from tfp_flowvae.models import ImageDensity

    if found.protocol.checksum != checksum(images):
        return False
    if isinstance(model, ImageDensity):
        return isinstance(found, DensityEvaluation) and same_density(model, images, found)
    if isinstance(found, DensityEvaluation):
        return False
    base = model.posterior(images[: found.protocol.aggregated_images]).distribution
    kl = base_kl(base).numpy().mean(axis=0, dtype=np.float64)
    wanted = np.asarray(found.base_kl)
    return kl.shape == wanted.shape and np.allclose(kl, wanted, rtol=_SAME_MODEL, atol=_SAME_MODEL)


def _free_energy(
    found: Any,
    model: Any,
    splits: ImageSplits,
    config: TrainConfig,
    seed: int,
) -> Mapping[str, float]:
    from tfp_flowvae.evaluation.free_energy import free_energy

    classes = splits.classes
    if found is None or classes is not None:
        labels = None if classes is None else classes.test
        return free_energy(model, fixed_images(splits, config, "test"), None, seed, labels)
    terms = {"log_likelihood": found.log_likelihood, "kl": found.kl}
    return {"free_energy": found.kl - found.log_likelihood, **terms}


def _page(
    folder: Path,
    path: Path,
    model: FlowVAE | ImageDensity,
    splits: ImageSplits,
    config: TrainConfig,
    settings: Mapping[str, Any],
    about: Mapping[str, Any],
) -> str:
    """The page. `folder` has the records, `path` is the folder's name on the page."""
    from tfp_flowvae.evaluation.report import DensitySubject, Subject, render

    labels = load_labels(config.dataset, config.data_dir, image_shape=config.image_shape)
    if config.model == "flow":
        kind: Any = DensitySubject
        about = {**about, **_bounds(model, splits, about["seed"])}
    else:
        kind, about = Subject, {**about, "binarization": config.binarization}
    subject = kind(
        name=folder_of(path).absolute().name,
        model=model,
        test=to_unit(fixed_images(splits, config, "test", _SHOWN), _levels(splits, config)),
        train=to_unit(fixed_images(splits, config, "train", _SEARCHED), _levels(splits, config)),
        labels=None if labels is None else labels[:_SHOWN],
        dataset=config.dataset,
        counts={name: len(getattr(splits, name)) for name in ("train", "valid", "test")},
        history=read_history(folder / HISTORY),
        settings=settings,
        record=read_json(folder / RECORD),
        commands=_commands(path, bool(settings), about["evaluation"]),
        **about,
    )
    return render(subject, progress_bar)


def _levels(splits: ImageSplits, config: TrainConfig) -> int | None:
    """The levels of what `fixed_images` returns; None for images in [0, 1]."""
    return splits.levels if config.model == "flow" else None


def _bounds(model: Any, splits: ImageSplits, seed: int) -> dict[str, np.ndarray]:
    """The bound of each test image and of as many training images, with one draw of the noise."""
    count = len(splits.test)
    both = np.concatenate([splits.test, splits.train[:count]])  # each call compiles a program
    nll = model.nll(both, 1, seed=seed)
    return {"test_nll": nll[:count], "train_nll": nll[count:]}


def _commands(path: Path, of_run: bool, found: Any) -> dict[str, str]:
    """Shell commands, by what they do."""
    module, place = ["python", "-m", "tfp_flowvae"], str(path)
    file = str(folder_of(path) / EVALUATION)
    commands = {
        "This measures the model by the full protocol, and the next report shows its figures": [
            *module,
            "evaluate",
            place,
            "--json",
            file,
        ],
        "This makes the report again" + ("" if found else ", and measures the model quickly"): [
            *module,
            "report",
            place,
        ],
    }
    if of_run:
        again = str(folder_of(path) / CONFIG)
        commands["This repeats the run, bit for bit on the same machine"] = [
            *module,
            "train",
            "--config",
            again,
            "--output",
            "again",
        ]
    return {what: shlex.join(words) for what, words in commands.items()}


def _write(file: Path, page: str) -> None:
    with written_aside(file) as out:
        out.write(page.encode())
