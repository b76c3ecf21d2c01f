"""The catalogue of measurements: each file is a target with citation and check, and fits what is independent of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ase.data
import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.formula import Formula
from click.testing import CliRunner

from aiida_difftre import catalogue
from aiida_difftre.cli import cli
from aiida_difftre.engine.contract.targets import read_fields as read_target
from aiida_difftre.engine.units import AMU_PER_A3_IN_KG_PER_M3
from aiida_difftre.workchains.inputs import example, read_input

ENTRIES = catalogue.entries()


@pytest.fixture(autouse=True)
def no_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.delenv(catalogue.ENVIRONMENT, raising=False)


def of_kind(observable: str) -> dict[str, Any]:
    return {entry.system: entry.target() for entry in ENTRIES if entry.target().observable == observable}


def test_each_file_is_a_measurement_that_was_checked() -> None:
    assert len(ENTRIES) > 100
    assert len({entry.system for entry in ENTRIES}) > 30
    for entry in ENTRIES:
        target = entry.target()
        assert target.checked_against, entry.name
        assert len(target.citation) > 15, entry.name
        assert target.error_source == "assumed" or target.observable == "heat_capacity", entry.name
        Formula(entry.system)


def test_stiffness_is_stable_and_densities_are_those_of_the_lattice() -> None:
    stiffness = of_kind("stiffness")
    for system, target in stiffness.items():
        numbers = dict(zip(target.component_labels(), target.values, strict=True))
        assert numbers["C11"] > abs(numbers["C12"]), system  # Born
        assert numbers["C44"] > 0, system
    densities = of_kind("density")
    compared = []
    for symbol, target in densities.items():
        state = ase.data.reference_states[ase.data.atomic_numbers.get(symbol, 0)]
        if state and state["symmetry"] in ("fcc", "bcc", "diamond", "hcp") and target.conditions.temperature > 290:
            # The lattice constants of ase are those of Ashcroft and Mermin, some at other temperatures.
            cell = bulk(symbol)
            density = cell.get_masses().sum() / cell.get_volume() * AMU_PER_A3_IN_KG_PER_M3
            assert density == pytest.approx(
                target.values[0], rel=0.03 if symbol not in ("K", "Na", "Rb", "Li") else 0.08
            )
            compared.append(symbol)
    assert len(compared) > 20


def test_thermodynamics_hangs_together() -> None:
    """C_P near 3R above the Debye temperature, and κ of the stiffness within what α and C_P allow."""
    heats = of_kind("heat_capacity")
    metals = [heats[symbol].values[0] for symbol in ("Ag", "Al", "Cu", "Na", "K", "Zn", "Cd")]
    assert np.all(np.array(metals) > 0.95 * 3 * 8.314)
    for symbol, target in of_kind("compressibility").items():
        c11, c12 = of_kind("stiffness")[symbol].values[:2]
        if len(of_kind("stiffness")[symbol].values) == 3:
            assert 1.0 <= target.values[0] * (c11 + 2 * c12) / 3 < 1.06, symbol


def test_first_peaks_are_those_of_other_measurements() -> None:
    """Distances where g(r) or r²g(r) of the examples is highest; S(q) of water as the transform of another g(r)."""
    water, other = (read_target(example(f"water/targets/{name}.yaml")) for name in ("rdf", "rdf_skinner2013"))
    argon = read_target(example("argon/targets/rdf.yaml"))
    for name, table, power in (("H2O/neighbor_distance_295K", other, 0), ("Ar/neighbor_distance_85K", argon, 2)):
        target, r, g = catalogue.find(name).target(), np.array(table.grid), np.array(table.values)
        highest = r[np.argmax(g * r**power * (r < 4.5))]
        assert highest == pytest.approx(target.values[0], abs=target.errors[0] + (r[1] - r[0]) / 2)
    target, r, g = (
        catalogue.find("H2O/structure_factor_peak_295K").target(),
        np.array(water.grid),
        np.array(water.values),
    )
    density = 0.0334  # molecules per Å³
    q = np.array(target.grid)[:, None]
    transform = 1 + 4 * np.pi * density * (r[1] - r[0]) * np.sum(r * (g - 1) * np.sin(q * r) / q, axis=1)
    assert np.max(np.abs(transform - target.values) / target.errors) < 2.5


def test_an_input_takes_a_measurement_by_name(tmp_path: Path) -> None:
    content = yaml.safe_load(example("diamond/quick.yaml").read_text())
    content["state_points"]["ambient"]["targets"]["stiffness"] = "catalogue:C/stiffness_298K"
    path = tmp_path / "input.yaml"
    path.write_text(yaml.safe_dump(content))
    target = read_input(path).state_points["ambient"].targets["stiffness"]
    assert (target.values, target.name) == ([1079.0, 124.0, 578.0], "stiffness")
    content["state_points"]["ambient"]["targets"]["stiffness"] = "catalogue:C/stifness_298K"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="did you mean 'C/stiffness_298K'"):
        read_input(path)


def test_folders_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    shutil.copytree(catalogue.SHIPPED / "Si", own / "SiGe")
    (own / "Xe").mkdir()
    (own / "Xe" / "density.yaml").symlink_to("/etc/hostname")
    monkeypatch.setenv(catalogue.ENVIRONMENT, str(own))
    assert catalogue.find("SiGe/density_298K").target().observable == "density"
    assert not [entry for entry in catalogue.entries() if entry.system == "Xe"]  # a link that leads out
    shutil.copytree(catalogue.SHIPPED / "Si", own / "Si")
    with pytest.raises(ValueError, match="rename one"):
        catalogue.find("Si/density_298K")
    monkeypatch.setenv(catalogue.ENVIRONMENT, str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="is no folder"):
        catalogue.entries()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--system", "Si", "--observable", "stiffness"], "catalogue:Si/stiffness_298K: C11 165.78 ± 1.7"),
        (["--system", "Sii"], "did you mean 'Si'?"),
        (["--observable", "densty"], "did you mean 'density'?"),
        (["--system", "Ar", "--paths"], "structure_factor_peak_85K.yaml"),
    ],
)
def test_list(words: list[str], told: str) -> None:
    assert told in CliRunner().invoke(cli, ["target", "list", *words]).output


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "Si", "catalogue:Si/../Ge/density_298K"])
def test_names_lead_nowhere_else(name: str) -> None:
    with pytest.raises(ValueError, match="names nothing in the catalogue"):
        catalogue.find(name)


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("Ni", "Ni"), ("ni", "Ni"), ("nickel", "Ni"), ("Nickel ", "Ni"), ("aluminum", "Al"), ("Aluminium", "Al"),
        ("nacl", "NaCl"), ("ClNa", "NaCl"), ("SiO2", "SiO2"), ("O4Si2", "SiO2"), ("water", "H2O"), ("cobalt", "Co"),
        ("unobtainium", None), ("nickle", None),
    ],
)  # fmt: skip
def test_systems_are_found_by_their_names(name: str, system: str | None) -> None:
    assert catalogue.system_called(name, {entry.system for entry in ENTRIES}) == system
    answer = CliRunner().invoke(cli, ["target", "list", "--system", name])
    if system is not None:
        assert answer.exit_code == 0, answer.output
        assert f"catalogue:{system}/" in answer.output
    else:
        assert "there is Ag, Al" in answer.output
    assert ("did you mean 'Nickel'?" in answer.output) == (name == "nickle")
