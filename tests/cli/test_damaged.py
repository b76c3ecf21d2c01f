"""What is damaged or no file at all is answered with one line: a cut configuration of AiiDA, pipes, devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from aiida_difftre.cli import cli
from tests.fixtures.nodes import target_content


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--error", "1e300"], "'1e300' is beyond 1e+30, which is a slip of the exponent"),
        (["--point-error", "1e300"], "'1e300' is beyond 1e+30"),
        (["--error", "0.1", "--grid", "0:8:1000000000"], "a grid of 1000000000 bins is finer than any data"),
        (["--error", "0.1", "--grid", "nan:8:10"], "has no room"),
        (["--error", "1e20"], "errors.0: must be at least -1e+15 and at most 1e+15"),
        (["--error", "0.1", "--weight", "nan"], "weight: "),
        (["--error", "0.1", "--weight", "1e300"], "weight: must be at least 0 and at most 1e+09"),
        (["--error", "0.1", "--label", "a\x1b[31m"], "label holds the control character '\\x1b'; remove it"),
        (["--error", "0.1", "--label", "x" * 100_000], "label: a label is at most 100 characters on one line"),
        (["--error", "0.1", "--citation", "  "], "citation: it is blank; say where the values are from"),
        (["--error", "0.1", "--number-density", "-1"], "a number density of -1 atoms per Å³ is none"),
        (["--error", "0.1", "--citation", "a\0b"], "citation holds the control character '\\x00'; remove it"),
        (["--error", "0.1", "--option", "smearing=&a [*a]"], "--option has the value '&a [*a]'"),
        (["--error", "0.1", "--observable", "x" * 2_000_000], "registered observables: adf"),
    ],
)  # fmt: skip
def test_absurd_words_of_a_command(tmp_path: Path, words: list[str], message: str) -> None:
    table = tmp_path / "curve.dat"
    table.write_text("".join(f"{0.05 + 0.1 * n:.2f} {1.0 if n > 20 else 0.0}\n" for n in range(100)))
    given = ["--observable", "rdf", "--temperature", "85", "--citation", "a paper", *words]
    answer = CliRunner().invoke(cli, ["target", "import", str(table), *given, "-o", str(tmp_path / "target.yaml")])
    assert answer.exit_code == 1
    assert isinstance(answer.exception, SystemExit)
    assert message in answer.output
    assert len(answer.output) < 1000
    assert answer.output.strip().isprintable()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "target.yaml").write_text(yaml.safe_dump(target_content()))
    (tmp_path / "file").write_text("")
    words = ["target", "import", str(tmp_path / "target.yaml"), "-o", str(tmp_path / "file" / "below" / "target.yaml")]
    answer = CliRunner().invoke(cli, words)
    assert answer.exit_code == 1
    assert "below: Not a directory; choose another place" in " ".join(answer.output.split())


def test_a_number_beyond_any_node(aiida_profile: Any) -> None:
    answer = CliRunner().invoke(cli, ["-p", aiida_profile.name, "report", "9" * 400])
    assert answer.exit_code == 1
    assert "is no node: no database counts so far" in answer.output


def test_a_label_is_checked_beside_yaml_too(tmp_path: Path) -> None:
    (tmp_path / "target.yaml").write_text(yaml.safe_dump(target_content()))
    answer = CliRunner().invoke(cli, ["target", "import", str(tmp_path / "target.yaml"), "--label", "a\x1bb"])
    assert answer.exit_code == 1
    assert "label holds the control character" in answer.output
