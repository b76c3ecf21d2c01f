"""What lies beyond the cutoff: the closed form, and pressure and stiffness by differences."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract.settings import Machine, PotentialSpec
from aiida_difftre.engine.matching.configurations import pad
from aiida_difftre.engine.matching.prediction import linearise, predict_directly, predict_linearised
from aiida_difftre.engine.potentials.parameters import without_references
from aiida_difftre.engine.potentials.potential import Potential, build
from aiida_difftre.engine.snapshots.snapshots import Coordinates, Directions, Snapshots

C6 = {"Ar-Ar": 60.0, "Ar-Kr": 80.0, "Kr-Kr": 110.0}


def buckingham(cutoff: float, **more: Any) -> Potential:
    hyperparameters = {"amplitude": 0.0, "rho": 0.3, "c6": C6, **more}
    term = {"architecture": "buckingham", "cutoff": cutoff, "hyperparameters": hyperparameters}
    core = {"architecture": "repulsion", "cutoff": 3.0, "hyperparameters": {"epsilon": 1.0, "sigma": 2.3}}
    return build(PotentialSpec.model_validate({"species": ["Ar", "Kr"], "terms": [term, core]}))


def crystal() -> Atoms:
    atoms = bulk("Ar", "fcc", a=5.5, cubic=True)
    atoms.symbols = ["Ar", "Ar", "Ar", "Kr"]
    atoms.positions += np.random.default_rng(0).normal(scale=0.05, size=(4, 3))
    return atoms


def results(potential: Potential, atoms: Atoms) -> dict[str, Any]:
    calculator = DiffTReCalculator(potential, potential.init(jax.random.key(0)))
    calculator.calculate(atoms)
    return calculator.results


def test_energy_and_pressure_of_the_closed_form() -> None:
    """With a switch so short that it is a step, U = -2/3 π Σ N_a N_b C₆ / (V r³), P = U/V, and forces stay."""
    atoms, cutoff = crystal(), 6.0
    short = {"onset": cutoff - 1e-7}
    near, all_ = (results(buckingham(cutoff, tail=tail, **short), atoms) for tail in (False, True))
    volume = atoms.get_volume()
    strength = 9 * C6["Ar-Ar"] + 6 * C6["Ar-Kr"] + C6["Kr-Kr"]
    expected = -2 / 3 * np.pi * strength / (volume * cutoff**3)
    assert all_["energy"] - near["energy"] == pytest.approx(expected, rel=1e-5)
    # Stress is minus the pressure.
    np.testing.assert_allclose(all_["stress"] - near["stress"], [-expected / volume] * 3 + [0] * 3, atol=1e-9)
    np.testing.assert_array_equal(all_["forces"], near["forces"])


def test_a_structure_that_does_not_fill_space_has_no_tail() -> None:
    dimer = Atoms("ArKr", positions=[[0, 0, 0], [3.8, 0, 0]])
    assert results(buckingham(8.0, tail=True), dimer)["energy"] == results(buckingham(8.0), dimer)["energy"]


def test_labels_are_matched_with_the_tail() -> None:
    """Both ways to predict labels agree with the calculator."""
    atoms, potential = crystal(), buckingham(6.0, tail=True)
    parameters = without_references(potential.init(jax.random.key(0)), jnp.float64)
    configurations = pad([atoms, Atoms("ArKr", positions=[[0, 0, 0], [3.8, 0, 0]])], ["Ar", "Kr"], 6.0)
    expected = results(potential, atoms)
    for found in (
        predict_directly(potential, parameters, configurations),
        predict_linearised(potential, parameters, linearise(potential, configurations, jnp.float64)),
    ):
        assert float(found.energy[0]) == pytest.approx(expected["energy"], rel=1e-12)
        np.testing.assert_allclose(found.stress[0], expected["stress"], atol=1e-12)


def test_stresses_and_born_terms_of_snapshots_have_the_tail() -> None:
    """Of a cell that is scaled, against finite differences of the energy by Lagrangian strains."""
    atoms, potential, scale = crystal(), buckingham(6.0, tail=True), 1.03
    parameters = potential.init(jax.random.key(0))
    positions, cell = atoms.get_scaled_positions(wrap=False)[None], atoms.cell.array
    directions = Directions(1, np.array([[[1.0, 0, 0, 0, 0, 0], [1.0, 1.0, 1.0, 0, 0, 0]]]))
    snapshots = Snapshots(
        potential,
        Coordinates(positions, cell, atoms.get_chemical_symbols(), np.array([scale])),
        Machine(precision="float64"),
        stress=True,
        directions={"born": directions},
    )
    found = snapshots.evaluate(parameters)

    def energy(strain: np.ndarray) -> float:
        values, vectors = np.linalg.eigh(np.eye(3) + 2 * strain)
        strained = atoms.copy()
        strained.set_cell(scale * cell @ (vectors * np.sqrt(values)) @ vectors.T, scale_atoms=True)
        return float(results(potential, strained)["energy"])

    volume, step = scale**3 * atoms.get_volume() / 160.2176634, 1e-3
    for k, strain in enumerate((np.diag([1.0, 0, 0]), np.eye(3))):
        plus, rest, minus = (energy(s * step * strain) for s in (1, 0, -1))
        assert float(found["born"][0, k]) == pytest.approx((plus - 2 * rest + minus) / step**2 / volume, rel=1e-3)
        slope = found["stress"][0, :3] @ np.diag(strain)
        assert float(slope) == pytest.approx((plus - minus) / (2 * step) / volume, rel=1e-3)
