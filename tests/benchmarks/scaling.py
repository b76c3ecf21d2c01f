"""Molecular dynamics against the number of atoms, of walkers and of threads.

    python tests/benchmarks/scaling.py [--parts atoms walkers threads] [--figure FILE.png] [--runs 3] [--output FILE]
    python tests/benchmarks/scaling.py --platform auto --parts walkers --walkers 1 8 64 512

Lennard-Jones, or another system of ``md.py``. Atoms: time per atom and step against their number. Walkers: the same for
the first of the numbers of atoms, several walkers in one program. Threads: 4 walkers spread over cores, each number of
threads in a process of its own. CPU time, on one core but for the threads; and wall time, which is what threads are for
and what a GPU takes (a busy machine spoils it, so that the load is printed).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import md
import measure

from aiida_difftre.engine.contract.jobs import Machine
from aiida_difftre.engine.runtime import device

ATOMS = (864, 2048, 4000, 8788, 16384, 32000)
WALKERS = (1, 2, 4, 8)
PARTS = ("atoms", "walkers", "threads")


def per_atom(kind: str, number: int, steps: int, runs: int, walkers: int = 1) -> dict[str, Any]:
    """Microseconds per atom and step; CPU and wall time."""
    import jax

    advance, state, taken = md.prepared(kind, number, steps, walkers)

    def further() -> None:
        nonlocal state
        state = jax.block_until_ready(advance(state))

    spent = measure.middle(measure.times(further, runs))
    scale = 1e6 / (taken * number * walkers)
    return {
        "atoms": number,
        "walkers": walkers,
        "cpu_microseconds": scale * spent.cpu,
        "wall_microseconds": scale * spent.wall,
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
    highest = max(entry["cpu_microseconds"] for entry in found)
    axis.set(xscale="log", xlabel="atoms", ylabel="CPU time / µs per atom and step", ylim=(0, 1.1 * highest))
    figure.savefig(path, dpi=160)


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    measure.add_platform(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--system", choices=["lj", "sw", "network"], default="lj", help="as in md.py")
    parser.add_argument("--atoms", type=int, nargs="+", default=list(ATOMS))
    parser.add_argument("--walkers", type=int, nargs="+", default=list(WALKERS))
    parser.add_argument("--atom-steps", type=int, default=1_500_000, help="atoms times steps of one run")
    parser.add_argument("--figure", type=Path, help="draw the time per atom here")
    parser.add_argument("--threads", type=int, help="measure the part threads with this many, in this process")
    options = parser.parse_args()
    machine = Machine(threads=options.threads or 1, platform=options.platform)
    device.configure(machine)
    if options.tiny:
        options.atoms, options.walkers, options.atom_steps = [8 if options.system != "lj" else 32], [1, 2], 32 * 40

    def steps(number: int, walkers: int = 1) -> int:
        return max(20 if options.tiny else md.FEWEST_STEPS, options.atom_steps // number // walkers // 5 * 5)

    small = options.atoms[0]
    if options.threads:
        found = per_atom(options.system, small, steps(small, 4), options.runs, 4)
        measure.write({**found, "threads": options.threads}, options.output)
        return
    found: dict[str, Any] = {"versions": measure.versions(machine), "system": options.system}
    if "atoms" in options.parts:
        found["atoms"] = [per_atom(options.system, number, steps(number), options.runs) for number in options.atoms]
        if options.figure is not None:
            plot(found["atoms"], options.figure)
    if "walkers" in options.parts:
        found["walkers"] = [
            per_atom(options.system, small, steps(small, count), options.runs, count) for count in options.walkers
        ]
    if "threads" in options.parts:
        found["threads"] = []
        for count in () if options.tiny else [n for n in (1, 2, 4, 8) if n <= (os.cpu_count() or 1)]:
            command = [sys.executable, __file__, "--threads", str(count), "--runs", str(options.runs)]
            command += ["--system", options.system, "--atoms", str(small), "--atom-steps", str(options.atom_steps)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found["threads"].append(json.loads(done.stdout))
    measure.write(found, options.output)


if __name__ == "__main__":
    main()
