from __future__ import annotations

import subprocess
import sys

import pytest

from tfp_flowvae import networks
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.registry import ACTIVATION
from tfp_flowvae.networks import catalog
from tfp_flowvae.networks.initial import MEAN_SQUARES


@pytest.mark.parametrize("kind", list(catalog.NETWORKS))
def test_defaults_of_the_catalog_are_those_of_the_classes(kind):
    entry = catalog.NETWORKS[kind]
    ours = catalog.make_encoder(kind, (5, 5, 1)), catalog.make_decoder(kind, (5, 5, 1), 2)
    alone = entry.load_encoder()((5, 5, 1)), entry.load_decoder()((5, 5, 1), 2)
    for one, other in zip(ours, alone, strict=True):
        assert {**one.get_config(), "name": None} == {**other.get_config(), "name": None}


def test_every_encoder_and_decoder_is_exported_by_the_package():
    for entry in catalog.NETWORKS.values():
        for cls in (entry.load_encoder(), entry.load_decoder()):
            assert getattr(networks, cls.__name__) is cls
            assert cls.__name__ in networks.__all__
    with pytest.raises(AttributeError, match="no attribute 'Mlp'"):
        networks.Mlp  # noqa: B018


def test_every_activation_of_a_spec_has_a_scale():
    for name in MEAN_SQUARES:
        assert name == "linear" or ACTIVATION.read(name) == name


def test_unknown_kinds_and_channels_without_convolutions_are_refused():
    with pytest.raises(UserError, match=r"'gated-cnv'.*gated-conv.*Did you mean 'gated-conv'"):
        catalog.make_encoder("gated-cnv", (5, 5, 1))
    with pytest.raises(UserError, match=r"'mlp' has no channels.*gated-conv, resnet.*\(3,\)\."):
        catalog.make_decoder("mlp", (5, 5, 1), 2, channels=(3,))


_FRESH = """
import sys
from tfp_flowvae import networks
from tfp_flowvae.networks import catalog
assert not {"tensorflow", "keras"} & set(sys.modules)
import keras
name = "tfp_flowvae>" + sys.argv[1]
assert keras.saving.get_registered_object(name) is None
catalog.load_all()
assert keras.saving.get_registered_object(name) is getattr(networks, sys.argv[1])
"""


def test_is_light_and_load_all_lets_keras_find_the_classes_in_a_fresh_process():
    command = [sys.executable, "-c", _FRESH, "ResNetDecoder"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
