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


@pytest.fixture
def predict():
    """`predict(model, **request)`: what TensorFlow Serving's REST API answers, from JSON to JSON.

    It does to the signatures of a loaded SavedModel what the API's page documents
    (https://www.tensorflow.org/tfx/serving/api_rest): "inputs" are whole tensors; "instances" are
    the rows of a batch, so all inputs and all outputs have the batch first. A name is left out
    where there is one input or output. Numbers take the type that the signature has.
    """
    import numpy as np
    import tensorflow as tf

    def answer(model, **request):
        request = json.loads(json.dumps(request))
        signature = model.signatures[request.pop("signature_name", "serving_default")]
        specs = signature.structured_input_signature[1]
        (form,) = request
        given = request[form]
        if form == "instances":
            rows = [_by_name(row, specs) for row in given]
            given = {name: [row[name] for row in rows] for name in specs}
        given = _by_name(given, specs)
        assert set(given) == set(specs), f"the inputs are {sorted(specs)}, not {sorted(given)}"
        tensors = {}
        for name, spec in specs.items():
            array = np.array(given[name])
            assert spec.dtype.is_floating or array.dtype.kind == "i" or not array.size, name
            tensors[name] = tf.constant(array, spec.dtype)
            assert spec.shape.is_compatible_with(array.shape), (name, spec.shape, array.shape)
        outputs = {name: value.numpy() for name, value in signature(**tensors).items()}
        if form == "inputs":
            return json.loads(
                json.dumps({"outputs": _without_name(outputs)}, default=np.ndarray.tolist)
            )
        sizes = {len(value) for value in (*tensors.values(), *outputs.values())}
        assert sizes == {len(request["instances"])}, "not a batch of rows"
        rows = [{k: v[i].tolist() for k, v in outputs.items()} for i in range(*sizes)]
        return json.loads(json.dumps({"predictions": list(map(_without_name, rows))}))

    return answer


def _by_name(given, specs):
    return given if isinstance(given, dict) else {next(iter(specs)): given}


def _without_name(outputs):
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs
