"""The config: its JSON and what it refuses."""

import dataclasses
import json

import pytest

from tfp_flowvae.errors import UserError
from tfp_flowvae.runs import TrainConfig
from tfp_flowvae.runs.build import build_objective
from tfp_flowvae.runs.presets import PRESETS


def test_json_gives_the_same_config_back(tmp_path):
    config = TrainConfig(flow="planar:3", hidden=(20, 10), learning_rate=3e-4, data_dir="somewhere")
    file = tmp_path / "config.json"
    file.write_text(config.to_json())
    assert TrainConfig.from_file(file) == config


def test_overrides_win_over_the_file(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(TrainConfig(epochs=3, seed=5).to_json())
    config = TrainConfig.from_file(file, epochs=7)
    assert (config.epochs, config.seed) == (7, 5)


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flow": "plannar"}, "Did you mean 'planar'"),
        ({"flow": "planar:0"}, "character 8"),
        ({"flow": "planar:0"}, "at least 1"),
        ({"flow": "iaf:2,hiden=3"}, "Did you mean 'hidden'"),
        ({"flow": ""}, "cannot be empty"),
        ({"flow": "maf"}, "use 'iaf' there instead"),
        ({"prior": "iaf"}, "use 'maf' there instead"),
        ({"flow": "realnvp", "latent_dim": 1}, "at least 2"),
        ({"latent_dim": 0}, "--latent-dim must be at least 1. Received: 0"),
        ({"hidden": ()}, "--hidden must"),
        ({"hidden": (300, 0)}, "--hidden must be at least 1"),
        ({"epochs": 2.5}, "--epochs must be a whole number"),
        ({"epochs": True}, "--epochs must be a whole number"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate must be a number"),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"seed": 2**31}, "--seed must be below 2.14748e+09"),
        ({"binarization": "statik"}, "Did you mean 'static'"),
        ({"activation": "selu"}, "--activation must be one of"),
        ({"encoder": "mpl"}, "Did you mean 'mlp'"),
        ({"decoder": "cnn"}, "--decoder must be one of mlp, gated-mlp"),
        ({"channels": (8,)}, "choose --encoder gated-conv or resnet"),
        ({"likelihood": "normal"}, "--likelihood must be one of bernoulli, continuous-bernoulli"),
        (
            {"likelihood": "gaussian", "binarization": "static"},
            "give --binarization none, or --likelihood bernoulli. Received: --binarization static",
        ),
        ({"base": "full"}, "--base must be one of normal, tril"),
        ({"prior": "realnvp+vamp"}, "write vamp+realnvp instead"),
        ({"prior": "mixture:2+iaf"}, "use 'maf' there instead, or --allow-slow"),
        ({"gradient": "stl"}, "--flow cannot be 'iaf': --gradient stl takes the posterior's"),
        ({"bound": "iwae"}, "ask for at least 2 samples. Received: 1"),
        ({"bound": "dreg", "samples": 2}, "--bound dreg takes the posterior's density"),
        ({"free_bits": 0.1}, "Received: --flow iaf, --base normal, --prior vamp:100"),
        (
            {"bound": "iwae", "samples": 2, "gradient": "stl"},
            "biased gradient with 'stl' (Tucker et al. 2019): use the bound 'dreg'",
        ),
        ({"warmup": "linear", "epochs": 5}, "Received: 20 and 5"),
        (
            {"warmup": "cyclic", "warmup_epochs": 20, "epochs": 45},
            "ends after 140 epochs: give at least --epochs 140, or at most --warmup-epochs 6. "
            "Received: --epochs 45",
        ),
        ({"warmup": "cyclic", "epochs": 5}, "or at most --cycles 3 --warmup-epochs 1"),
        ({"clip_norm": 0.0}, "--clip-norm must be above 0"),
        ({"ema": 1.0}, "--ema must be below 1"),
        ({"input_dropout": 1.0}, "--input-dropout must be below 1"),
        ({"weight_decay": 0.1}, "Received: --weight-decay 0.1 with --optimizer adam."),
        ({"patience": 0}, "--patience must be at least 1"),
        ({"jit": "yes"}, "--jit must be true or false"),
    ],
)
def test_refuses_in_one_sentence(values, message):
    with pytest.raises(UserError) as error:
        TrainConfig(**values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_allow_slow_accepts_slow_flows():
    TrainConfig(flow="maf", prior="iaf", gradient="stl", allow_slow=True)


@pytest.mark.parametrize(
    ("values", "rise", "full"),
    [
        ({"warmup": "none"}, 20, 0),
        ({"warmup": "linear"}, 20, 20),
        ({"warmup": "linear", "epochs": 20}, 20, 20),
        ({"warmup": "cyclic"}, 50, 350),  # of 400
        ({"warmup": "cyclic", "epochs": 45}, 5, 35),
        ({"warmup": "cyclic", "epochs": 7}, 1, 7),
        ({"warmup": "cyclic", "epochs": 140, "warmup_epochs": 20}, 20, 140),
        ({"warmup": "cyclic", "epochs": 9, "cycles": 1}, 4, 4),
    ],
)
def test_the_weight_of_the_kl_is_full_when_training_ends(values, rise, full):
    config = TrainConfig(flow="none", **values)
    assert (config.warmup_epochs, config.full_weight_epoch) == (rise, full)
    steps = 10
    objective = build_objective(config, steps)
    weights = [float(objective.kl_weight(step)) for step in range(steps * config.epochs + 1)]
    assert all(weight == 1.0 for weight in weights[steps * full :])
    assert full == 0 or weights[steps * full - 1] < 1.0
    rises = {"none": 0, "linear": 1, "cyclic": config.cycles}[config.warmup]
    assert sum(weight == 0.0 for weight in weights) == rises


@pytest.mark.parametrize(
    ("likelihood", "seen"), [("bernoulli", "dynamic"), ("logistic-mixture", "none")]
)
def test_binarization_follows_the_likelihood(likelihood, seen):
    config = TrainConfig(likelihood=likelihood)
    assert json.loads(config.to_json())["binarization"] == config.binarization == seen


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_config(name):
    config = TrainConfig.from_mapping(PRESETS[name].values, source=name)
    assert config.latent_dim in (32, 40, 64)


def test_henrion_wellecks_preset_is_their_protocol():
    config = TrainConfig.from_mapping(PRESETS["henrion-welleck"].values, source="")
    assert (config.binarization, config.latent_dim, config.hidden) == ("static", 40, (300, 300))
    assert (config.epochs, config.batch_size, config.norm) == (2000, 100, "batch")
    assert (config.optimizer, config.learning_rate, config.schedule) == (
        "adam",
        2e-4,
        "inverse-time",
    )


def test_unknown_preset():
    with pytest.raises(UserError, match=r"known presets are henrion-welleck.*'best'"):
        PRESETS.find("bets")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "must hold a JSON object"),
        (json.dumps({"epoch": 3}), "Did you mean 'epochs'"),
        (json.dumps({"hidden": [3, "x"]}), "--hidden must be whole numbers"),
    ],
)
def test_refuses_a_bad_file(tmp_path, text, message):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        TrainConfig.from_file(file)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        TrainConfig.from_file(tmp_path / "none.json")
