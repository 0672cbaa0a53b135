"""What the encoder sees in training where some pixels are hidden from it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae import networks

IMAGE, HIDDEN = (8, 8, 1), 16


@keras.saving.register_keras_serializable(package="test_input_dropout")
class Spy(networks.MLPEncoder):
    """An encoder that keeps the images it was called with."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def call(self, x):
        self.seen.append(x.numpy())
        return super().call(x)


def test_the_encoder_sees_a_part_and_the_likelihood_all(make_vae):
    rate, images = 0.25, np.ones((500, *IMAGE), np.float32)
    spy = Spy(IMAGE, hidden=(HIDDEN,))
    vae = make_vae(encoder=spy, input_dropout=rate, seed=3)
    spy.seen.clear()
    terms = vae(images, training=True)
    (seen,) = spy.seen
    np.testing.assert_allclose(np.unique(seen), [0.0, 1 / (1 - rate)], rtol=1e-6)
    error = np.sqrt(rate * (1 - rate) / seen.size)  # the standard error of a share
    assert abs(np.mean(seen == 0.0) - rate) < 4 * error
    # The same z again: its likelihood is that of the whole image.
    vae.seed_generator.state.assign([3, 0])
    z = vae.draw(seen, seed=vae.seed_generator.next()).z
    whole = vae.likelihood.log_prob(vae._decode_parameters(z), images)
    np.testing.assert_allclose(terms["log_likelihood"], whole, rtol=1e-5)

    spy.seen.clear()
    vae(images)  # evaluation hides nothing
    vae.elbo(images)
    for seen in spy.seen:
        np.testing.assert_array_equal(seen, images)


def test_every_step_hides_other_pixels_and_the_same_ones_after_resuming(make_vae, digits):
    spy = Spy(IMAGE, hidden=(HIDDEN,))
    vae = make_vae(encoder=spy, input_dropout=0.5, seed=3)
    state = vae.seed_generator.state.numpy()
    spy.seen.clear()
    vae(digits, training=True)
    vae(digits, training=True)
    vae.seed_generator.state.assign(state)
    vae(digits, training=True)
    first, second, again = spy.seen
    assert np.any(first != second)
    np.testing.assert_array_equal(first, again)


def test_the_same_pixels_are_hidden_in_a_graph_and_under_xla(make_vae, digits):
    vae, seed = make_vae(input_dropout=0.3), tf.constant([5, 7])
    eager = vae._dropped_out(digits, seed)
    for jit in (False, True):
        program = tf.function(vae._dropped_out, jit_compile=jit, autograph=False)
        np.testing.assert_array_equal(program(tf.constant(digits), seed), eager)


def test_it_is_kept_when_saved(make_vae, digits, tmp_path):
    vae = make_vae(input_dropout=0.5)
    vae.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").input_dropout == 0.5


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_that_cannot_be(rate, make_vae):
    with pytest.raises(ValueError, match=f"at least 0 and below 1.*input_dropout={rate}"):
        make_vae(input_dropout=rate)
