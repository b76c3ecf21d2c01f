"""CPU seconds of a refinement iteration that are neither dynamics nor update: AiiDA, and each job by part.

    python tests/benchmarks/overhead.py [--iterations 3] [--runs 3] [--output FILE]

A refinement of four argon atoms with dynamics of a few steps at one state point, run in this process in a profile of
its own, after one that fills the compilation cache. An iteration is a sampling job and an update job. AiiDA's part is
the CPU time of this process and of the programs that it starts (shell, scheduler); a job's parts are what
``engine_parts.py`` books. What the engine computes is in ``other``, with all else that is not listed.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import engine_parts
import measure
import tiny_refinement

TARGET = {"cpu_s_per_iteration": 3.0}

AIIDA_PARTS = (
    ("parse", ("aiida_difftre/parsers/",)),
    ("checkpoints", ("aiida/engine/persistence.py", "aiida/orm/utils/serialize.py")),
    ("repository", ("disk_objectstore/", "aiida/repository/")),
    ("hashes", ("aiida/orm/nodes/caching.py",)),
    ("database", ("sqlalchemy/", "aiida/storage/")),
    ("transport and scheduler", ("aiida/transports/", "aiida/schedulers/", "aiida/engine/daemon/execmanager.py")),
    (
        "checks of inputs",
        ("aiida_difftre/calculations/checks.py", "aiida/engine/processes/ports.py", "plumpy/ports.py"),
    ),
    ("imports", ("<frozen importlib",)),
    ("work chains", ("aiida_difftre/workchains/", "difftre/workchains/")),
)
"""By file, as in ``engine_parts.PARTS``; a commit to the database mostly waits for the disk, which is no CPU time."""

PROGRAM = '#!/bin/sh\nexec "{python}" "{script}" "$@"\n'


def medians(found: Iterable[dict[str, float]]) -> dict[str, float]:
    """Part by part."""
    tables = list(found)
    names = {name: None for table in tables for name in table}
    return {name: round(statistics.median(table.get(name, 0.0) for table in tables), 4) for name in names}


def jobs_of(run: Any) -> dict[str, list[dict[str, float]]]:
    """By kind of job, the parts of each."""
    from aiida import orm

    found: dict[str, list[dict[str, float]]] = {}
    for job in run.called_descendants:
        if isinstance(job, orm.CalcJobNode):
            parts = json.loads((Path(str(job.get_remote_workdir())) / "parts.json").read_text())
            found.setdefault(job.process_label, []).append(parts)
    return found


def refine(root: Path, code: Any, iterations: int) -> tuple[dict[str, float], dict[str, list[dict[str, float]]]]:
    """Run a refinement; AiiDA's CPU seconds by part, per job, and the parts of the jobs."""
    from aiida.engine import run_get_node
    from aiida.engine.utils import instantiate_process
    from aiida.manage import get_manager

    from aiida_difftre.cli.demo import PROCESS_POLL_S

    runner = get_manager().create_runner(communicator=None, poll_interval=PROCESS_POLL_S)  # as ``aiida-difftre run``
    process = instantiate_process(runner, tiny_refinement.builder(root, code, iterations=iterations, state_points=1))
    own, children = time.process_time(), measure.children_seconds()
    with engine_parts.Clock(AIIDA_PARTS) as clock:
        _, node = run_get_node(process)
    if not node.is_finished_ok:
        raise RuntimeError(f"the refinement failed: {node.exit_message}")
    jobs = jobs_of(node)
    number = sum(len(found) for found in jobs.values())
    spent = {
        **clock.seconds,
        "programs that it starts": measure.children_seconds() - children,
        "total": time.process_time() - own + measure.children_seconds() - children,
    }
    return {name: seconds / number for name, seconds in spent.items()}, jobs


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    parser.add_argument("--iterations", type=int, default=3)
    options = parser.parse_args()
    iterations, runs = (1, 1) if options.tiny else (options.iterations, options.runs)
    with tiny_refinement.profile() as root:
        program = root / "difftre-in-parts"
        program.write_text(PROGRAM.format(python=sys.executable, script=Path(engine_parts.__file__).resolve()))
        program.chmod(0o755)
        code = tiny_refinement.code(program)
        if not options.tiny:
            refine(root, code, iterations)  # fills the cache, and imports what AiiDA imports once
        made = [refine(root, code, iterations) for _ in range(runs)]
    aiida = medians(per_job for per_job, _ in made)
    jobs = {
        label: medians(parts for _, by_kind in made for parts in by_kind[label])
        for label in ("SampleCalculation", "UpdateCalculation")
    }
    overhead = 2 * aiida["total"] + sum(parts["total"] - parts["other"] for parts in jobs.values())
    measure.write(
        {
            "versions": tiny_refinement.versions(),
            "iterations": iterations,
            "runs": runs,
            "aiida_cpu_s_per_job": aiida,
            "jobs_cpu_s": jobs,
            "cpu_s_per_iteration": overhead,
            "target": TARGET,
        },
        options.output,
    )


if __name__ == "__main__":
    main()
