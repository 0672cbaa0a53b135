from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# Run first: makes the rest of the script's Python one that has TensorFlow only.
BLOCKED = """
import json
import sys

BLOCKED = {"tfp_flowvae", "tensorflow_probability", "keras", "tf_keras"}

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            return None  # not found, as on a machine that has none of them
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
for name in BLOCKED:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"{name} could be imported")
"""
DONE = """
assert not BLOCKED & set(sys.modules)
print(json.dumps(answers))
"""


@pytest.fixture
def answers_of_plain_tensorflow(tmp_path):
    """A function that runs a script where TensorFlow is, and none of what is built on it.

    It takes the script, which makes `answers` of what JSON knows, and its arguments, and returns
    the answers.
    """

    def run(script, *arguments):
        done = subprocess.run(
            [sys.executable, "-c", BLOCKED + script + DONE, *arguments],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": ""},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
