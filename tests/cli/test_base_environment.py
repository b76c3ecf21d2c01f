"""Environments of bases: made on top of this one, with its engine; what cannot be made is one message."""

import subprocess
from pathlib import Path

import ase
import pytest

from aiida_difftre import __version__
from aiida_difftre.cli.base_environment import BaseError, ensure_environment, known_name
from aiida_difftre.engine.contract.known_bases import KnownBase


def test_the_engine_runs_in_an_environment_on_top_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a package that is here already, so that nothing is installed."""
    monkeypatch.setenv("DIFFTRE_HOME", str(tmp_path))
    base = KnownBase("toy", "ase", "a toy", "nowhere:toy", files={"model": "x"}, package="ase", weights="file")
    said: list[str] = []
    program = ensure_environment(base, said.append)
    assert said == []
    found = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert __version__ in found
    assert ensure_environment(base) == program
    python = program.with_name("python")
    code = "import ase, sys; print(ase.__version__, sys.prefix)"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == [ase.__version__, str(tmp_path / "base-toy")]


def test_what_needs_no_environment_and_what_is_not_known() -> None:
    assert known_name("chgnet").package == "chgnet"
    with pytest.raises(BaseError, match="base 'emt' needs no package, and runs with the code of the engine"):
        known_name("emt")
    with pytest.raises(BaseError, match="unknown base 'chgnett'; those with a package: chgnet"):
        known_name("chgnett")
