"""Memory and time of an update against the number of snapshots, and of parameters.

    python tests/benchmarks/snapshots.py [--snapshots 100 1000 10000] [--atoms 512] [--runs 3] [--output FILE]

A simple cubic Lennard-Jones crystal whose atoms are displaced at random, energies and their gradient (one
vector-Jacobian product) for all snapshots; each number of snapshots in a process of its own, whose peak of memory is
compared with that after the imports. The trajectory itself (float32 positions) is in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import measure

from aiida_difftre.engine.contract.jobs import Machine, PotentialSpec, TermSpec
from aiida_difftre.engine.runtime import device

EPSILON, SIGMA, LATTICE = 0.0125, 3.4, 3.4
WIDTHS = (16, 64, 256)


def one(snapshots: int, atoms: int, hidden: int, runs: int) -> dict[str, Any]:
    """Memory and time for one number of snapshots; a network where ``hidden`` is not zero."""
    import jax
    import numpy as np
    from ase.build import bulk

    from aiida_difftre.engine.potentials import potential as potentials
    from aiida_difftre.engine.snapshots.snapshots import Coordinates, Snapshots

    term = TermSpec(
        architecture="lennard_jones", cutoff=2.5 * SIGMA, hyperparameters={"epsilon": EPSILON, "sigma": SIGMA}
    )
    if hidden:
        term = TermSpec(architecture="moment_network", cutoff=4.5, hyperparameters={"hidden": [hidden, hidden]})
    potential = potentials.build(PotentialSpec(species=["Ar"], terms=[term]))
    parameters = potential.init(jax.random.key(0))
    after_import = measure.resident_mb()
    crystal = bulk("Ar", "sc", a=LATTICE).repeat(round(atoms ** (1 / 3)))
    if len(crystal) != atoms:
        raise ValueError(f"{atoms} is no number of atoms of a cube of a simple cubic crystal, such as 512")
    random = np.random.default_rng(1)
    positions = np.empty((snapshots, atoms, 3), np.float32)
    for number in range(snapshots):
        positions[number] = crystal.get_scaled_positions() + random.normal(scale=0.005, size=(atoms, 3))
    held = Snapshots(potential, Coordinates(positions, np.array(crystal.cell), ("Ar",) * atoms), Machine())
    cotangents = {"energy": np.full(snapshots, 1 / snapshots)}
    evaluate = measure.median(lambda: held.evaluate(parameters), runs)
    pullback = measure.median(lambda: jax.block_until_ready(held.pullback(parameters, cotangents)), runs)
    return {
        "snapshots": snapshots,
        "atoms": atoms,
        "parameters": sum(int(np.size(leaf)) for leaf in jax.tree.leaves(parameters["terms"])),
        "after_import_mb": after_import,
        "trajectory_mb": positions.nbytes / 1e6,
        "peak_above_import_mb": measure.peak_mb() - after_import,
        "energies_cpu_s": evaluate,
        "gradient_cpu_s": pullback,
        "gradient_microseconds_per_atom_and_snapshot": 1e6 * pullback / (snapshots * atoms),
    }


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    parser.add_argument("--snapshots", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--atoms", type=int, default=512)
    parser.add_argument(
        "--one", type=int, nargs=2, metavar=("SNAPSHOTS", "HIDDEN"), help="measure one, in this process"
    )
    options = parser.parse_args()
    machine = Machine(threads=1, platform="cpu")
    device.configure(machine)
    atoms = 64 if options.tiny else options.atoms
    if options.one:
        measure.write(one(options.one[0], atoms, options.one[1], options.runs), options.output)
        return
    cases = [(4, 0), (4, 8)] if options.tiny else [(count, 0) for count in options.snapshots]
    cases += [] if options.tiny else [(100, hidden) for hidden in WIDTHS]
    found = []
    for case in cases:
        command = [sys.executable, __file__, "--atoms", str(atoms), "--runs", str(options.runs)]
        command += ["--tiny"] * options.tiny + ["--one", *map(str, case)]
        found.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
    measure.write({"versions": measure.versions(machine), "cases": found, "target_mb_at_10000": 1000}, options.output)


if __name__ == "__main__":
    main()
