"""Keras's own ways to save and load, after a bare `import tfp_flowvae`."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import tfp_flowvae
from tfp_flowvae import _keras_objects


def test_every_registered_class_has_a_name_that_leads_to_it():
    for module in pkgutil.walk_packages(tfp_flowvae.__path__, "tfp_flowvae."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    objects = keras.saving.get_custom_objects()
    names = _keras_objects.registered_names()
    ours = {name for name, found in objects.items() if name.startswith("tfp_flowvae>")}
    assert ours <= set(names)
    for name in ours:
        module, attribute = names[name]
        if isinstance(objects[name], type):
            assert getattr(importlib.import_module(module), attribute) is objects[name]
        else:  # a base class, which no file names
            cls = getattr(importlib.import_module(module), attribute, None)
            assert cls is None or keras.saving.get_registered_name(cls) != name


LOAD = """
import sys
{imports}
assert not [name for name in sys.modules if name.startswith("tfp_flowvae.models.")]
import numpy as np
model = keras.saving.load_model(sys.argv[1] + "/model.keras")
np.save(sys.argv[1] + "/elbo.npy", model.elbo(np.ones((2, 8, 8, 1), np.float32), seed=1))
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import tfp_flowvae\nimport keras",
        "import tfp_flowvae\nimport tensorflow\nimport keras",  # TensorFlow looks for Keras
        "import keras\nimport tfp_flowvae",
    ],
)
def test_load_model_after_a_bare_import(imports, make_vae, tmp_path):
    vae = make_vae("iaf", "mixture+realnvp", likelihood="gaussian")
    vae.save(tmp_path / "model.keras")
    script = LOAD.format(imports=imports)
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    x = np.ones((2, 8, 8, 1), np.float32)
    np.testing.assert_array_equal(np.load(tmp_path / "elbo.npy"), vae.elbo(x, seed=1))


def test_importing_the_package_imports_no_keras():
    script = (
        "import sys, tfp_flowvae\n"
        "from tfp_flowvae import flows, distributions, likelihoods, networks, models\n"
        "assert not {'keras', 'tensorflow', 'tensorflow_probability'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_clone_model_and_predict_and_summary(make_vae, stir, digits):
    vae = stir(make_vae("planar", "realnvp"))
    clone = keras.models.clone_model(vae)
    clone.set_weights(vae.get_weights())
    np.testing.assert_array_equal(clone.elbo(digits[:4], seed=1), vae.elbo(digits[:4], seed=1))
    assert vae.predict(digits[:40], verbose=0).shape == (40, 8, 8, 1)
    lines = []
    vae.summary(print_fn=lines.append)
    text = "\n".join(map(str, lines))
    assert "?" not in text
    assert "(None, 16)" in text  # the encoder's features
    assert "(None, 8, 8, 1)" in text  # the decoder's output
