"""Properties of every encoder and decoder of the registry."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.networks.initial import PIXEL_SCALE
from tfp_flowvae.networks.registry import NETWORKS, make_decoder, make_encoder

EPS = np.finfo(np.float32).eps
SLOW = pytest.mark.slow
IMAGE_SHAPES = [
    (7, 13, 2),
    (1, 1, 1),
    (28, 28, 1),
    *(pytest.param(shape, marks=SLOW) for shape in [(8, 8, 1), (3, 10, 1), (32, 32, 3)]),
]
KINDS = list(NETWORKS)
NORMS = ["none", "batch", pytest.param("layer", marks=SLOW)]
D = 3


def _fast(*fast):
    """All kinds, those that are not named marked slow."""
    return [kind if kind in fast else pytest.param(kind, marks=SLOW) for kind in KINDS]


def _sizes(kind, decoder=False):
    if "channels" not in NETWORKS[kind].options:
        return {"hidden": (6, 5)}
    return {"hidden": (6,) if decoder else (6, 5), "channels": (4, 3)}


def _encoder(kind, image_shape, **options):
    return make_encoder(kind, image_shape, **{**_sizes(kind), **options})


def _decoder(kind, image_shape, **options):
    return make_decoder(kind, image_shape, D, **{**_sizes(kind, decoder=True), **options})


def _stir(layer):
    """Random weights, positive where they are variances, so that no part of a net is silent."""
    if not layer.built:
        layer.build()
    rng = np.random.default_rng(0)
    for weight in layer.weights:
        value = weight.numpy() + 0.1 * rng.normal(size=weight.shape)
        weight.assign(np.abs(value) if "variance" in weight.path else value)
    return layer


@pytest.mark.parametrize("image_shape", IMAGE_SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_over_any_leading_dimensions(kind, image_shape, roundings, one_eps, assert_within):
    encoder = _encoder(kind, image_shape)
    decoder = _decoder(kind, image_shape, output_channels=4)
    x = tf.random.uniform([2, 3, *image_shape])
    z = tf.random.normal([2, 3, D])
    for network, inputs, wanted in ((encoder, x, (5,)), (decoder, z, (*image_shape[:2], 4))):
        y = network(inputs)
        assert y.shape == (2, 3, *wanted)
        unit, n = one_eps(network, inputs, network), roundings(network)
        assert_within(network(inputs[1]), y[1], unit, n)
        assert_within(network(inputs[1, 2]), y[1, 2], unit, n)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_zero_and_one(kind, norm, roundings, one_eps, assert_within):
    for network, shape in (
        (_encoder(kind, (7, 5, 2), norm=norm), (7, 5, 2)),
        (_decoder(kind, (7, 5, 2), norm=norm), (D,)),
    ):

        def run(x, network=network):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = network(x)
            return y, tape.gradient(y, x, unconnected_gradients="zero")

        x = tf.random.normal([3, *shape])
        wanted, unit = run(x), one_eps(run, x, network)
        graph = tf.function(run, input_signature=[tf.TensorSpec([None, *shape])], autograph=False)
        n = 2 * roundings(network)  # forwards and backwards
        for count in (0, 1):
            for way in (run, graph):
                assert_within(way(x[:count]), [part[:count] for part in wanted], unit, n)


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_depends_on_its_own_example_alone(kind):
    for network, shape in (
        (_encoder(kind, (7, 5, 2)), (7, 5, 2)),
        (_decoder(kind, (7, 5, 2)), (D,)),
    ):
        inputs = tf.random.normal([3, *shape])
        moved = tf.concat([inputs[:2], inputs[2:] + 1.0], axis=0)
        change = np.abs(network(moved) - network(inputs)).reshape(3, -1).max(axis=1)
        assert change[2] > 0
        np.testing.assert_array_equal(change[:2], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_reads_every_pixel_and_decoder_every_dimension(kind):
    shape = (5, 9, 2)
    for network, in_shape in (
        (_encoder(kind, shape, activation="tanh"), shape),
        (_decoder(kind, shape, activation="tanh"), (D,)),
    ):
        x = tf.random.normal([8, *in_shape])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(_stir(network)(x) ** 2)
        assert np.all(np.abs(tape.gradient(y, x)).max(axis=0) > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_output_of_the_decoder_depends_on_its_input(kind):
    y = _stir(_decoder(kind, (7, 5, 1)))(tf.random.normal([6, D]))
    assert np.all(np.std(y, axis=0) > 0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_gets_a_gradient_at_the_start(kind, norm):
    for network, shape in (
        (_encoder(kind, (7, 5, 2), norm=norm), (7, 5, 2)),
        (_decoder(kind, (7, 5, 2), norm=norm), (D,)),
    ):
        x = tf.random.normal([8, *shape])
        with tf.GradientTape() as tape:
            y = network(x, training=True)
            loss = tf.reduce_sum(y * tf.random.stateless_normal(y.shape, [1, 2]))
        gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
        # More than rounding leaves of a sum of as many numbers, near 1, whose value is zero.
        noise = EPS * max(int(tf.size(x)), int(tf.size(y)))
        for variable, gradient in zip(network.trainable_variables, gradients, strict=True):
            assert np.abs(gradient).max() > noise, variable.path


@pytest.mark.parametrize("kind", _fast("mlp"))
def test_xla_computes_what_the_graph_does_with_gradients(kind, roundings, one_eps, assert_within):
    encoder, decoder = _encoder(kind, (7, 13, 1), norm="batch"), _decoder(kind, (7, 13, 1))
    project = keras.layers.Dense(D)
    x = tf.random.uniform([4, 7, 13, 1])
    decoder(project(encoder(x)))
    variables = [v.value for net in (encoder, project, decoder) for v in net.trainable_variables]

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((decoder(project(encoder(x))) - x) ** 2)
        return loss, tape.gradient(loss, variables)

    graph = tf.function(step)
    layers = (encoder, project, decoder)
    unit = one_eps(graph, x, *layers)
    # Forwards and backwards, and the sum of 4 x 7 x 13 squares.
    n = 2 * roundings(*layers) + np.sqrt(4 * 7 * 13)
    assert_within(tf.function(step, jit_compile=True)(x), graph(x), unit, n)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_norm_follows_the_training_flag_of_the_model_around_it(
    kind, roundings, one_eps, assert_within
):
    encoder, decoder = (
        _encoder(kind, (5, 5, 1), norm="batch"),
        _decoder(kind, (5, 5, 1), norm="batch"),
    )
    image = keras.Input((5, 5, 1))
    model = keras.Model(image, decoder(keras.layers.Dense(D)(encoder(image))))
    x = 3.0 + tf.random.normal([16, 5, 5, 1])
    moving = [w for w in model.weights if "moving" in w.path]
    before = [w.numpy() for w in moving]
    outside = model(x)
    unit, n = one_eps(model, x, model), roundings(model)
    assert_within(model(x[:4]), outside[:4], unit, n)
    assert all(np.array_equal(w, old) for w, old in zip(moving, before, strict=True))
    inside = model(x, training=True)
    assert np.abs(inside - outside).max() > n * unit[0]
    assert moving
    assert not any(np.array_equal(w, old) for w, old in zip(moving, before, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_config_round_trip_gives_the_same_network(kind):
    options = {"activation": "silu", "norm": "batch", "name": "mine"}
    more = {"blocks": 2} if kind == "resnet" else {}
    bias = {"output_channels": 4, "initial_bias": [1.0, 2.0, 3.0, 4.0]}
    for network, shape in (
        (_encoder(kind, (5, 3, 2), **options, **more), (5, 3, 2)),
        (_decoder(kind, (5, 3, 2), **options, **more, **bias), (D,)),
    ):
        _stir(network)
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
        assert again.get_config() == network.get_config()
        again.build()
        again.set_weights(network.get_weights())
        x = tf.random.normal([2, *shape])
        np.testing.assert_array_equal(again(x), network(x))


@pytest.mark.parametrize("kind", _fast("gated-conv"))
def test_keras_file_round_trip(kind, tmp_path):
    image = keras.Input((7, 5, 1))
    features = _encoder(kind, (7, 5, 1), norm="batch")(image)
    decoder = _decoder(kind, (7, 5, 1), norm="layer")
    model = keras.Model(image, decoder(keras.layers.Dense(D)(features)))
    _stir(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = tf.random.uniform([3, 7, 5, 1])
    np.testing.assert_array_equal(again(x), model(x))


@pytest.mark.parametrize("kind", KINDS)
def test_initial_bias_is_what_a_fresh_decoder_puts_out_on_average(kind):
    bias = [-2.0, 1.0, 4.0]
    fresh = _decoder(kind, (7, 5, 1), output_channels=3, initial_bias=bias)
    y = fresh(tf.random.normal([200, D]))
    # What its last kernel adds has a variance of PIXEL_SCALE, or less on average.
    found = tf.reduce_mean(y, axis=[0, 1, 2])
    np.testing.assert_allclose(found, bias, rtol=0, atol=5 * np.sqrt(PIXEL_SCALE))


@pytest.mark.parametrize("norm", ["batch", pytest.param("layer", marks=SLOW)])
@pytest.mark.parametrize("kind", _fast("gated-mlp", "resnet"))
def test_mixed_precision_is_finite_and_its_weights_stay_float32(kind, norm, mixed_bfloat16):
    encoder, decoder = _encoder(kind, (7, 5, 2), norm=norm), _decoder(kind, (7, 5, 2), norm=norm)
    features = encoder(tf.random.uniform([4, 7, 5, 2]), training=True)
    pixels = decoder(tf.random.normal([4, D]), training=True)
    assert features.dtype == pixels.dtype == tf.bfloat16
    assert {w.dtype for w in (*encoder.weights, *decoder.weights)} == {"float32"}
    for y in (features, pixels):
        assert np.isfinite(tf.cast(y, tf.float32)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_in_one_sentence(kind):
    for options, told in (
        ({"norm": "group"}, r"norm must be one of none, batch, layer\. Received: 'group'\."),
        ({"activation": "elo"}, r"activation must be one of linear, elu.*Received: 'elo'\."),
        ({"hidden": (3, 0)}, r"hidden must name.*Received: hidden=\(3, 0\)\."),
    ):
        for make in (_encoder, _decoder):
            with pytest.raises(ValueError, match=told):
                make(kind, (7, 5, 1), **options)
    with pytest.raises(ValueError, match=r"initial_bias must hold 2 numbers.*Received: \[1.0\]"):
        _decoder(kind, (7, 5, 1), output_channels=2, initial_bias=[1.0])
    with pytest.raises(ValueError, match=r"Received: event_size=0, output_channels=1\."):
        make_decoder(kind, (7, 5, 1), 0)
    with pytest.raises(ValueError, match=r"\(height, width, channels\).*Received: \(0, 8, 1\)\."):
        _encoder(kind, (0, 8, 1))
