"""Molecular dynamics against the number of atoms, of walkers and of threads.

    python tests/benchmarks/scaling.py [--atoms 864 ... 32000] [--figure FILE.png] [--runs 3] [--output FILE]

Lennard-Jones as in ``md.py``. Atoms: CPU time per atom and step on one core. Walkers: the same for 864 atoms, several
walkers on one core. Threads: walkers spread over cores, wall time (it is what threads are for; a busy machine spoils
it, so that the load is printed), each number of threads in a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import md
import measure

from aiida_difftre.engine import device
from aiida_difftre.engine.jobs import Machine

ATOMS = (864, 2048, 4000, 8788, 16384, 32000)
WALKERS = (1, 2, 4, 8)


def per_atom(number: int, steps: int, runs: int, walkers: int = 1) -> dict[str, Any]:
    """Microseconds per atom and step; CPU and wall time."""
    import jax

    advance, state, taken = md.prepared("lj", number, steps, walkers)
    state = advance(state)
    cpu, wall = [], []
    for _ in range(runs):
        began = time.process_time(), time.perf_counter()
        state = jax.block_until_ready(advance(state))
        cpu.append(time.process_time() - began[0])
        wall.append(time.perf_counter() - began[1])
    scale = 1e6 / (taken * number * walkers)
    return {
        "atoms": number,
        "walkers": walkers,
        "cpu_microseconds": scale * statistics.median(cpu),
        "wall_microseconds": scale * statistics.median(wall),
    }


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Time per atom against the number of atoms."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.plot(
        [entry["atoms"] for entry in found], [entry["cpu_microseconds"] for entry in found], "o-", color="#0b6fa4"
    )
    axis.set(xscale="log", xlabel="atoms", ylabel="CPU time / µs per atom and step", ylim=(0, None))
    figure.savefig(path, dpi=160)


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    parser.add_argument("--atoms", type=int, nargs="+", default=list(ATOMS))
    parser.add_argument("--walkers", type=int, nargs="+", default=list(WALKERS))
    parser.add_argument("--atom-steps", type=int, default=1_500_000, help="atoms times steps of one run")
    parser.add_argument("--figure", type=Path, help="draw the time per atom here")
    parser.add_argument("--threads", type=int, help="measure 4 walkers with this many threads, in this process")
    options = parser.parse_args()
    machine = Machine(threads=options.threads or 1, platform="cpu")
    device.configure(machine)
    if options.tiny:
        options.atoms, options.walkers, options.atom_steps = [32], [1, 2], 32 * 40

    def steps(number: int, walkers: int = 1) -> int:
        return max(20, options.atom_steps // number // walkers // 5 * 5)

    small = options.atoms[0]
    if options.threads:
        found = per_atom(small, steps(small, 4), options.runs, 4)
        measure.write({**found, "threads": options.threads}, options.output)
        return
    atoms = [per_atom(number, steps(number), options.runs) for number in options.atoms]
    walkers = [per_atom(small, steps(small, count), options.runs, count) for count in options.walkers]
    threads = []
    for count in () if options.tiny else [n for n in (1, 2, 4, 8) if n <= (os.cpu_count() or 1)]:
        command = [sys.executable, __file__, "--threads", str(count), "--runs", str(options.runs)]
        command += ["--atoms", str(small), "--atom-steps", str(options.atom_steps)]
        threads.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
    if options.figure is not None:
        plot(atoms, options.figure)
    measure.write(
        {"versions": measure.versions(machine), "atoms": atoms, "walkers": walkers, "threads": threads}, options.output
    )


if __name__ == "__main__":
    main()
