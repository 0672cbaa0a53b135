"""A user's own distribution as the prior, a user's own bijector as a flow."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flowvae
from tfp_flowvae import distributions, flows
from tfp_flowvae.distributions import FlowDistribution
from tfp_flowvae.errors import UserError

tfb, tfd = tfp.bijectors, tfp.distributions

D = 4


def student(loc=0.0):
    location = tf.Variable(tf.fill([D], loc), name="loc")
    scale = tfp.util.TransformedVariable(tf.ones(D), tfb.Softplus(), name="scale")
    return tfd.Independent(tfd.StudentT(4.0, location, scale), 1)


@keras.saving.register_keras_serializable(package="tests")
def registered_student():
    return student()


@keras.saving.register_keras_serializable(package="tests")
def registered_scale():
    return tfb.Chain([tfb.Shift(tf.Variable(tf.zeros(D))), tfb.Scale(tf.Variable(tf.ones(D)))])


def _with_flow(source):
    return flows.Stack([flows.Adopted(source), flows.Planar(2)])


@pytest.fixture
def adopting_vae(make_vae):
    def make(prior, scale=registered_scale):
        return make_vae(
            posterior=_with_flow(scale),
            prior_part=prior,
            seed=1,
        )

    return make


def test_its_variables_are_trained_and_are_the_users(adopting_vae, digits, assert_same):
    distribution = student()
    scale = registered_scale()
    vae = adopting_vae(distribution, scale)
    values = [w.value for w in vae.trainable_weights]
    for variable in (*distribution.trainable_variables, *scale.trainable_variables):
        assert any(value is variable for value in values)
    vae.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=True)
    before = [v.numpy() for v in (*distribution.variables, *scale.variables)]
    history = vae.fit(digits, batch_size=64, epochs=2, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    for old, variable in zip(before, (*distribution.variables, *scale.variables), strict=True):
        assert np.max(np.abs(old - variable)) > 0
    z = tf.random.normal([3, D])
    assert_same(vae.prior_layer(z), distribution.log_prob, vae.prior_layer, z)
    assert vae.prior().distribution is distribution


# The functions of the package, however its modules were imported before.
def test_export_and_load_with_registered_functions(
    adopting_vae, stir, digits, tmp_path, assert_same
):
    vae = stir(adopting_vae(registered_student))
    tfp_flowvae.export(vae, tmp_path)
    again = tfp_flowvae.load(tmp_path)
    np.testing.assert_array_equal(again.elbo(digits[:5], seed=1), vae.elbo(digits[:5], seed=1))
    np.testing.assert_array_equal(again.sample(3, seed=1), vae.sample(3, seed=1))
    exported = tf.saved_model.load(str(tmp_path))
    found = exported.elbo(digits[:5], 1)["elbo"]
    assert_same(found, lambda x: vae.elbo(x, seed=1), vae, digits[:5])


def test_load_says_what_an_unregistered_one_needs(adopting_vae, stir, digits, tmp_path):
    vae = stir(adopting_vae(student, registered_scale()))
    vae.save(tmp_path / "m.keras")
    with pytest.raises(UserError, match=r"This model's .* load it with .*=\.\.\. set to"):
        tfp_flowvae.load(tmp_path / "m.keras")
    again = tfp_flowvae.load(tmp_path / "m.keras", prior=student, flow=registered_scale())
    np.testing.assert_array_equal(again.elbo(digits[:5], seed=1), vae.elbo(digits[:5], seed=1))
    # What was supplied for one file is not there for the next.
    with pytest.raises(UserError, match="This model's"):
        tfp_flowvae.load(tmp_path / "m.keras")


def test_a_users_flow_as_prior(make_vae, digits):
    scale = registered_scale()
    vae = make_vae(prior_part=_with_flow(scale))
    seen = {id(v) for v in vae.prior().trainable_variables}
    assert {id(v) for v in scale.trainable_variables} < seen
    assert np.all(np.isfinite(vae.elbo(digits[:3], seed=1)))


class _NoDensity(tfd.Distribution):
    def __init__(self):
        super().__init__(tf.float32, tfd.FULLY_REPARAMETERIZED, False, True, parameters={})

    def _event_shape(self):
        return tf.TensorShape([D])

    def _batch_shape(self):
        return tf.TensorShape([])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (tfd.Normal(tf.zeros(D), 1.0), r"event shape \[D\].*batch_shape=\(4,\) and event_shape"),
        (tfd.Normal(0.0, 1.0), r"Normal with batch_shape=\(\) and event_shape=\(\)"),
        (
            tfd.Independent(tfd.Normal(np.zeros(D), np.ones(D)), 1),
            "float32 vectors. Received: .* tf.float64",
        ),
        (
            tfd.Independent(tfd.Poisson(tf.ones(D), force_probs_to_zero_outside_support=True), 1),
            "differentiated by z",
        ),
        (_NoDensity(), "must have a log_prob"),
        (lambda: 3, r"returns one\. Received: int"),
        (3, "Received: int"),
    ],
)
def test_refuses_a_distribution(source, message):
    with pytest.raises((UserError, TypeError), match=message):
        distributions.Adopted(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (tfb.FillTriangular(), "changes the number of event dimensions"),
        (tfb.Scale(tf.ones(3)), "size 4 and have a log-det. Received: Scale, which says"),
        (tfb.Reciprocal(), r"finite log-det at 0\. Received: Reciprocal"),
        ("planar", "Received: str"),
    ],
)
def test_refuses_a_bijector(source, message):
    with pytest.raises(UserError, match=message):
        flows.Adopted(source, event_size=D).build()


def test_refuses_another_size(make_vae):
    five = tfd.Independent(tfd.Normal(tf.zeros(5), 1.0), 1)
    with pytest.raises(ValueError, match=r"made for event_size=5\. Received: event_size=4"):
        make_vae(prior_part=five)


def test_under_a_flow_and_with_a_context(assert_same):
    layer = FlowDistribution("planar:2", student(), context_size=3)
    context = tf.random.normal([5, 3])
    z, log_prob = layer.sample_and_log_prob(2, context, seed=1)
    assert z.shape == (2, 5, D)
    assert_same(log_prob, layer.log_prob, layer, z, context)
    assert layer.distribution(context).batch_shape == [5]
