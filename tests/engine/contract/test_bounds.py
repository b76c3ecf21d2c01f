"""Bounds of numbers: every one that is read has some, with a reason; nothing else is taken for a number."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from aiida_difftre.data.structures import Generation, Rattle
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Limits, Temperature, is_number
from aiida_difftre.engine.contract.jobs import PretrainJob, SampleJob, UpdateJob
from aiida_difftre.engine.contract.kinds import JOBS
from aiida_difftre.engine.contract.loop_settings import Growth
from aiida_difftre.engine.contract.sampling_settings import BarostatSpec, LangevinSpec, SamplingSettings
from aiida_difftre.engine.contract.settings import Machine
from aiida_difftre.engine.contract.targets import Conditions, Target
from aiida_difftre.engine.contract.update_settings import OptimizerSpec, UpdateSettings
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.observables.specs.absorption import PathTable
from aiida_difftre.workchains.input_models import Dft, Feff, Refinement, RunInput, StatePoint
from aiida_difftre.workchains.refine_settings import RefineSettings
from aiida_difftre.workchains.systems import Bulk, Random, System
from aiida_difftre.workchains.validate_checks import ValidateSettings


def numbers(annotation: Any, limits: bool = False) -> Iterator[bool]:
    """For each number in an annotation, whether it has limits."""
    if annotation in (int, float):
        yield limits
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        yield from numbers(arguments[0], limits or any(isinstance(one, Limits) for one in arguments[1:]))
    else:
        for argument in arguments:
            yield from numbers(argument)


def models(*roots: type[BaseModel]) -> set[type[BaseModel]]:
    found: set[type[BaseModel]] = set()

    def add(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation not in found:
                found.add(annotation)
                for field in typing.get_type_hints(annotation, include_extras=True).values():
                    add(field)
        else:
            for argument in typing.get_args(annotation):
                add(argument)

    for root in roots:
        add(root)
    return found


INPUTS = models(*JOBS.values(), RunInput, Generation, RefineSettings, ValidateSettings, PathTable)


@pytest.mark.parametrize("model", sorted(INPUTS, key=lambda model: model.__name__), ids=lambda model: model.__name__)
def test_every_number_that_is_read_has_bounds_with_a_reason(model: type[BaseModel]) -> None:
    for name, annotation in typing.get_type_hints(model, include_extras=True).items():
        if name in model.model_fields:
            assert all(numbers(annotation)), f"{model.__name__}.{name} is a number without Limits"


def test_models_that_are_looked_through_are_all() -> None:
    assert len(INPUTS) > 35
    assert {Target, Conditions, Machine, SamplingSettings, StatePoint, System, Dft, Feff} <= INPUTS


ARGON = {"element": "Ar", "structure": "fcc"}


@pytest.mark.parametrize(
    ("model", "content", "message"),
    [
        (StatePoint, {"density": 1e9}, "density: must be at least 0.01 and at most 100000 kg/m³: .*(got 1000000000.0)"),
        (StatePoint, {"density": 1e-9}, "density: must be at least 0.01 "),
        (StatePoint, {"temperature": 1e300}, "temperature: must be above 0 and at most 100000 K: at 100 000 K, 9 eV"),
        (StatePoint, {"temperature": True}, r"temperature: must be a number, in K \(got True\)"),
        (StatePoint, {"temperature": "yes"}, r"temperature: must be a number, in K \(got 'yes'\)"),
        (StatePoint, {"temperature": "1_000"}, r"temperature: must be a number, in K \(got '1_000'\)"),
        (StatePoint, {"temperature": 0}, "temperature: must be above 0"),
        (StatePoint, {"pressure": -1e9}, "pressure: must be at least -1000 and at most 100000 GPa"),
        (StatePoint, {"repeat": [2e12, 1, 1]}, r"repeat.0: must be at least 1 and at most 1000: .*got 2"),
        (StatePoint, {"repeat": [2.5, 1, 1]}, "repeat.0: "),
        (SamplingSettings, {"walkers": 10**9}, "walkers: must be at least 1 and at most 65536: .* fill a GPU"),
        (SamplingSettings, {"production_fs": 1e12}, r"production_fs: must be above 0 and at most 1e\+09 fs: "),
        (SamplingSettings, {"equilibration_fs": 4e10}, "equilibration_fs: must be at least 0 and at most"),
        (SamplingSettings, {"skin": 1e100}, "skin: must be above 0 and at most 10 Å"),
        (SamplingSettings, {"timestep_fs": 1e-300}, "timestep_fs: must be at least 0.001"),
        (SamplingSettings, {"production_fs": 1e9, "timestep_fs": 0.01}, r"are 1e\+11 steps of 0.01 fs; "),
        (SamplingSettings, {"production_fs": 1e9, "stride_fs": 1}, r"make 8e\+09 snapshots; .* longer stride_fs"),
        (SamplingSettings, {"thermostat": {"name": "nose_hoover", "chain_length": 10**9}}, "chain_length: must be"),
        (LangevinSpec, {"friction_per_ps": 1e9}, "friction_per_ps: must be above 0 and at most 10000 1/ps: velocities"),
        (BarostatSpec, {"relaxation_time_fs": 1e30}, "relaxation_time_fs: must be"),
        (OptimizerSpec, {"learning_rate": 1e9}, "learning_rate: must be above 0 and at most 100: "),
        (OptimizerSpec, {"options": {"b1": float("nan")}}, "b1 = nan must be a finite number"),
        (OptimizerSpec, {"options": {"b1": "x"}}, "b1 = 'x' must be a number"),
        (OptimizerSpec, {"options": {"b2": 1}}, "b2 = 1 must be at least 0 and below 1: "),
        (OptimizerSpec, {"options": {"eps": 1e30}}, r"eps = 1e\+30 must be"),
        (OptimizerSpec, {"options": {"nesterov": 1}}, "nesterov = 1 must be true or false"),
        (OptimizerSpec, {"options": {"mu_dtype": "int8"}}, "mu_dtype = 'int8' must be one of bfloat16"),
        (OptimizerSpec, {"options": {"mask": True}}, "has no option 'mask'"),
        (OptimizerSpec, {"name": "gauss_newton", "options": {"damping": 1e300}}, r"damping = 1e\+300 must be"),
        (RefineSettings, {"max_iterations": 10**12}, "max_iterations: must be at least 1 and at most 100000"),
        (RefineSettings, {"max_roll_backs": 10**6}, "max_roll_backs: must be"),
        (Growth, {"thresholds": [-1.0]}, "thresholds.0: must be at least 0"),
        (UpdateSettings, {"bootstrap": 10**9}, "bootstrap: must be"),
        (UpdateSettings, {"loss": {"dataset_weight": 1e300}}, "loss.dataset_weight: must be"),
        (Machine, {"walltime_s": -5}, r"walltime_s: must be above 0 and at most 1e\+08 s"),
        (Machine, {"threads": "4"}, "threads: must be a number"),
        (PretrainJob, {"steps": 10**12}, "steps: must be"),
        (PretrainJob, {"atomic_energies": {"Ar": 1e300}}, "atomic_energies.Ar: must be"),
        (SampleJob, {"temperature": 85, "seed": True}, "seed: must be a number"),
        (UpdateJob, {"learning_rate_scale": 1e-400}, "learning_rate_scale: must be above 0"),
        (Rattle, {"standard_deviation": 0.1, "count": 8 * 10**12}, "count: must be at least 1 and at most 10000"),
        (Generation, {"isotropic": [1e3]}, "isotropic.0: must be"),
        (Random, {"composition": {"Ar": 200_000}, "box": 80}, "composition.Ar: must be at least 1 and "),
        (Random, {"composition": {"Ar": 15_000, "Ne": 15_000}, "density": 1.4e3}, "composition has 30000 atoms"),
        (Bulk, {**ARGON, "lattice_constant": 1e9}, "lattice_constant: must be"),
        (System, {"bulk": {**ARGON, "density": 1.0}, "masses": {"Ar": 1e30}}, "masses.Ar: must be"),
        (Dft, {"kpoints": [10**9, 1, 1]}, "kpoints.0: must be"),
        (Dft, {"kpoints_distance": 1e-9}, "kpoints_distance: must be"),
        (Feff, {"radius": 1e3}, "radius: must be"),
        (Conditions, {"temperature": 300, "pressure": "1"}, "pressure: must be a number, in GPa"),
        (Conditions, {"temperature": 10**400}, "temperature: "),
    ],
)  # fmt: skip
def test_numbers_outside_of_their_bounds_are_named(model: type[Strict], content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        validate(model, content)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", ["a\0b", "\x1b[31mred", "a\u202eb", "a\x85b"])
def test_text_holds_no_control_characters(text: str) -> None:
    with pytest.raises(ValueError, match=r"citation holds the control character '.*'; remove it") as caught:
        validate(Target, {"observable": "pressure", "values": [0], "errors": [1], "unit": "GPa", "citation": text,
                          "conditions": {"temperature": 300}})  # fmt: skip
    assert str(caught.value).isprintable()


def test_an_input_of_megabytes_makes_a_short_message() -> None:
    for content in ({"x" * 2_000_000: 1}, {"seed": "x" * 2_000_000}, {f"key{n}": n for n in range(100_000)}):
        with pytest.raises(ValueError, match=r"seed: must be a number|unknown key") as caught:
            validate(PretrainJob, content)
        assert len(str(caught.value)) < 1000


def test_whole_numbers_may_be_written_as_floats() -> None:
    assert validate(Rattle, {"standard_deviation": 1, "count": 20.0}).count == 20


def test_bounds_are_part_of_the_schema() -> None:
    class Point(Strict):
        temperature: Temperature

    schema = Point.model_json_schema()["properties"]["temperature"]
    assert (schema["exclusiveMinimum"], schema["maximum"], schema["type"]) == (0, 1e5, "number")


def test_what_is_a_number() -> None:
    assert is_number(1)
    assert is_number(10**400)
    assert not any(is_number(value) for value in (True, "1", float("nan"), float("inf"), None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"update": {"gate": float("nan")}}, "update.gate = nan must be a finite number"),
        ({"settings": {"growth": {"thresholds": [1.0, float("inf")]}}}, "settings.growth.thresholds.1 = inf must be"),
        ({"update": {"optimizer": {"name": "a\x1fm"}}}, r"update.optimizer.name holds the control character '\\x1f'"),
    ],
)
def test_settings_that_a_later_model_reads_are_plain_too(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(Refinement, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"temperatur": 300.0}, r"temperatur: unknown key \(got 300.0\); did you mean 'temperature'\?"),
        ({"temperature": 300.0, "sampling": {"timestep": 2.0}}, r"sampling.timestep: .*did you mean 'timestep_fs'\?"),
        ({"temperature": 300.0, "observables": [{"observabel": "rdf"}]}, "did you mean 'observable'"),
        ({"temperature": 300.0, "observables": [{"observable": "presure"}]}, "did you mean 'pressure'"),
        ({"temperature": 300.0, "qqqq": 1}, r"qqqq: unknown key \(got 1\); known here: .*temperature"),
    ],
)
def test_unknown_names_propose_the_nearest(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(SampleJob, {"potential": "p.safetensors", "structure": "s.extxyz", **content})
