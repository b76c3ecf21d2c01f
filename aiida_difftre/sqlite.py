"""An SQLite database that another process reads or writes: waiting for its locks, and naming who holds them.

Importing :mod:`aiida_difftre.data` sets this up, so that each process that touches a node of ours waits: commands, and
the workers of the daemon.
"""

from __future__ import annotations

import os
import sqlite3
import time
from functools import cache, wraps
from pathlib import Path
from typing import Any

DATABASE = "database.sqlite"
"""The file in the folder of a profile's storage."""

COMMANDS_S = 60.0
"""How long a command waits. Python's own 5 s are short of what a slow disk takes."""

CHAINS_S = 3600.0
"""How long a process that runs work chains waits: its chain is lost where it gives up."""

SAY_S = 5.0
LONGEST_SAY_S = 60.0
"""Before the first message of a process that cannot commit, and at most between two: each pause is twice the last."""

LOCK_BYTES = range(0x40000000, 0x40000000 + 512)
"""The bytes of a database file that SQLite locks."""

COMMAND_LENGTH = 80
"""Characters shown of a command line."""

_patience_s = CHAINS_S


def be_patient(seconds: float) -> None:
    """Set how long this process waits for a lock, s."""
    global _patience_s
    _patience_s = seconds
    wait_for_locks()


def patience() -> float:
    """How long this process waits for a lock, s."""
    return _patience_s


@cache
def wait_for_locks() -> None:
    """Let this process wait while another one reads or writes, and roll back what could not be committed.

    A session of SQLAlchemy whose commit fails holds its locks until it is rolled back, which AiiDA leaves out.

    SQLite's write-ahead log would spare readers the wait, but ``verdi storage backup`` copies the database without it
    and would lose what was stored last.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import Pool

    # At each checkout, since a worker has opened its connections before it meets a process of ours.
    @event.listens_for(Pool, "checkout")
    def _(connection: Any, _record: Any, _proxy: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            _set_timeout(connection, _patience_s)

    @event.listens_for(Engine, "commit")
    def _(connection: Any) -> None:
        driver = connection.connection.dbapi_connection
        if isinstance(driver, sqlite3.Connection):
            _commit(driver)

    Session.commit = _rolled_back_if_it_fails(Session.commit)  # type: ignore[method-assign]


def _set_timeout(connection: sqlite3.Connection, seconds: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {1000 * seconds:.0f}")


def _commit(connection: sqlite3.Connection) -> None:
    """Commit as soon as readers let it, and say for whom it waits; what still fails then is left to the caller."""
    from aiida.common.log import AIIDA_LOGGER

    if not connection.in_transaction:
        return
    give_up = time.monotonic() + _patience_s
    pause = min(SAY_S, _patience_s)
    try:
        while time.monotonic() < give_up:
            _set_timeout(connection, pause)
            pause = min(2 * pause, LONGEST_SAY_S, _patience_s)
            try:
                connection.commit()
            except sqlite3.Error as error:
                if not connection.in_transaction:
                    raise  # SQLite has rolled back: a second commit would pretend that all is well
                if not is_locked(error):
                    return
                (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
                AIIDA_LOGGER.warning("waiting to write to %s, which is locked by %s", path, holders_text(Path(path)))
            else:
                return
    finally:
        _set_timeout(connection, SAY_S if connection.in_transaction else _patience_s)


def _rolled_back_if_it_fails(commit: Any) -> Any:
    @wraps(commit)
    def patient_commit(session: Any) -> None:
        try:
            commit(session)
        except BaseException:
            session.rollback()
            raise

    return patient_commit


def is_locked(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a lock that was not released in time."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, sqlite3.OperationalError) and "locked" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def holders(path: Path) -> list[int]:
    """The other processes that hold a lock on a database, or, where the system does not tell, that have it open.

    Args:
        path: Path of the database file.
    """
    try:
        number = path.stat().st_ino
        table = Path("/proc/locks").read_text()
    except OSError:
        found = _with_open_file(path)
    else:
        found = {pid for pid, inode, first in _locks(table) if inode == number and first in LOCK_BYTES}
    return sorted(found - {os.getpid()})


def _locks(table: str) -> list[tuple[int, int, int]]:
    """Process, inode and first byte of each lock in ``/proc/locks``; lines of processes that wait have an arrow."""
    rows = [line.split() for line in table.splitlines() if "->" not in line]
    return [(int(row[4]), int(row[5].rsplit(":", 1)[-1]), int(row[6])) for row in rows if row[1] == "POSIX"]


def _with_open_file(path: Path) -> set[int]:
    import psutil

    found = set()
    for process in psutil.process_iter():
        try:
            if any(Path(file.path) == path for file in process.open_files()):
                found.add(process.pid)
        except (psutil.Error, OSError):
            continue  # of another user, or gone
    return found


def holders_text(path: Path) -> str:
    """Those who hold a lock on a database, in words."""
    import psutil

    described = []
    for pid in holders(path):
        try:
            command = " ".join(psutil.Process(pid).cmdline())
        except psutil.Error:
            command = ""
        shown = command[:COMMAND_LENGTH] + ("…" if len(command) > COMMAND_LENGTH else "")
        described.append(f"process {pid}" + (f" ({shown})" if shown else ""))
    return ", ".join(described) or "a process that has gone since"
