"""Launch a run, watch it, and show its result: what ``demo``, ``run``, ``submit``, ``status`` and ``report`` share."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from aiida_difftre.cli import doer, live, plots, report, snapshots

if TYPE_CHECKING:
    from aiida.engine import Process, ProcessBuilder
    from aiida.orm import ProcessNode
    from rich.console import Console

POLL_S = 2.0

LOG_POLL_S = 10.0
"""In a file, between looks of the process that does the run: lines of it come rarely."""

PROCESS_POLL_S = 1.0
"""Between looks of a process at those that it waits for; without a daemon there is no broker that would tell it."""


INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def console() -> Console:
    """A terminal, or a pipe that gets lines as long as they are."""
    from rich.console import Console

    made = Console()
    return made if made.is_terminal else Console(width=160)


@contextmanager
def daemon() -> Iterator[None]:
    """A running daemon; stopped afterwards where it was not running before, unless the user interrupts.

    Raises:
        ValueError: when the daemon does not start.
    """
    from aiida.engine.daemon.client import DaemonException, get_daemon_client

    client = get_daemon_client()
    was_running = client.is_daemon_running
    if not was_running:
        try:
            client.start_daemon()
        except DaemonException as error:
            raise ValueError(f"the daemon does not start: {error}; see `verdi daemon logshow`") from None
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        if not was_running:
            client.stop_daemon(wait=True)
        raise
    if not was_running:
        client.stop_daemon(wait=True)


ROUTINE = (
    "|PwBaseWorkChain|", "|results]: work chain completed after", "|on_terminated]: remote folders will not be cleaned",
)  # fmt: skip
"""Parts of messages that AiiDA writes for each job, of which nothing follows."""


def run(builder: ProcessBuilder, out: Console) -> int:
    """Run a work chain in this process, with a live display on a terminal; returns its PK when it is over.

    An interrupt kills it, what it called, and its jobs.
    """
    with _without_chatter():
        return _run(builder, out)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Without what each calculation of pw.x, and the end of each job, says while all goes well.

    `verdi process report` has it.
    """

    def matters(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_routine = record.name == "aiida.parser.PwParser" or any(part in message for part in ROUTINE)
        return not is_routine or record.levelno >= logging.ERROR

    for handler in _log_handlers():
        handler.addFilter(matters)
    try:
        yield
    finally:
        for handler in _log_handlers():
            handler.removeFilter(matters)


@contextmanager
def _logs_above() -> Iterator[None]:
    """Within a live display, which has put its own stream in place of stderr: logs appear above it and not inside."""
    before = {handler: handler.setStream(sys.stderr) for handler in _log_handlers()}
    try:
        yield
    finally:
        for handler, stream in before.items():
            if stream is not None:
                handler.setStream(stream)


def _log_handlers() -> list[logging.StreamHandler[TextIO]]:
    """Those by which AiiDA writes to the terminal; the one of the database has a type of its own."""
    return [handler for handler in logging.getLogger("aiida").handlers if type(handler) is logging.StreamHandler]


def _run(builder: ProcessBuilder, out: Console) -> int:
    from aiida.engine.utils import instantiate_process
    from aiida.manage import get_manager

    runner = get_manager().create_runner(communicator=None, poll_interval=PROCESS_POLL_S)
    process = instantiate_process(runner, builder)
    pk = int(process.pid)
    doer.sign(process.node)
    profile = get_manager().get_profile()
    of_profile = "" if profile is None else f"-p {profile.name} "
    out.print(f"run {pk}; in another shell: aiida-difftre {of_profile}status {pk}", markup=False, highlight=False)
    snapshot = snapshots.take(pk)
    if not out.is_terminal:
        shown: set[str] = set()

        def log() -> None:
            nonlocal snapshot
            snapshot = look(pk, snapshot)
            print_new(snapshot, shown, out)
            if not process.has_terminated():
                runner.loop.call_later(LOG_POLL_S, log)

        runner.loop.call_soon(log)
        _execute(process)
        return pk
    from rich.live import Live

    with Live(live.picture(snapshot), console=out, refresh_per_second=2, transient=True) as display, _logs_above():

        def show() -> None:
            nonlocal snapshot
            # Between the steps of the chain, in its own thread: sessions of the database belong to a thread.
            snapshot = look(pk, snapshot)
            display.update(live.picture(snapshot))
            if not process.has_terminated():
                runner.loop.call_later(POLL_S, show)

        runner.loop.call_soon(show)
        _execute(process)
    return pk


def _execute(process: Process) -> None:
    """Run a process until it is over, or killed by an interrupt.

    AiiDA's own handler of signals works at once, also in the middle of a transaction, which may then swallow the kill;
    this one waits until the loop has done the step that it is at.
    """
    from aiida.engine.utils import loop_scope
    from plumpy import KilledError

    loop = process.runner.loop
    with loop_scope(loop):
        for number in INTERRUPTS:
            loop.add_signal_handler(number, process.kill, "the run was interrupted")
        try:
            with suppress(KilledError):
                process.execute()
        finally:
            for number in INTERRUPTS:
                loop.remove_signal_handler(number)
    end_what_is_left(int(process.pid))


def killed(pk: int) -> bool:
    """Whether a process was killed."""
    return bool(_process(pk).is_killed)


def end_what_is_left(pk: int) -> None:
    """Kill the jobs of a run that was killed, and mark what it called as killed.

    Where there is no broker, AiiDA kills the process on top alone: nobody would ever go on with those below it.

    Args:
        pk: PK of the work chain.
    """
    from aiida import orm
    from aiida.engine.daemon.execmanager import kill_calculation
    from plumpy import ProcessState

    run = _process(pk)
    if not run.is_killed:
        return
    for process in run.called_descendants:
        if process.is_terminated:
            continue
        if isinstance(process, orm.CalcJobNode) and doer.has_its_job(process):
            authinfo = process.get_authinfo()
            with authinfo.get_transport() as transport:
                kill_calculation(process, transport)
        process.set_process_state(ProcessState.KILLED)
        process.set_process_status(f"killed, since the run {pk} was interrupted")
        process.delete_checkpoint()
        process.seal()


def _process(pk: int) -> ProcessNode:
    from aiida.orm import load_node

    return cast("ProcessNode", load_node(pk))


def launch(builder: ProcessBuilder) -> int:
    """Submit a work chain to the daemon; returns its PK.

    Raises:
        ValueError: when there is no daemon to submit to.
    """
    from aiida.common.exceptions import InvalidOperation
    from aiida.engine import submit
    from aiida.manage import get_manager

    try:
        return int(submit(builder).pk or 0)
    except InvalidOperation as error:
        profile = get_manager().get_profile()
        start = f"verdi -p {profile.name} daemon start" if profile is not None else "verdi daemon start"
        raise ValueError(f"nothing was submitted: {error} Start the daemon with `{start}`.") from None


def look(pk: int, before: snapshots.Snapshot) -> snapshots.Snapshot:
    """The present state of a run; that before where the database is busy, which on SQLite one writer makes it."""
    from sqlalchemy.exc import OperationalError

    try:
        return snapshots.take(pk)
    except OperationalError:
        return before


def watch(pk: int, out: Console, *, until_over: bool = True) -> snapshots.Snapshot:
    """Show a run until it is over, or nobody does it any more: live on a terminal, line by line elsewhere.

    Args:
        pk: PK of the work chain.
        out: where to.
        until_over: False shows the present state and returns.
    """
    snapshot = snapshots.take(pk)
    if not until_over:
        out.print(live.picture(snapshot))
        return snapshot
    if out.is_terminal:
        from rich.live import Live

        with Live(live.picture(snapshot), console=out, refresh_per_second=2) as display:
            while not _stands_still(snapshot):
                time.sleep(POLL_S)
                snapshot = look(pk, snapshot)
                display.update(live.picture(snapshot))
        return snapshot
    shown: set[str] = set()
    while True:
        print_new(snapshot, shown, out)
        if _stands_still(snapshot):
            if not snapshot.is_over:
                out.print(doer.farewell(_process(pk)), markup=False, highlight=False)
            return snapshot
        time.sleep(POLL_S)
        snapshot = look(pk, snapshot)


def _stands_still(snapshot: snapshots.Snapshot) -> bool:
    """Whether a run is over, or its process is gone, so that nothing would ever change."""
    return snapshot.is_over or doer.is_gone(_process(snapshot.pk))


def print_new(snapshot: snapshots.Snapshot, shown: set[str], out: Console) -> None:
    """Print the lines of a snapshot that were not shown so far, and add them to these."""
    for line in live.lines(snapshot, is_log=True):
        if line not in shown:
            shown.add(line)
            out.print(line, markup=False, highlight=False)


def waiting(snapshot: snapshots.Snapshot, profile: str) -> list[str]:
    """What the user can do about a run that is not over and does not go on.

    Args:
        snapshot: Snapshot of the run.
        profile: name, for the commands.
    """
    from aiida.engine.daemon.client import get_daemon_client

    lines = []
    if snapshot.paused:
        pks = " ".join(map(str, snapshot.paused))
        lines.append(f"when the reason is mended: verdi -p {profile} process play {pks}")
    if not doer.of(_process(snapshot.pk)) and not get_daemon_client(profile).is_daemon_running:
        lines.append(f"the daemon does not run; a submitted run goes on after: verdi -p {profile} daemon start")
    return lines


def conclude(snapshot: snapshots.Snapshot, out: Console, folder: Path | None, profile: str) -> None:
    """The final table, plots, and where to look further.

    Args:
        snapshot: Snapshot of a run that is over.
        out: where to.
        folder: Folder of the plots; None for no plots.
        profile: name, for the commands.
    """
    if snapshot.report is not None:
        show_report(snapshot, out)
    if folder is not None and snapshot.iterations:
        for path in plots.plot(snapshot, folder):
            out.print(f"plot: {path}", markup=False, highlight=False)
    out.print("\nTo look further:", markup=False)
    for command in report.next_steps(snapshot, profile):
        out.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)


def show_report(snapshot: snapshots.Snapshot, out: Console) -> None:
    """The verdict of a validation, its table and what belongs to it.

    Raises:
        ValueError: when there is no validation.
    """
    out.print(report.verdict_line(snapshot), markup=False, highlight=False, soft_wrap=True)
    if out.is_terminal:
        out.print(report.table(snapshot))
    else:
        for line in report.text_table(snapshot):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
    for note in report.notes(snapshot):
        out.print(note, markup=False, highlight=False, soft_wrap=True)
