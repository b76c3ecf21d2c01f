"""Whether a long refinement grows: memory, time, database and repository by iteration. Prints JSON, draws a figure.

    python tests/benchmarks/long_run.py [--iterations 200] [--state-points 4] [--engine warm] [--minutes 60]
                                        [--services] [--workers 1] [--output FILE] [--figure FILE]

A real refinement of argon with dynamics of a few steps, run by a real daemon in a profile of its own, on SQLite and the
ZeroMQ broker, or with ``--services`` on PostgreSQL and RabbitMQ. After each update this process notes what the workers,
the database and the repository hold. ``--engine warm`` keeps the engine in one process for all jobs, so that more
iterations fit into the time: its jobs are the same, their start is saved. Times are CPU seconds of the workers; memory,
times, files and connections are sums over the workers. The slopes are least-squares fits over the second half.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

import measure
import numpy as np
import psutil
import tiny_refinement

MEBIBYTE = 1 << 20
START_S = 300.0
"""A daemon on a busy machine."""

LOOK_S = 1.0
ENDED = ("finished", "excepted", "killed")


def size_of(folder: Path, pattern: str) -> int:
    """Bytes of the files below a folder; a file may go while they are counted."""
    total = 0
    for path in folder.rglob(pattern):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def workers(number: int) -> list[psutil.Process]:
    """The workers of the daemon, once they have started."""
    from aiida.engine.daemon.client import get_daemon_client

    client = get_daemon_client()
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = client.get_worker_info().get("info") or {}
        if len(found) == number:
            return [psutil.Process(int(pid)) for pid in found]
        time.sleep(0.5)
    raise TimeoutError(f"the daemon has no {number} workers after {START_S:g} s; see `verdi daemon logshow`")


class State(NamedTuple):
    """Of a run: its process state, the updates that are done, and the bytes of its checkpoint."""

    process: str
    updates: int
    checkpoint: int


class Sqlite:
    """What an SQLite profile holds, read with connections of a moment, so that workers hardly ever wait."""

    statement = """
    select json_extract(attributes, '$.process_state'), coalesce(length(json_extract(attributes, '$.checkpoints')), 0),
    (
        select count(*) from db_dbnode where process_type = 'aiida.calculations:difftre.update'
        and json_extract(attributes, '$.process_state') = 'finished'
    ) from db_dbnode where id = ?
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._folder = Path(config["filepath"])
        self.repository = self._folder / "container"

    def state(self, pk: int) -> State | None:
        """None where the database is busy."""
        try:
            with closing(sqlite3.connect(f"file:{self._folder / 'database.sqlite'}?mode=ro", uri=True)) as connection:
                process, checkpoint, updates = connection.execute(self.statement, (pk,)).fetchone()
        except sqlite3.OperationalError:
            return None
        return State(process, updates, checkpoint)

    def sizes(self) -> dict[str, float]:
        """Of the database."""
        return {"database_mib": size_of(self._folder, "database.sqlite*") / MEBIBYTE}


class Postgresql:
    """What a profile on PostgreSQL holds."""

    statement = """
    select attributes->>'process_state', coalesce(length(attributes->>'checkpoints'), 0), (
        select count(*) from db_dbnode where process_type = 'aiida.calculations:difftre.update'
        and attributes->>'process_state' = 'finished'
    ) from db_dbnode where id = %s
    """

    def __init__(self, config: dict[str, Any]) -> None:
        names = {"hostname": "host", "port": "port", "name": "dbname", "username": "user", "password": "password"}
        self._where = {name: config[f"database_{theirs}"] for theirs, name in names.items()}
        self.repository = Path(unquote(urlparse(config["repository_uri"]).path)) / "container"

    def _row(self, statement: str, *values: object) -> tuple[Any, ...]:
        import psycopg

        with psycopg.connect(**self._where, application_name="benchmark") as connection:
            row = connection.execute(statement, values).fetchone()
        assert row is not None
        return row

    def state(self, pk: int) -> State | None:
        """Of the run."""
        process, checkpoint, updates = self._row(self.statement, pk)
        return State(process, updates, checkpoint)

    def sizes(self) -> dict[str, float]:
        """Of the database, and how many connections it has besides this one."""
        size, connections = self._row(
            "select pg_database_size(current_database()), (select count(*) from pg_stat_activity"
            " where datname = current_database() and application_name <> 'benchmark')"
        )
        return {"database_mib": size / MEBIBYTE, "database_connections": connections}


Storage = Sqlite | Postgresql


def sample(state: State, processes: list[psutil.Process], storage: Storage, began: float) -> dict[str, float]:
    """What there is after an iteration."""
    times = [process.cpu_times() for process in processes]
    return {
        "iteration": state.updates,
        "wall_s": time.monotonic() - began,
        "worker_cpu_s": sum(one.user + one.system for one in times),
        "programs_cpu_s": sum(one.children_user + one.children_system for one in times),
        "worker_rss_mib": sum(process.memory_info().rss for process in processes) / MEBIBYTE,
        "worker_open_files": sum(process.num_fds() for process in processes),
        "worker_connections": sum(len(process.net_connections()) for process in processes),
        **storage.sizes(),
        "repository_mib": size_of(storage.repository, "*") / MEBIBYTE,
        "checkpoint_kib": state.checkpoint / 1024,
    }


Keep = Callable[[list[dict[str, float]], str], None]


def watch(
    pk: int, processes: list[psutil.Process], storage: Storage, minutes: float, keep: Keep
) -> tuple[list[dict[str, float]], str]:
    """A record for each iteration until the run ends or the time is up; and the last state of the run.

    Args:
        pk: of the run.
        processes: the workers.
        storage: of the profile.
        minutes: after which the run is left.
        keep: is given what there is after each iteration, so that a run of hours that is stopped is not lost.
    """
    began, records, ended = time.monotonic(), [], "unknown"
    while ended not in ENDED and time.monotonic() - began < 60 * minutes:
        time.sleep(LOOK_S)
        state = storage.state(pk)
        if state is None:
            continue
        ended = state.process
        if state.updates > (records[-1]["iteration"] if records else 0):
            records.append(sample(state, processes, storage, began))
            print(json.dumps(records[-1]), file=sys.stderr, flush=True)
            keep(records, ended)
    return records, ended


def slopes(records: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Growth per iteration in the second half, with its standard error; times as their differences."""
    table = {name: np.array([one[name] for one in records]) for name in records[0]}
    steps = np.diff(table["iteration"])
    for name in ("worker_cpu_s", "programs_cpu_s", "wall_s"):
        # What one iteration took; where two ended between two looks, the mean of both.
        table[f"{name}_per_iteration"] = np.concatenate([[np.nan], np.diff(table.pop(name)) / steps])
    half = len(records) // 2
    x, found = table.pop("iteration")[half:], {}
    for name, values in table.items():
        y = values[half:]
        coefficients, covariance = np.polyfit(x - x.mean(), y, 1, cov="unscaled") if len(x) > 2 else ([0, y.mean()], 0)
        residual = y - np.polyval(coefficients, x - x.mean())
        error = np.sqrt(np.sum(residual**2) / (len(x) - 2) * covariance[0][0]) if len(x) > 2 else np.nan
        found[name] = {"mean": float(y.mean()), "per_iteration": float(coefficients[0]), "error": float(error)}
    return found


def draw(records: list[dict[str, float]], path: Path) -> None:
    """Four panels over the iterations."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    x = [one["iteration"] for one in records]
    figure, axes = plt.subplots(2, 2, figsize=(8, 5), sharex=True, layout="constrained")
    cpu = np.diff([one["worker_cpu_s"] for one in records]) / np.diff(x)
    panels = (
        ("worker: resident memory / MiB", x, [one["worker_rss_mib"] for one in records]),
        ("worker: CPU s per iteration", x[1:], cpu),
        ("database / MiB", x, [one["database_mib"] for one in records]),
        ("repository / MiB", x, [one["repository_mib"] for one in records]),
    )
    for axis, (title, where, values) in zip(axes.flat, panels, strict=True):
        axis.plot(where, values, ".-", lw=0.8, ms=3)
        axis.set_title(title, fontsize=9)
        axis.set_ylim(0, 1.15 * max(values))
    for axis in axes[1]:
        axis.set_xlabel("iteration")
    figure.savefig(path)


def watched_run(options: argparse.Namespace, keep: Keep) -> tuple[list[dict[str, float]], str]:
    """Run and watch."""
    with ExitStack() as stack:
        root = stack.enter_context(tiny_refinement.profile(options.poll_interval, has_services=options.services))
        from aiida.engine import submit
        from aiida.engine.daemon.client import get_daemon_client
        from aiida.manage import get_manager

        program = None
        if options.engine == "warm":
            import warm_engine

            program = stack.enter_context(warm_engine.program(root))
        config = get_manager().get_profile().storage_config
        storage = Postgresql(config) if options.services else Sqlite(config)
        client = get_daemon_client()
        client.start_daemon(number_workers=options.workers)
        try:
            processes = workers(options.workers)
            node = submit(
                tiny_refinement.builder(
                    root,
                    tiny_refinement.code(program),
                    iterations=options.iterations,
                    state_points=options.state_points,
                )
            )
            return watch(node.pk, processes, storage, options.minutes, keep)
        finally:
            client.stop_daemon(wait=True, timeout=90)


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--state-points", type=int, default=4)
    parser.add_argument("--services", action="store_true", help="PostgreSQL and RabbitMQ, which have to be installed")
    parser.add_argument("--workers", type=int, default=1, help="of the daemon")
    parser.add_argument("--engine", choices=("script", "warm"), default="warm")
    parser.add_argument("--minutes", type=float, default=60.0, help="the run is left after this time")
    parser.add_argument("--poll-interval", type=float, help="s between looks at the jobs; that of setup by default")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if options.tiny:
        options.iterations, options.state_points = 2, 1
    versions = tiny_refinement.versions()

    def results(records: list[dict[str, float]], state: str) -> dict[str, Any]:
        """What there is so far."""
        return {
            "versions": versions,
            "engine": options.engine,
            "state_points": options.state_points,
            "services": options.services,
            "workers": options.workers,
            "iterations_asked": options.iterations,
            "iterations_run": int(records[-1]["iteration"]),
            "state": state,
            "slopes": slopes(records),
            "records": records,
        }

    def keep(records: list[dict[str, float]], state: str) -> None:
        """A run of hours that is stopped is not lost."""
        if options.output is not None and len(records) > 1:
            measure.write(results(records, state), options.output)

    records, ended = watched_run(options, keep)
    if len(records) < 2:
        raise RuntimeError(f"{len(records)} iterations in {options.minutes:g} min ({ended}); give it more")
    measure.write(results(records, ended), options.output)
    if options.figure is not None:
        draw(records, options.figure)


if __name__ == "__main__":
    main()
