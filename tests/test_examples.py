"""The examples run, write their pictures, and find what they say they find."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def load(monkeypatch):
    """A function that imports an example as its command line would, from its own folder."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_an_example_is_a_notebook_with_its_results(script):
    """Which the documentation shows: the cells, the picture, the figures and a page in its menu."""
    jupytext = pytest.importorskip("jupytext", reason="it is in the extra docs")
    cells = jupytext.read(script, fmt="py:percent").cells
    assert cells[0].source.startswith("# ")
    assert sum(cell.cell_type == "markdown" for cell in cells) >= 4
    docs = EXAMPLES.parent / "docs"
    assert_picture(docs / "images" / "examples" / f"{script.stem}.png")
    assert f"[start:{script.stem}]" in (EXAMPLES / "README.md").read_text()
    assert f"examples/{script.stem}.md" in (docs.parent / "mkdocs.yml").read_text()


def assert_picture(path: Path) -> None:
    """A picture of some size with something on it."""
    pixels = np.asarray(Image.open(path).convert("L"), dtype=float)
    assert min(pixels.shape) > 300
    assert pixels.std() > 5.0


def test_energies_follow_table_1(load):
    energies = load("energies")
    z = np.array([1.3, -0.7])
    w1 = math.sin(2.0 * math.pi * z[0] / 4.0)
    w2 = 3.0 * math.exp(-0.5 * ((z[0] - 1.0) / 0.6) ** 2)
    w3 = 3.0 / (1.0 + math.exp(-(z[0] - 1.0) / 0.3))

    def g(a: float, b: float) -> float:
        return math.exp(-0.5 * (a / b) ** 2)

    expected = [
        0.5 * ((math.hypot(*z) - 2.0) / 0.4) ** 2
        - math.log(g(z[0] - 2.0, 0.6) + g(z[0] + 2.0, 0.6)),
        0.5 * ((z[1] - w1) / 0.4) ** 2,
        -math.log(g(z[1] - w1, 0.35) + g(z[1] - w1 + w2, 0.35)),
        -math.log(g(z[1] - w1, 0.4) + g(z[1] - w1 + w3, 0.35)),
    ]
    values = energies.energies(tf.constant(np.tile(z, (5, 4, 1)), tf.float32)).numpy()
    np.testing.assert_allclose(values, np.tile(expected, (5, 1)), rtol=1e-5)


def test_energies_fit(load, tmp_path):
    energies = load("energies")
    kl = energies.main(tmp_path / "energies.png", steps=200, sizes=(2,))
    assert_picture(tmp_path / "energies.png")
    for family in energies.FAMILIES:
        assert np.all(kl[family, 2] < kl["base", 0] - 1.0)
        assert np.mean(kl[family, 2]) < 0.5 * np.mean(kl["base", 0])
    assert np.all(np.concatenate(list(kl.values())) > -0.05)


def test_energies_density_integrates(load):
    energies = load("energies")
    q = energies.build("planar", 3, seed=1)
    q.bijector.u.assign(10.0 * q.bijector.u)  # starts near the identity, where little could fail
    size, limits = 250, (-12.0, 12.0, -12.0, 12.0)
    density = q.prob(energies.on_grid(limits, size)).numpy()
    np.testing.assert_allclose(density.sum(axis=(0, 1)) * (24.0 / size) ** 2, 1.0, atol=0.02)


@pytest.mark.slow
def test_energies_more_steps_fit_better(load, tmp_path):
    energies = load("energies")
    kl = energies.main(tmp_path / "energies.png")
    for family in energies.FAMILIES:
        means = [np.mean(kl[family, k]) for k in (2, 8, 32)]
        assert means == sorted(means, reverse=True)
    assert np.all(kl["planar", 32] < 0.15)


def test_neural_transport(load, tmp_path):
    transport = load("neural_transport")
    flow = transport.build("couplings", seed=0)
    transport.train(flow, steps=1000, seed=0)
    points = transport.sample(flow, draws=200, seed=0)
    summary = transport.summarize(points)
    transport.draw(
        tmp_path / "transport.png",
        {"couplings": flow},
        {"couplings": points},
        {"couplings": summary},
    )
    assert_picture(tmp_path / "transport.png")
    assert summary.ess > 0.1 * 200 * transport.CHAINS
    assert summary.mean == pytest.approx(0.0, abs=0.3)
    assert summary.sd == pytest.approx(transport.EXACT["sd"], abs=0.3)
    assert summary.neck == pytest.approx(transport.EXACT["neck"], abs=0.02)


@pytest.mark.slow
def test_neural_transport_in_full(load, tmp_path):
    transport = load("neural_transport")
    summaries = transport.main(tmp_path / "transport.png")
    assert_picture(tmp_path / "transport.png")
    flow, none = summaries["couplings"], summaries["no flow"]
    assert flow.ess > 10.0 * none.ess
    assert flow.r_hat < 1.01 < none.r_hat
    assert abs(flow.mean) < 0.1
    assert abs(flow.sd - transport.EXACT["sd"]) < 0.1
    assert abs(flow.neck - transport.EXACT["neck"]) < 0.006


def test_transported_target_is_the_funnel(load):
    """The kernel's image of z has the law of the funnel even behind an untrained flow."""
    transport = load("neural_transport")
    points = transport.sample(transport.build("planar", seed=3), draws=300, seed=0)
    x, v = points[..., 0], points[..., 1]
    # What holds at every v that is visited: x / exp(v / 2) is standard normal.
    wide = np.abs(v) < 2.0
    assert np.std((x / np.exp(0.5 * v))[wide]) == pytest.approx(1.0, abs=0.15)


def test_two_moons_true_density(load):
    moons = load("two_moons")
    cells = load("_common").grid(moons.LIMITS, 200).reshape(-1, 2)
    left, right, bottom, top = moons.LIMITS
    mass = np.exp(moons.true_log_prob(cells)).sum() * (right - left) * (top - bottom) / 200**2
    assert mass == pytest.approx(1.0, abs=1e-3)


@pytest.mark.slow
def test_two_moons(load, tmp_path):
    moons = load("two_moons")
    scores = moons.main(tmp_path / "moons.png", steps=200, count=1000, layers=5)
    assert_picture(tmp_path / "moons.png")
    for name in ("KDE", "RBIG", "RealNVP"):
        assert scores["Gaussian"] + 0.4 < scores[name] < scores["truth"]


@pytest.mark.slow
def test_two_moons_in_full(load, tmp_path):
    moons = load("two_moons")
    scores = moons.main(tmp_path / "moons.png")
    assert scores["truth"] - 0.06 < scores["RealNVP"] < scores["truth"]
    assert scores["truth"] - 0.12 < scores["RBIG"] < scores["truth"]


def test_worked_examples(load, tmp_path):
    worked = load("worked_examples")
    results = worked.main(tmp_path / "worked.png", steps=5000)
    assert_picture(tmp_path / "worked.png")
    fitted_error, fitted_distance = results.pop(worked.FITTED)
    assert fitted_error < 0.05
    assert fitted_distance < 0.05
    assert len(results) == 3
    for error, distance in results.values():
        assert error < 1e-6
        assert distance < 1.63 / math.sqrt(5000)  # the 1% point of Kolmogorov's statistic


def test_worked_examples_tell_a_wrong_flow(load):
    """The comparison can fail: a base of another scale does not give the closed form."""
    worked = load("worked_examples")
    example = worked.examples(seed=0)[0]
    wrong = example.flow.copy(distribution=example.flow.distribution.copy(scale=1.1))
    x = np.linspace(*example.limits, 50, dtype=np.float32)
    assert np.abs(worked.density(wrong, x) - example.exact.pdf(x)).max() > 0.01


def test_a_prior_and_a_flow_of_ones_own(load, tmp_path):
    found = load("own_prior").main(tmp_path / "own.png", steps=40)
    assert_picture(tmp_path / "own.png")
    assert found["after"] > found["before"] + 5.0
    assert found["moved"] > 0.01
    assert found["loaded"] == pytest.approx(found["after"], abs=1e-4)
    assert found["exported"] == pytest.approx(found["after"], abs=1e-3)


def test_tabular(load, tmp_path):
    tabular = load("tabular")
    scores = tabular.main(tmp_path / "tabular.png", steps=60)
    assert_picture(tmp_path / "tabular.png")
    assert np.all(np.isfinite(list(scores.values())))


@pytest.mark.slow
def test_tabular_in_full(load, tmp_path):
    scores = load("tabular").main(tmp_path / "tabular.png", steps=1500)
    (gaussian, error), (flow, other) = scores["Gaussian"], scores["MAF, bound 0"]
    assert flow - gaussian > 3 * math.hypot(error, other)


def test_the_exact_posterior_of_the_oscillation(load):
    """It is a density, and the true theta of many simulations lies where it is high."""
    conditional = load("conditional")
    area = np.prod((conditional.HIGH - conditional.LOW) / 150)
    thetas = conditional.prior(20, seed=3)
    for theta, y in zip(thetas, conditional.simulate(thetas, seed=3), strict=True):
        density = conditional.exact_posterior(y)
        assert density.sum() * area == pytest.approx(1.0, abs=1e-6)
        cell = ((theta - conditional.LOW) / (conditional.HIGH - conditional.LOW) * 150).astype(int)
        at_least = np.sum(density[density >= density[cell[1], cell[0]]]) * area
        assert at_least < 1 - 1e-6  # of probability 1e-6 in each


def test_conditional(load, tmp_path):
    found = load("conditional").main(tmp_path / "conditional.png", steps=200, checks=50)
    assert_picture(tmp_path / "conditional.png")
    assert found["KL(exact || flow)"] < found["KL(exact || prior)"]


@pytest.mark.slow
def test_conditional_in_full(load, tmp_path):
    found = load("conditional").main(tmp_path / "conditional.png", steps=3200)
    assert found["KL(exact || flow)"] < 0.1 * found["KL(exact || prior)"]
    for name, share in found.items():
        if "intervals" in name:  # of 1000 simulations
            wanted = 0.5 if name.startswith("50%") else 0.9
            assert abs(share - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / 1000) + 0.02
