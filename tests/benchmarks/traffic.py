"""Bytes of the jobs of a run, by kind: sent to the machine, linked there, left there, retrieved, and kept.

    verdi run -- tests/benchmarks/traffic.py PK...

For runs on this machine, whose folders can be looked at. The page docs/howto/scratch.md says what each number is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from aiida import orm

COLUMNS = ("jobs", "sent", "linked", "left", "retrieved", "kept")

WRITTEN = (
    "results.json", "error.json", "progress.jsonl", "memory_events.txt", "trajectory.npz", "trajectory_part.npz",
    "potential_out.safetensors", "optimizer_out.safetensors", "predictions.npz", "checkpoint.safetensors",
    "_scheduler-*.txt",
)  # fmt: skip
"""Files that a job of the engine writes."""


def of_job(job: orm.CalcJobNode) -> dict[str, int]:
    """Bytes of one job.

    Args:
        job: that has finished on this machine, whose folder is still there.
    """
    folder = Path(job.outputs.remote_folder.get_remote_path())
    files = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    links = [path for path in files if path.is_symlink()]
    own = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files if not path.is_symlink()}
    retrieved = {*(job.get_retrieve_list() or []), *(job.get_retrieve_temporary_list() or []), "_scheduler-*.txt"}
    return {
        "jobs": 1,
        "sent": sum(size for name, size in own.items() if not any(fnmatch(name, one) for one in WRITTEN)),
        "linked": sum(path.stat().st_size for path in links if path.exists()),
        "left": sum(own.values()),
        "retrieved": sum(size for name, size in own.items() if any(fnmatch(name, str(one)) for one in retrieved)),
        "kept": stored(job) + sum(stored(link.node) for link in job.base.links.get_outgoing().all()),
    }


def stored(node: orm.Node) -> int:
    """Bytes in the repository of a node."""
    repository = node.base.repository
    return sum(repository.get_object_size(str(root / name)) for root, _, names in repository.walk() for name in names)


def by_kind(runs: Iterable[orm.ProcessNode]) -> dict[str, dict[str, int]]:
    """Sums over the jobs of runs, by kind."""
    found: dict[str, dict[str, int]] = {}
    for run in runs:
        for job in [run, *run.called_descendants]:
            if isinstance(job, orm.CalcJobNode) and not job.outputs.remote_folder.is_cleaned:
                sums = found.setdefault(job.process_label, dict.fromkeys(COLUMNS, 0))
                for name, value in of_job(job).items():
                    sums[name] += value
    return found


def table(found: dict[str, dict[str, int]]) -> str:
    """A table, kB per job."""
    lines = [f"| job | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for kind, sums in sorted(found.items()):
        values = " | ".join(f"{sums[name] / sums['jobs'] / 1000:.1f}" for name in COLUMNS[1:])
        lines.append(f"| {kind} | {sums['jobs']} | {values} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(by_kind(orm.load_node(identifier) for identifier in sys.argv[1:])))
