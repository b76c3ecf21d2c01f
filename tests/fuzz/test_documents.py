"""Mutated documents: inputs of runs, job files, targets; their values and their bytes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from pydantic import BaseModel

from aiida_difftre.data.structures import Generation
from aiida_difftre.data.target import read_target
from aiida_difftre.engine.contract.documents import parse_yaml, read_yaml
from aiida_difftre.engine.contract.jobs import Job
from aiida_difftre.engine.contract.kinds import JOBS, read_job
from aiida_difftre.workchains.from_input import read_plan
from aiida_difftre.workchains.input_models import RunInput
from aiida_difftre.workchains.inputs import example, read_input
from tests.fixtures.nodes import target_content
from tests.fuzz.doors import check_bounds, enter
from tests.fuzz.mutations import EDITS, MUTATIONS, Edit, Mutation, edited, mutated

INPUTS = ("diamond/quick", "argon/quick", "water/quick", "double_well/quick", "copper/quick")

SAMPLING = {"walkers": 2, "production_fs": 100.0, "thermostat": {"name": "nose_hoover"}, "barostat": {}, "skin": 0.5}
TERM = {"architecture": "lennard_jones", "cutoff": 5.0, "hyperparameters": {"epsilon": {"Ar-Ar": 0.01}, "sigma": 3.4}}
NETWORK = {"architecture": "moment_network", "cutoff": 5.0, "hyperparameters": {"hidden": [8, 8], "n_radial": 4}}
SPLINE = {"architecture": "pair_spline", "cutoff": 5.0, "hyperparameters": {"knots": 3, "values": [0.1, 0.0, 0.0]}}
RDF = {"observable": "rdf", "grid": [1.0, 1.1, 1.2], "options": {"pair": ["Ar", "Ar"], "smearing": 0.1}}
FACTOR = {"observable": "structure_factor", "grid": [1.0, 1.1, 1.2], "options": {"vectors_per_bin": 5, "r_bin": 0.02}}
CURVE = target_content(**{**RDF, "unit": "1", "values": [0.0, 0.5, 1.0], "errors": [0.1, 0.1, 0.1], "label": "g"})
POINT = {"label": "a", "temperature": 85.0, "pressure": 0.0, "targets": [target_content(), CURVE]}
UPDATE = {
    "optimizer": {"name": "adam", "options": {"b1": 0.9, "eps": 1e-8, "nesterov": True}, "learning_rate": 0.01},
    "loss": {"kind": "chi2", "anchor_weight": 0.1}, "max_steps": 3,
}  # fmt: skip
JOB_FILES: dict[str, dict[str, Any]] = {
    "pretrain": {
        "potential": {"species": ["Ar"], "terms": [TERM, NETWORK, SPLINE]}, "atomic_energies": {"Ar": -1.0},
        "machine": {"threads": 1, "walltime_s": 60.0}, "steps": 10, "optimizer": {"name": "sgd", "clip_norm": 1.0},
    },
    "sample": {"temperature": 85.0, "seed": 1, "sampling": SAMPLING, "pressure": 0.1, "observables": [RDF, FACTOR]},
    "update": {"state_points": [POINT], "update": UPDATE, "learning_rate_scale": 0.5},
    "predict": {"trajectory": "t.npz", "temperature": 90.0, "observables": [RDF, {"observable": "stiffness"}]},
    "refine": {"state_points": [POINT], "sampling": SAMPLING, "update": UPDATE, "validation": SAMPLING},
    "assess": {
        "state_points": [POINT], "prior_width": 2.0, "pair_distances": [3.0, 4.0], "start": "s.safetensors",
        "candidates": [{**RDF, "name": "g", "state_point": POINT["label"], "error": 0.1}],
    },
}  # fmt: skip


@cache
def content(name: str) -> Any:
    return read_yaml(example(f"{name}.yaml"))


def target_files() -> list[Path]:
    return sorted(example("argon/quick.yaml").parent.parent.glob("*/targets/*.yaml"))


def linked(folder: Path, name: str) -> Path:
    """A folder with the files that an example names, and the path of a mutated input in it."""
    for other in example(f"{name}.yaml").parent.iterdir():
        if not (folder / other.name).exists():
            (folder / other.name).symlink_to(other)
    return folder / "mutated.yaml"


def go_through(path: Path) -> RunInput:
    run = read_input(path)
    if run.model.spec is not None:
        read_plan(path)
    return run


@pytest.mark.parametrize("name", INPUTS)
@given(mutations=MUTATIONS)
def test_values_of_inputs(tmp_path_factory: pytest.TempPathFactory, name: str, mutations: list[Mutation]) -> None:
    path = linked(folder_of(tmp_path_factory, name), name)
    path.write_text(yaml.safe_dump(mutated(content(name), mutations), allow_unicode=False), encoding="utf-8")
    run = enter("input of a run, values", lambda: go_through(path))
    if run is not None:
        check_bounds(run)


@pytest.mark.parametrize("name", INPUTS)
@given(edits=EDITS)
def test_bytes_of_inputs(tmp_path_factory: pytest.TempPathFactory, name: str, edits: list[Edit]) -> None:
    path = linked(folder_of(tmp_path_factory, name), name)
    path.write_bytes(edited(example(f"{name}.yaml").read_bytes(), edits))
    run = enter("input of a run, bytes", lambda: go_through(path))
    if run is not None:
        check_bounds(run)


@given(mutations=MUTATIONS)
def test_values_of_generation(mutations: list[Mutation]) -> None:
    whole = {
        "seed": 1, "isotropic": [-0.01, 0.01], "rattles": [{"standard_deviation": 0.02, "count": 2}], "elastic": True,
        "strains": [{"maximum": 0.02, "count": 2, "repeat": [1, 1, 2]}], "dimers": {"distances": [2.0], "box": 9.0},
        "volumes": [{"minimum": 0.9, "maximum": 1.1, "count": 3}],
    }  # fmt: skip
    found = enter("generation of labels", lambda: validated(Generation, mutated(whole, mutations)))
    if found is not None:
        check_bounds(found)


def validated(model: type[BaseModel], changed: Any) -> BaseModel:
    from aiida_difftre.engine.contract.validation import validate

    return validate(model, changed)  # type: ignore[type-var]


@pytest.mark.parametrize("kind", JOBS)
@given(mutations=MUTATIONS)
def test_values_of_job_files(tmp_path_factory: pytest.TempPathFactory, kind: str, mutations: list[Mutation]) -> None:
    path = folder_of(tmp_path_factory, kind) / "job.json"
    path.write_text(json.dumps(mutated(JOB_FILES[kind], mutations)))
    job: Job | None = enter("job file, values", lambda: read_job(path, kind))
    if job is not None:
        check_bounds(job)
        assert read_back(path, kind, job) == job


def read_back(path: Path, kind: str, job: Job) -> Job:
    path.write_text(json.dumps(job.model_dump(mode="json")))
    return read_job(path, kind)


@pytest.mark.parametrize("kind", JOBS)
@given(edits=EDITS)
def test_bytes_of_job_files(tmp_path_factory: pytest.TempPathFactory, kind: str, edits: list[Edit]) -> None:
    path = folder_of(tmp_path_factory, kind) / "job.json"
    path.write_bytes(edited(json.dumps(JOB_FILES[kind]).encode(), edits))
    job = enter("job file, bytes", lambda: read_job(path, kind))
    if job is not None:
        check_bounds(job)


@pytest.mark.parametrize("file", target_files(), ids=lambda path: path.stem)
@given(mutations=MUTATIONS)
def test_values_of_targets(tmp_path_factory: pytest.TempPathFactory, file: Path, mutations: list[Mutation]) -> None:
    path = folder_of(tmp_path_factory, "target") / "target.yaml"
    path.write_text(json.dumps(mutated(loaded(file), mutations)))
    target = enter("target, values", lambda: read_target(path))
    if target is not None:
        check_bounds(target)
        assert min(target.errors) > 0
        assert len(target.values) == len(target.errors)


@cache
def loaded(file: Path) -> Any:
    return read_yaml(file)


@given(edits=EDITS)
def test_bytes_of_targets(tmp_path_factory: pytest.TempPathFactory, edits: list[Edit]) -> None:
    path = folder_of(tmp_path_factory, "target") / "target.yaml"
    path.write_bytes(edited(target_files()[0].read_bytes(), edits))
    target = enter("target, bytes", lambda: read_target(path))
    if target is not None:
        check_bounds(target)


@given(edits=EDITS)
def test_bytes_of_yaml(edits: list[Edit]) -> None:
    text = b"a: &a {b: [1, 2.5, yes, ~]}\nc: *a\nd: {<<: *a, e: 'x'}\nf: |\n  text\ng: !!str 5\n- broken"
    enter("YAML", lambda: parse_yaml(edited(text, edits).decode("latin-1")))


_folders: dict[str, Path] = {}


def folder_of(factory: pytest.TempPathFactory, name: str) -> Path:
    """One folder for all mutations of a kind."""
    if name not in _folders:
        _folders[name] = factory.mktemp(name.replace("/", "_"))
    return _folders[name]
