"""Runs in which something is killed, stopped, locked or restarted every few seconds end as if nothing had happened.

By hand, for as many faults as one likes, with a report that lasts when it is interrupted::

    DIFFTRE_FAULTS=500 DIFFTRE_FAULTS_REPORT=faults.json pytest -n 0 -m long tests/faults/test_campaign.py
    python tests/faults/table.py faults.json
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiida import orm
from aiida.engine import submit
from aiida.engine.daemon.client import DaemonClient, DaemonException

from aiida_difftre.cli import doer
from aiida_difftre.cli.costs import processes
from tests.faults.conftest import Fingerprint, fingerprint
from tests.fixtures.chains import explain
from tests.fixtures.daemon import PATIENCE_S, STOP_S, workers

pytestmark = [pytest.mark.daemon, pytest.mark.long]

FAULTS = int(os.environ.get("DIFFTRE_FAULTS", "10"))
SEED = int(os.environ.get("DIFFTRE_FAULTS_SEED", "1"))
REPORT = os.environ.get("DIFFTRE_FAULTS_REPORT")
AT_MOST_IN_ONE_RUN = 10
KILLS_OF_ONE_CHAIN = 2
"""Of the engine: a restart chain tries a lost job three times again."""

PAUSE_S = (0.5, 4.0)
LOCK_S = 8.0
STOPPED_S = 3.0

LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=60)
connection.execute("BEGIN IMMEDIATE")
time.sleep(float(sys.argv[2]))
"""


@dataclass
class Scene:
    """What faults happen to.

    Args:
        run: The run that is disturbed.
        daemon: The daemon that works on it.
        database: File of the database; None where it is a server.
        kills: How often the engine was killed in each restart chain.
    """

    run: orm.ProcessNode
    daemon: DaemonClient
    database: Path | None
    kills: Counter[int] = field(default_factory=Counter)

    def engine(self) -> tuple[psutil.Process, orm.CalcJobNode] | None:
        """The process of the engine that works for the run now, and its job."""
        jobs = {
            folder: job
            for job in self.run.called_descendants
            if isinstance(job, orm.CalcJobNode) and not job.is_terminated and (folder := job.get_remote_workdir())
        }
        for process in psutil.process_iter():
            try:
                if any(word.endswith("/difftre") for word in process.cmdline()) and process.cwd() in jobs:
                    return process, jobs[process.cwd()]
            except psutil.Error:
                continue
        return None


def kill_engine(scene: Scene) -> bool:
    """kill -9 of the engine."""
    found = scene.engine()
    if found is None:
        return False
    process, job = found
    if scene.kills[job.caller.pk] >= KILLS_OF_ONE_CHAIN:
        return False
    scene.kills[job.caller.pk] += 1
    process.kill()
    return True


def stop_engine(scene: Scene) -> bool:
    """The engine stands still for some seconds, as on a machine that swaps."""
    found = scene.engine()
    if found is None:
        return False
    try:
        found[0].suspend()
        time.sleep(STOPPED_S)
        found[0].resume()
    except psutil.NoSuchProcess:
        return False
    return True


def kill_worker(scene: Scene) -> bool:
    """kill -9 of a worker of the daemon, which the daemon replaces."""
    found = workers(scene.daemon)
    for worker in found:
        worker.kill()
    return bool(found)


def kill_broker(scene: Scene) -> bool:
    """kill -9 of the daemon's own broker."""
    pid = scene.daemon.get_daemon_pid()
    children = psutil.Process(pid).children(recursive=True) if pid is not None else []
    brokers = [child for child in children if "broker" in child.cmdline()]
    for broker in brokers:
        broker.kill()
    return bool(brokers)


def kill_daemon(scene: Scene) -> bool:
    """kill -9 of the daemon with everything that it started, as when a machine goes down; then it is started again."""
    processes = [one for one in psutil.process_iter() if is_of_daemon(one, scene.daemon.profile.name)]
    for process in list(processes):
        # The statistics of circus, which name no profile; jobs run on, in sessions of their own.
        with contextlib.suppress(psutil.NoSuchProcess):
            processes += [child for child in process.children() if "circus" in " ".join(child.cmdline())]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=STOP_S)
    scene.daemon.start_daemon()
    return True


def is_of_daemon(process: psutil.Process, profile: str) -> bool:
    """Whether a process is the daemon of a profile, one of its workers, or its broker."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return profile in words and ("daemon" in words or "broker" in words)


def restart_daemon(scene: Scene) -> bool:
    """The daemon is restarted in the usual way; by force where it is too busy to answer."""
    try:
        scene.daemon.restart_daemon(wait=True, timeout=STOP_S)
    except DaemonException:
        kill_daemon(scene)
    return True


def lock_database(scene: Scene) -> bool:
    """Another program holds the database."""
    if scene.database is None:
        return False
    subprocess.run(
        [sys.executable, "-c", LOCK, str(scene.database), str(LOCK_S)], check=False, stderr=subprocess.DEVNULL
    )
    return True


def pause_and_play(scene: Scene) -> bool:
    """The user pauses the run, and lets it go on, once more where the daemon was too busy to hear it."""
    steer(scene, "pause")
    time.sleep(1.0)
    while not scene.run.is_terminated and (not steer(scene, "play") or scene.run.paused):
        time.sleep(1.0)
    return True


def steer(scene: Scene, action: str) -> bool:
    """Let a worker pause the run or let it go on; whether one did."""
    command = ["verdi", "-p", scene.daemon.profile.name, "process", action, str(scene.run.pk)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    return done.returncode == 0 and "Error" not in done.stdout + done.stderr


KINDS: dict[str, Callable[[Scene], bool]] = {
    "engine killed": kill_engine,
    "engine stopped for 3 s": stop_engine,
    "worker killed": kill_worker,
    "broker killed": kill_broker,
    "daemon, workers and broker killed": kill_daemon,
    "daemon restarted": restart_daemon,
    "database locked for 8 s": lock_database,
    "run paused, and played": pause_and_play,
}


CURE = "daemon restarted, as `status` tells"
"""What a user does where the broker has not noticed that a worker was killed: no fault, but counted beside them."""


def is_neglected(run: orm.ProcessNode) -> bool:
    """Whether ``status`` would tell that no worker goes on with a run, if it were less patient by all but a minute."""
    soon = datetime.now().astimezone() + timedelta(minutes=doer.IDLE_MINUTES - 1)
    return bool(doer.neglected(run, list(processes(run)), soon))


def disturb(scene: Scene, chance: random.Random, left: int) -> Iterator[str]:
    """Do something every few seconds until the run is over; yields what was done."""
    done, cured = 0, -math.inf
    end = time.monotonic() + PATIENCE_S
    while not scene.run.is_terminated and time.monotonic() < end:
        time.sleep(chance.uniform(*PAUSE_S))
        if is_neglected(scene.run) and time.monotonic() > cured + STOP_S:
            restart_daemon(scene)
            cured = time.monotonic()
            yield CURE
        if done < min(left, AT_MOST_IN_ONE_RUN) and not scene.run.is_terminated:
            end = time.monotonic() + PATIENCE_S
            kind = chance.choice(list(KINDS))
            # What ended by itself a moment before was not disturbed.
            with contextlib.suppress(psutil.NoSuchProcess):
                if KINDS[kind](scene):
                    done += 1
                    yield kind


def check(run: orm.ProcessNode, undisturbed: Fingerprint, story: str) -> None:
    """Nothing is lost, nothing is counted twice, and every number is what it would have been."""
    assert run.is_terminated, f"the run has not ended, paused: {run.paused}, {story}\n{explain(run)}"
    assert run.is_finished_ok, f"{story}\n{explain(run)}"
    links = [
        link
        for called in run.called
        if called.is_finished  # a function that was killed on its way has done nothing
        for link in called.base.links.get_incoming(node_class=orm.WorkChainNode).all_link_labels()
    ]
    assert len(links) == len(set(links)), "a step was done twice"
    assert fingerprint(run) == undisturbed
    for chain in run.called:
        finished = [job for job in chain.called if isinstance(job, orm.CalcJobNode) and job.is_finished_ok]
        assert len(finished) <= 1, "a job was run again that had ended well"


def test_faults(undisturbed: Fingerprint, refinement: Any, daemon: DaemonClient, aiida_profile: Any) -> None:
    chance = random.Random(SEED)
    database = None
    if aiida_profile.storage_backend == "core.sqlite_dos":
        database = Path(aiida_profile.storage_config["filepath"]) / "database.sqlite"
    counts: Counter[str] = Counter()
    runs = cured = 0
    while counts.total() < FAULTS:
        run = submit(refinement())
        story = list(disturb(Scene(run, daemon, database), chance, FAULTS - counts.total()))
        check(run, undisturbed, " then ".join(story))
        counts.update(kind for kind in story if kind != CURE)
        cured += story.count(CURE)
        runs += 1
        if REPORT is not None:
            Path(REPORT).write_text(json.dumps({"runs": runs, "faults": counts, "cured": cured}, indent=2))
