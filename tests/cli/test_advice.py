"""Measurements that could be made: how they are written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiida_difftre.cli import advice


def test_candidates_on_the_command_line() -> None:
    one = advice.candidate("stiffness@solid:5")
    assert (one.observable, one.state_point, one.error) == ("stiffness", "solid", 5.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stiffness", "write OBSERVABLE@STATE_POINT:ERROR"),
        ("stiffness@solid:much", "candidate 'stiffness@solid:much': 'much' is no number"),
        ("stiffness@solid:2,5", "'2,5' is no number; write it with a decimal point: 2.5"),
        ("stiffness@solid:0", "no measurement is exact"),
        ("stiffness@solid:nan", "error"),
        ("shininess@solid:1", "shininess"),
        ("rdf@solid:0.1", "grid"),
    ],
)
def test_candidates_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advice.candidate(text)


def test_candidates_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "candidates.yaml"
    path.write_text(
        "- {name: g, state_point: liquid, observable: rdf, grid: [3.05, 3.15, 3.25], error: 0.05}\n"
        "- {name: p, state_point: liquid, observable: pressure, error: 0.01}\n"
    )
    assert [one.name for one in advice.read_candidates(path)] == ["g", "p"]
    path.write_text("- {name: p, state_point: liquid, observable: pressure, errors: 0.01}\n")
    with pytest.raises(ValueError, match=r"candidates.yaml, candidate 1: .*unknown key"):
        advice.read_candidates(path)
    path.write_text("name: p\n")
    with pytest.raises(ValueError, match="no list of candidates"):
        advice.read_candidates(path)
