"""Cells of a run: one source each, of the density asked for."""

from pathlib import Path
from typing import Any

import pytest

from aiida_difftre.engine.jobs import validate
from aiida_difftre.engine.units import AMU_PER_A3_IN_KG_PER_M3
from aiida_difftre.workchains.systems import System


def test_random_cell_has_its_composition_and_density(tmp_path: Path) -> None:
    system = validate(System, {"random": {"composition": {"Ar": 40, "Ne": 20}, "density": 1200.0, "seed": 4}})
    atoms = system.atoms(tmp_path)
    assert atoms.get_chemical_symbols().count("Ar") == 40
    assert len(atoms) == 60
    density = atoms.get_masses().sum() / atoms.get_volume() * AMU_PER_A3_IN_KG_PER_M3
    assert density == pytest.approx(1200.0)
    assert atoms.pbc.all()


def test_random_cell_takes_a_box(tmp_path: Path) -> None:
    atoms = validate(System, {"random": {"composition": {"O": 901}, "box": 30.0}}).atoms(tmp_path)
    assert atoms.cell.lengths() == pytest.approx(30.0)


def test_hexagonal_crystal(tmp_path: Path) -> None:
    bulk = {"element": "Ti", "structure": "hcp", "lattice_constant": 2.951, "c_over_a": 1.587, "cubic": False}
    atoms = validate(System, {"bulk": bulk}).atoms(tmp_path)
    assert len(atoms) == 2
    assert atoms.cell.lengths()[2] / atoms.cell.lengths()[0] == pytest.approx(1.587)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ({}, "one of file, bulk and random"),
        ({"file": "a.cif", "random": {"composition": {"Ar": 3}, "box": 9.0}}, "one of file, bulk and random"),
        ({"random": {"composition": {"Ar": 3}}}, r"density \(kg/m³\) or box"),
        ({"random": {"composition": {"Ar": 3}, "box": 9.0, "density": 1.0}}, r"density \(kg/m³\) or box"),
        ({"random": {"composition": {}, "box": 9.0}}, "composition"),
        ({"random": {"composition": {"Ar": 0}, "box": 9.0}}, "composition"),
        ({"random": {"composition": {"Xx1": 10}, "box": 9.0}}, "Xx1"),
        ({"random": {"composition": {"Ar": 100}, "box": 9.0, "min_distance": 4.0}}, "do not fit"),
    ],
)
def test_unsound_cells_are_refused(tmp_path: Path, content: dict[str, Any], fragment: str) -> None:
    with pytest.raises(ValueError, match=fragment):
        validate(System, content).atoms(tmp_path)
