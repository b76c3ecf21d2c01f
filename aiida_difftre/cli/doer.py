"""Which process of which computer does a run that no daemon does, and what becomes of the run when that is gone."""

from __future__ import annotations

import os
import socket
from datetime import datetime

import psutil
from aiida import orm

from aiida_difftre.cli.costs import Process

IDLE_MINUTES = 10.0
"""Time after which a run of the daemon in which nothing happens, and no job runs, is told to be neglected."""

EXTRA = "difftre_process"
"""Extra of a run that is done by ``aiida-difftre run``: host, PID, and when the process began."""


def sign(run: orm.ProcessNode) -> None:
    """Note that this process does a run."""
    own = psutil.Process()
    run.base.extras.set(EXTRA, {"host": socket.gethostname(), "pid": os.getpid(), "began": own.create_time()})


def of(run: orm.ProcessNode) -> str:
    """The process that does a run, in words; empty where that is the daemon."""
    signed = run.base.extras.get(EXTRA, None)
    return "" if signed is None else f"process {signed['pid']} on {signed['host']}"


def is_gone(run: orm.ProcessNode) -> bool:
    """Whether the process that did a run is no more, though the run is not over: killed, or the computer restarted.

    False for runs of the daemon, and where the process was on another computer.
    """
    signed = run.base.extras.get(EXTRA, None)
    if signed is None or run.is_terminated or signed["host"] != socket.gethostname():
        return False
    try:
        found = psutil.Process(signed["pid"])
        # A PID may belong to another process by now, and one that ended may still be in the table.
        return bool(found.create_time() != signed["began"] or found.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def farewell(run: orm.ProcessNode) -> str:
    """What to do about a run whose process is gone, in a sentence; empty for any other."""
    if not is_gone(run):
        return ""
    return f"nobody does this run: {of(run)} is gone; go on with: aiida-difftre resume {run.pk}"


def neglected(run: orm.ProcessNode, below: list[Process], now: datetime | None = None) -> str:
    """What to do about a run of the daemon that no worker goes on with, in a sentence; empty for any other.

    A broker that does not notice that a worker was killed gives what it did to no other one. Between jobs a work chain
    needs seconds.

    Args:
        run: The run.
        below: Its processes.
        now: The present time; None for that of the clock.
    """
    if run.is_terminated or of(run) or run.paused:
        return ""
    if any(one.is_paused or one.is_job for one in below if not one.is_over):
        return ""
    last = max([run.mtime, *(one.changed for one in below)])
    minutes = ((now or datetime.now().astimezone()) - last).total_seconds() / 60
    if minutes < IDLE_MINUTES:
        return ""
    return (
        f"nothing has happened for {minutes:.0f} minutes, and no job runs: no worker goes on with this run; hand it "
        "out again with: verdi daemon restart"
    )


def has_its_job(calculation: orm.CalcJobNode) -> bool:
    """Whether what the scheduler would kill is the job of a calculation.

    The direct scheduler of this computer knows a job by its PID, which may be another process by now; that of the job
    works in its folder. Other schedulers do not use a number again.
    """
    job, computer = calculation.get_job_id(), calculation.computer
    if job is None or computer is None:
        return False
    if (computer.transport_type, computer.scheduler_type) != ("core.local", "core.direct"):
        return True
    folder = calculation.get_remote_workdir() or ""
    try:
        return os.path.realpath(psutil.Process(int(job)).cwd()) == os.path.realpath(folder)
    except (psutil.Error, ValueError):
        return False


def bury(run: orm.ProcessNode) -> None:
    """Mark a run as killed whose process is gone, with what it called, and kill its jobs; what ended stays as it is.

    A run that is marked already is gone through once more, for what was left when that was interrupted.
    """
    from plumpy import ProcessState

    from aiida_difftre.cli.demo import end_what_is_left

    if not run.is_terminated:
        run.set_process_state(ProcessState.KILLED)
        run.set_process_status(f"killed: {of(run) or 'what did it'} was gone")
        run.delete_checkpoint()
        run.seal()
    end_what_is_left(run.pk or 0)
