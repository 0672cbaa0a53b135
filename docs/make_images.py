"""Makes the pictures of the README and of the examples: `python docs/make_images.py`.

In docs/images:

- `flow.png`: 16 planar steps, fitted to an energy of Rezende & Mohamed (2015) as in
  `examples/energies.py`, bend a Gaussian.
- `density.png`: the density that a `FlowDensity` has learned from two moons.
- `samples.png`: means of p(x|z) for z from the prior of a flow VAE, of MNIST if it is installed, or
  else of the digits. `--run` takes a trained run instead of training one.
- `report.png`: the top of that run's report, if Chromium is installed.

It takes two minutes, and ten more to train on MNIST. With `--examples` it makes instead, in ten
minutes, `examples/NAME.png`: what each of `examples/` draws.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import make_moons

import tfp_flowvae as fv
from tfp_flowvae.cli import main as command
from tfp_flowvae.data import check_dataset
from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.plots import image_grid
from tfp_flowvae.runs.report import REPORT

_HERE = Path(__file__).parent
_COLOURS = 64  # of the palettes, which make the files smaller
_ENERGY = 0  # U1


def planar_flow(seed: int, steps: int) -> Figure:
    """Fits planar flows to the energies and draws one of them."""
    sys.path.append(str(_HERE.parent / "examples"))
    import energies

    q = energies.build("planar", 16, seed)
    energies.fit(q, steps, seed)
    base = q.distribution[_ENERGY]
    return fv.plot_flow(q.bijector[_ENERGY], base, samples=1500, columns=5, seed=seed)


def moons(seed: int, epochs: int) -> Figure:
    """Fits a density to two moons and draws it."""
    keras.utils.set_random_seed(seed)
    x, _ = make_moons(5000, noise=0.07, random_state=seed)
    density = fv.FlowDensity("spline:4", event_size=2, seed=seed)
    density.compile("adam")
    density.fit(x.astype(np.float32), batch_size=250, epochs=epochs, verbose=2)
    return fv.plot_density(density.distribution(), samples=300, seed=seed)


def trained_run(folder: Path) -> Path:
    """Trains a flow VAE on MNIST, or on the digits if MNIST is not installed, and reports on it."""
    try:
        check_dataset("mnist", None)
        options = ["--dataset", "mnist", "--latent-dim", "32", "--epochs", "20"]
    except UserError as error:
        print(f"{error} The digits are used instead.")
        options = ["--epochs", "100"]
    command(["train", "--flow", "iaf", "--prior", "realnvp", *options, "--output", str(folder)])
    command(["report", str(folder)])
    return folder


def screenshot(page: Path, browser: str) -> Image.Image:
    """The top of a page at a desktop's width, as far as the end of the samples."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,1400"]
        address = page.absolute().as_uri()
        subprocess.run(
            [browser, *options, f"--screenshot={file}", address], check=True, capture_output=True
        )
        top = Image.open(file).convert("RGB").crop((56, 0, 1000, 1168))
    return top.resize((760, 940), Image.Resampling.LANCZOS)


def examples(folder: Path) -> None:
    """Runs every example for its picture."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for script in sorted((_HERE.parent / "examples").glob("[!_]*.py")):
            file = Path(scratch) / f"{script.stem}.png"
            subprocess.run([sys.executable, script, "--output", file], check=True)
            save(Image.open(file), folder / file.name)


def save(picture: Image.Image, path: Path) -> None:
    """Writes a PNG with a palette."""
    picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Writes a figure as a PNG with a palette."""
    file = BytesIO()
    figure.savefig(file, dpi=dpi)
    save(Image.open(file), path)


def main() -> None:
    """Parses the command line and makes the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=_HERE / "images", help="the folder")
    parser.add_argument("--run", type=Path, help="the folder of a run of train.py")
    parser.add_argument("--steps", type=int, default=2000, help="of the energy (%(default)s)")
    parser.add_argument("--epochs", type=int, default=50, help="of the two moons (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", action="store_true", help="the pictures of the examples")
    arguments = parser.parse_args()
    output, seed = arguments.output, arguments.seed
    output.mkdir(parents=True, exist_ok=True)
    if arguments.examples:
        examples(output / "examples")
        return
    save_figure(planar_flow(seed, arguments.steps), output / "flow.png", dpi=80)
    save_figure(moons(seed, arguments.epochs), output / "density.png", dpi=80)
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or trained_run(Path(folder) / "iaf-realnvp")
        samples = fv.load(run).sample(36, seed).numpy()
        save(Image.fromarray(image_grid(samples, columns=12)), output / "samples.png")
        browser = shutil.which("chromium") or shutil.which("google-chrome")
        if browser is None:
            print("report.png is not made: neither chromium nor google-chrome is installed.")
        else:
            save(screenshot(run / REPORT, browser), output / "report.png")


if __name__ == "__main__":
    main()
