"""From config to model: the sizes and the optimizer that the config names."""

import keras
import pytest

from tfp_flowvae.training import TrainConfig
from tfp_flowvae.training.build import build_model, build_optimizer


def test_model_follows_the_config():
    config = TrainConfig(
        flow="householder:2+iaf:1,hidden=7", prior="realnvp:2,hidden=5", latent_dim=4,
        hidden=(9, 6), samples=3, beta=0.5, seed=11,
    )  # fmt: skip
    model = build_model(config, (3, 5, 3))
    assert model.image_shape == (3, 5, 3)
    assert model.event_size == 4
    assert model.encoder.hidden == (9, 6)
    assert model.decoder.hidden == (6, 9)
    assert [type(f).__name__ for f in model.posterior_layer.flow.flows] == [
        "HouseholderFlowLayer",
        "InverseAutoregressiveFlowLayer",
    ]
    assert model.posterior_layer.flow.flows[1].hidden == (7,)
    assert model.prior_layer.flow.flows[0].length == 2
    assert (model.objective.num_samples, model.objective.beta, model.seed) == (3, 0.5, 11)


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.0), ("constant", 0.01)])
def test_learning_rate_schedule(schedule, last):
    optimizer = build_optimizer(TrainConfig(schedule=schedule, learning_rate=0.01), steps=10)
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    optimizer.build([keras.Variable(0.0)])
    optimizer.iterations.assign(10)
    assert float(optimizer.learning_rate) == pytest.approx(last, abs=1e-8)
