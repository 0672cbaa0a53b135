from __future__ import annotations

import dataclasses
import inspect

import pytest

from tfp_flowvae.errors import UserError
from tfp_flowvae.flows import FLOWS
from tfp_flowvae.flows.base import Flow
from tfp_flowvae.spec import _format

ENTRIES = pytest.mark.parametrize("name", FLOWS)


def _config(name):
    layer = FLOWS[name].load()(event_size=4)
    layer.build()
    return layer.get_config()


@ENTRIES
def test_loads_a_documented_flow_layer(name):
    layer = FLOWS[name].load()
    assert issubclass(layer, Flow)
    assert layer is not Flow
    assert inspect.getdoc(layer)
    smallest = FLOWS[name].smallest_event
    made = layer()
    made.build((None, smallest))
    assert made.event_size == smallest


@ENTRIES
def test_every_option_is_a_constructor_argument_and_reads_what_it_writes(name):
    entry, config = FLOWS[name], _config(name)
    layer = entry.load()(event_size=4, **{key: config[key] for key in entry.options})
    for key, option in entry.options.items():
        assert layer.get_config()[key] == config[key]
        assert option.read(_format(config[key])) == config[key]


@ENTRIES
def test_the_defaults_that_the_help_shows_are_the_constructors(name):
    parameters = inspect.signature(FLOWS[name].load()).parameters
    for key, option in FLOWS[name].options.items():
        default = parameters[key].default
        assert (option.read(option.default) if option.default else None) == default, key


@ENTRIES
def test_every_constructor_argument_of_its_own_is_an_option(name):
    own = set(_config(name)) - set(Flow(event_size=4).get_config()) - {"flows"}
    assert own == set(FLOWS[name].options)


@ENTRIES
def test_option_errors_can_name_what_is_expected(name):
    for option in FLOWS[name].options.values():
        assert option.expected
        with pytest.raises(ValueError, match="nonsense"):
            option.read("nonsense")


@ENTRIES
def test_refuses_sizes_below_the_smallest(name):
    smallest = FLOWS[name].smallest_event
    with pytest.raises(ValueError, match=f"Received: event_size={smallest - 1}"):
        FLOWS[name].load()(event_size=smallest - 1).build()


@ENTRIES
def test_help_line_and_alternative(name):
    entry = FLOWS[name]
    assert 10 < len(entry.summary) < 78
    assert "\n" not in entry.summary
    assert entry.fast_sample or entry.fast_density
    if not (entry.fast_sample and entry.fast_density):  # and then the other way round is fast
        other = FLOWS[entry.alternative]
        assert other.fast_sample != entry.fast_sample or entry.fast_sample
        assert other.fast_density != entry.fast_density or entry.fast_density


def test_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        FLOWS["mine"] = FLOWS["none"]
    with pytest.raises(UserError, match="flow 'iaf' is already registered"):
        FLOWS.add("iaf", FLOWS["maf"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        FLOWS["none"].summary = "mine"
