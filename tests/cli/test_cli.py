"""The command line: its help, its errors, and complete runs on the digits."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import entr

from tfp_flowvae.cli import main
from tfp_flowvae.data import binarize_fixed, load_images, to_unit
from tfp_flowvae.distributions import BASES
from tfp_flowvae.flows import FLOWS
from tfp_flowvae.likelihoods import LIKELIHOODS
from tfp_flowvae.networks.registry import NETWORKS
from tfp_flowvae.runs.presets import PRESETS
from tfp_flowvae.saving import load

ROOT = Path(__file__).parents[2]
TRAIN = [sys.executable, str(ROOT / "train.py")]
SMALL = [
    "--flow",
    "iaf:1,hidden=16",
    "--prior",
    "vamp:5",
    "--hidden",
    "32",
    "--latent-dim",
    "4",
    "--verbose",
    "0",
]
FILES = {
    "README.md",
    "assets",
    "checkpoints",
    "config.json",
    "fingerprint.pb",
    "history.csv",
    "metrics.json",
    "model.keras",
    "reconstructions.png",
    "report.html",
    "run.json",
    "saved_model.pb",
    "samples.png",
    "training.png",
    "variables",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A complete run of two epochs, and what it printed."""
    folder = tmp_path_factory.mktemp("cli")
    done = subprocess.run(
        [*TRAIN, *SMALL, "--epochs", "2", "--output", "first"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.mark.parametrize(("command", "status"), [("train", 0), ("evaluate", 141)])
def test_a_reader_that_has_gone_ends_the_output_quietly(command, status):
    """`... --help | head -1`: 141 is the status of a program that SIGPIPE ends.

    The help of `train` is longer than the output's buffer, and argparse ignores that error.
    """
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-m", "tfp_flowvae", command, "--help"],
        cwd=ROOT,
        env=buffered,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == status


def test_help_lists_every_flow_and_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from tfp_flowvae.cli import main\n"
        "try:\n    main(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'tensorflow', 'keras', 'tensorflow_probability', 'sklearn', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, entry in FLOWS.items():
        assert f"{name} " in done.stdout
        assert entry.summary in done.stdout
    for name in (*BASES, *LIKELIHOODS, *NETWORKS, *PRESETS):
        assert f"\n  {name} " in done.stdout
    for group in ("model:", "networks:", "data:", "training:", "objective:", "output:"):
        assert f"\n{group}\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--flow", "plannar"], "Did you mean 'planar'"),
        (["--flow", "iaf:2x"], "at character 5 (iaf:>>>2x)"),
        (["--flow", "iaf+"], "at character 5"),
        (["--flow", "planar:0"], "at least 1"),
        (["--flow", "realnvp", "--latent-dim", "1"], "at least 2"),
        (["--prior", "iaf"], "use 'maf'"),
        (["--dataset", "digitz"], "digits"),
        (["--dataset", "no/such/file.npz"], "no/such/file.npz"),
        (["--dataset", "DIGITS"], "Did you mean 'digits'?\n"),
        (["--data-dir", "no/such/folder"], "must be a folder that exists; check its spelling"),
        (["--image-shape", "28", "28"], "expected 3 arguments"),
        (["--image-shape", "8", "8", "0"], "--image-shape must be at least 1"),
        (["--image-shape", "8", "8", "1"], "leave it out. Received: 8 8 1 with the data set 'dig"),
        (["--dataset", "flat.npy"], "--image-shape H W C"),
        (["--dataset", "flat.npy", "--image-shape", "8", "9", "1"], "Received: shape (9, 64)"),
        (["--epochs", "many"], "a whole number is expected, not 'many'"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--epoch", "3"], "Did you mean '--epochs'"),
        (["--hepl"], "Did you mean '--help'"),
        (["--no-jitt"], "Did you mean '--no-jit'"),
        (["--zzz"], "See tfp-flowvae train --help."),
        (["--hidden"], "--hidden"),
        (["--plugin"], "--plugin: expected one argument"),
        (["--output", "taken"], "not empty"),
        (["--config", "missing.json"], "missing.json"),
        (["--binarization", "dynamical"], "Did you mean 'dynamic'"),
        (["--preset", "bets"], "Did you mean 'best'"),
        (["--preset", "best", "--config", "x.json"], "give one of them. Received: --preset best"),
        (["--preset", "vlae", "--flow", "maf"], "use 'iaf' there instead, or --allow-slow"),
        (["--likelihood", "gausian"], "Did you mean 'gaussian'"),
        (["--encoder", "resnet", "--channels", "0"], "--channels must be at least 1"),
        (["--clip-norm", "none"], "a number is expected, not 'none'"),
    ],
)
def test_mistakes_get_one_sentence(refusal, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thing").write_text("")
    np.save(tmp_path / "flat.npy", np.zeros((9, 64), np.uint8))
    assert message in refusal("train", *arguments)


def test_a_run_writes_every_file(run):
    folder, _ = run
    assert {path.name for path in (folder / "first").iterdir()} == FILES
    assert [path.name for path in folder.iterdir()] == ["first"]


def test_the_model_card_is_made_of_the_run(run):
    path = run[0] / "first"
    _, header, text = (path / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    header, metrics = yaml.safe_load(header), json.loads((path / "metrics.json").read_text())
    assert header["datasets"] == ["digits"]
    (model,) = header["model-index"]
    found = {
        f"{result['dataset']['split']}_{metric['type']}": metric["value"]
        for result in model["results"]
        for metric in result["metrics"]
    }
    assert found == metrics
    counts = json.loads((path / "run.json").read_text())["images"]
    assert f"| images | {', '.join(f'{n} {split}' for split, n in counts.items())} |" in text
    assert f"; {counts['test']} images, binarization dynamic, seed 0 |" in text
    assert "| prior | vamp:5 |" in text


PLAIN_TENSORFLOW = """
import json, sys
for name in ("tfp_flowvae", "tensorflow_probability", "keras", "tf_keras"):
    sys.modules[name] = None  # as on a machine that has none of them
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
images = model.sample(3, 0)["images"]
found = {**model.serving_default(images), **model.score(images)}
answers = [images, *found.values()]
print(json.dumps([bool(tf.reduce_all(tf.math.is_finite(answer))) for answer in answers]))
"""


def another_user():
    """The arguments with which `subprocess.run` runs Python as another user, where it can."""
    nobody = {"user": 65534, "group": 65534}
    try:
        subprocess.run([sys.executable, "-c", ""], check=True, **nobody)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return nobody


def test_the_folder_is_all_there_is_to_move(run, tmp_path):
    """Copied, the original gone, read-only, under another user, without the package."""
    original, moved = tmp_path / "original", tmp_path / "elsewhere" / "model"
    shutil.copytree(run[0] / "first", original)
    shutil.copytree(original, moved)
    shutil.rmtree(original)
    for path in (*moved.rglob("*"), moved):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in moved.rglob("*")}
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_TENSORFLOW, str(moved)],
        env={**os.environ, "PYTHONPATH": "", "HOME": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        **another_user(),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [True] * 5
    assert load(moved).sample(2, 0).shape == (2, 8, 8, 1)
    assert {path: path.stat().st_mtime_ns for path in moved.rglob("*")} == before
    moved.chmod(0o755)
    for path in moved.rglob("*"):
        path.chmod(0o755)


def test_a_run_ends_with_a_summary_and_no_chatter(run):
    _, done = run
    assert done.stderr == ""
    for words in ("test free energy", "-log p(x|z)", "KL(q || p)", "samples.png", "metrics.json"):
        assert words in done.stdout
    assert "-m tfp_flowvae sample first -n 64 --output grid.png" in done.stdout


def test_a_run_records_its_time_and_memory(run):
    folder, done = run
    record = json.loads((folder / "first" / "run.json").read_text())
    assert record["epochs"] == 2
    assert record["seconds"] > 0
    # A process with TensorFlow holds some hundred MiB; another unit would be off by 1024.
    assert 100 < record["peak_memory_mib"] < 10_000
    assert f"memory    {record['peak_memory_mib']} MiB" in done.stdout


def test_a_complete_run_is_not_run_again(run, monkeypatch, capsys):
    folder, _ = run
    monkeypatch.chdir(folder)
    assert main(["train", "--resume", "first"]) == 0
    assert "is complete: 2 epochs" in capsys.readouterr().out
    assert {path.name for path in (folder / "first").iterdir()} == FILES


def _entropy(images, levels):
    """The entropy of a Bernoulli draw of images, in nats per image: no model's score is lower."""
    p = to_unit(images, levels).reshape(len(images), -1).astype(np.float64)
    return float(np.mean(np.sum(entr(p) + entr(1 - p), axis=1)))


def test_metrics_are_consistent(run):
    folder, _ = run
    metrics = json.loads((folder / "first" / "metrics.json").read_text())
    assert set(metrics) == {
        f"{split}_{name}"
        for split in ("valid", "test")
        for name in ("free_energy", "log_likelihood", "kl")
    }
    digits = load_images("digits")
    for split in ("valid", "test"):
        total = metrics[f"{split}_kl"] - metrics[f"{split}_log_likelihood"]
        assert metrics[f"{split}_free_energy"] == total
        # Above what no model can beat, below a model that knows nothing.
        assert _entropy(getattr(digits, split), digits.levels) < total < 64 * np.log(2)
    with (folder / "first" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"seconds", "loss", "elbo", "log_likelihood", "kl", "val_loss"} <= set(rows[0])


def test_the_export_gives_the_same_free_energy(run):
    """The endpoint `elbo` with the config's seed gives the free energy in metrics.json."""
    import tensorflow as tf

    folder, _ = run
    config = json.loads((folder / "first" / "config.json").read_text())
    metrics = json.loads((folder / "first" / "metrics.json").read_text())
    splits = load_images("digits")
    images = to_unit(*binarize_fixed(splits.test, splits.levels, config["binarization"], "test"))
    model = tf.saved_model.load(str(folder / "first"))
    elbo = model.elbo(images, config["seed"])["elbo"]
    # Two programs of the same operations in float32, in which a number passes through sums over 64
    # pixels, 32 and 32 units and 64 pixels, each term rounded once.
    terms = 64 + 32 + 32 + 64
    tolerance = terms * np.finfo(np.float32).eps * metrics["test_free_energy"]
    assert abs(np.mean(elbo, dtype=np.float64) + metrics["test_free_energy"]) < tolerance


def test_config_repeats_the_run_bit_for_bit(run):
    folder, _ = run
    again = [*TRAIN, "--config", "first/config.json", "--output", "again", "--no-report"]
    subprocess.run(again, cwd=folder, check=True, capture_output=True)
    for file in ("metrics.json", "config.json", "samples.png"):
        assert (folder / "first" / file).read_bytes() == (folder / "again" / file).read_bytes()


def test_sample_draws_from_the_export(run, monkeypatch, capsys):
    folder, _ = run
    monkeypatch.chdir(folder)
    draws = []
    for seed in ("1", "1", "2"):
        assert main(["sample", "first", "-n", "5", "--seed", seed, "--output", "grid.png"]) == 0
        draws.append(Path("grid.png").read_bytes())
    assert draws[0] == draws[1] != draws[2]
    capsys.readouterr()
    for arguments, message in (
        (["sample", "nowhere"], "no saved_model.pb"),
        (["sample", "first", "-n", "0"], "-n must be 1"),
        (["sample", "first", "--output", "grid.jpg"], ".png"),
        (["sample", "first", "--output", "none/grid.png"], "does not exist"),
        (["sample", "first", "--output", f"{'a' * 300}.png"], "Cannot write"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    Path("grid.png").unlink()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    command = [*TRAIN, *SMALL, "--learning-rate", "1e30", "--epochs", "3", "--output", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    # The steps run in one program, and Adam's first step at this rate makes the second one fail.
    assert done.stderr.startswith("Error: training failed in epoch 1 at step 2: the output of ")
    assert done.stderr.endswith(" Nothing was written.\n")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
