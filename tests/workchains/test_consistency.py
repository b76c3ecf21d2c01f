"""Targets that do not agree with their state point or with each other are refused before submission."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from aiida_difftre.workchains.cells import simulation_cell
from aiida_difftre.workchains.inputs import check_fixed_volumes, read_input
from tests.fixtures.nodes import target_content

Content = dict[str, Any]


def curve(scale: float = 1.0, **changes: Any) -> Content:
    grid = [2.0 + 0.1 * index for index in range(20)]
    values = [scale * value for value in grid]
    return target_content(observable="rdf", unit="1", grid=grid, values=values, errors=[0.05] * 20, **changes)


def write(tmp_path: Path, point: Content, **changes: Any) -> Path:
    content = {
        "system": {"bulk": {"element": "Ar", "structure": "fcc", "density": 1780.0}},
        "model": {"potential": "none.safetensors"},
        "state_points": {"liquid": {"temperature": 85.0, **point}},
        **changes,
    }
    path = tmp_path / "input.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def refused(tmp_path: Path, point: Content, **changes: Any) -> str:
    path = write(tmp_path, point, **changes)
    with pytest.raises(ValueError, match="state point 'liquid': ") as caught:
        check_fixed_volumes(read_input(path), tmp_path)
    return str(caught.value)


def accepted(tmp_path: Path, point: Content, **changes: Any) -> None:
    check_fixed_volumes(read_input(write(tmp_path, point, **changes)), tmp_path)


def measured(**conditions: float) -> Content:
    return {"p": target_content(conditions={"temperature": 85.0, **conditions})}


def test_a_density_that_the_cell_does_not_have(tmp_path: Path) -> None:
    message = refused(tmp_path, {"targets": measured(density=500.0)})
    assert (
        "its cell has 1780 kg/m³, but its target 'p' was measured at 500 kg/m³; give the state point density" in message
    )
    # Whose cube is made 1.527 times as long, (1780/500)^(1/3).
    assert "to which the cell is scaled, or a cell whose vectors are 1.52" in message
    accepted(tmp_path, {"targets": measured(density=500.0), "density": 500.0})
    accepted(tmp_path, {"targets": measured(density=1770.0)})
    barostat = {"sampling": {"barostat": {}}}
    accepted(tmp_path, {"targets": measured(density=500.0, pressure=0.0), "pressure": 0.0}, **barostat)


def test_a_pressure_that_nothing_holds(tmp_path: Path) -> None:
    message = refused(tmp_path, {"targets": measured(pressure=50.0)})
    assert (
        "target 'p' was measured at 50 GPa, but nothing holds this pressure: give the state point pressure: 50"
        in message
    )
    assert "nothing holds" in refused(tmp_path, {"targets": measured(pressure=50.0), "pressure": 50.0})
    accepted(tmp_path, {"targets": measured(pressure=50.0), "pressure": 50.0}, sampling={"barostat": {}})
    accepted(tmp_path, {"targets": measured(pressure=50.0), "density": 3000.0})
    accepted(tmp_path, {"targets": measured(pressure=0.0001)})


def test_the_same_measurement_twice(tmp_path: Path) -> None:
    twice = {"a": target_content(), "b": target_content(weight=2.0)}
    assert "targets 'a' and 'b' are the same measurement; leave out one" in refused(tmp_path, {"targets": twice})
    assert "the same measurement" in refused(tmp_path, {"targets": {"a": curve(), "b": curve()}})


def test_measurements_that_contradict_each_other(tmp_path: Path) -> None:
    values = {"a": target_content(values=[0.0], errors=[0.01]), "b": target_content(values=[0.2], errors=[0.01])}
    message = refused(tmp_path, {"targets": values})
    assert "'a' and 'b' contradict each other: P 0 ± 0.01 and 0.2 ± 0.01 GPa; leave out one of them" in message
    assert "at 3.9 " in refused(tmp_path, {"targets": {"a": curve(), "b": curve(1.2)}})
    accepted(tmp_path, {"targets": {"a": curve(), "b": curve(1.05)}})
    accepted(tmp_path, {"targets": {"a": curve(), "b": curve(1.2, weight=0.0)}})
    values["b"]["errors"] = [0.1]
    accepted(tmp_path, {"targets": values})


@pytest.mark.parametrize("repeat", [[100, 100, 100], [1000, 1000, 1000]])
def test_more_atoms_than_can_be_simulated(tmp_path: Path, repeat: list[int]) -> None:
    run = read_input(write(tmp_path, {"targets": measured(), "repeat": repeat}))
    with pytest.raises(ValueError, match=r"repeat \[100.* of a cell of 4 atoms makes \d+ atoms; at most 100000"):
        simulation_cell(run, "liquid", tmp_path)
