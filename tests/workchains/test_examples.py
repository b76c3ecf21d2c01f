"""The examples: each is valid, its cells can be generated, and the package has pseudopotentials for it."""

import importlib.util
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from aiida_difftre.cli.pseudopotential import library
from aiida_difftre.data import elasticity
from aiida_difftre.data.structures import Generation, generate
from aiida_difftre.engine.contract.architectures import check, check_composition
from aiida_difftre.engine.contract.jobs import SamplingSettings, UpdateSettings
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains.cells import elements_to_label, labelled_cell, of_stage, simulation_cell
from aiida_difftre.workchains.consistency import density_of
from aiida_difftre.workchains.from_input import overrides
from aiida_difftre.workchains.inputs import example, read_input, read_yaml
from aiida_difftre.workchains.protocols import load_protocol
from aiida_difftre.workchains.refine_settings import RefineSettings

FOLDER = example("diamond/quick.yaml").parents[1]
LABELLED = ("aluminium", "argon", "copper", "diamond", "sic", "titanium")
INPUTS = [path for system in LABELLED for path in sorted((FOLDER / system).glob("*.yaml"))]


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_example_can_be_labelled(path: Path) -> None:
    run = read_input(path)
    if path.with_name("published.yaml").exists():  # there is one of the published size on a CPU, and one as published
        assert run.protocol == {"paper": "quick", "published": "paper"}.get(path.stem, path.stem)
    else:
        assert run.protocol == path.stem
    assert run.label == f"{path.parent.name}, {path.stem} preset"
    assert run.dft is not None
    assert set(elements_to_label(run, path.parent)) <= set(library(run.dft.functional))
    seed = labelled_cell(run, path.parent)
    content = load_protocol("dataset", run.protocol, {"generation": run.dft.generation})["generation"]
    generation = Generation(**content)
    assert len(generate(seed, generation)) >= 12
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


@pytest.mark.parametrize(
    ("name", "preset", "atoms"),
    [("quick", "quick", 64), ("cpu", "cpu", 216), ("paper", "quick", 1000), ("published", "paper", 1000)],
)
def test_diamond_from_scratch_needs_no_labels(name: str, preset: str, atoms: int) -> None:
    """The settings are those that the jobs will read; the network starts at zero, and the prior moves in `paper`."""
    path = FOLDER / "diamond_scratch" / f"{name}.yaml"
    run = read_input(path)
    assert run.protocol == preset
    assert run.dft is None
    assert run.model.spec is not None
    network, prior = run.model.spec.terms
    assert network.hyperparameters["output_scale"] == 0
    assert prior.trainable == (name == "paper")
    assert len(simulation_cell(run, "ambient", path.parent)) == atoms
    changes = overrides(run)["refine"]
    inputs = load_protocol("refine", preset, changes)
    validate(RefineSettings, inputs["settings"])
    update = load_protocol("update", preset, changes["update"])["calc"]["parameters"]["update"]
    settings = validate(UpdateSettings, update)
    if preset == "paper":
        assert settings.optimizer.options == {"b1": 0.1, "b2": 0.4}
        assert (settings.gate, settings.optimizer.decay_steps) == (0.9, 500)
    else:
        assert settings.optimizer.name == "gauss_newton"
    sampling = validate(SamplingSettings, inputs["sample"]["calc"]["parameters"]["sampling"])
    assert sampling.timestep_fs == (0.5 if preset == "paper" else 1.0)


@pytest.mark.parametrize("path", sorted((FOLDER / "sic").glob("*.yaml")), ids=lambda path: path.stem)
def test_silicon_carbide_has_the_lattice_of_its_targets(path: Path) -> None:
    """Densities of the test targets follow from the lattice constant and the expansion measured up to 1000 °C."""
    run = read_input(path)
    cell = simulation_cell(run, "ambient", path.parent)
    cold = density_of(cell)
    lengths = np.poly1d([-0.56e-12, 1.8e-9, 3.19e-6, 0.0])  # relative, °C: integral of the coefficient of the targets
    densities = {"expansion": cold, "hot": cold / (1 + lengths(1000.0) - lengths(24.0)) ** 3}
    for label, expected in densities.items():
        targets = run.state_points[label].targets
        assert all(isinstance(target, Target) and target.role == "test" for target in targets.values())
        assert targets["density"].values[0] == pytest.approx(expected, rel=1e-4)
        warm = run.state_points[label].temperature - 273.15
        assert targets["thermal_expansion"].values[0] == pytest.approx(3 * lengths.deriv()(warm), rel=2e-3)


DENSITIES = {"nacl": 2163.4, "molten_salt": 1516.0, "silica": 2200.0}
"""kg/m³, of the systems of ions, where they are trained."""


@pytest.mark.parametrize(
    "path",
    [path for system in DENSITIES for path in sorted((FOLDER / system).glob("*.yaml"))],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_ions_need_no_labels(path: Path) -> None:
    """Their cells are neutral, have the measured density, and can give the targets of all state points."""
    run = read_input(path)
    assert run.protocol == path.stem
    assert run.label == f"{path.parent.name}, {path.stem} preset"
    assert run.dft is None
    assert run.model.spec is not None
    check(run.model.spec)
    for label, point in run.state_points.items():
        cell = simulation_cell(run, label, path.parent)
        check_composition(run.model.spec, cell.get_chemical_symbols())
        if point.pressure is None:
            assert density_of(cell) == pytest.approx(point.density or DENSITIES[path.parent.name], rel=1e-4)
        for target in point.targets.values():
            if isinstance(target, Target):
                target.request().check_system(cell.get_chemical_symbols(), cell.cell.array)
    inputs = load_protocol("refine", run.protocol, overrides(run)["refine"])
    validate(SamplingSettings, inputs["sample"]["calc"]["parameters"]["sampling"])


def test_molten_salt_has_the_density_and_the_diffusion_of_the_equations_it_cites() -> None:
    run = read_input(FOLDER / "molten_salt" / "quick.yaml")
    melt, hotter = run.state_points["melt"], run.state_points["hotter"]
    assert melt.targets["pressure"].conditions.density == pytest.approx(2138.9 - 0.5426 * 1148, abs=0.1)
    assert hotter.targets["pressure"].conditions.density == pytest.approx(2138.9 - 0.5426 * 1273, abs=0.1)
    calorie, gas = 4.184e-3, 8.314463e-3  # kJ
    measured = 1.84e-3 * 1e5 * np.exp(-6.32 * calorie * 1e3 / (gas * 1148))  # 1e-9 m²/s
    assert melt.targets["sodium"].values[0] == pytest.approx(measured, abs=0.05)


@pytest.mark.parametrize("name", ["glass_96_1", "glass_96_2"])
def test_silica_starts_as_a_network(name: str) -> None:
    """Every silicon has four oxygens, and every oxygen two silicons."""
    glass = ase.io.read(FOLDER / "silica" / f"{name}.extxyz")
    first, second = neighbor_list("ij", glass, 2.1)
    bonds = (glass.numbers[first] == 14) & (glass.numbers[second] == 8)
    silicon = np.bincount(first[bonds], minlength=len(glass))[glass.numbers == 14]
    oxygen = np.bincount(second[bonds], minlength=len(glass))[glass.numbers == 8]
    assert (silicon == 4).all()
    assert (oxygen == 2).all()


@pytest.mark.parametrize("path", sorted((FOLDER / "water").glob("*.yaml")), ids=lambda path: path.stem)
def test_water_can_give_its_targets(path: Path) -> None:
    """Beads of one molecule's mass at the density of the paper, in cells whose half holds the grids."""
    run = read_input(path)
    assert run.protocol == {"paper": "quick", "published": "paper"}.get(path.stem, path.stem)
    cell = simulation_cell(run, "liquid", path.parent)
    staged = [of_stage(run, stage) for stage in run.refinement.stages]
    small = [simulation_cell(one, "liquid", path.parent) for one in staged]
    for one in (cell, *small):
        assert one.get_masses() == pytest.approx([18.0154] * len(one))
        assert len(one) / one.get_volume() == pytest.approx(901 / 30**3, rel=1e-4)
    targets = [target for target in run.state_points["liquid"].targets.values() if isinstance(target, Target)]
    dynamic = [target.observable for target in targets if target.role == "test"]
    assert dynamic == (["diffusion"] if path.stem in ("quick", "cpu") else [])
    assert sorted(target.observable for target in targets if target.role != "test") == ["adf", "pressure", "rdf"]
    changes = overrides(run)["refine"]
    inputs = load_protocol("refine", run.protocol, changes)
    validate(RefineSettings, inputs["settings"])
    validate(SamplingSettings, inputs["sample"]["calc"]["parameters"]["sampling"])
    validate(UpdateSettings, load_protocol("update", run.protocol, changes["update"])["calc"]["parameters"]["update"])
    for of, one in zip((run, *staged), (cell, *small), strict=True):
        for target in of.state_points["liquid"].targets.values():
            target.request().check_system(one.get_chemical_symbols(), one.cell.array)  # type: ignore[union-attr]


def test_values_of_water_are_those_of_its_script() -> None:
    """The pair spline of the cpu preset: with the prior, -kT ln g at the first peak."""
    path = FOLDER / "water" / "mean_force.py"
    module = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("mean_force", path))
    spec.loader.exec_module(module)
    target = read_yaml(path.parent / "targets" / "rdf.yaml")
    at_peak = module.mean_force([2.75], target["grid"], target["values"], 5.0)
    assert at_peak[0] == pytest.approx(-8.617333e-5 * 296.15 * np.log(2.585), rel=1e-3)
    term = read_yaml(path.parent / "cpu.yaml")["model"]["spec"]["terms"][0]["hyperparameters"]
    assert term["values"] == pytest.approx(module.values(5.0, term["inner"], term["knots"]).tolist(), abs=1e-5)
