"""Exported folders in real LAMMPS: energies, forces and stresses are those of the engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.units import GPa

from aiida_difftre.engine.calculator import DiffTReCalculator
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.export.command import export
from aiida_difftre.engine.potentials.potential import Potential, build, save
from aiida_difftre.engine.potentials.term import Parameters
from tests.fixtures import lammps

SPECIES = ["C", "O"]
REFERENCES = [1.25, -2.5]
OF_SPECIES = {"epsilon": {"C-C": 0.30, "C-O": 0.20, "O-O": 0.10}, "sigma": {"C-C": 2.0, "C-O": 2.2, "O-O": 2.4}}
PAIRS = [
    {"architecture": "lennard_jones", "cutoff": 5.0, "hyperparameters": OF_SPECIES},
    {"architecture": "pair_spline", "cutoff": 4.5, "hyperparameters": {"inner": 1.5, "knots": 12}},
]
IONS = [
    {
        "architecture": "coulomb_dsf",
        "cutoff": 5.0,
        "hyperparameters": {"charges": {"C": 0.6, "O": -0.6}, "formula": "CO"},
    },
    {"architecture": "repulsion", "cutoff": 4.0, "hyperparameters": {"epsilon": 0.3, "sigma": 2.0}},
]
EXPONENTIALS = [
    {"architecture": "born_mayer", "cutoff": 4.0, "hyperparameters": {"amplitude": 800.0, "rho": 0.3}},
    {"architecture": "dispersion", "cutoff": 5.0, "hyperparameters": {"c6": 20.0, "radius": 2.5}},
    {
        "architecture": "buckingham", "cutoff": 5.0,
        "hyperparameters": {"amplitude": 500.0, "rho": 0.3, "c6": 5.0, "feynman_hibbs": 300.0},
    },
]  # fmt: skip
ANGLES = {"architecture": "stillinger_weber", "cutoff": 2.0951 * 1.8}
NETWORK = {
    "architecture": "moment_network",
    "cutoff": 3.6,
    "hyperparameters": {"n_radial": 3, "hidden": [6, 5], "output_scale": 1.0},
}


@pytest.fixture(scope="module")
def alloy() -> Atoms:
    """A distorted triclinic cell of two species, atoms outside of it too."""
    rng = np.random.default_rng(1)
    atoms = bulk("C", "fcc", a=4.2, cubic=True).repeat((2, 2, 1))
    atoms.set_cell(atoms.cell.array + rng.normal(scale=0.15, size=(3, 3)), scale_atoms=True)
    atoms.positions += rng.normal(scale=0.12, size=(len(atoms), 3))
    atoms.symbols[1::3] = "O"
    return atoms


def example(*terms: dict[str, object]) -> tuple[Potential, Parameters]:
    potential = build(PotentialSpec(species=SPECIES, terms=list(terms)))
    parameters = potential.init(jax.random.key(4))
    for name, values in parameters["terms"].items():
        if name.endswith("pair_spline"):
            values["control_points"] = 0.05 * jax.random.normal(jax.random.key(1), values["control_points"].shape)
        if name.endswith("moment_network"):
            values["mlp"]["w2"] = 5 * values["mlp"]["w2"]
    return potential, {**parameters, "atomic_energies": jnp.array(REFERENCES)}


def exported(potential: Potential, parameters: Parameters, atoms: Atoms, folder: Path) -> Path:
    save(folder / "made.safetensors", potential, parameters)
    atoms.write(folder / "made.extxyz")
    words = [str(folder / "made.safetensors"), "--to", "lammps", "--structure", str(folder / "made.extxyz")]
    assert export([*words, "--output", str(folder / "out")]) == 0
    return folder / "out"


def agree(
    found: lammps.Found, expected: tuple[Potential, Parameters], constants: dict[str, float] | None = None
) -> None:
    calculator = DiffTReCalculator(*expected)
    calculator.calculate(found.atoms)
    results = calculator.results
    shift = sum((constants or {}).get(symbol, 0.0) for symbol in found.atoms.symbols)
    assert found.energy == pytest.approx(results["energy"] - shift, abs=1e-9 if constants is None else 1e-6)
    np.testing.assert_allclose(found.forces, results["forces"], atol=3e-10)
    assert np.abs(found.forces).max() > 0.1
    # LAMMPS has its own constant from eV/Å³ to bar, of eight digits.
    np.testing.assert_allclose(found.stress, results["stress"] / GPa, rtol=2e-7, atol=1e-7)


def cell_of(data: Path) -> np.ndarray:
    from ase.io.lammpsdata import read_lammps_data

    return np.array(read_lammps_data(data, atom_style="atomic").cell.array)


@pytest.mark.skipif(lammps.LMP is None, reason="there is no LAMMPS (lmp)")
@pytest.mark.parametrize(
    "terms", [PAIRS, IONS, EXPONENTIALS, [*PAIRS, ANGLES]], ids=["table", "ions", "exponentials", "hybrid"]
)
def test_pair_styles_of_lammps(terms: list[dict[str, object]], alloy: Atoms, tmp_path: Path) -> None:
    potential, parameters = example(*terms)
    folder = exported(potential, parameters, alloy, tmp_path)
    (folder / "print.in").write_text("include system.in\n" + lammps.PRINTED)
    run = subprocess.run([str(lammps.LMP), "-in", "print.in"], cwd=folder, capture_output=True, text=True, check=True)
    found = lammps.read(run.stdout, folder, SPECIES, cell_of(folder / "structure.data"))
    said = re.findall(r"(C|O) (-?[\d.]+) eV", (folder / "README.md").read_text().split("do not contain")[1])
    agree(found, (potential, parameters), {symbol: float(value) for symbol, value in said})
    # What is written as an example runs, too.
    (folder / "in.lammps").write_text((folder / "in.lammps").read_text().replace("run 1000", "run 10"))
    subprocess.run([str(lammps.LMP), "-in", "in.lammps"], cwd=folder, capture_output=True, check=True)


def test_a_network_drives_lammps_and_adds_to_its_pair_styles(alloy: Atoms, tmp_path: Path) -> None:
    (tmp_path / "module").mkdir()
    environment = lammps.python_environment(tmp_path / "module")
    if environment is None:
        pytest.skip("there is no Python module of LAMMPS")
    potential, parameters = example(NETWORK)
    folder = exported(potential, parameters, alloy, tmp_path)
    (folder / "print.in").write_text(lammps.PRINTED)

    def run(script: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "run_lammps.py", script]
        return subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment, check=False)

    alone = run("print.in")
    if "LD_LIBRARY_PATH" in alone.stderr:
        pytest.skip(f"the module of LAMMPS does not load: {alone.stderr.strip()}")
    assert alone.returncode == 0, alone.stderr
    cell = cell_of(folder / "structure.data")
    agree(lammps.read(alone.stdout, folder, SPECIES, cell), (potential, parameters))

    # The same network as a correction to a pair style of LAMMPS; two atoms at one place end a run.
    below, both = example(ANGLES), example(ANGLES, NETWORK)
    both[1]["terms"]["1_moment_network"] = parameters["terms"]["0_moment_network"]
    (tmp_path / "below").mkdir()
    styles = exported(*below, alloy, tmp_path / "below")
    (folder / "0_stillinger_weber.sw").write_text((styles / "0_stillinger_weber.sw").read_text())
    zero = f"pair_style zero {potential.cutoff!r}\npair_coeff * *\n"
    system = (folder / "system.in").read_text()
    assert zero in system
    style = "pair_style sw\npair_coeff * * 0_stillinger_weber.sw C O\n"
    (folder / "system.in").write_text(system.replace(zero, style))
    together = run("print.in")
    assert together.returncode == 0, together.stderr
    agree(lammps.read(together.stdout, folder, SPECIES, cell), both)
    (folder / "ended.in").write_text("set atom 1 x 1 y 1 z 1\nset atom 2 x 1 y 1 z 1\nrun 0\n")
    ended = run("ended.in")
    assert ended.returncode == 1
    assert "two atoms at one place" in ended.stderr
