"""What another process that writes to the SQLite database does to a command."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from aiida_difftre.cli import Commands
from aiida_difftre.cli import sqlite as waiting


def test_connections_wait_for_locks() -> None:
    waiting.wait_for_locks()
    with create_engine("sqlite://").connect() as connection:
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 1000 * waiting.TIMEOUT_S


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A database with a table, whose lock somebody else holds."""
    path = tmp_path / "database.sqlite"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("CREATE TABLE nodes (pk INTEGER)")
    writer.execute("BEGIN EXCLUSIVE")
    yield path
    writer.close()


def read(path: Path) -> None:
    """As AiiDA does, but with no patience at all."""
    with create_engine(f"sqlite:///{path}").connect() as connection:
        connection.execute(text("PRAGMA busy_timeout = 0"))
        connection.execute(text("SELECT * FROM nodes"))


def test_a_lock_is_told_from_other_errors(locked: Path) -> None:
    with pytest.raises(OperationalError) as found:
        read(locked)
    assert waiting.is_locked(found.value)
    assert not waiting.is_locked(sqlite3.OperationalError("no such table: nodes"))


def test_a_command_says_that_the_database_is_locked(locked: Path) -> None:
    @click.group(cls=Commands)
    def group() -> None:
        """Commands."""

    @group.command("read")
    def read_command() -> None:
        read(locked)

    @group.command("fail")
    def fail_command() -> None:
        raise RuntimeError("something else")

    result = CliRunner().invoke(group, ["read"])
    assert result.exit_code == 1
    assert "locked by another process" in result.output
    assert "aiida-difftre submit" in result.output
    assert isinstance(CliRunner().invoke(group, ["fail"]).exception, RuntimeError)
