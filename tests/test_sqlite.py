"""What another process that reads or writes the SQLite database does to a command, and to a worker."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from aiida_difftre import sqlite as waiting
from aiida_difftre.cli.failures import Commands

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT * FROM nodes").fetchall()
print("reading", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short, so that the tests are."""
    waiting.wait_for_locks()
    monkeypatch.setattr(waiting, "_patience_s", 0.3)
    monkeypatch.setattr(waiting, "SAY_S", 0.05)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with a table."""
    path = tmp_path / "database.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE nodes (pk INTEGER)")
    connection.close()
    return path


@pytest.fixture
def engine(database: Path) -> Iterator[Engine]:
    """As AiiDA makes one."""
    made = create_engine(f"sqlite:///{database}")
    yield made
    made.dispose()


@pytest.fixture
def reader(database: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that keeps reading, until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        yield process
        process.kill()


def test_connections_wait_for_locks(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 300


def test_connections_that_are_open_already_wait_too() -> None:
    """A worker of the daemon is connected before it imports anything of ours."""
    script = """
from sqlalchemy import create_engine, text
engine = create_engine("sqlite://")
with engine.connect() as connection:
    before = connection.execute(text("PRAGMA busy_timeout")).scalar()
import aiida_difftre.data
with engine.connect() as connection:
    print(before, connection.execute(text("PRAGMA busy_timeout")).scalar())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5000", f"{1000 * waiting.CHAINS_S:.0f}"]


def test_a_commit_waits_for_a_reader_and_says_for_whom(
    engine: Engine, reader: subprocess.Popen[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_patience_s", 30.0)
    monkeypatch.setattr(logging.getLogger("aiida"), "propagate", True)
    threading.Timer(0.5, reader.kill).start()
    with Session(engine) as session:
        session.execute(text("INSERT INTO nodes VALUES (1)"))
        session.commit()
        assert session.execute(text("SELECT pk FROM nodes")).scalar() == 1
    assert f"locked by process {reader.pid} ({sys.executable} -c" in caplog.text


def test_a_failed_commit_is_rolled_back(database: Path, engine: Engine, reader: subprocess.Popen[str]) -> None:
    with Session(engine) as session:
        session.execute(text("INSERT INTO nodes VALUES (1)"))
        with pytest.raises(OperationalError, match="locked"):
            session.commit()
        reader.kill()
        reader.wait()
        # Neither holds the session the lock, nor is it of no more use.
        other = sqlite3.connect(database, timeout=0)
        other.execute("BEGIN EXCLUSIVE")
        other.close()
        session.execute(text("INSERT INTO nodes VALUES (2)"))
        session.commit()
        assert session.execute(text("SELECT pk FROM nodes")).scalars().all() == [2]


def test_holders_are_other_processes(database: Path, reader: subprocess.Popen[str]) -> None:
    mine = sqlite3.connect(database, isolation_level=None)
    mine.execute("BEGIN")
    mine.execute("SELECT * FROM nodes").fetchall()
    assert waiting.holders(database) == [reader.pid]
    reader.kill()
    reader.wait()
    assert waiting.holders_text(database) == "a process that has gone since"
    mine.close()


def test_without_a_table_of_locks_those_that_have_the_file_open_are_named(
    database: Path, reader: subprocess.Popen[str]
) -> None:
    assert reader.pid in waiting._with_open_file(database)
    assert os.getpid() not in waiting.holders(database)


@pytest.fixture
def locked(database: Path) -> Iterator[Path]:
    """A database whose lock somebody else holds."""
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    yield database
    writer.close()


def read(path: Path) -> None:
    with create_engine(f"sqlite:///{path}").connect() as connection:
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
    assert "locked for more than 0.3 s by" in result.output
    assert "aiida-difftre submit" in result.output
    assert isinstance(CliRunner().invoke(group, ["fail"]).exception, RuntimeError)
