"""Ctrl-C while `aiida-difftre run` is at work: one line, and nothing goes on or seems to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.manage import get_manager

from tests.fixtures.daemon import process_in, running_job, wait_until

pytestmark = pytest.mark.slow


def test_interrupt(argon_input: Any, aiida_config: Any, tmp_path: Path) -> None:
    program = shutil.which("aiida-difftre", path=str(Path(sys.executable).parent))
    environment = {**os.environ, "AIIDA_PATH": str(Path(aiida_config.dirpath).parent)}
    started = orm.QueryBuilder().append(orm.WorkChainNode, filters={"label": "argon"})
    before = set(started.all(flat=True))
    with (tmp_path / "output").open("w") as output:
        command = [program, "-p", get_manager().get_profile().name, "run", str(argon_input())]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        (run,) = wait_until(lambda: set(started.all(flat=True)) - before, "the run", orm.WorkChainNode())
        job = wait_until(lambda: running_job(run, "SampleCalculation"), "sampling", run)
        engine = wait_until(lambda: process_in(job.get_remote_workdir(), "/difftre"), "the engine", run)
        said = len((tmp_path / "output").read_text())
        process.send_signal(signal.SIGINT)
        status = process.wait(120)
    text = (tmp_path / "output").read_text()
    assert status == 130, text
    told = f"run {run.pk} was interrupted: it, what it called and its jobs are killed; go on with: aiida-difftre -p "
    assert text[said:].startswith(told), text
    assert text.endswith(f" resume {run.pk}\n"), text
    for node in (run, *run.called_descendants):
        node = orm.load_node(node.pk)
        assert node.is_killed, node
        assert node.is_sealed
    engine.wait(60)
