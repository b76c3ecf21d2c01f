"""What the callback of a base potential costs over the base's own time, per step of molecular dynamics; prints JSON.

    python tests/benchmarks/bases.py --base emt --repeat 4x4x1 --steps 200

Both times are of the same number of evaluations for all walkers: once by the base alone, on positions of the
trajectory, and once within the dynamics. ``overhead`` is what the dynamics takes more, as a fraction of the base's
time; it holds the terms, the neighbour lists and the integrator too.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from aiida_difftre.engine.contract.settings import Machine, PotentialSpec, SamplingSettings
from aiida_difftre.engine.runtime import device

CRYSTALS = {"emt": ("Cu", "fcc", 3.61), "chgnet": ("Si", "diamond", 5.43), "sevennet": ("Si", "diamond", 5.43)}
TIMED = 5
"""Snapshots that are timed, after one of the same number of steps for compilation."""


def crystal(name: str, repeat: tuple[int, int, int]) -> Atoms:
    """A crystal that the base knows."""
    symbol, structure, lattice = CRYSTALS[name]
    return bulk(symbol, structure, lattice, cubic=True).repeat(repeat)


class Timed:
    """A base whose own time is counted."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self.seconds, self.calls = 0.0, 0

    def evaluate(self, *arguments: Any, **options: Any) -> Any:
        """Evaluate, and add up."""
        began = time.perf_counter()
        found = self._base.evaluate(*arguments, **options)
        self.seconds += time.perf_counter() - began
        self.calls += 1
        return found


def main() -> None:
    """Time a base alone and within the dynamics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", choices=sorted(CRYSTALS), default="emt")
    parser.add_argument("--repeat", default="2x2x4", help="of the cubic cell")
    parser.add_argument("--steps", type=int, default=50, help="between two snapshots")
    parser.add_argument("--walkers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    machine = Machine(threads=given.threads, platform="cpu")
    device.configure(machine)

    import jax

    from aiida_difftre.engine.bases import loading
    from aiida_difftre.engine.bases.callback import Callback
    from aiida_difftre.engine.contract.known_bases import known
    from aiida_difftre.engine.potentials.potential import build
    from aiida_difftre.engine.sampling import run
    from aiida_difftre.engine.sampling.starts import Start
    from aiida_difftre.engine.sampling.system import System

    atoms = crystal(given.base, tuple(int(x) for x in given.repeat.split("x")))
    symbols = tuple(atoms.get_chemical_symbols())
    species = sorted(set(symbols))
    spec = known("ase", given.base).spec()
    base = loading.load(spec, species, Path())
    term = {"architecture": "moment_network", "cutoff": 4.0, "hyperparameters": {"output_scale": 0.0}}
    potential = build(PotentialSpec.model_validate({"species": species, "terms": [term], "base": spec.model_dump()}))
    parameters = potential.init(jax.random.key(0))
    positions = atoms.get_scaled_positions()[None].repeat(given.walkers, 0)
    settings = SamplingSettings(timestep_fs=1.0, stride_fs=float(given.steps), production_fs=float(given.steps))
    timed = Timed(base)
    system = System(potential, symbols, atoms.cell.array, 300.0, settings, "float32", base_digest=spec.digest)
    system = run.replace(system, base=Callback(timed, symbols, atoms.cell.array, needs_virial=False))
    simulation = run.begin(system, parameters, Start(positions, None, atoms.cell.array, symbols), seed=1)
    walkers = jax.block_until_ready(simulation.dynamics.apply(simulation.walkers, parameters)[0])  # compiles
    timed.seconds, timed.calls = 0.0, 0
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(TIMED):
        walkers = jax.block_until_ready(simulation.dynamics.apply(walkers, parameters)[0])
    total, cpu = time.perf_counter() - began, time.process_time() - cpu
    moved = np.asarray(walkers.md.position, np.float64) @ atoms.cell.array
    cells = np.stack([atoms.cell.array] * given.walkers)
    alone = time.perf_counter()
    for _ in range(calls := max(1, min(20, timed.calls))):
        moved = moved + 1e-3  # lists and caches of the calculator see positions that change
        base.evaluate(symbols, moved, cells, ("forces",))
    alone = (time.perf_counter() - alone) / calls
    steps = timed.calls
    print(
        json.dumps(
            {
                "base": spec.label, "atoms": len(atoms), "walkers": given.walkers, "steps": steps,
                "ms_per_step": 1e3 * total / steps, "cpu_ms_per_step": 1e3 * cpu / steps,
                "base_alone_ms": 1e3 * alone, "base_within_ms": 1e3 * timed.seconds / steps,
                "overhead": (total - timed.seconds) / timed.seconds,
            },
            indent=1,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
