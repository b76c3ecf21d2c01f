"""Crystals at rest: a stable and an unstable one of Lennard-Jones atoms, silicon, and vibrations of whole cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import jax
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_difftre.engine.bases.calculators import CalculatorBase
from aiida_difftre.engine.bases.protocol import Evaluation
from aiida_difftre.engine.calculators.crystal import THZ, force_constants, primitive, vibrations
from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract.jobs import POTENTIAL_IN, PredictJob
from aiida_difftre.engine.contract.records import read
from aiida_difftre.engine.contract.verdict import Lattice
from aiida_difftre.engine.jobs.predict import run
from aiida_difftre.engine.jobs.stability import dimers, lattices
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.runtime.progress import Silent
from aiida_difftre.engine.units import EV_PER_A3_IN_GPA
from tests.fixtures.engine import build, lennard_jones, stillinger_weber


def shear_stiffness(calculator: DiffTReCalculator, lattice: float) -> float:
    """C44 of pairs in a simple cubic lattice by a sum over the lattice, less the pressure, GPa."""
    steps = np.arange(-2, 3)
    vectors = lattice * np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    lengths = np.linalg.norm(vectors, axis=1)
    vectors, lengths = vectors[lengths > 0], lengths[lengths > 0]
    unique, which = np.unique(lengths.round(9), return_inverse=True)

    def energy(distance: float) -> float:
        dimer = ase.Atoms("Ar2", positions=[[0, 0, 0], [distance, 0, 0]], calculator=calculator)
        return float(dimer.get_potential_energy())

    h = 1e-3
    low, middle, high = (np.array([energy(r + shift) for r in unique])[which] for shift in (-h, 0, h))
    first, second = (high - low) / (2 * h), (high - 2 * middle + low) / h**2
    squares = vectors**2
    along = np.sum((second - first / lengths) * squares[:, 0] * squares[:, 1] / lengths**2)
    pressure = -np.sum(first * lengths) / 6
    return float((along / 2 - pressure) / lattice**3 * EV_PER_A3_IN_GPA)


def test_a_simple_cubic_lattice_of_argon_is_unstable_and_a_close_packed_one_is_not(tmp_path: Path) -> None:
    potential, parameters = lennard_jones(8.5)
    potentials.save(tmp_path / POTENTIAL_IN, potential, parameters)
    cubic, packed = bulk("Ar", "sc", 3.6).repeat(2), bulk("Ar", "fcc", 5.25, cubic=True)
    liquid = packed.repeat(3)
    liquid.rattle(0.5, seed=1)
    ase.io.write(tmp_path / "frames.extxyz", [packed, cubic, liquid])
    results = run(PredictJob(structures="frames.extxyz", stability=True), tmp_path, Silent())
    stable, unstable, skipped = results.lattices
    expected = 2 * shear_stiffness(DiffTReCalculator(potential, parameters), 3.6)
    assert expected < 0
    assert unstable.rigidities[:3] == pytest.approx([expected] * 3, rel=1e-3)
    assert np.abs(unstable.softest[3:]).max() > 0.5, "a shear"
    # (0, π/a, π/a): the transverse wave along a diagonal that the shear begins.
    assert unstable.lowest[0].frequency < -0.5
    assert np.linalg.norm(unstable.lowest[0].wave_vector) == pytest.approx(np.sqrt(2) * np.pi / 3.6, rel=1e-4)
    assert (stable.primitive, stable.wave_vectors) == (1, 4)
    assert stable.rigidities[0] > 0.1
    assert stable.lowest[0].frequency > 0.5
    assert skipped.primitive is None
    assert "no lattice translations" in skipped.skipped
    (dimer,) = results.dimers
    assert dimer.pair == ("Ar", "Ar")
    assert min(dimer.energies) == pytest.approx(-0.0103, rel=2e-2)
    assert dimer.energies[0] > 1e6


def test_silicon_of_stillinger_and_weber_has_its_raman_line() -> None:
    """Literature: C11 - C12 = 75.0, 2 C44 = 112.8 GPa, and 595 1/cm = 17.8 THz."""
    cell, calculator = bulk("Si", "diamond", 5.43095, cubic=True), DiffTReCalculator(*stillinger_weber())
    (found,) = lattices([cell], calculator, Silent(), [(1, 0, 0), (2, 2, 0), (0, -1, 0)])
    assert found.rigidities == pytest.approx([75.0, 75.0, 112.8, 112.8, 112.8, 304.2], abs=0.5)
    assert found.optical == pytest.approx([17.83] * 3, abs=0.05)
    edge, centre, other = read(Lattice, found.content()).branches  # as results.json has them
    assert len(edge.frequencies) == 6
    assert edge.frequencies[0] == pytest.approx(found.lowest[0].frequency), "X is where a cubic cell is softest"
    assert centre.frequencies == pytest.approx(found.optical), "(2, 2, 0) is a reciprocal vector of the lattice"
    assert other.frequencies == pytest.approx(edge.frequencies)


class Dense:
    """EMT that fails where atoms are close, and where they do not see each other, as models with graphs do."""

    def evaluate(
        self, symbols: Sequence[str], positions: np.ndarray, cells: np.ndarray, *what: Any, **options: Any
    ) -> Evaluation:
        distance = float(np.linalg.norm(positions[0, 1] - positions[0, 0]))
        if not 0.7 < distance < 20:
            raise ValueError(f"no graph at {distance:.3g} Å")
        return CalculatorBase(EMT()).evaluate(symbols, positions, cells, *what, **options)


def test_a_base_that_fails_for_some_dimers_leaves_the_others() -> None:
    potential = build("repulsion", ["Cu"], 4.0, epsilon=0.1, sigma=2.0)
    calculator = DiffTReCalculator(potential, potential.init(jax.random.key(0)), base=Dense())
    (found,) = dimers(calculator)
    assert found.skipped is None
    assert max(found.failed) < 0.7 < min(found.distances)
    assert found.reason == f"the base potential failed: ValueError: no graph at {max(found.failed):.3g} Å"
    assert len(found.distances) + len(found.failed) == 80
    assert found.energies[-1] == 0
    assert min(found.energies) < -0.1 < found.energies[0]


@pytest.mark.parametrize("crystal", ["fcc", "hcp"])
def test_vibrations_are_those_of_the_whole_cell(crystal: str) -> None:
    atoms = bulk("Cu", crystal, 2.56 if crystal == "hcp" else 3.6).repeat((3, 2, 2) if crystal == "hcp" else 3)
    found = vibrations(atoms, EMT(), primitive(atoms))
    constants = force_constants(atoms, EMT(), range(len(atoms)))
    values = np.linalg.eigvalsh(constants.reshape(3 * len(atoms), -1) / atoms.get_masses()[0])
    whole = np.sort(THZ * np.sign(values) * np.sqrt(np.abs(values)))
    np.testing.assert_allclose(np.sort(found.frequencies.ravel()), whole, atol=2e-3)
