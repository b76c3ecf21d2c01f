"""Mutated files of numbers: tables of curves, labelled frames, trajectories, potentials; and words of a command."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import ase.io
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from aiida_difftre.cli import cli
from aiida_difftre.data.target import read_target
from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.trajectories import read_trajectory, write_trajectory
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.matching import configurations
from tests.fixtures.nodes import labelled_frames, make_trajectory, potential_file
from tests.fuzz.doors import LONGEST_MESSAGE, check_bounds, enter, limited, tried
from tests.fuzz.mutations import EDITS, Edit, edited

TABLE = "# r (A)  g(r)  error\n" + "".join(
    f"{0.05 + 0.1 * n:.2f} {1.0 if n > 20 else 0.0:.3f} 0.02\n" for n in range(100)
)

WORDS = {
    "--observable": "rdf", "--temperature": "85K", "--citation": "J. L. Yarnell", "--columns": "r=1,g=2,error=3",
    "--units": "r=angstrom", "--error": "2%+0.01", "--point-error": "0.02", "--grid": "0:8:40", "--range": "1:8",
    "--option": "pair=[Ar,Ar]", "--weight": "1.0", "--pressure": "1bar", "--density": "1.4g/cm3", "--row": "2=1.0",
    "--number-density": "0.02", "--error-source": "assumed", "--doi": "10.1/x", "--label": "g",
}  # fmt: skip
NEEDED = ("--observable", "--temperature", "--citation", "--columns")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@cache
def original(folder: Path, kind: str) -> bytes:
    """The bytes of a valid file."""
    path = folder / f"original.{kind}"
    if kind == "npz":
        write_trajectory(path, make_trajectory())
    elif kind == "safetensors":
        potential_file(path)
    else:
        ase.io.write(path, labelled_frames(), format="extxyz")
    return path.read_bytes()


@given(edits=EDITS)
def test_trajectories(folder: Path, edits: list[Edit]) -> None:
    path = folder / "mutated.npz"
    path.write_bytes(edited(original(folder, "npz"), edits))
    enter("trajectory", lambda: read_trajectory(path))


@given(edits=EDITS)
def test_potentials(folder: Path, edits: list[Edit]) -> None:
    path = folder / "mutated.safetensors"
    path.write_bytes(edited(original(folder, "safetensors"), edits))
    found = enter("potential", lambda: files.read_potential(path))
    if found is not None:
        check_bounds(found[0])


@given(edits=EDITS)
def test_labelled_frames(folder: Path, edits: list[Edit]) -> None:
    path = folder / "mutated.extxyz"
    path.write_bytes(edited(original(folder, "extxyz"), edits))
    enter("labelled frames", lambda: configurations.read(path))


def imported(folder: Path, table: bytes, words: dict[str, str]) -> Any:
    """What ``target import`` makes of a table, with the exception that it does not explain, if any."""
    path, output = folder / "table.dat", folder / "target.yaml"
    path.write_bytes(table)
    arguments = [part for name, word in words.items() for part in (name, word)]
    with limited():
        answer = CliRunner().invoke(cli, ["target", "import", str(path), *arguments, "-o", str(output), "--force"])
    if answer.exit_code == 0:
        return read_target(output)
    if not isinstance(answer.exception, SystemExit) and answer.exception is not None:
        raise AssertionError(f"a traceback of {answer.exception!r}") from answer.exception
    message = answer.output.split("Error: ")[-1].strip()
    assert message
    # click's own usage errors hold the word that was given; its lines are those of a terminal.
    assert len(message) <= LONGEST_MESSAGE or answer.exit_code == 2
    raise EngineError(310, message)  # type: ignore[arg-type] # refused


@given(edits=EDITS)
def test_tables(folder: Path, edits: list[Edit]) -> None:
    words = {name: WORDS[name] for name in NEEDED}
    target = enter("table of a curve", lambda: imported(folder, edited(TABLE.encode(), edits), words))
    if target is not None:
        check_bounds(target)
        assert min(target.errors) > 0


@given(
    chosen=st.sets(st.sampled_from(sorted(set(WORDS) - set(NEEDED)))),
    edits=EDITS,
    which=st.integers(0, 100),
)
def test_words_of_a_command(folder: Path, chosen: set[str], edits: list[Edit], which: int) -> None:
    words = {name: WORDS[name] for name in (*NEEDED, *sorted(chosen))}
    name = sorted(words)[which % len(words)]
    words[name] = edited(words[name].encode(), edits).decode("utf-8", errors="replace")
    target = enter("words of a command", lambda: imported(folder, TABLE.encode(), words))
    if target is not None:
        check_bounds(target)


def test_mutations_reach_both_ends() -> None:
    """Inputs that are all refused, or all accepted, would test nothing."""
    assert {"accepted", "refused"} <= {result for _, result in tried}
