"""Outputs of FEFF that are not what they should be: each becomes one exit code with a message."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiida import orm
from aiida.plugins import ParserFactory
from ase.build import bulk

from tests.engine.observables.test_feff import path_text

DONE = " Feff 6L.02\n Feff done.  Have a nice day.\n"
FATAL = " Feff 6L.02\n Fatal Error: Too many atoms in ATOMS list. Maximum is   500\n"


def parse(finished_job: Callable[..., orm.CalcJobNode], files: dict[str, str]) -> tuple[dict, orm.CalcFunctionNode]:
    inputs = {
        "structure": orm.StructureData(ase=bulk("Cu", "fcc", a=3.615)),
        "absorber": orm.Str("Cu"),
        "edge": orm.Str("K"),
        "radius": orm.Float(4.0),
    }
    node = finished_job("feff", files, inputs)
    return ParserFactory("difftre.feff").parse_from_node(node, store_provenance=False)


def test_table(finished_job: Callable[..., orm.CalcJobNode]) -> None:
    files = {"feff.out": DONE, "feff0001.dat": path_text(2.556), "feff0002.dat": path_text(3.615)}
    results, calculation = parse(finished_job, files)
    assert calculation.is_finished_ok, calculation.exit_message
    table = results["paths"].get_dict()
    assert [shell["distance"] for shell in table["shells"]] == [2.556, 3.615]
    assert table["source"] == "Feff 6L.02, Cu"


@pytest.mark.parametrize(
    ("files", "status", "message"),
    [
        ({"feff.out": FATAL}, 303, "Too many atoms in ATOMS list"),
        ({}, 303, "its output ends with: nothing"),
        ({"feff.out": DONE}, 304, "no single-scattering path within 4 Å"),
        ({"feff.out": DONE, "feff0001.dat": "half a li"}, 312, "feff0001.dat is no path of FEFF"),
    ],
)
def test_failures(
    finished_job: Callable[..., orm.CalcJobNode], files: dict[str, str], status: int, message: str
) -> None:
    _, calculation = parse(finished_job, files)
    assert calculation.exit_status == status
    assert message in calculation.exit_message
