"""The examples: each is valid, its cells can be generated, and the package has pseudopotentials for it."""

from pathlib import Path

import pytest

from aiida_difftre.cli.pseudopotential import library
from aiida_difftre.data import elasticity
from aiida_difftre.data.structures import Generation, generate
from aiida_difftre.workchains.inputs import elements_to_label, example, labelled_cell, read_input, simulation_cell
from aiida_difftre.workchains.protocols import load_protocol

FOLDER = example("diamond/quick.yaml").parents[1]
LABELLED = ("aluminium", "argon", "diamond", "titanium")
INPUTS = [path for system in LABELLED for path in sorted((FOLDER / system).glob("*.yaml"))]


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_example_can_be_labelled(path: Path) -> None:
    run = read_input(path)
    assert run.protocol == path.stem
    assert run.label == f"{path.parent.name}, {path.stem} preset"
    assert run.dft is not None
    assert set(elements_to_label(run, path.parent)) <= set(library(run.dft.functional))
    seed = labelled_cell(run, path.parent)
    content = load_protocol("dataset", run.protocol, {"generation": run.dft.generation})["generation"]
    generation = Generation(**content)
    assert len(generate(seed, generation)) >= 15
    if generation.elastic:
        elasticity.check_cubic(seed)
    for label in run.state_points:
        cell = simulation_cell(run, label, path.parent)
        assert set(cell.get_chemical_symbols()) == set(run.model.spec.species if run.model.spec else [])


def test_quick_presets_are_small() -> None:
    for path in INPUTS:
        if path.stem == "quick":
            run = read_input(path)
            assert len(labelled_cell(run, path.parent)) <= 8
            assert all(len(simulation_cell(run, label, path.parent)) <= 108 for label in run.state_points)
