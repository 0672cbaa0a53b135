"""Classes of a user's own under names of their own: in specs, help, files and the command line."""

from __future__ import annotations

import inspect
import json
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flowvae as fv
from tfp_flowvae.cli import main
from tfp_flowvae.errors import UserError

PLUGIN = """
import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

import tfp_flowvae as fv


@fv.register_flow("wobble", summary="adds a sine of the dimensions before, K times")
class Wobble(fv.flows.RepeatedFlow):
    def __init__(self, length: int = 2, strength: float = 0.5, **kwargs):
        super().__init__(length, **kwargs)
        self.strength = strength

    def parameter_initializers(self):
        return {"log_scale": ((self.length, self.event_size), "zeros")}

    def make_bijector(self, context):
        total = tf.reduce_sum(fv.flows.base.derived(
            self.parameters(context)["log_scale"], tf.identity) + 0.0, axis=-2)
        return tfb.Scale(log_scale=self.strength * tf.tanh(total))

    def get_config(self):
        return {**super().get_config(), "strength": self.strength}


@fv.register_base("laplace", summary="independent Laplace variables", posterior=False)
class Laplace(fv.distributions.Base):
    def distribution(self, context=None):
        self.check_context(context)
        return tfd.Independent(tfd.Laplace(tf.zeros([self.event_size]), 1.0), 1)


class Encoder(keras.layers.Layer):
    def __init__(self, image_shape, units: int = 8, **kwargs):
        super().__init__(**kwargs)
        self.image_shape, self.units = image_shape, units
        self.dense = keras.layers.Dense(units, activation="tanh")

    def call(self, x):
        return self.dense(tf.reshape(x, [-1, 64]))

    def get_config(self):
        return {**super().get_config(), "image_shape": self.image_shape, "units": self.units}


class Decoder(keras.layers.Layer):
    def __init__(self, image_shape, event_size, output_channels, units: int = 8, **kwargs):
        super().__init__(**kwargs)
        self.options = {"image_shape": image_shape, "event_size": event_size,
                        "output_channels": output_channels, "units": units}
        self.dense = keras.layers.Dense(64)

    def call(self, z):
        return tf.reshape(self.dense(z), [-1, 8, 8, 1])

    def get_config(self):
        return {**super().get_config(), **self.options}


fv.register_network("tiny", summary="one dense layer", encoder=Encoder, decoder=Decoder)


@fv.register_likelihood("sharp", summary="Bernoulli pixels of twice the logits")
class Sharp(fv.likelihoods.Bernoulli):
    def log_prob(self, output, x):
        return super().log_prob(2 * output, x)


fv.register_preset("mine", summary="all of them", flow="wobble:3", encoder="tiny", epochs=1)
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """The path of a file that registers one class of each kind; it is imported once."""
    path = tmp_path_factory.mktemp("plugin") / "users_own.py"
    path.write_text(textwrap.dedent(PLUGIN))
    return path


def test_from_the_command_line_to_the_file_and_back(plugin, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--plugin", str(plugin), "--help"])
    shown = capsys.readouterr().out
    for name, summary in (
        ("wobble", "adds a sine"), ("laplace", "independent Laplace"), ("tiny", "one dense layer"),
        ("sharp", "Bernoulli pixels of twice"), ("mine", "all of them"),
    ):  # fmt: skip
        assert f"  {name}" in shown
        assert summary in shown
    assert "K (default 2); strength=a number (default 0.5)" in shown
    output = tmp_path / "run"
    command = ["train", "--plugin", str(plugin), "--preset", "mine", "--prior", "laplace+planar:2"]
    more = ["--likelihood", "sharp", "--latent-dim", "3", "--no-jit", "--no-diagnostics"]
    assert main([*command, *more, "--verbose", "0", "--output", str(output)]) == 0
    config = json.loads((output / "config.json").read_text())
    assert (config["flow"], config["encoder"], config["plugin"]) == (
        "wobble:3",
        "tiny",
        str(plugin),
    )
    assert (output / "report.html").is_file()
    vae = fv.load(output)
    assert type(vae.posterior_layer.flow.flows[0]).__name__ == "Wobble"
    assert vae.posterior_layer.flow.flows[0].length == 3
    assert type(vae.likelihood).__name__ == "Sharp"
    exported = tf.saved_model.load(str(output))
    assert exported.sample(2, 0)["images"].shape == (2, 8, 8, 1)
    # Resumed, it is imported again because the config says so.
    assert main(["train", "--resume", str(output), "--epochs", "2", "--verbose", "0"]) == 0


def test_in_python(plugin, digits):
    main(["train", "--plugin", str(plugin), "--flow", "nonsense"])  # imports it, and no more
    vae = fv.FlowVAE(
        image_shape=(8, 8, 1),
        latent_size=3,
        encoder="tiny:16",
        posterior="wobble:2,strength=0.25+planar:1",
        prior="laplace",
        decoder="tiny",
        likelihood="sharp",
    )
    vae.compile("adam", jit_compile=False)
    assert np.isfinite(vae.fit(digits, verbose=0).history["loss"]).all()
    assert vae.encoder.units == 16
    config = keras.saving.serialize_keras_object(vae)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    again.set_weights(vae.get_weights())
    np.testing.assert_array_equal(again.elbo(digits[:3], seed=1), vae.elbo(digits[:3], seed=1))
    with pytest.raises(UserError, match=r"wobble has no option 'lenght'.*Did you mean 'length'"):
        fv.make_flow("wobble:lenght=2", 3)


@pytest.mark.parametrize(
    ("source", "told"),
    [("no_such_module", "No module named"), ("no/such/file.py", "no such file")],
)
def test_a_plugin_that_cannot_be_imported_is_refused(source, told, capsys):
    assert main(["train", "--plugin", source]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: --plugin must name a Python module or file")
    assert told in error
    assert error.count("\n") == 1


def test_names_are_checked():
    for name, told in (("two words", "letters, digits"), ("1st", "letters"), ("iaf", "already")):
        with pytest.raises(UserError, match=told):
            fv.register_flow(name, summary="x")(type("Other", (fv.flows.Flow,), {}))


def test_the_defaults_that_the_help_shows_are_the_bases():
    for entry in fv.distributions.BASES.values():
        parameters = inspect.signature(entry.load()).parameters
        for key, option in entry.options.items():
            assert option.read(option.default) == parameters[key].default
