"""Running in this process: the display lives on the loop that runs the chain."""

import sqlite3
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.manage import get_manager
from rich.console import Console

from aiida_difftre.cli import demo
from aiida_difftre.workchains.refine import RefineWorkChain
from tests.fixtures.chains import SHORT_SAMPLING, explain


def test_display_outlives_a_busy_database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.config.getoption("--db") != "sqlite":
        pytest.skip("only SQLite lets a writer keep readers out")
    monkeypatch.setattr(demo.live, "take", orm.load_node)
    pk = orm.Int(1).store().pk
    before: Any = "what was seen before"
    file = Path(get_manager().get_profile().storage_config["filepath"]) / "database.sqlite"
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert demo.look(pk, before) is before
    assert demo.look(pk, before).pk == pk


@pytest.mark.slow
def test_run_shows_what_happens(
    engine: orm.InstalledCode,
    argon_potential: Any,
    argon_state_points: Any,
    job_options: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = []
    take = demo.live.take
    monkeypatch.setattr(demo.live, "take", lambda pk: shown.append(take(pk)) or shown[-1])
    monkeypatch.setattr(demo, "POLL_S", 0.1)
    builder = RefineWorkChain.get_builder_from_protocol(
        potential=argon_potential(epsilon=100.0),  # whose dynamics is unstable: one job, and it is over
        state_points=argon_state_points(),
        sample_code=engine,
        overrides={"sample": {"calc": {"parameters": {"sampling": SHORT_SAMPLING, "machine": {"threads": 1}}}}},
        options={"sample": job_options, "update": job_options},
    )
    builder.metadata.label = "wells of 100 eV"
    out = Console(file=StringIO(), force_terminal=True, width=120)
    node = orm.load_node(demo.run(builder, out))
    assert node.exit_status == RefineWorkChain.exit_codes.ERROR_INITIAL_POTENTIAL_UNSTABLE.status, explain(node)
    assert "wells of 100 eV" in out.file.getvalue()
    states = {snapshot.state for snapshot in shown}
    assert states & {"running", "waiting"}, states
