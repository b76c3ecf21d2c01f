"""What is damaged or no file at all is answered with one line: a cut configuration of AiiDA, pipes, devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from aiida_difftre.cli import cli


@pytest.mark.parametrize("content", ['{"CONFIG_VERSION": {"CURR', "[]", ""])
def test_a_damaged_configuration_of_aiida(tmp_path: Path, content: str) -> None:
    (tmp_path / ".aiida").mkdir()
    (tmp_path / ".aiida" / "config.json").write_text(content)
    program = str(Path(sys.executable).with_name("aiida-difftre"))
    done = subprocess.run(
        [program, "status", "1"], env={**os.environ, "AIIDA_PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("Error: the configuration of AiiDA, ")
    assert "put back one of the copies" in line


def test_pipes_and_devices_are_no_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path, kind in ((tmp_path / "pipe.yaml", "a pipe"), (Path("/dev/zero"), "a device")):
        for command in (("submit",), ("target", "import")):
            answer = CliRunner().invoke(cli, [*command, str(path)])
            assert answer.exit_code == 2
            assert f"is {kind}; give a regular file" in " ".join(answer.output.split())
