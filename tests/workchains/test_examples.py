"""The examples: each is valid, its cells can be generated, and the package has pseudopotentials for it."""

from pathlib import Path

import pytest

from aiida_difftre.cli.pseudopotential import library
from aiida_difftre.data import elasticity
from aiida_difftre.data.structures import Generation, generate
from aiida_difftre.engine.jobs import SamplingSettings, UpdateSettings, validate
from aiida_difftre.workchains.from_input import overrides
from aiida_difftre.workchains.inputs import elements_to_label, example, labelled_cell, read_input, simulation_cell
from aiida_difftre.workchains.protocols import load_protocol
from aiida_difftre.workchains.refine_settings import RefineSettings

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


@pytest.mark.parametrize("preset", ["quick", "cpu", "paper"])
def test_diamond_from_scratch_needs_no_labels(preset: str) -> None:
    """The settings are those that the jobs will read; the network starts at zero, and the prior does not move."""
    path = FOLDER / "diamond_scratch" / f"{preset}.yaml"
    run = read_input(path)
    assert run.protocol == preset
    assert run.dft is None
    assert run.model.spec is not None
    network, prior = run.model.spec.terms
    assert network.hyperparameters["output_scale"] == 0
    assert not prior.trainable
    assert len(simulation_cell(run, "ambient", path.parent)) == {"quick": 64, "cpu": 216, "paper": 1000}[preset]
    changes = overrides(run)["refine"]
    inputs = load_protocol("refine", preset, changes)
    validate(RefineSettings, inputs["settings"])
    update = load_protocol("update", preset, changes["update"])["calc"]["parameters"]["update"]
    settings = validate(UpdateSettings, update)
    if preset == "paper":
        assert settings.optimizer.options == {"b1": 0.1, "b2": 0.4}
        assert (settings.gate, settings.optimizer.decay_steps) == (0.9, 500)
    else:
        assert settings.optimizer.options == {"damping": 0.01}
    sampling = validate(SamplingSettings, inputs["sample"]["calc"]["parameters"]["sampling"])
    assert sampling.timestep_fs == (0.5 if preset == "paper" else 1.0)
