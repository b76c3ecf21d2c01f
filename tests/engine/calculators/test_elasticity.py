"""Static stiffness: a cell that repeats a smaller one gives the tensor of the smaller one, and of all its atoms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_difftre.engine.calculators import elasticity
from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.geometry.lattice import strained
from aiida_difftre.engine.runtime.progress import Silent
from tests.fixtures.engine import lennard_jones, silicon, stillinger_weber


def sheared_silicon() -> Atoms:
    """Under stress, of low symmetry, whose two atoms relax against each other."""
    atoms = silicon(5.4)
    atoms.set_cell(strained(atoms.cell.array, [0.01, -0.02, 0.0, 0.03, 0.01, -0.02]), scale_atoms=True)
    return atoms.repeat((2, 1, 1))


@pytest.mark.parametrize(
    ("atoms", "potential", "smallest"),
    [
        (sheared_silicon(), stillinger_weber(), 2),
        (bulk("Ar", "hcp", a=3.75, c=6.05).repeat((2, 2, 1)), lennard_jones(7.0), 2),
    ],
    ids=["silicon", "argon"],
)
def test_the_smallest_cell_stands_for_the_whole(
    atoms: Atoms, potential: Any, smallest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Atoms that are somewhat off their places make a cell that repeats nothing: all of them relax to the same."""
    seen = set()
    relaxed = elasticity.relaxed

    def watched(cell: Atoms, *given: Any) -> Atoms:
        seen.add(len(cell))
        return relaxed(cell, *given)

    monkeypatch.setattr(elasticity, "relaxed", watched)
    calculator = DiffTReCalculator(*potential)
    atoms.set_masses(np.full(len(atoms), 20.0))
    found = elasticity.static_stiffness(atoms, calculator, Silent())
    assert seen == {smallest}
    atoms.rattle(0.005, seed=1)
    whole = elasticity.static_stiffness(atoms, calculator, Silent())
    assert seen == {smallest, len(atoms)}
    assert found["energy"] == pytest.approx(whole["energy"], abs=1e-7)
    assert found["density"] == whole["density"] == pytest.approx(20 * 1660.539 * len(atoms) / atoms.get_volume(), 1e-6)
    np.testing.assert_allclose(found["stress"], whole["stress"], atol=2e-3)
    np.testing.assert_allclose(found["tensor"], whole["tensor"], atol=2e-3 * np.abs(whole["tensor"]).max())
