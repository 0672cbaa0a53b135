"""A Keras that cannot run the package is refused in one sentence, before anything heavy loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tfp_flowvae


def _run(script, tmp_path, **environment):
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in {"KERAS_BACKEND", "TF_USE_LEGACY_KERAS", "KERAS_HOME"}
    }
    environment = {"KERAS_HOME": str(tmp_path), **environment}  # never the tester's own keras.json
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**clean, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def _refusals(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "torch"}))
    return {
        "KERAS_BACKEND": ({"KERAS_BACKEND": "jax"}, "'jax', from the environment variable"),
        "legacy": ({"TF_USE_LEGACY_KERAS": "1"}, "Keras 2: unset TF_USE_LEGACY_KERAS."),
        "legacy_word": ({"TF_USE_LEGACY_KERAS": "True"}, "TF_USE_LEGACY_KERAS=True"),
        "file": ({"KERAS_HOME": str(tmp_path)}, f"'torch', from {tmp_path / 'keras.json'}"),
    }


REFUSED = pytest.mark.parametrize("case", ["KERAS_BACKEND", "legacy", "legacy_word", "file"])


USES = ["fv.FlowVAE", "fv.flows.IAF", "fv.networks.MLP", "fv.FlowDistribution", "fv.load"]


@REFUSED
def test_every_part_that_needs_keras_says_so_in_one_sentence(case, tmp_path):
    environment, told = _refusals(tmp_path)[case]
    script = "import tfp_flowvae as fv\n" + "".join(
        f"try:\n    {use}\nexcept ImportError as error:\n    print(type(error).__name__, error)\n"
        for use in USES
    )
    done = _run(script, tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(USES)
    for line in lines:
        assert line.startswith("BackendError tfp_flowvae needs Keras")
        assert line.endswith(".")
        assert told in line


@pytest.mark.parametrize("command", [["-m", "tfp_flowvae"], ["train.py"]])
def test_the_command_line_says_it_too(command, tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    folder = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, *command, "--help"],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: tfp_flowvae needs Keras")
    assert done.stderr.count("\n") == 1


def test_bijectors_need_no_keras(tmp_path):
    script = "from tfp_flowvae import bijectors as fvb; print(fvb.Planar.__name__)"
    done = _run(script, tmp_path, KERAS_BACKEND="numpy")
    assert (done.returncode, done.stdout) == (0, "Planar\n"), done.stderr


@pytest.mark.parametrize(
    "environment",
    [{}, {"KERAS_BACKEND": "tensorflow"}, {"TF_USE_LEGACY_KERAS": "0"}, {"KERAS_BACKEND": ""}],
)
def test_the_right_keras_passes(environment, tmp_path):
    done = _run("from tfp_flowvae._backend import check_backend as c; c()", tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("content", ['{"backend": "tensorflow"}', "{}", "not json"])
def test_a_harmless_keras_json_passes(content, tmp_path):
    (tmp_path / "keras.json").write_text(content)
    done = _run("from tfp_flowvae._backend import check_backend as c; c()", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_environment_outweighs_the_file(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "torch"}))
    script = "from tfp_flowvae._backend import check_backend as c; c()"
    assert _run(script, tmp_path, KERAS_BACKEND="tensorflow").returncode == 0


def test_a_keras_that_is_already_imported_is_asked(tmp_path):
    script = (
        "import sys, types\n"
        "keras = types.ModuleType('keras')\n"
        "keras.config = types.SimpleNamespace(backend=lambda: 'openvino')\n"
        "sys.modules['keras'] = keras\n"
        "from tfp_flowvae._backend import check_backend\n"
        "check_backend()\n"
    )
    done = _run(script, tmp_path, KERAS_BACKEND="tensorflow")
    assert done.returncode == 1
    assert "'openvino', from Keras, which is already imported" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("version", "told"), [("2.15.0", "keras 2.15.0 is installed"), (None, "no keras is installed")]
)
def test_keras_2_or_none_installed(version, told, tmp_path):
    script = (
        "import importlib.metadata as metadata\n"
        "def version(name):\n"
        f"    if {version is None}:\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        f"    return {version!r}\n"
        "metadata.version = version\n"
        "from tfp_flowvae._backend import check_backend\n"
        "check_backend()\n"
    )
    done = _run(script, tmp_path)
    assert done.returncode == 1
    assert told in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "use",
    [
        "import tfp_flowvae",
        "import tfp_flowvae.cli",
        "import tfp_flowvae.flows as f; list(f.FLOWS)",
        "import tfp_flowvae.distributions.spec as s; s.parse_distribution('vamp:3+planar')",
    ],
)
def test_nothing_heavy_is_imported(use, tmp_path):
    script = f"import sys; {use}; print([m for m in sys.modules if m.split('.')[0] in HEAVY])"
    heavy = "{'tensorflow', 'keras', 'tensorflow_probability', 'tf_keras', 'sklearn', 'matplotlib'}"
    done = _run(script.replace("HEAVY", heavy), tmp_path)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_lazy_names(tmp_path):
    assert {"FlowVAE", "FlowDistribution", "register_flow", "bijectors"} <= set(tfp_flowvae.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tfp_flowvae.nonsense
    for name in tfp_flowvae.__all__:
        assert getattr(tfp_flowvae, name) is not None
