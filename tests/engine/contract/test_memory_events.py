"""Evidence of memory: the counter of the kernel before and after, as real submit scripts record it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from aiida_difftre.engine.contract.memory_events import MEMORY_EVENTS, RECORD, killed_for_memory


@pytest.mark.parametrize(
    ("text", "killed"),
    [
        ("oom_kill 0\noom_kill 1\n", True),
        ("oom_kill 3\noom_kill 3\n", False),
        ("oom_kill 3\n", False),
        ("", False),
        ("oom_kill 0\noom_kill 7\noom_kill 0\noom_kill 8\n", True),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 0\noom_kill 0\n", False),
        ("oom_kill 1\noom_kill x\n", False),
    ],
)
def test_a_counter_that_rose_is_evidence(text: str, killed: bool) -> None:
    assert killed_for_memory(text) is killed


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_script_records_the_counter_and_never_fails(tmp_path: Path, shell: str) -> None:
    script = f"set -e\n{RECORD}\n{RECORD}\necho done"
    done = subprocess.run([shell, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")
    text = (tmp_path / MEMORY_EVENTS).read_text()
    assert text == "" or len(text.splitlines()) % 2 == 0
    assert not killed_for_memory(text)
