"""Terms of several species against LAMMPS: energies, forces and stresses of a distorted crystal."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lammpsrun import LAMMPS

from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.tetrahedral_options import triplet_labels
from aiida_difftre.engine.potentials.potential import build

LMP = shutil.which("lmp") or shutil.which("lmp_serial")
pytestmark = pytest.mark.skipif(LMP is None, reason="LAMMPS (lmp) is not installed")

CHARGES = {"Na": 0.9, "Cl": -0.9}
AMPLITUDE = {"Na-Na": 420.0, "Na-Cl": 1256.0, "Cl-Cl": 3485.0}
RHO = {"Na-Na": 0.31, "Na-Cl": 0.317, "Cl-Cl": 0.32}
C6 = {"Na-Na": 1.05, "Na-Cl": 6.99, "Cl-Cl": 72.4}


def salt() -> Atoms:
    """A distorted cell larger than twice the cutoff, where no pair is between onset and cutoff of the switch."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2)
    atoms.set_cell(atoms.cell.array @ np.array([[1.01, 0.02, 0], [0, 0.99, 0.015], [0, 0, 1.005]]), True)
    atoms.positions += np.random.default_rng(3).normal(scale=0.05, size=(len(atoms), 3))
    return atoms


def lammps(atoms: Atoms, folder: Path, **parameters: Any) -> dict[str, Any]:
    """Energy, forces and stress by LAMMPS, in eV and Å."""
    calculator = LAMMPS(command=LMP, tmp_dir=str(folder), keep_alive=False, **parameters)
    measured = atoms.copy()
    measured.calc = calculator
    return {"energy": measured.get_potential_energy(), "forces": measured.get_forces(), "stress": measured.get_stress()}


def agree(
    terms: list[dict[str, Any]], species: list[str], atoms: Atoms, expected: dict[str, Any], *, stress: bool = True
) -> None:
    """The same numbers; LAMMPS approximates erfc to seven digits."""
    potential = build(PotentialSpec.model_validate({"species": species, "terms": terms}))
    calculator = DiffTReCalculator(potential, potential.init(jax.random.key(0)))
    calculator.calculate(atoms)
    assert np.abs(expected["forces"]).max() > 0.1
    assert calculator.results["energy"] == pytest.approx(expected["energy"], rel=2e-6)
    np.testing.assert_allclose(calculator.results["forces"], expected["forces"], atol=1e-5)
    if stress:
        np.testing.assert_allclose(calculator.results["stress"], expected["stress"], atol=1e-7)


def test_damped_shifted_force(tmp_path: Path) -> None:
    atoms = salt()
    atoms.set_initial_charges([CHARGES[symbol] for symbol in atoms.symbols])
    style = {"atom_style": "charge", "pair_style": "coul/dsf 0.25 5.5", "pair_coeff": ["* *"]}
    expected = lammps(atoms, tmp_path, specorder=["Na", "Cl"], **style)
    coulomb = {"charges": CHARGES, "formula": "NaCl", "damping": 0.25}
    core = {"epsilon": 1e-9, "sigma": 1.0, "exponent": 24}  # charges alone would fuse, and are refused
    terms = [
        {"architecture": "coulomb_dsf", "cutoff": 5.5, "hyperparameters": coulomb},
        {"architecture": "repulsion", "cutoff": 2.0, "hyperparameters": core},
    ]
    agree(terms, ["Na", "Cl"], atoms, expected)


def test_buckingham(tmp_path: Path) -> None:
    """No pair lies between the onset and the cutoff of the switch, which LAMMPS has not."""
    atoms = salt()
    coefficients = [f"{i} {j} {AMPLITUDE[name]} {RHO[name]} {C6[name]}" for i, j, name in enumerate_pairs(["Na", "Cl"])]
    style = {"pair_style": "buck 5.3", "pair_coeff": coefficients}
    expected = lammps(atoms, tmp_path, specorder=["Na", "Cl"], **style)
    hyperparameters = {"amplitude": AMPLITUDE, "rho": RHO, "c6": C6, "onset": 5.2}
    term = {"architecture": "buckingham", "cutoff": 5.3, "hyperparameters": hyperparameters}
    agree([term], ["Na", "Cl"], atoms, expected)


def test_stillinger_weber_by_species(tmp_path: Path) -> None:
    """``sw``: parameters of pairs stand in entries whose second and third element are the same."""
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True).repeat(2)
    atoms.set_cell(atoms.cell.array @ np.array([[1.01, 0.02, 0], [0, 0.99, 0.015], [0, 0, 1.005]]), True)
    atoms.positions += np.random.default_rng(3).normal(scale=0.12, size=(len(atoms), 3))
    pairs = {
        "Si-Si": (2.17, 2.0951, 7.05, 0.602, 1.2),
        "Si-C": (3.1, 1.75, 6.8, 0.61, 1.1),
        "C-C": (3.6, 1.5, 7.3, 0.6, 1.3),
    }
    names = ("epsilon", "sigma", "A", "B", "gamma")
    hyperparameters: dict[str, Any] = {
        name: {pair: values[k] for pair, values in pairs.items()} for k, name in enumerate(names)
    }
    hyperparameters["a"] = {"Si-Si": 1.8, "Si-C": 1.75, "C-C": 1.82}
    hyperparameters["lambda"] = dict(
        zip(triplet_labels(["Si", "C"]), (21.0, 19.0, 25.0, 22.0, 18.0, 23.0), strict=True)
    )
    lines = []
    for i, j, k in itertools.product(["Si", "C"], repeat=3):
        first, second = (f"{i}-{other}" if f"{i}-{other}" in pairs else f"{other}-{i}" for other in (j, k))
        strength = hyperparameters["lambda"]
        angles = strength[f"{j}-{i}-{k}"] if f"{j}-{i}-{k}" in strength else strength[f"{k}-{i}-{j}"]
        depth, (_, sigma, big_a, big_b, gamma) = (pairs[first][0] * pairs[second][0]) ** 0.5, pairs[first]
        end = hyperparameters["a"][first]
        lines.append(f"{i} {j} {k} {depth} {sigma} {end} {angles} {gamma} {-1 / 3} {big_a} {big_b} 4.0 0.0 0.0")
    (tmp_path / "SiC.sw").write_text("\n".join(lines) + "\n")
    style = {"pair_style": "sw", "pair_coeff": [f"* * {tmp_path}/SiC.sw Si C"]}
    expected = lammps(atoms, tmp_path, specorder=["Si", "C"], **style)
    term = {"architecture": "stillinger_weber_alloy", "cutoff": 1.8 * 2.0951, "hyperparameters": hyperparameters}
    agree([term], ["Si", "C"], atoms, expected)


def test_energy_beyond_the_cutoff(tmp_path: Path) -> None:
    """``pair_modify tail yes``; its pressure has no part of the step at the cutoff, and is not compared."""
    atoms = salt()
    coefficients = [f"{i} {j} {AMPLITUDE[name]} {RHO[name]} {C6[name]}" for i, j, name in enumerate_pairs(["Na", "Cl"])]
    coefficients[-1] += "\npair_modify tail yes"  # for which ase has no parameter
    style = {"pair_style": "buck 5.3", "pair_coeff": coefficients}
    expected = lammps(atoms, tmp_path, specorder=["Na", "Cl"], **style)
    hyperparameters = {"amplitude": AMPLITUDE, "rho": RHO, "c6": C6, "onset": 5.3 - 1e-6, "tail": True}
    term = {"architecture": "buckingham", "cutoff": 5.3, "hyperparameters": hyperparameters}
    agree([term], ["Na", "Cl"], atoms, expected, stress=False)


def enumerate_pairs(species: list[str]) -> Iterator[tuple[int, int, str]]:
    """Types of LAMMPS, and the name of the pair."""
    for i, first in enumerate(species):
        for j in range(i, len(species)):
            yield i + 1, j + 1, f"{first}-{species[j]}"
