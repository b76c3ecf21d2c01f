"""FeffCalculation: what it writes, what it refuses, and with a real feff6l its table and the provenance of a target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.plugins import CalculationFactory
from ase.build import bulk

from aiida_difftre.calculations.feff import attach_paths
from aiida_difftre.cli.lineage import paths_of
from aiida_difftre.data.target import TargetData
from aiida_difftre.engine.observables.specs.absorption import PathTable
from tests.fixtures.exafs import table, target_fields

GRID = np.arange(3.0, 12.0, 0.1)


def copper() -> orm.StructureData:
    return orm.StructureData(ase=bulk("Cu", "fcc", a=3.615, cubic=True))


def test_input_and_files(prepare: Any) -> None:
    info, folder = prepare("feff", {"structure": copper(), "absorber": "Cu", "radius": 5.5})
    text = (folder / "feff.inp").read_text()
    assert "TITLE Cu4\nHOLE 1 1.0\n" in text
    assert "RMAX 5.5000" in text
    assert info.codes_info[0].stdout_name == "feff.out"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"absorber": "Fe"}, "the absorber is 'Fe'; the structure has Cu"),
        ({"radius": 14.0}, "a radius must be less than"),
        ({"edge": "M5"}, "the edge is 'M5'; known edges: K, L1, L2, L3"),
        ({"site": 9}, "site 9 is no Cu"),
    ],
)
def test_refused(prepare: Any, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare("feff", {"structure": copper(), "absorber": "Cu", **inputs})


def test_a_target_gets_its_table() -> None:
    fields = target_fields(np.zeros(len(GRID)), GRID, paths=None)
    target = TargetData(fields, label="foil").store()
    made, node = attach_paths.run_get_node(target, orm.Dict(table()).store())
    assert node.is_finished_ok
    assert made.label == "foil"
    assert made.target.options["paths"]["cutoff"] == table()["cutoff"]
    assert made.target.values == target.target.values
    assert made.creator.inputs.target.uuid == target.uuid
    assert next(paths_of(made)).endswith("(a closed form), imported")
    assert not list(paths_of(target))


@pytest.mark.feff
def test_real_run(feff_code: orm.InstalledCode) -> None:
    inputs = {"code": feff_code, "structure": copper(), "absorber": orm.Str("Cu"), "radius": orm.Float(6.0)}
    results, node = run_get_node(CalculationFactory("difftre.feff"), **inputs)
    assert node.is_finished_ok, node.exit_message
    found = PathTable.model_validate(results["paths"].get_dict())
    expected = 3.615 * np.sqrt(np.arange(1, 6) / 2)
    np.testing.assert_allclose([shell.distance for shell in found.shells], expected, atol=1e-4)
    assert found.source.startswith("Feff 6L")
    assert "Cu4" in found.source
