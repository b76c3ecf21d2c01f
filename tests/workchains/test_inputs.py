from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase.build import bulk

from aiida_difftre.data.structures import Generation
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.units import AMU_PER_A3_IN_KG_PER_M3
from aiida_difftre.workchains.cells import elements_to_label, labelled_cell, simulation_cell, system_cell
from aiida_difftre.workchains.inputs import example, read_input
from aiida_difftre.workchains.refine_settings import RefineSettings
from aiida_difftre.workchains.systems import Random
from aiida_difftre.workchains.validate_checks import ValidateSettings


def content() -> dict[str, Any]:
    return yaml.safe_load(example("diamond/quick.yaml").read_text())


def refused(tmp_path: Path, changed: dict[str, Any]) -> str:
    path = tmp_path / "input.yaml"
    path.write_text(yaml.safe_dump(changed))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the tests check the message)
        read_input(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "protocol", "atoms"),
    [("quick", "quick", 64), ("cpu", "cpu", 216), ("paper", "quick", 1000), ("published", "paper", 1000)],
)
def test_examples_are_valid(name: str, protocol: str, atoms: int) -> None:
    path = example(f"diamond/{name}.yaml")
    run = read_input(path)
    assert run.protocol == protocol
    cell = simulation_cell(run, "ambient", path.parent)
    assert len(cell) == atoms
    density = cell.get_masses().sum() / cell.get_volume() * AMU_PER_A3_IN_KG_PER_M3
    assert density == pytest.approx(3512.0)
    assert len(system_cell(run, path.parent).repeat(run.dft.repeat)) == 8


def test_a_stiffness_from_stress_is_of_the_strain_of_its_state_point(tmp_path: Path) -> None:
    strain = [0.01, -0.01, 0.0, 0.0, 0.0, 0.02]
    changed = content()
    point = changed["state_points"]["ambient"]
    point["targets"] = {"stiffness": point["targets"]["stiffness"]}
    target = point["targets"]["stiffness"]
    point["strain"] = strain
    assert "stress fluctuations, of a crystal without strain; give the target options" in refused(tmp_path, changed)
    target |= {"options": {"strain": strain}, "values": [950.0, 570.0], "errors": [5.0, 5.0]}
    (tmp_path / "input.yaml").write_text(yaml.safe_dump(changed))
    run = read_input(tmp_path / "input.yaml")
    cell, plain = (
        simulation_cell(one, "ambient", tmp_path) for one in (run, read_input(example("diamond/quick.yaml")))
    )
    assert run.state_points["ambient"].targets["stiffness"].component_labels() == ["C11-C12", "C44"]
    edge = plain.cell.array[0, 0]
    expected = edge * np.array([[1.01, 0.01, 0.0], [0.01, 0.99, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(cell.cell.array, expected, atol=1e-9)
    np.testing.assert_allclose(cell.get_scaled_positions(), plain.get_scaled_positions(), atol=1e-9)
    point["strain"] = [-x for x in strain]
    assert "give the same strain to its state point 'ambient', which has [-0.01, 0.01" in refused(tmp_path, changed)
    point["strain"] = [0.5] * 6
    assert "crystals yield or melt" in refused(tmp_path, changed)


@pytest.mark.parametrize(
    ("name", "protocol"), [("quick", "quick"), ("cpu", "cpu"), ("paper", "cpu"), ("published", "paper")]
)
def test_the_double_well_is_an_input_like_any_other_and_without_dft(name: str, protocol: str) -> None:
    path = example(f"double_well/{name}.yaml")
    run = read_input(path)
    assert run.protocol == protocol
    assert run.dft is None
    assert ("loss" in run.refinement.update) == (name != "paper")  # the others have that of the publication
    assert simulation_cell(run, "well", path.parent).get_scaled_positions().tolist() == [[0.5, 0.5, 0.5]]


def target_of(changed: dict[str, Any]) -> dict[str, Any]:
    return changed["state_points"]["ambient"]["targets"]["stiffness"]


@pytest.mark.parametrize(
    ("path", "value", "fragments"),
    [
        (("state_points", "ambient", "temperature"), 0, ["temperature", "0"]),
        (("state_points", "ambient", "density"), -1.0, ["density", "-1.0"]),
        (("protocol",), "fast", ["protocol", "fast"]),
        (("model", "spec", "terms", 0, "cutoff"), 0.0, ["cutoff", "0.0"]),
        (("model", "spec", "terms", 0, "architecture"), "momentum_network", ["'momentum_network'", "moment_network"]),
        (("model", "spec", "terms", 0, "hyperparameters"), {"n_radal": 8}, ["'n_radal'", "n_radial"]),
        (("dft", "generation"), {"ratles": []}, ["dft.generation", "ratles", "rattles"]),
        (("dft", "kpoints_distance"), 0.3, ["dft", "either kpoints"]),
        (("system", "bulk", "density"), None, ["lattice_constant", "density"]),
        (("sampling",), {"walker": 3}, ["sampling", "walker", "walkers"]),
        (("refinement",), {"updates": {}}, ["refinement.updates"]),
        (("machines",), {"dft": {"engine": {}}}, ["machines.dft.engine"]),
        (("no_such_section",), {}, ["no_such_section"]),
        (("seed",), -1, ["seed", "-1"]),
        (("seed",), 2**62, ["seed", f"below {2**62}"]),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, path: tuple[Any, ...], value: Any, fragments: list[str]) -> None:
    changed = content()
    part: Any = changed
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    message = refused(tmp_path, changed)
    for fragment in fragments:
        assert fragment in message


def test_wrong_targets_are_named(tmp_path: Path) -> None:
    changed = content()
    target_of(changed)["errors"][1] = -5.0
    assert "-5.0" in refused(tmp_path, changed)
    changed = content()
    target_of(changed)["values"][0] = float("nan")
    assert "values[0] is nan" in refused(tmp_path, changed)
    changed = content()
    target_of(changed)["observable"] = "hardness"
    assert "unknown observable 'hardness'" in refused(tmp_path, changed)
    changed = content()
    target_of(changed)["conditions"]["temperature"] = 77.0
    assert "77.0 K" in refused(tmp_path, changed)
    changed = content()
    changed["state_points"]["ambient"]["pressure"] = 0.0
    target_of(changed)["conditions"]["pressure"] = 2.0
    assert "was measured at 2.0 GPa" in refused(tmp_path, changed)
    changed = content()
    for target in changed["state_points"]["ambient"]["targets"].values():
        target["role"] = "test"
    assert "no training target" in refused(tmp_path, changed)
    changed = content()
    changed["state_points"] = {"at__room": changed["state_points"]["ambient"]}
    assert "at__room" in refused(tmp_path, changed)


def test_targets_from_files(tmp_path: Path) -> None:
    changed = content()
    target = target_of(changed)
    changed["state_points"]["ambient"]["targets"]["stiffness"] = "stiffness.yaml"
    message = refused(tmp_path, changed)
    assert "there is no file 'stiffness.yaml' in" in message
    (tmp_path / "stiffness.yaml").write_text(yaml.safe_dump(target))
    run = read_input(tmp_path / "input.yaml")
    read = run.state_points["ambient"].targets["stiffness"]
    assert not isinstance(read, Path)
    assert read.values == [1079.0, 124.0, 578.0]
    assert read.name == "stiffness"


def test_system_from_file(tmp_path: Path) -> None:
    run = read_input(example("diamond/quick.yaml"))
    system_cell(run, tmp_path).write(tmp_path / "cell.cif")
    changed = content()
    changed["system"] = {"file": "cell.cif"}
    (tmp_path / "input.yaml").write_text(yaml.safe_dump(changed))
    run = read_input(tmp_path / "input.yaml")
    assert len(simulation_cell(run, "ambient", tmp_path)) == 64
    with pytest.raises(ValueError, match=r"there is no file 'cell\.cif' in .*, the folder of the input"):
        system_cell(run, tmp_path / "elsewhere")


def test_elements_to_label_are_those_of_the_seed_cell_and_of_the_files(tmp_path: Path) -> None:
    changed = content()
    changed["dft"]["system"] = {"bulk": {"element": "SiC", "structure": "zincblende", "lattice_constant": 4.36}}
    changed["dft"]["structures"] = ["more.cif"]
    bulk("Ge").write(tmp_path / "more.cif")
    path = tmp_path / "input.yaml"
    path.write_text(yaml.safe_dump(changed))
    run = read_input(path)
    assert len(labelled_cell(run, tmp_path)) == 8
    assert set(simulation_cell(run, "ambient", tmp_path).get_chemical_symbols()) == {"C"}
    assert elements_to_label(run, tmp_path) == ["C", "Ge", "Si"]
    changed["dft"] = {"dataset": "labels.extxyz"}
    path.write_text(yaml.safe_dump(changed))
    assert elements_to_label(read_input(path), tmp_path) == []
    del changed["dft"]
    path.write_text(yaml.safe_dump(changed))
    assert elements_to_label(read_input(path), tmp_path) == []


def test_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "input.yaml"
    path.write_text("a: [1")
    with pytest.raises(ValueError, match=r"input\.yaml is not YAML"):
        read_input(path)
    path.write_text("- 1")
    with pytest.raises(ValueError, match="list, not a mapping"):
        read_input(path)
    with pytest.raises(ValueError, match="no example 'diamond/no'"):
        example("diamond/no")


def test_a_term_of_another_package(tmp_path: Path, plugin_term: str) -> None:
    changed = content()
    changed["model"]["spec"]["terms"][0] = {
        "architecture": plugin_term,
        "cutoff": 3.0,
        "hyperparameters": {"height": 1},
    }
    path = tmp_path / "input.yaml"
    path.write_text(yaml.safe_dump(changed))
    assert read_input(path).model.spec.terms[0].architecture == plugin_term


@pytest.mark.parametrize("model", [RefineSettings, ValidateSettings, Generation, Random])
def test_seeds_that_would_overflow(model: type[Strict]) -> None:
    settings = {"composition": {"Ar": 1}, "box": 9.0} if model is Random else {}
    assert validate(model, {**settings, "seed": 2**62 - 1}).seed == 2**62 - 1
    for seed in (-1, 2**62, 2**63):
        with pytest.raises(ValueError, match=rf"seed: .*\(got {seed}\)"):
            validate(model, {**settings, "seed": seed})


def test_what_is_wrong_with_a_target_is_told_once_and_by_its_place(tmp_path: Path) -> None:
    changed = content()
    (point,) = changed["state_points"].values()
    (name, target), *_ = point["targets"].items()
    target["weight"] = -1.0
    message = refused(tmp_path, changed)
    assert f".targets.{name}.weight: must be at least 0" in message
    assert message.count("weight") == 1
    assert "[" not in message


@pytest.mark.parametrize("label", ["x" * 101, "two\nlines", " around "])
def test_labels_that_are_no_names(tmp_path: Path, label: str) -> None:
    assert "label: a label is at most 100 characters on one line" in refused(tmp_path, {**content(), "label": label})
    changed = content()
    (point,) = changed["state_points"].values()
    point["targets"] = {"x" * 101: next(iter(point["targets"].values()))}
    assert "has 101 characters; at most 100" in refused(tmp_path, changed)
