"""The rivals in `benchmarks/training.py` compute what the model computes, with its weights."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.data import ImageSplits

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CASES = ("none", "iaf", "planar", "householder", "realnvp-prior")


@pytest.fixture(scope="module")
def modules():
    """The benchmark's modules by name: they lie in a folder of scripts, not in a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield lambda name: importlib.import_module(f"training_{name}")


def halves(columns):
    """Pairs of shift and log-scale, entry by entry, as all shifts and then all log-scales."""
    pairs = columns.reshape(*columns.shape[:-1], -1, 2)
    return np.swapaxes(pairs, -1, -2).reshape(columns.shape)


def flow_weights(case, model):
    """The loops' names for the weights of the flow."""
    if case == "realnvp-prior":
        parts = [weight.numpy() for weight in model.prior_layer.trainable_weights]
        names = [
            f"mlp{k}_{i}{b}" for k in range(len(parts) // 6) for i in range(3) for b in ("", "_b")
        ]
        named = dict(zip(names, parts, strict=True))
        return {k: halves(v) if k.partition("_")[2][0] == "2" else v for k, v in named.items()}
    parts = [weight.numpy() for weight in model.posterior_layer.flow.trainable_weights]
    if case == "iaf":
        named = {}
        for k in range(len(parts) // 6):
            kernel, bias, out, out_bias, context, context_out = parts[6 * k : 6 * k + 6]
            named |= {f"made{k}_in": kernel, f"made{k}_in_b": bias}
            named |= {f"made{k}_out": halves(out), f"made{k}_out_b": halves(out_bias)}
            named[f"made{k}_context"] = np.concatenate([context, halves(context_out)], axis=1)
        return named
    if case in ("planar", "householder"):
        biases, kernels = parts[::2], parts[1::2]
        bias = np.concatenate([part.reshape(-1) for part in biases])
        return {"flow": np.concatenate(kernels, axis=1), "flow_b": bias}
    return {}


def loop_weights(case, model):
    """The model's weights by the loops' names."""
    named = {}
    for part, layer in (("enc", model.encoder), ("dec", model.decoder)):
        for i, weight in enumerate(layer.trainable_weights):
            named[f"{part}{i // 2}" + ("_b" if i % 2 else "")] = weight.numpy()
    flow = {id(weight) for weight in model.posterior_layer.flow.trainable_weights}
    weights = [w.numpy() for w in model.posterior_layer.trainable_weights if id(w) not in flow]
    named["head"] = np.concatenate(weights[::2], axis=1)
    named["head_b"] = np.concatenate(weights[1::2])
    return named | flow_weights(case, model)


@pytest.mark.parametrize("case", CASES)
def test_the_xla_loop_has_the_model_s_bound_and_weights(modules, case):
    cases, floor = modules("cases"), modules("floor")
    images = cases.synthetic_images(cases.BATCH, seed=3)
    model = modules("fit").case_model(case, ImageSplits("few", images, images, images, levels=2))
    for i, weight in enumerate(model.trainable_weights):  # nothing at zero, no flow the identity
        weight.assign_add(0.05 * tf.random.stateless_normal(weight.shape, [1, i]))
    weights = loop_weights(case, model)
    assert {name: value.shape for name, value in weights.items()} == cases.shapes(case)

    x = tf.constant(images, tf.float32)
    draw = model.draw(x, 1, seed=5)
    base = draw.distribution.distribution.distribution
    noise = (draw.z0[0] - base.loc) / base.scale
    expected = model.terms_of(draw, x).elbo[0]
    found = floor.elbo(case, weights, tf.reshape(x, [-1, cases.PIXELS]), noise)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_pytorch_loop_has_the_xla_loop_s_loss(modules, case):
    torch = pytest.importorskip("torch")
    cases, floor, lean = modules("cases"), modules("floor"), modules("torch")
    rng = np.random.default_rng(7)
    weights = {
        name: value + 0.05 * rng.normal(size=value.shape).astype(np.float32)
        for name, value in cases.starting_weights(case).items()
    }
    x = cases.synthetic_images(cases.BATCH, seed=3).reshape(-1, cases.PIXELS).astype(np.float32)
    noise = rng.normal(size=[cases.BATCH, cases.LATENT]).astype(np.float32)
    masks = [tuple(map(torch.from_numpy, cases.made_masks(k))) for k in range(cases.LAYERS)]
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    found = lean.free_energy(case, tensors, masks, torch.from_numpy(x), torch.from_numpy(noise))
    expected = -tf.reduce_mean(floor.elbo(case, weights, tf.constant(x), tf.constant(noise)))
    np.testing.assert_allclose(found.item(), expected, rtol=2e-5)
