"""Results of jobs that finished become nodes; a file that is missing or broken has an exit code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.plugins import ParserFactory

from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.jobs import Prediction
from tests.fixtures.nodes import make_trajectory, potential_file

Make = Callable[..., orm.CalcJobNode]

PRESSURE = Prediction(
    label="pressure", observable="pressure", unit="GPa", labels=["P"], values=[0.5], errors=[0.1]
).model_dump()
RDF = Prediction(
    label="g", observable="rdf", unit="1", labels=["1 angstrom", "2 angstrom"], grid=[1.0, 2.0], values=[0.0, 1.0],
    errors=[0.1, 0.2],
).model_dump()  # fmt: skip


def parse(node: orm.CalcJobNode, kind: str, folder: Path) -> tuple[dict, orm.CalcFunctionNode]:
    return ParserFactory(f"difftre.{kind}").parse_from_node(
        node, store_provenance=False, retrieved_temporary_folder=str(folder)
    )


def results(**content: Any) -> dict[str, str]:
    return {"results.json": json.dumps(content)}


def test_sample(finished_job: Make, tmp_path: Path) -> None:
    files.write_trajectory(tmp_path / "trajectory.npz", make_trajectory())
    node = finished_job("sample", results(predictions=[PRESSURE, RDF], mean_temperature=85.0))
    outputs, result = parse(node, "sample", tmp_path)
    assert result.is_finished_ok, result.exit_message
    assert isinstance(outputs["trajectory"], TrajectoryEnsembleData)
    assert outputs["output_parameters"].get_dict() == {"mean_temperature": 85.0}
    predictions = outputs["predictions"]
    assert sorted(predictions.get_arraynames()) == [
        "g_errors",
        "g_grid",
        "g_values",
        "pressure_errors",
        "pressure_values",
    ]
    np.testing.assert_array_equal(predictions.get_array("g_errors"), [0.1, 0.2])
    described = predictions.base.attributes.get("predictions")
    assert [one["label"] for one in described] == ["pressure", "g"]
    assert "values" not in described[0]
    predictions.store()


def test_a_trajectory_that_drifts_is_named_in_the_log(finished_job: Make, tmp_path: Path) -> None:
    files.write_trajectory(tmp_path / "trajectory.npz", make_trajectory())
    for warning in ("the trajectory is not stationary", None):
        node = finished_job("sample", results(stationarity={"stationary": warning is None, "warning": warning}))
        node.logger.setLevel("WARNING")
        outputs, result = parse(node, "sample", tmp_path)
        assert result.is_finished_ok
        assert outputs["output_parameters"]["stationarity"]["warning"] == warning
        messages = [log.message for log in orm.Log.collection.get_logs_for(node)]
        assert any("not stationary" in message for message in messages) == (warning is not None)


def test_sample_without_its_trajectory(finished_job: Make, tmp_path: Path) -> None:
    outputs, result = parse(finished_job("sample", results(snapshots=3)), "sample", tmp_path)
    assert (result.exit_status, "trajectory.npz was not retrieved" in result.exit_message) == (304, True)
    assert outputs["output_parameters"].get_dict() == {"snapshots": 3}


def test_sample_with_a_broken_trajectory(finished_job: Make, tmp_path: Path) -> None:
    (tmp_path / "trajectory.npz").write_bytes(b"x")
    _, result = parse(finished_job("sample", results(snapshots=3)), "sample", tmp_path)
    assert result.exit_status == 312


def test_predictions_that_break_the_contract(finished_job: Make, tmp_path: Path) -> None:
    _, result = parse(finished_job("sample", results(predictions=[{"label": "x"}])), "sample", tmp_path)
    assert (result.exit_status, "predictions in results.json: observable" in result.exit_message) == (312, True)


def test_pretrain(finished_job: Make, tmp_path: Path) -> None:
    potential_file(tmp_path / "potential_out.safetensors")
    outputs, result = parse(finished_job("pretrain", results(history=[1, 2])), "pretrain", tmp_path)
    assert result.is_finished_ok, result.exit_message
    assert isinstance(outputs["potential"], PotentialData)
    assert outputs["output_parameters"]["history"] == [1, 2]


def test_update(finished_job: Make, tmp_path: Path) -> None:
    potential_file(tmp_path / "potential_out.safetensors")
    files.write_arrays(tmp_path / "optimizer_out.safetensors", {"mu": np.zeros(3)})
    points = {"t85": {"snapshots": 6, "before": [PRESSURE], "after": [PRESSURE]}}
    outputs, result = parse(finished_job("update", results(history=[], state_points=points)), "update", tmp_path)
    assert result.is_finished_ok, result.exit_message
    assert isinstance(outputs["potential"], PotentialData)
    assert outputs["optimizer_state"].filename == "optimizer_out.safetensors"
    assert outputs["predictions"]["t85"].get_array("pressure_values") == [0.5]
    assert outputs["output_parameters"]["state_points"] == {"t85": {"snapshots": 6, "before": [PRESSURE]}}


def test_update_with_a_broken_optimizer_state(finished_job: Make, tmp_path: Path) -> None:
    potential_file(tmp_path / "potential_out.safetensors")
    (tmp_path / "optimizer_out.safetensors").write_bytes(b"x")
    _, result = parse(finished_job("update", results(state_points={})), "update", tmp_path)
    assert (result.exit_status, "optimizer_out.safetensors" in result.exit_message) == (312, True)


def test_predict(finished_job: Make, tmp_path: Path, dataset: DatasetData) -> None:
    np.savez(tmp_path / "predictions.npz", energies=np.zeros(3))
    node = finished_job("predict", results(predictions=[PRESSURE]), {"structures": dataset})
    outputs, result = parse(node, "predict", tmp_path)
    assert result.is_finished_ok, result.exit_message
    assert sorted(outputs["predictions"].get_arraynames()) == ["energies", "pressure_errors", "pressure_values"]


def test_predict_without_its_arrays(finished_job: Make, tmp_path: Path, dataset: DatasetData) -> None:
    node = finished_job("predict", results(), {"structures": dataset})
    _, result = parse(node, "predict", tmp_path)
    assert result.exit_status == 304


@pytest.mark.parametrize("content", [b"x", b"PK\x03\x04"])
def test_predict_with_broken_arrays(finished_job: Make, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "predictions.npz").write_bytes(content)
    _, result = parse(finished_job("predict", results()), "predict", tmp_path)
    assert result.exit_status == 312
