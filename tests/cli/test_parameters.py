"""Numbers and files on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from aiida_difftre.cli import cli


@pytest.mark.parametrize(
    "words",
    [
        ["query", "trajectories", "--n-eff"],
        ["advise", "1", "--prior-width"],
        ["target", "import", __file__, "--weight"],
        ["trajectory", "import", "a.traj", "--interval-fs"],
        ["potential", "export", "1", "--inner"],
    ],
)
def test_a_decimal_comma_is_told(words: list[str]) -> None:
    answer = CliRunner().invoke(cli, [*words, "2,5"])
    assert answer.exit_code == 2
    assert "'2,5' is no number; write it with a decimal point: 2.5" in answer.output


def test_a_missing_file_is_told_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nickel.yaml").touch()
    monkeypatch.chdir(tmp_path)
    for name, told in (
        ("nikel.yaml", f"there is no file 'nikel.yaml' in {tmp_path}; did you mean 'nickel.yaml'?"),
        (str(tmp_path / "zzz"), f"there is no file 'zzz' in {tmp_path}"),
        ("below/nickel.yaml", f"there is no folder 'below' in {tmp_path}"),
    ):
        answer = CliRunner().invoke(cli, ["check", name])
        assert answer.exit_code == 2
        assert told in answer.output
