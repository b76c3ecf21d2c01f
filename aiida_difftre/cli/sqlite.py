"""An SQLite database that another process is writing to."""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import Any

TIMEOUT_S = 60
"""How long a statement waits for the lock of another process. Python's own 5 s are short of what a slow disk takes."""


@cache
def wait_for_locks() -> None:
    """Let the connections that this process opens from now on wait, rather than fail, while another process writes.

    SQLite's write-ahead log would spare readers the wait, but ``verdi storage backup`` copies the database without it
    and would lose what was stored last.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute(f"PRAGMA busy_timeout = {1000 * TIMEOUT_S}")


def is_locked(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a lock that was not released in time."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, sqlite3.OperationalError) and "locked" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
