from __future__ import annotations

import dataclasses
import inspect
import re

import pytest

from tfp_flowvae.flows import FLOWS, FlowEntry, make_flow, register_flow, registry
from tfp_flowvae.flows.base import Flow
from tfp_flowvae.flows.spec import _format

ENTRIES = pytest.mark.parametrize("name", FLOWS)


def _config(name):
    return FLOWS[name].load()(event_size=4).get_config()


@ENTRIES
def test_loads_a_documented_flow_layer(name):
    layer = FLOWS[name].load()
    assert issubclass(layer, Flow)
    assert layer is not Flow
    assert inspect.getdoc(layer)
    assert layer(event_size=FLOWS[name].smallest_event).event_size == FLOWS[name].smallest_event


@ENTRIES
def test_every_option_is_a_constructor_argument_and_reads_what_it_writes(name):
    entry, config = FLOWS[name], _config(name)
    layer = entry.load()(event_size=4, **{key: config[key] for key in entry.options})
    for key, option in entry.options.items():
        assert layer.get_config()[key] == config[key]
        assert option.read(_format(config[key])) == config[key]


@ENTRIES
def test_every_constructor_argument_of_its_own_is_an_option(name):
    layer = FLOWS[name].load()(event_size=4)
    own = set(layer.get_config()) - set(Flow(event_size=4).get_config()) - {"flows"}
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
        FLOWS[name].load()(event_size=smallest - 1)


@ENTRIES
def test_help_line_and_alternative(name):
    entry = FLOWS[name]
    assert 10 < len(entry.summary) < 78
    assert "\n" not in entry.summary
    assert entry.default_length >= 1
    assert entry.fast_sample or entry.fast_density
    if not (entry.fast_sample and entry.fast_density):  # and then the other way round is fast
        other = FLOWS[entry.alternative]
        assert other.fast_sample != entry.fast_sample or entry.fast_sample
        assert other.fast_density != entry.fast_density or entry.fast_density


def test_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        FLOWS["mine"] = FLOWS["none"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        FLOWS["none"].summary = "mine"


def test_a_flow_of_ones_own_is_known_to_every_spec(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    monkeypatch.setattr("tfp_flowvae.flows.spec.FLOWS", registry._ENTRIES)
    entry = FlowEntry("planar layers", FLOWS["planar"].path, FLOWS["planar"].options, 3)
    register_flow("flat-2", entry)
    stack = make_flow("flat-2:4+flat-2", event_size=5)
    assert [flow.length for flow in stack.flows] == [4, 3]


@pytest.mark.parametrize("name", ["planar", "", "2flat", "a:b", "a+b"])
def test_a_name_that_is_taken_or_cannot_be_one(name):
    with pytest.raises(ValueError, match=re.escape(f"Received: name={name!r}")):
        register_flow(name, FLOWS["planar"])
