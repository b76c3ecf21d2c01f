"""The ase calculator: against ase's own Lennard-Jones, molecular dynamics with list reuse, growth, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.calculators.test import gradient_test

from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract.jobs import PotentialSpec, TermSpec
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.evaluator import Evaluator

# The third and fourth shells of the crystal lie at 6.49 and 7.50 Å: no pair is where the two switches differ.
CUTOFF, ONSET = 7.2, 6.9


def calculator(**options: Any) -> DiffTReCalculator:
    hyperparameters = {"epsilon": 0.0104, "sigma": 3.4, "onset": ONSET}
    term = TermSpec(architecture="lennard_jones", cutoff=CUTOFF, hyperparameters=hyperparameters)
    potential = potentials.build(PotentialSpec(species=["Ar"], terms=[term]))
    return DiffTReCalculator(potential, potential.init(jax.random.key(0)), **options)


def argon(repeat: int = 1) -> Atoms:
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True).repeat(repeat)
    atoms.rattle(0.02, seed=3)
    return atoms


def test_agrees_with_ase_in_a_small_cell() -> None:
    atoms, reference = argon(), argon(3)
    reference.set_positions(np.concatenate([argon().positions + shift for shift in lattice(argon(), 3)]))
    reference.calc = AseLennardJones(epsilon=0.0104, sigma=3.4, rc=CUTOFF, ro=ONSET, smooth=True)
    atoms.calc = calculator()
    assert atoms.get_potential_energy() * 27 == pytest.approx(reference.get_potential_energy(), rel=1e-10)
    np.testing.assert_allclose(atoms.get_forces(), reference.get_forces()[:4], atol=1e-10)
    np.testing.assert_allclose(atoms.get_stress(), reference.get_stress(), atol=1e-12)
    assert atoms.calc.results["energies"].sum() == pytest.approx(atoms.get_potential_energy())


def lattice(atoms: Atoms, repeat: int) -> np.ndarray:
    shifts = np.stack(np.meshgrid(*[range(repeat)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return shifts @ atoms.cell.array


def test_list_is_reused_and_rebuilt_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = argon()
    kept = calculator(skin=0.6)
    builds = []
    original = Evaluator._build_list
    monkeypatch.setattr(Evaluator, "_build_list", lambda self, a: (builds.append(1), original(self, a))[1])
    rng = np.random.default_rng(0)
    for _ in range(12):
        atoms.positions += rng.normal(scale=0.07, size=(4, 3))
        kept.calculate(atoms)
        energy = kept.results["energy"]
        fresh = calculator()
        fresh.calculate(atoms)
        assert energy == pytest.approx(fresh.results["energy"], rel=1e-12)
    assert 2 <= len(builds) - 12 < 10


def test_list_grows_under_compression() -> None:
    atoms, squeezed = argon(), argon()
    grown = calculator()
    grown.calculate(atoms)
    squeezed.set_cell(squeezed.cell * 0.7, scale_atoms=True)
    grown.calculate(squeezed)
    energy = grown.results["energy"]
    fresh = calculator()
    fresh.calculate(squeezed)
    assert energy == pytest.approx(fresh.results["energy"], rel=1e-12)


def test_molecule_forces_and_single_precision() -> None:
    molecule = Atoms("Ar3", positions=[[0, 0, 0], [3.6, 0, 0], [1.0, 3.5, 0.4]])
    molecule.calc = calculator()
    force, numerical = gradient_test(molecule, [0, 2])
    np.testing.assert_allclose(force, numerical, atol=1e-6)
    assert "stress" not in molecule.calc.results
    with pytest.raises(NotImplementedError):
        molecule.get_stress()
    energy = molecule.get_potential_energy()
    molecule.calc = calculator(precision="float32")
    assert molecule.get_potential_energy() == pytest.approx(energy, rel=1e-5)


def test_from_a_file_with_reference_energies(tmp_path: Path) -> None:
    source = calculator()
    parameters = {**source.potential.init(jax.random.key(0)), "atomic_energies": jnp.array([-500.0])}
    potentials.save(tmp_path / "potential.safetensors", source.potential, parameters)
    atoms, shifted = argon(), argon()
    atoms.calc, shifted.calc = source, DiffTReCalculator(tmp_path / "potential.safetensors")
    assert shifted.get_potential_energy() == pytest.approx(atoms.get_potential_energy() - 4 * 500.0, rel=1e-12)


def test_other_species_are_refused() -> None:
    atoms = Atoms("ArKr", positions=[[0, 0, 0], [3.6, 0, 0]], calculator=calculator())
    with pytest.raises(EngineError, match="contains Kr, but the potential is for Ar only"):
        atoms.get_potential_energy()


def test_parameters_are_needed() -> None:
    with pytest.raises(ValueError, match="needs its parameters"):
        DiffTReCalculator(calculator().potential)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("Ar2", [[0, 0, 0], [0, 0, 4]], pbc=True), "periodic along axis 0, where its cell has no vector"),
        (Atoms("Ar2", [[0, 0, 0], [0, 0, 4]], cell=[9, 9, 0], pbc=True), "periodic along axis 2"),
        (Atoms("Ar2", [[0, 0, 0], [0, 0, np.nan]]), "positions or cell are not finite"),
        (Atoms("Ar", cell=[9, 9, np.inf]), "positions or cell are not finite"),
        (Atoms(), "there are no atoms"),
        (Atoms("Ar2", cell=[20, 20, 20], pbc=True), r"the energy is (nan|inf); are there two atoms at one place\?"),
        (Atoms("Ar", [[0, 0, 1e300]], cell=[20, 20, 20], pbc=True), r"an atom is 1e\+300 Å from the origin"),
        (Atoms("Ar", cell=[1e9, 9, 9], pbc=True), r"its cell is 1e\+09 Å long"),
        (Atoms("Ar", cell=[[9, 0, 0], [0, 9, 0], [0, 9, 0.001]], pbc=True), r"its cell is 0\.001 Å thick"),
        (Atoms("Ar", cell=[[9, 0, 0], [0, 9, 0], [0, 9, 0]], pbc=True), "its cell has a volume of 0 Å³"),
    ],
)
def test_what_has_no_finite_energy_is_refused(atoms: Atoms, message: str) -> None:
    atoms.calc = calculator()
    with pytest.raises(EngineError, match=message):
        atoms.get_potential_energy()


def test_an_external_field_needs_a_cell() -> None:
    term = TermSpec(architecture="external_polynomial", cutoff=1.0, hyperparameters={"coefficients": [0.0, 1.0]})
    potential = potentials.build(PotentialSpec(species=["Ar"], terms=[term]))
    atoms = Atoms("Ar", [[1, 1, 1]], calculator=DiffTReCalculator(potential, potential.init(jax.random.key(0))))
    with pytest.raises(EngineError, match="external field is a function of fractional positions, but the cell is"):
        atoms.get_potential_energy()
    atoms.cell = [5, 5, 5]
    assert np.isfinite(atoms.get_potential_energy())
