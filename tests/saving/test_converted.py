"""Files for LiteRT and ONNX Runtime: their numbers, their batches, and what cannot be converted."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfp_flowvae as fv
from tfp_flowvae.cli import main
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows import FLOWS
from tfp_flowvae.models.names import CONVERTED_FORMATS, NOISE_FUNCTIONS
from tfp_flowvae.saving.converted import FORMATS
from tfp_flowvae.saving.noise_functions import noise_functions

IMAGE, D = (8, 8, 1), 4
EPS = float(np.finfo(np.float32).eps)
# Some eight layers one after the other, each with sums of at most 64 products and 20 functions.
ROUNDINGS = 8 * (64 + 20)
PAGE = Path(__file__).parents[2] / "docs" / "devices.md"


def needs(format):
    missing = [name for name in FORMATS[format].packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(
        bool(missing), reason=f"the extra {format} is not installed: {', '.join(missing)}"
    )


BOTH = [pytest.param(format, marks=needs(format)) for format in FORMATS]


def make(units, **given):
    """A model of one layer of so many units on each side."""
    return fv.FlowVAE(
        image_shape=IMAGE,
        latent_size=D,
        encoder=f"mlp:{units}",
        posterior="iaf:1,hidden=8",
        prior="mixture:3+realnvp:1,hidden=8",
        decoder=f"mlp:{units}",
        seed=0,
        **given,
    )


@pytest.fixture(scope="module")
def model(stir):
    """A model with a kernel that is large enough to have int8 weights."""
    return stir(make(32))


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    """A function from a format to the folder of its files."""
    folders = {}

    def write(format):
        if format not in folders:
            folders[format] = tmp_path_factory.mktemp("converted") / format
            fv.export(model, folders[format], format)
        return folders[format]

    return write


def arguments(endpoint, count):
    rng = np.random.default_rng(count)
    return {
        spec.name: rng.uniform(size=[count, *spec.shape[1:]]).astype(spec.dtype.as_numpy_dtype)
        for spec in endpoint.signature
    }


@pytest.mark.parametrize("format", BOTH)
def test_every_function_gives_the_numbers_of_the_model(format, model, written):
    endings = {"litert": (".tflite", ".int8.tflite"), "onnx": (".onnx",)}[format]
    names = {f"{name}{end}" for name in NOISE_FUNCTIONS for end in endings}
    assert {file.name for file in written(format).iterdir()} == names
    for name, endpoint in noise_functions(model).items():
        content = (written(format) / f"{name}{endings[0]}").read_bytes()
        assert b"Flex" not in content
        run = FORMATS[format].runner(content, name)
        for count in (1, 3, 1):
            given = arguments(endpoint, count)
            (wanted,) = endpoint.function(*map(tf.constant, given.values())).values()
            tolerance = ROUNDINGS * EPS * np.abs(wanted).max()
            np.testing.assert_allclose(run(**given), wanted, rtol=0, atol=tolerance, err_msg=name)


CONDITIONS = {
    "classes": {"num_classes": 3},
    "context": {"context_size": 3, "conditional_decoder": True},
}


def conditional(how, count, rng):
    """A label or a context for each example, as the last argument but noise."""
    if how == "classes":
        return {"label": rng.integers(-1, 3, count).astype(np.int32)}
    return {"context": rng.normal(size=[count, 3]).astype(np.float32)}


@pytest.fixture(scope="module", params=CONDITIONS)
def given_model(request, stir):
    """A model with classes or a context."""
    return request.param, stir(make(16, **CONDITIONS[request.param]))


def test_functions_of_noise_are_those_of_the_model_given_the_condition(given_model):
    how, vae = given_model
    rng = np.random.default_rng(0)
    y, functions = conditional(how, 4, rng), noise_functions(vae)
    x = rng.integers(0, 2, [4, *IMAGE]).astype(np.float32)
    e, u = rng.normal(size=[4, D]).astype(np.float32), np.linspace(0.05, 0.95, 4, dtype="f4")
    (value,) = y.values()
    z = functions["encode"].function(x, value, e)["z"]
    distribution = vae.posterior(x, **y)
    base = distribution.distribution.distribution
    close = {"rtol": 0, "atol": ROUNDINGS * EPS * np.abs(z).max()}
    np.testing.assert_allclose(z, distribution.bijector.forward(base.loc + base.scale * e), **close)
    found = functions["log_prior"].function(z, value)["log_prior"]
    wanted = vae.log_prior(z, **y)
    tolerance = ROUNDINGS * EPS * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)
    images = functions["sample_from_noise"].function(value, e, u)["images"]
    # The component of each row is the first whose cumulative weight is above u.
    prior = vae.prior(**y)
    mixture = prior.distribution
    weights = np.cumsum(mixture.mixture_distribution.probs_parameter(), axis=1)
    chosen = [np.flatnonzero(row > one)[0] for row, one in zip(weights, u, strict=True)]
    normals = mixture.components_distribution.distribution
    loc, scale = (np.asarray(part)[range(4), chosen] for part in (normals.loc, normals.scale))
    z = prior.bijector.forward(loc + scale * e)
    close = {"rtol": 0, "atol": ROUNDINGS * EPS * max(1.0, np.abs(z).max())}
    np.testing.assert_allclose(images, vae.decode(z, **y), **close)


@pytest.mark.parametrize("format", BOTH)
def test_files_take_labels_and_contexts(format, given_model, tmp_path):
    how, vae = given_model
    fv.export(vae, tmp_path / "files", format)
    end = {"litert": ".tflite", "onnx": ".onnx"}[format]
    for name, endpoint in noise_functions(vae).items():
        content = (tmp_path / "files" / f"{name}{end}").read_bytes()
        assert b"Flex" not in content
        run = FORMATS[format].runner(content, name)
        for count in (1, 3):
            given = arguments(endpoint, count)
            y = conditional(how, count, np.random.default_rng(1))
            given |= {key: value for key, value in y.items() if key in given}
            (wanted,) = endpoint.function(*map(tf.constant, given.values())).values()
            tolerance = ROUNDINGS * EPS * np.abs(wanted).max()
            np.testing.assert_allclose(run(**given), wanted, rtol=0, atol=tolerance, err_msg=name)


@needs("litert")
def test_int8_weights_are_smaller_and_as_exact_as_8_bits_are(model, written):
    full, small = (written("litert") / f"decode{end}" for end in (".tflite", ".int8.tflite"))
    assert small.stat().st_size < 0.6 * full.stat().st_size
    endpoint = noise_functions(model)["decode"]
    given = arguments(endpoint, 20)

    def decode():
        return endpoint.function(*map(tf.constant, given.values()))["images"].numpy()

    wanted = decode()
    # Weights are rounded to multiples of the largest / 127, and so are the layers' inputs: how far
    # a rounding of each weight up or down moves the images, twice.
    rng, values, moved = np.random.default_rng(0), model.decoder.get_weights(), []
    for _ in range(4):
        model.decoder.set_weights(
            [v + np.abs(v).max() / 254 * rng.choice([-1, 1], v.shape) for v in values]
        )
        moved.append(np.abs(decode() - wanted).max())
    model.decoder.set_weights(values)
    images = FORMATS["litert"].runner(small.read_bytes(), "decode")(**given)
    np.testing.assert_allclose(images, wanted, rtol=0, atol=2 * max(moved))


@pytest.mark.parametrize("format", BOTH)
def test_what_cannot_be_converted_is_named(format, make_vae, tmp_path):
    vae = make_vae("none", "householder")
    message = (
        rf"{FORMATS[format].title} cannot convert log_prior of the prior 'normal\+householder'"
    )
    reason = "it has no operation for TensorFlow's MatrixTriangularSolve"
    with pytest.raises(UserError, match=f"^{message}: {reason}; leave it out.$"):
        fv.export(vae, tmp_path / "one", format, functions=["log_prior"])
    assert not (tmp_path / "one").exists()
    with pytest.warns(UserWarning, match=f"^{message}: {reason}; it is left out.$"):
        fv.export(vae, tmp_path / "all", format, functions=None)
    assert {file.name.partition(".")[0] for file in (tmp_path / "all").iterdir()} == {
        "decode",
        "encode",
    }


def test_mistakes(make_vae, tmp_path, monkeypatch):
    vae = make_vae()
    with pytest.raises(UserError, match=r"The format must be litert or onnx. Received: 'tflite'"):
        fv.export(vae, tmp_path / "new", "tflite")
    monkeypatch.setattr("tfp_flowvae.saving.converted.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs ai_edge_litert, .*: pip install 'tfp-flowvae\[lit"):
        fv.export(vae, tmp_path / "new", "litert")
    monkeypatch.setattr("tfp_flowvae.saving.converted.find_spec", lambda name: name)
    with pytest.raises(UserError, match="exists; choose another path"):
        fv.export(vae, tmp_path, "litert")
    with pytest.raises(UserError, match=r"Functions must be among decode, .* Received: 'sample'"):
        fv.export(vae, tmp_path / "new", "litert", ["sample"])
    with pytest.raises(UserError, match="Only a FlowVAE can be exported to LiteRT"):
        fv.export(fv.FlowDensity("maf:1", event_size=2), tmp_path / "new", "litert")


@needs("onnx")
def test_the_command(model, tmp_path, capsys):
    model.export(tmp_path / "model")
    command = ["export", str(tmp_path / "model"), "--format", "onnx", "--functions", "decode"]
    assert main(command) == 0
    assert "decode.onnx" in capsys.readouterr().out
    assert [file.name for file in (tmp_path / "model" / "onnx").iterdir()] == ["decode.onnx"]
    assert main(command) == 2
    assert "exists; choose another path" in capsys.readouterr().err


def table_of(page, format):
    """The cells of a format's table on the page, by flow or base."""
    section = page.read_text(encoding="utf-8").split(f"\n### {FORMATS[format].title}\n")[1]
    rows = re.findall(r"^\| `([a-z_-]+)` \|(.+)\|$", section.split("\n### ")[0], re.M)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def test_the_table_has_every_flow_and_every_format():
    assert tuple(FORMATS) == CONVERTED_FORMATS
    bases = {"tril", "mixture", "vamp"}
    # Other tests may have registered flows of their own.
    flows = {name for name, entry in FLOWS.items() if isinstance(entry.target, str)}
    for format in FORMATS:
        assert set(table_of(PAGE, format)) == flows | bases


@pytest.mark.slow
@pytest.mark.parametrize("format", BOTH)
@pytest.mark.parametrize("name", [*FLOWS, "tril", "mixture", "vamp"])
def test_what_converts_is_what_the_table_says(name, format, small_spec, make_vae, tmp_path):
    functions = "encode", "log_prior", "sample_from_noise"
    for function, cell in zip(functions, table_of(PAGE, format)[name], strict=True):
        if cell == "-":  # no posterior or no prior has this base
            continue
        part = "posterior" if function == "encode" else "prior_part"
        vae = make_vae(**{part: small_spec(name)})
        path = tmp_path / function
        if cell not in ("any", "1"):
            with pytest.raises(UserError, match=f"operation for TensorFlow's {cell}; "):
                fv.export(vae, path, format, [function])
            continue
        fv.export(vae, path, format, [function])
        content = next(file for file in path.iterdir() if "int8" not in file.name).read_bytes()
        run = FORMATS[format].runner(content, function)
        given = arguments(noise_functions(vae)[function], 3)
        if cell == "any":
            assert len(run(**given)) == 3
        else:
            with pytest.raises(Exception, match=r"."):
                run(**given)
