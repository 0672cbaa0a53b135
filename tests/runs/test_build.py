"""The model and the optimizer have the sizes and parts that the config names."""

import keras
import numpy as np
import pytest

from tfp_flowvae.distributions import Mixture, Tril, Vamp
from tfp_flowvae.runs import TrainConfig
from tfp_flowvae.runs.build import build_model, build_optimizer


def _model(image_shape=(3, 5, 3), levels=256, steps=10, **values):
    return build_model(
        TrainConfig(**{"latent_dim": 4, "prior": "none", **values}), image_shape, levels, steps
    )


def test_model_follows_the_config():
    model = _model(
        flow="householder:2+iaf:1,hidden=7", prior="realnvp:2,hidden=5",
        hidden=(9, 6), samples=3, beta=0.5, seed=11,
    )  # fmt: skip
    assert model.image_shape == (3, 5, 3)
    assert model.latent_size == 4
    assert model.encoder.hidden == (9, 6)
    assert model.decoder.hidden == (6, 9)
    assert [type(f).__name__ for f in model.posterior_layer.flow.flows] == [
        "Householder",
        "IAF",
    ]
    assert model.posterior_layer.flow.flows[1].hidden == (7,)
    assert model.prior_layer.flow.flows[0].length == 2
    assert (model.objective.num_samples, model.objective.beta, model.seed) == (3, 0.5, 11)


def test_objective_counts_steps_where_the_config_counts_epochs():
    model = _model(flow="none", warmup="cyclic", warmup_epochs=3, cycles=2, min_information=1.0)
    objective = model.objective
    assert (objective.warmup, objective.warmup_steps, objective.cycles) == ("cyclic", 30, 2)
    assert _model(flow="none", warmup_epochs=3).objective.warmup_steps == 0


@pytest.mark.parametrize(
    ("prior", "kind", "components"),
    [("mixture:3", Mixture, 3), ("vamp:5+planar:1", Vamp, 5)],
)
def test_prior_base(prior, kind, components):
    layer = _model(flow="none", prior=prior, hidden=(8,)).prior_layer
    assert isinstance(layer.base, kind)
    assert layer.base.components == components
    assert len(layer.flow.flows) == prior.count("+")


def test_each_network_gets_its_own_sizes_in_order():
    model = _model(
        flow="none", base="tril", encoder="gated-conv", decoder="mlp", hidden=(9, 6),
        channels=(2, 3), norm="batch", likelihood="logistic-mixture", components=2,
    )  # fmt: skip
    assert type(model.encoder).__name__ == "GatedConvEncoder"
    assert (model.encoder.channels, model.encoder.norm) == ((2, 3), "batch")
    assert model.encoder.activation == "linear"  # gated networks' own
    assert (model.decoder.hidden, model.decoder.activation) == ((6, 9), "elu")
    assert model.decoder.output_channels == model.likelihood.output_channels(3) == 20
    assert isinstance(model.posterior_layer.base, Tril)


def test_input_dropout_and_weight_decay():
    assert _model(flow="none", input_dropout=0.2).input_dropout == 0.2
    for given, decay in ((None, 0.004), (0.0, 0.0), (0.1, 0.1)):
        config = TrainConfig(optimizer="adamw", weight_decay=given)
        assert build_optimizer(config, steps=10).weight_decay == decay


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("cosine", [0.01, 0.005, 0.0]),
        ("constant", [0.01, 0.01, 0.01]),
        ("inverse-time", [0.01, 0.01 / 1.75, 0.01 / 2.5]),
    ],
)
def test_learning_rate_schedule(schedule, rates):
    config = TrainConfig(schedule=schedule, learning_rate=0.01, epochs=150)
    optimizer = build_optimizer(config, steps=10)
    assert isinstance(optimizer, keras.optimizers.Adam)
    optimizer.build([keras.Variable(0.0)])
    for epoch, rate in zip((0, 75, 150), rates, strict=True):
        optimizer.iterations.assign(10 * epoch)
        # The schedule is four operations in float32 on numbers of at most the first rate.
        off = 4 * float(np.finfo(np.float32).eps) * 0.01
        assert float(optimizer.learning_rate) == pytest.approx(rate, rel=0, abs=off)


@pytest.mark.parametrize("name", ["adam", "adamax", "adamw"])
def test_optimizer(name):
    optimizer = build_optimizer(TrainConfig(optimizer=name, clip_norm=2.0, ema=0.9), steps=1)
    assert type(optimizer).__name__.lower() == name
    assert optimizer.global_clipnorm == 2.0
    assert (optimizer.use_ema, optimizer.ema_momentum) == (True, 0.9)
    plain = build_optimizer(TrainConfig(optimizer=name), steps=1)
    assert (plain.global_clipnorm, plain.use_ema) == (None, False)
