from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np

from tfp_flowvae import models
from tfp_flowvae.saving.saved_model import load


def _numbers(vae, x):
    """What a model answers, of each of its parts."""
    return [vae.elbo(x, 2, seed=1), vae.encode(x, seed=2), vae.sample(3, seed=3), vae(x)["log_det"]]


def test_keras_file_gives_the_same_numbers_back(flow, prior, make_vae, stir, digits, tmp_path):
    vae = stir(make_vae(flow, prior, seed=5))
    vae.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is models.FlowVAE
    for mine, theirs in zip(_numbers(again, digits[:4]), _numbers(vae, digits[:4]), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert len(again.trainable_weights) == len(vae.trainable_weights)


def test_config_round_trip(make_vae, digits):
    vae = make_vae("planar", "maf", objective=models.Objective(2, 0.5), seed=3, name="mine")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(vae)))
    again = keras.saving.deserialize_keras_object(config)
    assert (again.name, again.seed) == ("mine", 3)
    assert again.objective == vae.objective
    assert again.likelihood == vae.likelihood
    assert again.image_shape == vae.image_shape
    again.set_weights(vae.get_weights())
    np.testing.assert_array_equal(again.elbo(digits[:4], seed=1), vae.elbo(digits[:4], seed=1))
    direct = models.FlowVAE.from_config(vae.get_config())
    assert len(direct.weights) == len(vae.weights)


def test_training_goes_on_where_it_was_saved(make_vae, digits, tmp_path):
    vae = make_vae("householder", seed=5)
    vae.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    vae.fit(digits[:64], batch_size=32, epochs=1, verbose=0, shuffle=False)
    vae.save(tmp_path / "model.keras")
    again = load(tmp_path / "model.keras")
    assert again.optimizer.iterations == 2
    # Keras keeps no state of a SeedGenerator in the file: the noise starts anew.
    np.testing.assert_array_equal(again.seed_generator.state, [5, 0])
    again.seed_generator.state.assign(vae.seed_generator.state)
    histories = [
        model.fit(digits[:64], batch_size=32, epochs=1, verbose=0, shuffle=False).history
        for model in (vae, again)
    ]
    assert histories[0] == histories[1]


def test_weights_file_alone(make_vae, stir, digits, tmp_path):
    vae, other = stir(make_vae("iaf", "realnvp")), make_vae("iaf", "realnvp")
    vae.save_weights(tmp_path / "w.weights.h5")
    other.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(other.elbo(digits[:4], seed=1), vae.elbo(digits[:4], seed=1))


def test_the_users_own_functional_nets_come_back(make_vae, stir, digits, tmp_path):
    image = keras.Input((8, 8, 1))
    h = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    encoder = keras.Model(image, keras.layers.Dense(16)(keras.layers.Flatten()(h)))
    decoder = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(64), keras.layers.Reshape((8, 8, 1))]
    )
    vae = stir(make_vae("planar", encoder=encoder, decoder=decoder))
    vae.save(tmp_path / "model.keras")
    again = load(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.elbo(digits[:4], seed=1), vae.elbo(digits[:4], seed=1))


def test_saved_under_mixed_precision_comes_back_so(
    mixed_bfloat16, make_vae, stir, digits, tmp_path
):
    vae = stir(make_vae("iaf", "realnvp"))
    vae.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")
    again = load(tmp_path / "model.keras")
    assert again.decoder.dtype_policy.name == "mixed_bfloat16"
    np.testing.assert_array_equal(again.elbo(digits[:4], seed=1), vae.elbo(digits[:4], seed=1))


def test_the_file_holds_no_code(make_vae, tmp_path):
    make_vae("iaf", "maf").save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert set(archive.namelist()) == {"metadata.json", "config.json", "model.weights.h5"}
        config = archive.read("config.json").decode()
    assert "__lambda__" not in config
    keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)


def test_a_fresh_process_gives_the_same_numbers(make_vae, stir, digits, tmp_path):
    """Where no flow's module has been imported yet."""
    vae = stir(make_vae("iaf", "realnvp"))
    vae.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", digits[:4])
    script = (
        "import sys, numpy as np, tfp_flowvae\n"
        "folder = sys.argv[1]\n"
        "vae = tfp_flowvae.load(folder + '/model.keras')\n"
        "np.save(folder + '/elbo.npy', vae.elbo(np.load(folder + '/x.npy'), seed=1))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "elbo.npy"), vae.elbo(digits[:4], seed=1))
