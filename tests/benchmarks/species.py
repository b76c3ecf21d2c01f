"""Cost and learning curve of ``moment_network`` with one to four species; JSON.

    python tests/benchmarks/species.py --species 1 2 4 --configurations 32 128 512

Labels are those of ase's effective medium theory, for face-centred cubic solid solutions of Cu, Ag, Au and Pd: cells of
four atoms at the lattice constant of their mixture, stretched, sheared and rattled. The species share nothing of their
networks (weights are those of the species of the centre) but the mixing of neighbours into channels. ``difftre
pretrain`` trains each of them anew with the same number of steps; errors are those of 64 other configurations of all
the species, beside the scatter of the labels themselves.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import ase.io
import jax
import measure
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.engine.calculator import DiffTReCalculator
from aiida_difftre.engine.potentials.potential import load

LATTICE = {"Cu": 3.61, "Ag": 4.09, "Au": 4.06, "Pd": 3.88}
"""Å; in the order in which species join."""
CUTOFF = 5.0
TEST = 64
"""Configurations that no fit has seen."""


def solution(species: list[str], rng: np.random.Generator) -> Atoms:
    """A solid solution with its labels."""
    symbols = rng.choice(species, 4)
    atoms = bulk("Cu", "fcc", a=float(np.mean([LATTICE[one] for one in symbols])), cubic=True)
    atoms.symbols[:] = list(symbols)
    strain = np.eye(3) * (1 + rng.normal(scale=0.02)) + rng.normal(scale=0.02, size=(3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions += rng.normal(scale=0.12, size=(4, 3))
    atoms.calc = EMT()
    results = {name: atoms.calc.get_property(name, atoms) for name in ("energy", "forces", "stress")}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def errors(potential: Path, frames: list[Atoms]) -> dict[str, float]:
    """Root mean squared errors, meV per atom and meV/Å."""
    calculator = DiffTReCalculator(potential)
    energies, forces = [], []
    for frame in frames:
        found = frame.copy()
        found.calc = calculator
        energies.append((found.get_potential_energy() - frame.get_potential_energy()) / len(frame))
        forces.append(found.get_forces() - frame.get_forces())
    return {
        "energy_mev_per_atom": 1e3 * float(np.sqrt(np.mean(np.square(energies)))),
        "force_mev_per_angstrom": 1e3 * float(np.sqrt(np.mean(np.square(forces)))),
    }


def fitted(species: list[str], training: list[Atoms], held_out: list[Atoms], steps: int) -> dict[str, Any]:
    """Train, and tell what it took and what came out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ase.io.write(folder / "dataset.extxyz", training)
        network = {"architecture": "moment_network", "cutoff": CUTOFF, "hyperparameters": {"hidden": [32, 32]}}
        job = {
            "kind": "pretrain", "potential": {"species": species, "terms": [network]}, "dataset": "dataset.extxyz",
            "steps": steps, "evaluate_every": max(1, steps // 20), "optimizer": {"learning_rate": 0.005}, "seed": 1,
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job))
        before = measure.children_seconds()
        subprocess.run(["difftre", "pretrain", "job.json"], cwd=folder, check=True, capture_output=True)
        taken = measure.children_seconds() - before
        _, parameters = load(folder / "potential_out.safetensors")
        numbers = sum(np.size(leaf) for leaf in jax.tree.leaves(parameters["terms"]))
        return {
            "configurations": len(training),
            "parameters": int(numbers),
            "cpu_s": taken,
            **errors(folder / "potential_out.safetensors", held_out),
        }


def main() -> None:
    """Fit all of them."""
    parser = measure.parser(__doc__)
    parser.add_argument("--species", type=int, nargs="+", default=[1, 2, 4], choices=[1, 2, 3, 4])
    parser.add_argument("--configurations", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--steps", type=int, default=1500)
    given = parser.parse_args()
    if given.tiny:
        given.species, given.configurations, given.steps = [2], [8], 10
    found: dict[str, Any] = {}
    for count in given.species:
        species, rng = list(LATTICE)[:count], np.random.default_rng(count)
        held_out = [solution(species, rng) for _ in range(TEST)]
        frames = [solution(species, rng) for _ in range(max(given.configurations))]
        scatter = float(np.sqrt(np.mean(np.square([frame.get_forces() for frame in held_out]))))
        found["-".join(species)] = {
            "force_scatter_mev_per_angstrom": 1e3 * scatter,
            "fits": [fitted(species, frames[:size], held_out, given.steps) for size in given.configurations],
        }
    measure.write({"versions": measure.versions(), "steps": given.steps, "species": found}, given.output)


if __name__ == "__main__":
    main()
