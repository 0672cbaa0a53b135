"""The SavedModel: its endpoints, its numbers, and that it needs nothing but TensorFlow."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae import models
from tfp_flowvae._files import KERAS_FILE
from tfp_flowvae.errors import UserError
from tfp_flowvae.networks import NETWORKS
from tfp_flowvae.saving import export, load

D, IMAGE = 4, (5, 3, 1)
# How often a number is rounded from an image to its ELBO: some eight layers one after the other,
# each with sums of at most 16 products and 20 functions of their results.
ROUNDINGS = 8 * (16 + 20)
ENDPOINTS = {
    "sample": (["n", "seed"], "images"),
    "encode": (["seed", "x"], "z"),
    "decode": (["z"], "images"),
    "reconstruct": (["seed", "x"], "images"),
    "elbo": (["seed", "x"], "elbo"),
    "log_prior": (["z"], "log_prior"),
}
SHARD = "data-00000-of-00001"
FAST_PAIRS = [("iaf", "maf"), ("planar+householder", "realnvp")]


@pytest.fixture(scope="module")
def stirred(small_spec, stir):
    """A function that builds a small FlowVAE whose weights are away from their start."""

    def make(flow, prior, image_shape=IMAGE, network="mlp:16"):
        keras.utils.set_random_seed(0)
        vae = models.FlowVAE(
            image_shape=image_shape,
            latent_size=D,
            encoder=network,
            posterior=small_spec(flow),
            prior=small_spec(prior),
            decoder=network,
            seed=0,
        )
        return stir(vae)

    return make


@pytest.fixture(scope="module", params=FAST_PAIRS, ids="-".join)
def exported(request, stirred, tmp_path_factory):
    """A model, the folder it was exported into, and what plain TensorFlow loads from there."""
    vae, path = stirred(*request.param), tmp_path_factory.mktemp("run") / "model"
    export(vae, path)
    return vae, path, tf.saved_model.load(str(path))


def _images(count):
    rng = np.random.default_rng(1)
    return tf.constant(rng.integers(0, 2, size=(count, *IMAGE)), tf.float32)


def _answers(model, x, seed):
    """What a FlowVAE answers, by endpoint."""
    z = model.encode(x, seed)
    return {
        "sample": model.sample(x.shape[0], seed),
        "encode": z,
        "decode": model.decode(z),
        "reconstruct": model.reconstruct(x, seed),
        "elbo": model.elbo(x, seed=seed),
        "log_prior": model.prior_layer(z),
    }


def _arguments(vae, x, seed):
    """The arguments that make an exported endpoint answer the same, by endpoint."""
    z = vae.encode(x, seed)
    return {
        "sample": (x.shape[0], seed),
        "encode": (x, seed),
        "decode": (z,),
        "reconstruct": (x, seed),
        "elbo": (x, seed),
        "log_prior": (z,),
    }


@pytest.fixture
def assert_same_numbers(one_eps, assert_within):
    """A function that compares every endpoint with the model, for batches of 0, 1 and 7."""

    def check(vae, loaded, seed=3):
        unit = one_eps(lambda x: _answers(vae, x, seed), _images(7), vae)
        for count in (0, 1, 7):
            x = _images(count)
            arguments = _arguments(vae, x, seed)
            found = {}
            for name, (_, output) in ENDPOINTS.items():
                answer = getattr(loaded, name)(*arguments[name])
                assert list(answer) == [output], name
                assert answer[output].dtype == tf.float32, name
                found[name] = answer[output]
            assert_within(found, _answers(vae, x, seed), unit, ROUNDINGS)

    return check


def test_same_numbers_as_the_model_at_any_batch_size(exported, assert_same_numbers):
    vae, _, loaded = exported
    assert_same_numbers(vae, loaded)


@pytest.mark.parametrize(
    "network",
    [
        "gated-conv:hidden=6,channels=4x4",
        "resnet:hidden=6,channels=4x4",
        pytest.param("gated-mlp:6", marks=pytest.mark.slow),
        pytest.param("residual-mlp:6", marks=pytest.mark.slow),
    ],
)
def test_every_network_exports(network, tmp_path, stirred, assert_same_numbers):
    vae = stirred("none", "none", network=network)
    export(vae, tmp_path)
    assert_same_numbers(vae, tf.saved_model.load(str(tmp_path)))


def test_every_network_is_in_the_table_above():
    (mark,) = test_every_network_exports.pytestmark
    kinds = {str(getattr(case, "values", [case])[0]).partition(":")[0] for case in mark.args[1]}
    assert kinds == set(NETWORKS) - {"mlp"}  # which all other tests export


def test_signatures_are_named_as_promised(exported):
    _, _, loaded = exported
    assert set(ENDPOINTS) <= set(loaded.signatures)
    for name, (inputs, output) in ENDPOINTS.items():
        signature = loaded.signatures[name]
        specs = signature.structured_input_signature[1]
        assert sorted(specs) == inputs, name
        assert list(signature.structured_outputs) == [output], name
        for argument, spec in specs.items():
            whole = {"n": (tf.int32, []), "seed": (tf.int32, []), "z": (tf.float32, [None, D])}
            dtype, shape = whole.get(argument, (tf.float32, [None, *IMAGE]))
            assert (spec.dtype, spec.shape.as_list()) == (dtype, shape), (name, argument)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_signatures_answer_the_same_by_keyword(exported, count):
    vae, _, loaded = exported
    x, seed = _images(count), 5
    arguments = _arguments(vae, x, seed)
    order = {"sample": ["n", "seed"], "decode": ["z"], "log_prior": ["z"]}
    for name, (_, output) in ENDPOINTS.items():
        named = dict(zip(order.get(name, ["x", "seed"]), arguments[name], strict=True))
        tensors = {k: tf.constant(v) if isinstance(v, int) else v for k, v in named.items()}
        by_signature = loaded.signatures[name](**tensors)[output]
        by_keyword = getattr(loaded, name)(**named)[output]
        positional = getattr(loaded, name)(*arguments[name])[output]
        np.testing.assert_array_equal(by_signature, positional, err_msg=name)
        np.testing.assert_array_equal(by_keyword, positional, err_msg=name)


def test_seeds_decide_the_draws(exported):
    _, _, loaded = exported
    x = _images(3)
    for draw in (
        lambda seed: loaded.sample(3, seed)["images"],
        lambda seed: loaded.encode(x, seed)["z"],
        lambda seed: loaded.reconstruct(x, seed)["images"],
        lambda seed: loaded.elbo(x, seed)["elbo"],
    ):
        np.testing.assert_array_equal(draw(1), draw(1))
        assert np.max(np.abs(draw(1) - draw(2))) > 0
        assert np.all(np.isfinite(draw(-1)))  # any int32 is a seed
        assert np.all(np.isfinite(draw(2**31 - 1)))


def test_images_are_means(exported):
    _, _, loaded = exported
    images = loaded.sample(50, 1)["images"].numpy()
    assert 0 <= images.min() < images.max() <= 1
    assert len(np.unique(images)) > 50  # not binary


def test_decode_goes_with_encode(exported, one_eps, assert_within):
    vae, _, loaded = exported
    x = _images(3)
    z = loaded.encode(x, 4)["z"]
    unit = one_eps(lambda x: vae.reconstruct(x, 4), x, vae)
    together = loaded.reconstruct(x, 4)["images"]
    assert_within(loaded.decode(z)["images"], together, unit, ROUNDINGS)


def test_load_gives_the_model_back(exported):
    vae, path, _ = exported
    for place in (path, str(path), path / KERAS_FILE):
        again = load(place)
        assert type(again) is models.FlowVAE
        np.testing.assert_array_equal(again.elbo(_images(3), seed=1), vae.elbo(_images(3), seed=1))


def test_no_pickle_and_nothing_unexpected(exported):
    _, path, _ = exported
    files = sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())
    assert KERAS_FILE in files
    assert not [f for f in files if f.endswith((".pkl", ".pickle", ".npy", ".py"))]
    graph = (path / "saved_model.pb").read_bytes()
    for unportable in (b"PyFunc", b"EagerPyFunc", b"PyFuncStateless"):
        assert unportable not in graph


def test_runs_where_only_tensorflow_is(
    exported, answers_of_plain_tensorflow, one_eps, assert_within
):
    vae, path, _ = exported
    script = (
        "import tensorflow as tf\n"
        "model = tf.saved_model.load(sys.argv[1])\n"
        f"x = tf.ones([3, *{IMAGE}])\n"
        "z = model.encode(x, 3)['z']\n"
        "answers = [model.sample(n, 3)['images'] for n in (0, 1, 3)]\n"
        "answers += [z, model.decode(z)['images'], model.reconstruct(x, 3)['images']]\n"
        "answers += [model.elbo(x, 3)['elbo'], model.log_prior(z)['log_prior']]\n"
        "answers = [a.numpy().tolist() for a in answers]\n"
    )
    got = answers_of_plain_tensorflow(script, str(path))
    x = tf.ones([3, *IMAGE])

    def answers(x):
        z = vae.encode(x, 3)
        drawn = [vae.sample(n, 3) for n in (0, 1, 3)]
        scores = [vae.elbo(x, seed=3), vae.prior_layer(z)]
        return [*drawn, z, vae.decode(z), vae.reconstruct(x, 3), *scores]

    wanted, unit = answers(x), one_eps(answers, x, vae)
    found = [np.float32(a).reshape(value.shape) for a, value in zip(got, wanted, strict=True)]
    assert_within(found, wanted, unit, ROUNDINGS)


WRITES_AN_EXPORT = """
import sys
import keras
import tfp_flowvae as fv

keras.utils.set_random_seed(0)
junk = [object() for _ in range(int(sys.argv[2]))]  # moves what is made later in memory
vae = fv.FlowVAE(
    image_shape=(5, 3, 1),
    latent_size=4,
    encoder="mlp:16x16,norm=batch",
    posterior="iaf:2,hidden=8",
    prior="mixture:3+realnvp:2,hidden=8",
    decoder="mlp:16",
    seed=0,
)
fv.export(vae, sys.argv[1])
"""


def test_two_processes_write_the_same_bytes(tmp_path, launch):
    script = tmp_path / "write.py"
    script.write_text(WRITES_AN_EXPORT)
    runs = [
        launch(str(script), str(tmp_path / f"run_{i}"), str(10_007 * i), PYTHONHASHSEED=str(i + 1))
        for i in range(2)
    ]
    for run in runs:
        assert run.wait(timeout=300) == 0, run.stdout.read()
    files = ["saved_model.pb", *(f"variables/variables.{end}" for end in (SHARD, "index"))]
    for name in files:
        first, second = ((tmp_path / f"run_{i}" / name).read_bytes() for i in range(2))
        assert first == second, name


def test_variables_are_written_once_and_found_by_whoever_loads_them(exported):
    vae, path, loaded = exported
    for kind in ("variables", "trainable_variables", "non_trainable_variables"):
        for ours, theirs in zip(getattr(vae, kind), getattr(loaded, kind), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    shapes = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    written = [shape for shape in shapes.get_variable_to_shape_map().values() if shape]
    assert sorted(written) == sorted(list(v.shape) for v in vae.variables)


@pytest.mark.slow
def test_every_flow_exports(flow, prior, tmp_path, stirred, assert_same_numbers):
    vae = stirred(flow, prior)
    export(vae, tmp_path)
    assert_same_numbers(vae, tf.saved_model.load(str(tmp_path)))


@pytest.mark.slow
def test_a_model_trained_under_mixed_precision_exports_float32(tmp_path, stirred):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        vae = stirred("iaf", "realnvp", (4, 4, 3))
        export(vae, tmp_path)
    finally:
        keras.config.set_dtype_policy(previous)
    loaded = tf.saved_model.load(str(tmp_path))
    images = loaded.sample(3, 1)["images"]
    assert (images.dtype, images.shape) == (tf.float32, (3, 4, 4, 3))
    assert loaded.elbo(images, 1)["elbo"].dtype == tf.float32
    # The decoder's two layers round their inputs, kernels, sums and activations by half of 2^-7 of
    # the logits' size; the slope of the mean is at most 1 / 4.
    logits = np.log(images) - np.log1p(-images)
    tolerance = 0.25 * 2 * 4 * 2.0**-8 * np.abs(logits).max()
    np.testing.assert_allclose(images, vae.sample(3, 1), rtol=0, atol=tolerance)


def test_load_of_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match=rf"holds no {KERAS_FILE}; give the folder of a finished"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"no\.keras' holds no"):
        load(tmp_path / "no.keras")


def test_load_of_what_is_not_a_flow_vae(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / KERAS_FILE)
    with pytest.raises(UserError, match="holds a Sequential, not a FlowVAE"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip file"])
def test_load_of_a_broken_file(content, tmp_path):
    (tmp_path / KERAS_FILE).write_bytes(content)
    with pytest.raises(UserError, match="is not a Keras file") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_load_of_a_truncated_file(tmp_path, stirred):
    stirred("none", "none").save(tmp_path / KERAS_FILE)
    whole = (tmp_path / KERAS_FILE).read_bytes()
    (tmp_path / KERAS_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is not a Keras file"):
        load(tmp_path)


def test_load_runs_no_code_from_the_file(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)])
    model.save(tmp_path / KERAS_FILE)
    with pytest.raises(
        UserError, match=r"this version of tfp_flowvae.*`Lambda`.*a Python lambda\.$"
    ):
        load(tmp_path)
