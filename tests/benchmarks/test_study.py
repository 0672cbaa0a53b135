"""The study: what is declared can be run, what is measured is right, what is written is read."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.runs import TrainConfig
from tfp_flowvae.runs.presets import PRESETS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _importable():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield


def module(name):
    return importlib.import_module(f"benchmarks.study.{name}")


def result_of(run, **figures):
    """A result of a run with figures that say nothing, but for those given."""
    config = {"flow": run.flow, "prior": run.prior}
    values = dict.fromkeys(module("store").KEYS, None)
    values |= {**config, "config": config, "seed": run.seed, "active_units": 7, "kl": 20.0}
    values |= {"train_free_energy": 88.0, "valid_free_energy": 93.0, "epochs": 3}
    values |= {"test_free_energy": 92.0, "test_nll": 87.0, "test_nll_se": 0.3}
    values |= {"diagnostics": {"epoch": [1, 2], "seconds": [9.0, 2.0], "told_apart": 0.75}}
    return {**values, **figures}


def test_every_run_has_a_name_of_its_own_and_a_config():
    plan = module("plan")
    module("unconstrained").register()
    names = [run.name for run in plan.RUNS]
    assert len(set(names)) == len(names)
    for run in plan.RUNS:
        values = {"flow": run.flow, "prior": run.prior, "seed": run.seed, **run.options}
        TrainConfig.from_mapping(values, source=run.name)


def test_the_protocol_is_the_same_in_every_run_of_part_a():
    plan, recipe = module("plan"), module("recipe")
    part = [run for run in plan.RUNS if run.part == "A"]
    for run in part:
        for name, value in recipe.PROTOCOL.items():
            assert run.options[name] == value
    ours = [run.options for run in part if not run.label]
    assert all(options == ours[0] for options in ours)
    assert ours[0]["epochs"] <= 300


def test_arguments_are_those_of_the_command_line():
    run = module("plan").Run(
        "X", flow="iaf:2", options={"hidden": (3, 4), "learning_rate": 5e-4, "diagnostics": False}
    )
    assert " ".join(run.arguments()) == (
        "--flow iaf:2 --prior none --seed 0 --hidden 3 4 --learning-rate 0.0005 --no-diagnostics"
    )
    assert run.name == "X-iaf_2-seed0"


def test_patterns_choose_runs_and_their_order():
    plan = module("plan")
    found = plan.chosen(["C-*", "A-none-*", "A-none-seed0"])
    assert [run.part for run in found] == ["C"] * 3 + ["A"] * 3
    assert {run.part for run in plan.chosen(["A-none-*", "C-*"], here=True)} == {"A"}


def test_what_is_written_is_read(tmp_path):
    plan, store = module("plan"), module("store")
    run, values = plan.RUNS[0], np.array([91.234, 250.0, -0.004])
    result = result_of(run, diagnostics={"epoch": [1, 2], "kl": [0.5, 1e-7]})
    store.write_result(tmp_path, run.name, result, {"free_energy": values, "nll": values + 1})
    assert store.read_result(run.name, tmp_path) == result
    found = store.read_per_image(run.name, tmp_path)
    np.testing.assert_allclose(found["free_energy"], values, atol=0.005)
    np.testing.assert_allclose(found["nll"], values + 1, atol=0.005)
    assert "[0.5, 1e-07]" in (tmp_path / f"{run.name}.json").read_text()
    assert store.read_result("another", tmp_path) is None


class Posterior:
    """An export whose posterior means vary over images as said, around which it draws."""

    def __init__(self, variances):
        self._deviations = np.sqrt(variances)

    def encode(self, x, seed):
        mean = tf.reshape(x, [len(x), -1]) * self._deviations.astype(np.float32)
        noise = tf.random.stateless_normal(mean.shape, [seed, 0])
        return {"z": mean + noise}


def test_active_units_are_counted_without_the_noise_of_the_draws():
    score = module("score")
    variances = np.array([0.0, 0.003, 0.03, 1.0])
    images = np.random.default_rng(0).normal(size=[4000, 2, 2, 1]).astype(np.float32)
    # The draws' own variance, 1 / 32, would make all four active. The standard error of each
    # estimate is at most (0.03 + 1 / 32) sqrt(2 / 4000) = 0.0014 for those near the threshold.
    assert 1 / score._ACTIVE_DRAWS > score.ACTIVE_VARIANCE
    assert score.active_units(Posterior(variances), images) == 2


def test_draws_are_told_apart_where_they_differ():
    holes, rng = module("holes"), np.random.default_rng(0)
    normal = rng.normal(size=[4000, 3])
    ring = normal / np.linalg.norm(normal, axis=1, keepdims=True) * 2.0
    # Without a difference the answers are coin flips, one for each of the second halves' draws.
    error = 0.5 / np.sqrt(1000)
    assert abs(holes.told_apart(*rng.normal(size=[2, 1000, 3])) - 0.5) < 4 * error

    found = holes.holes(ring, normal, lambda z: -0.5 * np.sum(z * z, axis=1))
    assert found["told_apart"] > 0.85
    assert found["log_prior_encoded"] == [-2.0] * 41
    np.testing.assert_allclose(
        found["log_prior_sampled"][20], -0.5 * np.median(np.sum(normal**2, axis=1)), atol=0.005
    )


def test_history_is_thinned(tmp_path):
    score = module("score")
    lines = ["epoch,elbo,active_units", *(f"{i},{-100 - i / 7},40" for i in range(1, 34))]
    (tmp_path / "history.csv").write_text("\n".join(lines) + "\n")
    found = score.diagnostics(tmp_path / "history.csv")
    assert found["epoch"] == [*range(1, 21), 25, 30, 33]
    assert found["elbo"][-1] == -104.71
    assert set(found) == {"epoch", "elbo"}


def test_a_run_that_diverged_is_told_from_one_that_broke(tmp_path):
    runner, log = module("runner"), tmp_path / "log"
    log.write_text("Epoch 1/3\nError: training failed in epoch 2 at step 17: the output of\n")
    assert runner._divergence(log) == "training failed in epoch 2 at step 17"
    log.write_text("Traceback (most recent call last):\nValueError\n")
    assert runner._divergence(log) is None


def test_the_unconstrained_log_det_is_that_of_the_jacobian():
    rng = np.random.default_rng(1)
    u, w, b = (rng.normal(size=s).astype(np.float32) for s in ([3, 4], [3, 4], [3]))
    bijector = module("unconstrained").UnconstrainedPlanar(u, 2 * w, b)
    x = tf.constant(rng.normal(size=[50, 4]), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = bijector.forward(x)
    _, expected = np.linalg.slogdet(tape.batch_jacobian(y, x).numpy().astype(np.float64))
    # Where a step's slope is near 0 its rounding, a few eps, is divided by it.
    found = bijector.forward_log_det_jacobian(x)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert np.all(np.isnan(bijector.inverse(tf.identity(y))))


@pytest.mark.parametrize(
    "family",
    [
        "diagonal",
        "full covariance",
        *(pytest.param(f, marks=pytest.mark.slow) for f in ("householder:10", "planar:10")),
    ],
)
def test_the_best_posterior_of_a_family_is_found(family):
    """Under a linear Gaussian model, whose posteriors and evidence are known."""
    rng = np.random.default_rng(2)
    weights, x = rng.normal(size=[3, 5]), rng.normal(size=[4, 5])
    precision, evidence = np.eye(3) + weights @ weights.T, np.eye(5) + weights.T @ weights
    _, log_det = np.linalg.slogdet(2 * np.pi * evidence)
    nll = 0.5 * (log_det + np.einsum("bi,ij,bj->b", x, np.linalg.inv(evidence), x))
    # The best diagonal Gaussian has the mean and the diagonal of the precision of p(z|x).
    _, log_precision = np.linalg.slogdet(precision)
    diagonal = nll + 0.5 * (np.sum(np.log(np.diag(precision))) - log_precision)
    assert np.all(diagonal > nll + 0.3)

    def log_joint(z):
        residual = x.astype(np.float32) - z @ weights.astype(np.float32)
        squares = tf.reduce_sum(residual**2, axis=-1) + tf.reduce_sum(z**2, axis=-1)
        return -0.5 * squares - 4 * np.log(2 * np.pi)

    start = np.zeros([4, 3]), np.ones([4, 3])
    found = module("optimum").fit(log_joint, family, *start, steps=1500)
    # log q - log p(x, z) varies by about a nat from draw to draw, of which there are 1000, and not
    # at all where q = p(z|x).
    error = 4 / np.sqrt(1000)
    if family == "full covariance":
        np.testing.assert_allclose(found, nll, atol=0.02)
    elif family == "diagonal":
        np.testing.assert_allclose(found, diagonal, atol=error)
    else:
        assert np.all(found < diagonal + error)
        assert np.all(found > nll - error)


def test_it_folds_space_where_the_constraint_does_not_let_it():
    """w.u < -1 maps two points to one, so its log-det is no density's."""
    u, w, b = np.array([[-3.0]]), np.array([[1.0]]), np.zeros(1)
    bijector = module("unconstrained").UnconstrainedPlanar(
        *(v.astype(np.float32) for v in (u, w, b))
    )
    y = bijector.forward(tf.constant(np.linspace(-3, 3, 601)[:, None], tf.float32)).numpy()[:, 0]
    rises = np.sign(np.diff(y))
    assert {-1.0, 1.0} <= set(rises)


def test_tables_come_from_the_results(tmp_path):
    plan, store, tables = module("plan"), module("store"), module("tables")
    runs = {(r.flow, r.seed): r for r in plan.RUNS if r.part == "A" and not r.label}
    rng = np.random.default_rng(0)
    per_image = rng.normal(92.0, 20.0, size=1000)
    for (flow, seed), run in runs.items():
        if flow in ("none", "iaf:2,hidden=320"):
            better = 0.0 if flow == "none" else 1.0
            energy = 92.0 - better + seed
            values = per_image - better + rng.normal(0, 2.0, size=1000)
            store.write_result(
                tmp_path,
                run.name,
                result_of(run, test_free_energy=energy),
                {"free_energy": values, "nll": per_image},
            )
    failed = result_of(runs["planar:2", 0], failed="the loss became nan by step 3")
    store.write_result(tmp_path, runs["planar:2", 0].name, failed, {})
    page = (
        "Words.\n\n<!-- table 1 -->\nstale\n<!-- end -->\n\n<!-- paired -->\n<!-- end -->\nMore.\n"
    )
    filled = tables.fill(page, tmp_path)
    assert filled == tables.fill(filled, tmp_path)
    assert "stale" not in filled
    assert filled.startswith("Words.\n\n<!-- table 1 -->\n| posterior |")
    lines = {line.split(" | ")[0][2:]: line for line in filled.splitlines() if line[:1] == "|"}
    # The mean of 91, 92, 93 with their deviation, theirs, and 93.5 - 92.
    first = next(line for line in filled.splitlines() if line.startswith("| iaf:2 "))
    assert "| 92.00 ± 1.00 | 87.00 ± 0.00 | 20.00 ± 0.00 | 7 ± 0 | 93.5 | 1.50 |" in first
    assert "diverged" in next(line for line in filled.splitlines() if line.startswith("| planar:2"))
    # Two deviations of 2 nats each, over three seeds and 1000 images.
    second = lines["iaf:2"].split(" | ")
    mean, error = map(float, second[2].split(" ± "))
    assert mean == pytest.approx(-1.0, abs=error * 2)
    assert error == pytest.approx(2 * np.sqrt(8 / 3 / 1000), abs=0.011)
    assert second[1] == "3"
    assert second[3] == "lower"
    assert second[5] == "neither |"


@pytest.mark.parametrize("name", ["docs/study.md", "README.md"])
def test_the_page_is_made_from_the_committed_results(name):
    page = (ROOT / name).read_text(encoding="utf-8")
    assert module("tables").fill(page) == page


def validation_figures(patterns):
    """The figures of the runs that have a result, by their names."""
    plan, store = module("plan"), module("store")
    found = {run.name: store.read_result(run.name) for run in plan.chosen(patterns)}
    return {name: result["valid_free_energy"] for name, result in found.items() if result}


def test_the_recipe_has_the_best_validation():
    plan, recipe = module("plan"), module("recipe")
    figures = validation_figures(["tuning-*"])
    chosen = next(r for r in plan.RUNS if (r.part, r.label) == ("tuning", recipe.CHOSEN))
    assert min(figures, key=figures.get) == chosen.name
    for run in plan.RUNS:
        if (run.part, run.label) == ("A", "") and not run.flow.startswith("unconstrained"):
            assert {**run.options, "diagnostics": False} == chosen.options


def best():
    recipe = module("recipe")
    return (recipe.BEST_FLOW, recipe.BEST_PRIOR, {**recipe.PROTOCOL, **recipe.RECIPE})


def test_the_best_model_has_the_best_validation():
    figures = validation_figures(["B-*-seed0", "search-*"])
    first = min(figures, key=figures.get)
    run = next(run for run in module("plan").RUNS if run.name == first)
    assert (run.flow, run.prior, run.options) == best()


def test_what_is_tried_is_not_tested():
    plan, store = module("plan"), module("store")
    for run in plan.chosen(["tuning-*", "search-*"]):
        result = store.read_result(run.name)
        assert result is None or result["test_free_energy"] is None


def test_the_preset_best_is_the_best_dense_model():
    flow, prior, options = best()
    values = {"flow": flow, "prior": prior, **options}
    if values["warmup"] == "none":
        del values["warmup_epochs"]  # which then changes nothing
    preset = TrainConfig.from_mapping(PRESETS["best"].values, source="best")
    assert preset == TrainConfig.from_mapping(values, source="best")


def test_committed_results_hold_what_they_must():
    plan, store = module("plan"), module("store")
    names = {run.name: run for run in plan.RUNS}
    for path in store.RESULTS.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        result, run = json.loads(text), names[path.stem]
        assert tuple(result) == store.KEYS
        assert (result["flow"], result["prior"], result["seed"]) == (run.flow, run.prior, run.seed)
        assert "/" not in text  # no folders
        for name, value in run.options.items():
            kept = result["config"][name]
            assert (tuple(kept) if isinstance(kept, list) else kept) == value, (path.stem, name)
        if run.tests and not result["failed"]:
            images = store.read_per_image(path.stem)
            for key, figure in (("free_energy", "test_free_energy"), ("nll", "test_nll")):
                # Each value is rounded to 0.01, the mean of them all is off by less.
                assert np.mean(images[key]) == pytest.approx(result[figure], abs=0.005)


EPOCHS = 150  # they take longer than it takes to stop a run
RUNNER = """
import sys
from pathlib import Path
from benchmarks.study.plan import Run
from benchmarks.study.runner import Runner
options = {"dataset": "digits", "epochs": EPOCHS, "hidden": (16,), "latent_dim": 4}
flows = ("none", "unconstrained-planar:2")
runs = [Run("X", "", flow, options=options) for flow in flows]
home = Path(sys.argv[1])
sys.exit(0 if Runner(runs, home / "state", home / "results", 2, None).run() else 1)
""".replace("EPOCHS", str(EPOCHS))


@pytest.mark.slow
def test_a_run_that_is_cut_goes_on_and_is_scored(tmp_path):
    store, names = module("store"), ("X-none-seed0", "X-unconstrained_planar_2-seed0")

    def start():
        return subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)], cwd=ROOT)

    process, deadline = start(), time.monotonic() + 240
    folders = [tmp_path / "state" / name for name in names]
    while not all(any(folder.glob("checkpoints/*")) for folder in folders):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.terminate()
    assert process.wait(60) == 1
    assert not any((folder / "run.json").exists() for folder in folders)
    assert not (tmp_path / "results").exists()

    assert start().wait(400) == 0
    for name in names:
        result = store.read_result(name, tmp_path / "results")
        assert tuple(result) == store.KEYS
        assert result["epochs"] == EPOCHS
        assert result["machine"].startswith("1 of ")
        assert 0 <= result["active_units"] <= 4
        values = store.read_per_image(name, tmp_path / "results")
        assert np.mean(values["nll"]) == pytest.approx(result["test_nll"], abs=0.005)
    assert start().wait(60) == 0  # there is nothing left to do
