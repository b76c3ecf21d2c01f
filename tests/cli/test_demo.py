"""Running in this process: the display lives on the loop that runs the chain."""

import logging
import sqlite3
from contextlib import closing
from io import StringIO
from typing import Any

import pytest
from aiida import orm
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from sqlalchemy.exc import OperationalError

from aiida_difftre.cli import demo
from aiida_difftre.workchains.refine import RefineWorkChain
from tests.fixtures.chains import SHORT_SAMPLING, explain


def test_display_outlives_a_busy_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(pk: int) -> None:
        with closing(sqlite3.connect(":memory:")) as database:
            try:
                database.execute("SELECT 1 FROM busy")
            except sqlite3.OperationalError as error:
                raise OperationalError("SELECT", pk, error) from error

    monkeypatch.setattr(demo.snapshots, "take", take)
    before: Any = "what was seen before"
    assert demo.look(1, before) is before


def test_single_calculations_of_pw_do_not_fill_the_log() -> None:
    """What a chain says and what goes wrong is shown; "Action taken" of each label is for `verdi process report`."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    aiida = logging.getLogger("aiida")
    aiida.addHandler(handler)
    try:
        with demo._without_chatter():
            for level, name, said in (
                (logging.WARNING, "aiida.orm", "[5|PwBaseWorkChain|run_process]: launching PwCalculation<7>"),
                (logging.WARNING, "aiida.parser.PwParser", "key 'symmetries' is not present in raw output dictionary"),
                (
                    logging.WARNING,
                    "aiida.orm",
                    "[8|X|results]: work chain completed after 1 iterations",
                ),
                (logging.WARNING, "aiida.orm", "[8|X|on_terminated]: remote folders will not be cleaned"),
                (logging.WARNING, "aiida.orm", "[4|DftDatasetWorkChain|collect]: 22 of 22 cells labelled"),
                (logging.ERROR, "aiida.parser.PwParser", "the output is incomplete"),
            ):
                logging.getLogger(name).log(level, said)
    finally:
        aiida.removeHandler(handler)
    assert stream.getvalue().splitlines() == [
        "[4|DftDatasetWorkChain|collect]: 22 of 22 cells labelled",
        "the output is incomplete",
    ]


def test_logs_appear_above_a_live_display() -> None:
    """Its last line and a log line are never one: what is below the picture would not be erased with it."""
    out = Console(file=StringIO(), force_terminal=True, width=60)
    handler = logging.StreamHandler(StringIO())
    aiida = logging.getLogger("aiida")
    aiida.addHandler(handler)
    own = handler.stream
    try:
        with Live(Panel("picture"), console=out, auto_refresh=False) as display, demo._logs_above():
            display.refresh()
            aiida.warning("a chain says something")
            display.refresh()
    finally:
        aiida.removeHandler(handler)
    assert handler.stream is own
    assert own.getvalue() == ""
    written = out.file.getvalue()
    assert "a chain says something" in written
    assert "╯a chain" not in written


@pytest.mark.slow
@pytest.mark.parametrize("is_terminal", [True, False])
def test_run_shows_what_happens(
    engine: orm.InstalledCode,
    argon_potential: Any,
    argon_state_points: Any,
    job_options: Any,
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
) -> None:
    shown = []
    take = demo.snapshots.take
    monkeypatch.setattr(demo.snapshots, "take", lambda pk: shown.append(take(pk)) or shown[-1])
    monkeypatch.setattr(demo, "POLL_S", 0.1)
    monkeypatch.setattr(demo, "LOG_POLL_S", 0.1)
    builder = RefineWorkChain.get_builder_from_protocol(
        potential=argon_potential(epsilon=100.0),  # whose dynamics is unstable: one job, and it is over
        state_points=argon_state_points(),
        sample_code=engine,
        overrides={"sample": {"calc": {"parameters": {"sampling": SHORT_SAMPLING, "machine": {"threads": 1}}}}},
        options={"sample": job_options, "update": job_options},
    )
    builder.metadata.label = "wells of 100 eV"
    out = Console(file=StringIO(), force_terminal=is_terminal, width=120)
    node = orm.load_node(demo.run(builder, out))
    assert node.exit_status == RefineWorkChain.exit_codes.ERROR_INITIAL_POTENTIAL_UNSTABLE.status, explain(node)
    text = out.file.getvalue()
    assert text.splitlines()[0].startswith(f"run {node.pk}; in another shell: aiida-difftre -p ")
    assert "wells of 100 eV" in text
    states = {snapshot.state for snapshot in shown}
    assert states & {"running", "waiting"}, states
