"""What the callback of a base potential costs over the base's own time, per step of molecular dynamics; prints JSON.

    python tests/benchmarks/bases.py --base emt --repeat 2x2x4 --steps 200

CPU times of the process, so that the load of the machine does not count. The same dynamics runs in turns with the base,
whose own time is taken around each of its calls, and without it, by the terms alone. ``callback_ms`` is what a step
takes beyond the base and the dynamics of the terms, ``overhead`` the same as a fraction of the base's time; medians of
the turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.contract.settings import Machine, PotentialSpec
from aiida_difftre.engine.runtime import device

CRYSTALS = {"emt": ("Cu", "fcc", 3.61), "chgnet": ("Si", "diamond", 5.43), "sevennet": ("Si", "diamond", 5.43)}
TURNS = 5
"""Snapshots that are timed, each with and without the base, after one of the same number of steps for compilation."""


def crystal(name: str, repeat: tuple[int, int, int]) -> Atoms:
    """A crystal that the base knows."""
    symbol, structure, lattice = CRYSTALS[name]
    return bulk(symbol, structure, lattice, cubic=True).repeat(repeat)


class Timed:
    """A base whose own CPU time is counted."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self.seconds, self.calls = 0.0, 0

    def evaluate(self, *arguments: Any, **options: Any) -> Any:
        """Evaluate, and add up."""
        began = time.process_time()
        found = self._base.evaluate(*arguments, **options)
        self.seconds += time.process_time() - began
        self.calls += 1
        return found


def main() -> None:
    """Time dynamics with a base and without."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", choices=sorted(CRYSTALS), default="emt")
    parser.add_argument("--repeat", default="2x2x4", help="of the cubic cell")
    parser.add_argument("--steps", type=int, default=50, help="between two snapshots")
    parser.add_argument("--walkers", type=int, default=2)
    given = parser.parse_args()
    device.configure(Machine(threads=1, platform="cpu"))

    import jax

    from aiida_difftre.engine.bases import loading
    from aiida_difftre.engine.bases.callback import Callback
    from aiida_difftre.engine.contract.known_bases import known
    from aiida_difftre.engine.potentials.potential import build
    from aiida_difftre.engine.sampling import run
    from aiida_difftre.engine.sampling.starts import Start
    from aiida_difftre.engine.sampling.system import System

    atoms = crystal(given.base, tuple(int(x) for x in given.repeat.split("x")))
    symbols, cell = tuple(atoms.get_chemical_symbols()), atoms.cell.array
    species = sorted(set(symbols))
    spec = known("ase", given.base).spec()
    timed = Timed(loading.load(spec, species, Path()))
    settings = SamplingSettings(timestep_fs=1.0, stride_fs=float(given.steps), production_fs=float(given.steps))
    start = Start(atoms.get_scaled_positions()[None].repeat(given.walkers, 0), None, cell, symbols)

    def simulation(base: dict[str, Any] | None) -> Callable[[], float]:
        """CPU seconds of the steps up to the next snapshot, with a base or without."""
        term = {"architecture": "lennard_jones", "cutoff": 4.0, "hyperparameters": {"epsilon": 1e-3, "sigma": 2.3}}
        potential = build(PotentialSpec.model_validate({"species": species, "terms": [term], "base": base}))
        parameters = potential.init(jax.random.key(0))
        system = System(potential, symbols, cell, 300.0, settings, "float32", base_digest=spec.digest if base else None)
        if base is not None:
            system = replace(system, base=Callback(timed, symbols, cell, needs_virial=False))
        begun = run.begin(system, parameters, start, seed=1)
        held = [jax.block_until_ready(begun.dynamics.apply(begun.walkers, parameters)[0])]  # compiles

        def advance() -> float:
            began = time.process_time()
            held[0] = jax.block_until_ready(begun.dynamics.apply(held[0], parameters)[0])
            return time.process_time() - began

        return advance

    with_base, without = simulation(spec.model_dump()), simulation(None)
    rows = []
    for _ in range(TURNS):
        timed.seconds, timed.calls = 0.0, 0
        whole, terms = with_base(), without()
        rows.append(1e3 * np.array([whole, timed.seconds, terms]) / timed.calls)
    whole, own, terms = np.median(rows, 0)
    callback = float(np.median([row[0] - row[1] - row[2] for row in rows]))
    result = {
        "base": spec.label, "atoms": len(atoms), "walkers": given.walkers, "steps": given.steps * TURNS,
        "cpu_ms_per_step": whole, "base_ms": own, "terms_ms": terms, "callback_ms": callback,
        "overhead": callback / own,
    }  # fmt: skip
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
