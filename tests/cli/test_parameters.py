"""Numbers on the command line."""

from __future__ import annotations

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
