"""Protocols: presets, overrides, and clear refusals."""

import pytest

from aiida_difftre.calculations.predict import PredictParameters
from aiida_difftre.calculations.pretrain import PretrainParameters
from aiida_difftre.calculations.sample import SampleParameters
from aiida_difftre.calculations.update import UpdateParameters
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains.protocols import available_protocols, deep_merge, load_protocol

MODELS = {
    "sample": (SampleParameters, {"temperature": 300.0}),
    "pretrain": (PretrainParameters, {}),
    "update": (UpdateParameters, {}),
    "predict": (PredictParameters, {}),
}


@pytest.mark.parametrize("chain", MODELS)
def test_presets_are_valid_parameters(chain: str) -> None:
    assert list(available_protocols(chain)) == ["quick", "cpu", "paper"]
    model, needed = MODELS[chain]
    for protocol in available_protocols(chain):
        inputs = load_protocol(chain, protocol)
        validate(model, {**inputs["calc"]["parameters"], **needed})
        assert inputs["calc"]["metadata"]["options"]["max_wallclock_seconds"] > 0


def test_default_and_overrides() -> None:
    inputs = load_protocol("sample", None, {"calc": {"parameters": {"sampling": {"walkers": 3}}}})
    assert inputs["calc"]["parameters"]["sampling"]["walkers"] == 3
    assert inputs["calc"]["parameters"]["sampling"]["production_fs"] == 1000.0
    inputs["calc"]["parameters"]["sampling"]["walkers"] = 99
    assert load_protocol("sample", "quick")["calc"]["parameters"]["sampling"]["walkers"] == 8


def test_unknown_preset_and_chain() -> None:
    with pytest.raises(ValueError, match=r"unknown protocol 'fast' of 'sample'; known protocols: quick \(.*cpu"):
        load_protocol("sample", "fast")
    with pytest.raises(ValueError, match=r"no protocol for 'smaple'; chains with protocols: .*sample"):
        load_protocol("smaple")


def test_merge() -> None:
    base = {"a": {"x": 1, "y": [1]}, "b": 1}
    assert deep_merge(base, {"a": {"y": [2]}, "c": {"z": 1}}) == {"a": {"x": 1, "y": [2]}, "b": 1, "c": {"z": 1}}
    assert base == {"a": {"x": 1, "y": [1]}, "b": 1}


def test_another_thermostat_replaces() -> None:
    changes = {"calc": {"parameters": {"sampling": {"thermostat": {"name": "nose_hoover"}}}}}
    parameters = load_protocol("sample", "paper", changes)["calc"]["parameters"]
    assert parameters["sampling"]["thermostat"] == {"name": "nose_hoover"}
