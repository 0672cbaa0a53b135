from __future__ import annotations

import inspect

import pytest

from tfp_flowvae import networks
from tfp_flowvae.errors import UserError
from tfp_flowvae.networks.initial import MEAN_SQUARES
from tfp_flowvae.networks.registry import NETWORKS, make_decoder, make_encoder


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_defaults_that_the_help_shows_are_the_encoders(kind):
    entry = NETWORKS[kind]
    encoder = inspect.signature(entry.load()).parameters
    config = entry.load()((5, 5, 1)).get_config()
    for key, option in entry.options.items():
        if key in encoder:
            assert option.read(option.default) == encoder[key].default, key
        assert option.read(option.default) == config[key], key
        assert key in entry.load_decoder()((5, 5, 1), 2).get_config()


def test_every_encoder_and_decoder_is_exported_by_the_package():
    for entry in NETWORKS.values():
        for cls in (entry.load(), entry.load_decoder()):
            assert getattr(networks, cls.__name__) is cls
            assert cls.__name__ in networks.__all__
    with pytest.raises(AttributeError, match="no attribute 'Mlp'"):
        networks.Mlp  # noqa: B018


def test_every_activation_of_a_spec_has_a_scale():
    for entry in NETWORKS.values():
        for name in MEAN_SQUARES:
            assert entry.options["activation"].read(name) == name


def test_a_spec_string_gives_the_sizes():
    encoder = make_encoder("mlp:7x6,activation=relu", (5, 5, 1), norm="batch")
    assert (encoder.hidden, encoder.activation, encoder.norm) == ((7, 6), "relu", "batch")
    decoder = make_decoder("resnet:channels=3x2", (5, 5, 1), 2)
    assert decoder.channels == (3, 2)


def test_unknown_kinds_and_channels_without_convolutions_are_refused():
    with pytest.raises(UserError, match=r"'gated-cnv'.*gated-conv.*Did you mean 'gated-conv'"):
        make_encoder("gated-cnv", (5, 5, 1))
    with pytest.raises(UserError, match=r"'mlp' has no channels.*gated-conv, resnet.*\(3,\)\."):
        make_decoder("mlp", (5, 5, 1), 2, channels=(3,))
    with pytest.raises(UserError, match=r"network spec 'mlp:hiden=3' at character 5.*'hidden'"):
        make_encoder("mlp:hiden=3", (5, 5, 1))
