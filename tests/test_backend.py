"""A Keras that cannot run the package is refused in one sentence, before anything heavy loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys

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


@REFUSED
@pytest.mark.parametrize("module", ["tfp_flowvae", "tfp_flowvae.flows", "tfp_flowvae.cli"])
def test_one_sentence_and_no_traceback(case, module, tmp_path):
    environment, told = _refusals(tmp_path)[case]
    done = _run(f"import {module}", tmp_path, **environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("tfp_flowvae needs Keras")
    assert done.stderr.endswith(".\n")
    assert told in done.stderr


def test_the_command_line_says_it_too(tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-m", "tfp_flowvae", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@REFUSED
def test_it_can_be_caught_as_an_import_error(case, tmp_path):
    environment, told = _refusals(tmp_path)[case]
    script = (
        "try:\n    import tfp_flowvae\n"
        "except ImportError as error:\n    print(error)\n"
        "try:\n    import tfp_flowvae.flows\n"  # and again, with nothing half imported
        "except ImportError as error:\n    print(type(error).__name__)\n"
    )
    done = _run(script, tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    message, again = done.stdout.splitlines()
    assert told in message
    assert again == "BackendError"


def test_other_errors_keep_their_traceback(tmp_path):
    script = (
        "try:\n    import tfp_flowvae\nexcept ImportError:\n    pass\nraise RuntimeError('mine')"
    )
    done = _run(script, tmp_path, KERAS_BACKEND="jax")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "RuntimeError: mine" in done.stderr


@pytest.mark.parametrize(
    "environment",
    [{}, {"KERAS_BACKEND": "tensorflow"}, {"TF_USE_LEGACY_KERAS": "0"}, {"KERAS_BACKEND": ""}],
)
def test_the_right_keras_passes(environment, tmp_path):
    done = _run("import tfp_flowvae; print(tfp_flowvae.__version__)", tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == tfp_flowvae.__version__


@pytest.mark.parametrize("content", ['{"backend": "tensorflow"}', "{}", "not json"])
def test_a_harmless_keras_json_passes(content, tmp_path):
    (tmp_path / "keras.json").write_text(content)
    done = _run("import tfp_flowvae", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_environment_outweighs_the_file(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "torch"}))
    assert _run("import tfp_flowvae", tmp_path, KERAS_BACKEND="tensorflow").returncode == 0


def test_a_keras_that_is_already_imported_is_asked(tmp_path):
    script = (
        "import sys, types\n"
        "keras = types.ModuleType('keras')\n"
        "keras.config = types.SimpleNamespace(backend=lambda: 'openvino')\n"
        "sys.modules['keras'] = keras\n"
        "import tfp_flowvae\n"
    )
    done = _run(script, tmp_path, KERAS_BACKEND="tensorflow")
    assert done.returncode == 1
    assert "'openvino', from the keras that is already imported" in done.stderr
    assert done.stderr.count("\n") == 1


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
        "import tfp_flowvae\n"
    )
    done = _run(script, tmp_path)
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


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
    assert set(tfp_flowvae.__all__) == {
        "FlowVAE", "TrainConfig", "__version__", "export", "load", "make_flow"
    }  # fmt: skip
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tfp_flowvae.nonsense
    for name in tfp_flowvae.__all__:
        assert getattr(tfp_flowvae, name) is not None
