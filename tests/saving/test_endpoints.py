"""The endpoints of exported models beside the first six, and what TensorFlow Serving needs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

import tfp_flowvae as fv
from tfp_flowvae.models.endpoints import SCORE_SAMPLES, SERVING_SEED
from tfp_flowvae.models.importance import SAMPLES

D, IMAGE = 4, (5, 3, 1)
EPS = float(np.finfo(np.float32).eps)
# How often a number is rounded on the way from an image to its ELBO: some eight layers one after
# the other, each with sums of at most 16 products and 20 functions of their results.
ROUNDINGS = 8 * (16 + 20)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 2, size=(3, *IMAGE)).astype(np.float32)


@pytest.fixture(scope="module")
def vae(small_spec, stir):
    keras.utils.set_random_seed(0)
    model = fv.FlowVAE(
        image_shape=IMAGE,
        latent_size=D,
        encoder="mlp:16",
        posterior=small_spec("iaf"),
        prior=small_spec("mixture+realnvp"),
        decoder="mlp:16",
        seed=0,
    )
    return stir(model)


@pytest.fixture(scope="module")
def served(vae, tmp_path_factory):
    """What plain TensorFlow loads from the model's export."""
    path = tmp_path_factory.mktemp("served")
    fv.export(vae, path)
    return tf.saved_model.load(str(path))


@pytest.fixture
def assert_as(vae, one_eps, assert_within):
    """`assert_as(got, function, x)`: got is what the function of x gives, but for rounding."""

    def check(got, function, x):
        assert_within(got, function(x), one_eps(function, x, vae), ROUNDINGS)

    return check


def same(got, wanted):
    """Compares what two programs compute, which TensorFlow may round in different orders."""
    scale = np.abs(wanted).max(initial=0.0)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=ROUNDINGS * EPS * scale)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_draws_of_the_posterior_and_their_density(vae, served, images, count, assert_as):
    x = images[:count]
    z = served.sample_posterior(x, 5, 2)["z"]
    assert z.shape == (5, count, D)
    assert_as(z, lambda x: vae.draw(x, 5, 2).z, x)
    density = served.log_posterior(z[0], x)["log_posterior"]
    np.testing.assert_array_equal(served.log_posterior(z[0], x, 7)["log_posterior"], density)
    assert_as(density, lambda x: vae.draw(x, 5, 2).log_prob[0], x)


def test_log_prob_is_the_estimate_of_the_model(vae, served, images, one_eps):
    samples = 2 * SAMPLES + 7
    got = served.log_prob(images, samples, 4)["log_prob"]
    wanted = -vae.nll(images, samples, batch_size=len(images), seed=4)
    (unit,) = one_eps(lambda x: vae.elbo(x, seed=4), images, vae)
    # A mean of positive weights has their relative rounding; each of three chunks is added once.
    np.testing.assert_allclose(got, wanted, rtol=0, atol=(ROUNDINGS + 3) * unit)
    one = served.log_prob(images, 1, 4)["log_prob"]
    first = vae.elbo(images, seed=tf.random.fold_in([4, 0], 0))
    np.testing.assert_allclose(one, first, rtol=0, atol=ROUNDINGS * unit)
    assert served.log_prob(images[:0], samples, 4)["log_prob"].shape == (0,)


@pytest.mark.parametrize("name", ["score", "serving_default"])
def test_the_results_of_an_image_do_not_depend_on_its_batch(name, served, images):
    together = getattr(served, name)(images)
    alone = getattr(served, name)(images[1:2])
    for output, value in together.items():
        same(alone[output], value[1:2])
        assert getattr(served, name)(images[:0])[output].shape == (0, *value.shape[1:])


def test_one_image_has_the_score_and_the_bound_of_the_scalar_functions(served, images):
    x = images[:1]
    score, log_prob = served.score(x)["score"], served.log_prob(x, SCORE_SAMPLES, SERVING_SEED)
    same(score, -log_prob["log_prob"])
    found = served.signatures["serving_default"](tf.constant(x))
    for name, value in {
        "reconstruction": served.reconstruct(x, SERVING_SEED)["images"],
        "elbo": served.elbo(x, SERVING_SEED)["elbo"],
        "z": served.encode(x, SERVING_SEED)["z"],
    }.items():
        same(found[name], value)


def test_no_samples_are_refused(served, images):
    with pytest.raises(tf.errors.InvalidArgumentError, match="num_samples must be at least 1"):
        served.log_prob(images, 0, 4)


def test_a_temperature_is_an_argument_of_the_method_and_a_signature_of_its_own(vae, served):
    plain = served.sample(6, 1)["images"]
    np.testing.assert_array_equal(served.sample(6, 1, 1.0)["images"], plain)
    for temperature in (0.0, 0.5, 2):
        warm = served.sample(6, 1, temperature=temperature)["images"]
        same(warm, vae.sample(6, 1, temperature))
        by_signature = served.signatures["sample_at_temperature"](
            n=tf.constant(6), seed=tf.constant(1), temperature=tf.constant(float(temperature))
        )
        np.testing.assert_array_equal(by_signature["images"], warm)
    assert set(served.signatures["sample"].structured_input_signature[1]) == {"n", "seed"}


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_interpolation(vae, served, images, steps):
    ends = images, images[::-1]
    path = served.interpolate(*ends, steps)["images"]
    assert path.shape == (steps, *images.shape)
    same(path, vae.interpolate(*ends, steps))
    if steps > 1:
        for place, x in ((0, ends[0]), (-1, ends[1])):
            centre = vae.posterior_layer.sample(1, vae.encoder(x), 0, temperature=0.0)[0]
            same(path[place], vae.decode(centre))


def test_each_row_has_the_results_of_a_batch_of_its_own(served, images):
    seeds = tf.constant([5, -1, 5])
    for name in ("encode", "reconstruct", "elbo"):
        (found,) = getattr(served, f"{name}_rows")(images, seeds).values()
        for i, row in enumerate(found):
            (alone,) = getattr(served, name)(images[i : i + 1], seeds[i]).values()
            same(row, alone[0])


@pytest.mark.parametrize("name", ["sample_posterior", "interpolate"])
def test_rows_with_fewer_results_end_in_zeros(name, served, images):
    counts = tf.constant([2, 0, 3])
    first, second = (counts, [4, 5, 6]) if name == "sample_posterior" else (images, counts)
    (found,) = getattr(served, f"{name}_rows")(images, first, tf.constant(second)).values()
    assert found.shape[:2] == (3, 3)
    for i, (row, count) in enumerate(zip(found, counts, strict=True)):
        rest = (count, second[i]) if name == "sample_posterior" else (images[i : i + 1], count)
        (alone,) = getattr(served, name)(images[i : i + 1], *rest).values()
        same(row[:count], alone[:, 0])
        np.testing.assert_array_equal(row[count:], 0.0)


def test_rows_of_samples_end_in_zeros(served):
    counts, seeds = tf.constant([2, 0, 3]), tf.constant([5, 6, 5])
    found = served.sample_rows(counts, seeds)["images"]
    assert found.shape == (3, 3, *IMAGE)
    for row, n, seed in zip(found, counts, seeds, strict=True):
        same(row[:n], served.sample(n, seed)["images"])
        np.testing.assert_array_equal(row[n:], 0.0)
    assert served.sample_rows(counts[:0], seeds[:0])["images"].shape == (0, 0, *IMAGE)


def test_the_row_format_of_tensorflow_serving(served, images, predict):
    rows = images.tolist()
    found = predict(served, instances=rows)["predictions"]
    assert [sorted(row) for row in found] == 3 * [["elbo", "reconstruction", "z"]]
    (alone,) = predict(served, instances=[{"x": rows[1]}])["predictions"]
    same(alone["elbo"], found[1]["elbo"])
    scores = predict(served, signature_name="score", instances=rows)["predictions"]
    same(scores, served.score(images)["score"])
    drawn = predict(
        served,
        signature_name="sample_at_temperature_rows",
        instances=[
            {"n": 2, "seed": 7, "temperature": 0.5},
            {"n": 1, "seed": 8, "temperature": 1.0},
        ],
    )["predictions"]
    same(drawn[0], served.sample(2, 7, 0.5)["images"])
    same(drawn[1][:1], served.sample(1, 8)["images"])
    z = predict(
        served,
        signature_name="encode_rows",
        instances=[{"x": x, "seed": seed} for x, seed in zip(rows, (1, 2, 3), strict=True)],
    )["predictions"]
    same(z[2], served.encode(images[2:], 3)["z"][0])


def test_the_columnar_format_of_tensorflow_serving_carries_scalars(served, images, predict):
    drawn = predict(served, signature_name="sample", inputs={"n": 2, "seed": 7})["outputs"]
    np.testing.assert_array_equal(np.float32(drawn), served.sample(2, 7)["images"])
    found = predict(served, inputs=images.tolist())["outputs"]
    assert sorted(found) == ["elbo", "reconstruction", "z"]
    log_prob = predict(
        served,
        signature_name="log_prob",
        inputs={"x": images.tolist(), "num_samples": 60, "seed": 1},
    )["outputs"]
    np.testing.assert_array_equal(np.float32(log_prob), served.log_prob(images, 60, 1)["log_prob"])


def test_all_signatures_take_and_give_float32_where_networks_are_bfloat16(
    mixed_bfloat16, make_vae, stir, tmp_path
):
    vae = stir(make_vae("iaf", image_shape=IMAGE))
    fv.export(vae, tmp_path)
    served = tf.saved_model.load(str(tmp_path))
    for name, signature in served.signatures.items():
        specs = [*signature.structured_input_signature[1].values()]
        specs += signature.structured_outputs.values()
        assert {spec.dtype for spec in specs} <= {tf.float32, tf.int32}, name
    x = tf.ones([2, *IMAGE])
    for answer in (served.score(x), served.interpolate(x, x, 2), served.serving_default(x)):
        for value in answer.values():
            assert value.dtype == tf.float32
            assert np.all(np.isfinite(value))


def test_a_prior_without_a_mean_has_no_temperature(make_vae, tmp_path):
    prior = tfd.Independent(tfd.Cauchy(tf.zeros(4), 1.0), 1)
    vae = make_vae("none", prior_part=prior, image_shape=IMAGE)
    assert not vae.prior_layer.has_temperature
    fv.export(vae, tmp_path)
    served = tf.saved_model.load(str(tmp_path))
    assert "sample_at_temperature" not in served.signatures
    assert served.sample(2, 0)["images"].shape == (2, *IMAGE)


def test_a_posterior_without_an_inverse_is_exported_without_its_density(make_vae, tmp_path):
    class OneWay(tfb.Bijector):
        def __init__(self):
            super().__init__(forward_min_event_ndims=1, validate_args=False)

        def _forward(self, x):
            return 2.0 * x

        def _forward_log_det_jacobian(self, x):
            return tf.zeros(tf.shape(x)[:-1])

    vae = make_vae(posterior=OneWay(), image_shape=IMAGE)
    with pytest.warns(UserWarning, match="^Exported without log_posterior: "):
        vae.export(tmp_path)
    served = tf.saved_model.load(str(tmp_path))
    assert not hasattr(served, "log_posterior")
    assert served.score(tf.ones([2, *IMAGE]))["score"].shape == (2,)
