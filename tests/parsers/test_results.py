"""Results of jobs that finished become nodes; a file that is missing or broken has an exit code."""

import json
import re
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
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.trajectories import write_trajectory
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


SAMPLED = {
    "snapshots": 6, "walkers": 2, "mean_temperature": 85.0, "mean_energy": -0.5, "statistical_inefficiency": 1.5,
}  # fmt: skip
STATIONARITY = {
    "equilibration": 0.1, "drift": {"energy": 5.0}, "r_hat": {"energy": None}, "independent_samples": 4.0,
}  # fmt: skip
STEP = {"step": 10, "training_loss": 2.0, "learning_rate": 1e-3, "loss": 1.0, "force_rmse": 80.0}
PRETRAINED = {
    "errors": {"training": {"loss": 1.0}}, "configurations": {"training": 3}, "history": [STEP], "steps": 10,
    "best_step": 10, "stopped_early": False, "number_of_parameters": 5, "atomic_energies": {"Ar": 0.0},
}  # fmt: skip
POINT = {"snapshots": 6, "statistical_inefficiency": 1.5, "before": [PRESSURE]}
UPDATED = {
    "steps": 1, "reason": "gate", "chi2_before": 2.0, "chi2_after": 1.0, "state_points": {"t85": POINT},
    "history": [{
        "step": 0, "loss": 2.0, "chi2": 2.0, "n_eff_fraction": 1.0,
        "state_points": {"t85": {"n_eff_entropy": 6.0, "n_eff_kish": 6.0}},
    }],
}  # fmt: skip
CONTENT = {"sample": SAMPLED, "pretrain": PRETRAINED, "update": UPDATED, "predict": {"structures": 3, "errors": {}}}
"""Results as an early version wrote them."""


def results(kind: str, /, **changes: Any) -> dict[str, str]:
    return {"results.json": json.dumps({**CONTENT[kind], **changes})}


def test_sample(finished_job: Make, tmp_path: Path) -> None:
    write_trajectory(tmp_path / "trajectory.npz", make_trajectory())
    node = finished_job("sample", results("sample", predictions=[PRESSURE, RDF]))
    outputs, result = parse(node, "sample", tmp_path)
    assert result.is_finished_ok, result.exit_message
    assert isinstance(outputs["trajectory"], TrajectoryEnsembleData)
    assert outputs["output_parameters"].get_dict() == SAMPLED
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
    write_trajectory(tmp_path / "trajectory.npz", make_trajectory())
    for warning in ("the trajectory is not stationary", None):
        found = {**STATIONARITY, "stationary": warning is None, "warning": warning}
        node = finished_job("sample", results("sample", stationarity=found))
        node.logger.setLevel("WARNING")
        outputs, result = parse(node, "sample", tmp_path)
        assert result.is_finished_ok
        assert outputs["output_parameters"]["stationarity"]["warning"] == warning
        messages = [log.message for log in orm.Log.collection.get_logs_for(node)]
        assert any("not stationary" in message for message in messages) == (warning is not None)


def test_sample_without_its_trajectory(finished_job: Make, tmp_path: Path) -> None:
    outputs, result = parse(finished_job("sample", results("sample")), "sample", tmp_path)
    assert (result.exit_status, "trajectory.npz was not retrieved" in result.exit_message) == (304, True)
    assert outputs["output_parameters"].get_dict() == SAMPLED


def test_sample_with_a_broken_trajectory(finished_job: Make, tmp_path: Path) -> None:
    (tmp_path / "trajectory.npz").write_bytes(b"x")
    _, result = parse(finished_job("sample", results("sample")), "sample", tmp_path)
    assert result.exit_status == 312


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("sample", {"predictions": [{**PRESSURE, "observable": None}]}, "results.json: predictions.0.observable: "),
        ("sample", {"mean_energy": float("nan")}, "results.json: not finite: mean_energy"),
        ("sample", {"snapshots": "many"}, "results.json: snapshots: .* (got 'many')"),
        ("sample", {"stationarity": {**STATIONARITY, "stationary": True}}, "results.json: stationarity.warning: "),
        ("sample", {"kind": "update"}, "results.json: kind: "),
        ("sample", {"schema_version": 2}, "results.json: schema_version: "),
        ("pretrain", {"history": [1, 2]}, "results.json: history.0: "),
        ("pretrain", {"errors": {"validation": {"force_rmse": []}}}, "results.json: errors.validation.force_rmse: "),
        ("update", {"reason": "bored"}, "results.json: reason: .*'max_steps'"),
        ("update", {"state_points": {"t85": {}}}, "results.json: state_points.t85.snapshots: "),
        ("update", {"history": [{"step": 0, "loss": [float("inf")]}]}, "results.json: not finite: history.0.loss.0"),
        ("predict", {"static": {"stress": [0.0]}}, "results.json: static.stiffness: "),
        ("predict", {"reweighting": {"sampled": {}}}, "results.json: reweighting.sampled.temperature: "),
        ("predict", {"timings": {"total_s": "long"}}, "results.json: timings.total_s: "),
    ],
)
def test_results_that_break_the_contract(
    finished_job: Make, tmp_path: Path, kind: str, changes: dict[str, Any], message: str
) -> None:
    outputs, result = parse(finished_job(kind, results(kind, **changes)), kind, tmp_path)
    assert result.exit_status == 312
    assert re.search(message.replace("(", r"\(").replace(")", r"\)"), result.exit_message), result.exit_message
    assert not outputs


def test_what_a_later_version_records_is_kept(finished_job: Make, tmp_path: Path) -> None:
    write_trajectory(tmp_path / "trajectory.npz", make_trajectory())
    later = {"mood": "calm", "timings": {"total_s": 1.0, "coffee_s": 300.0}}
    outputs, result = parse(finished_job("sample", results("sample", **later)), "sample", tmp_path)
    assert result.is_finished_ok, result.exit_message
    assert outputs["output_parameters"].get_dict() == {**SAMPLED, **later}


def test_pretrain(finished_job: Make, tmp_path: Path) -> None:
    potential_file(tmp_path / "potential_out.safetensors")
    outputs, result = parse(finished_job("pretrain", results("pretrain")), "pretrain", tmp_path)
    assert result.is_finished_ok, result.exit_message
    assert isinstance(outputs["potential"], PotentialData)
    assert outputs["output_parameters"].get_dict() == PRETRAINED


def test_update(finished_job: Make, tmp_path: Path) -> None:
    potential_file(tmp_path / "potential_out.safetensors")
    files.write_arrays(tmp_path / "optimizer_out.safetensors", {"mu": np.zeros(3)})
    points = {"t85": {**POINT, "after": [PRESSURE]}}
    outputs, result = parse(finished_job("update", results("update", state_points=points)), "update", tmp_path)
    assert result.is_finished_ok, result.exit_message
    assert isinstance(outputs["potential"], PotentialData)
    assert outputs["optimizer_state"].filename == "optimizer_out.safetensors"
    assert outputs["predictions"]["t85"].get_array("pressure_values") == [0.5]
    assert outputs["output_parameters"].get_dict() == UPDATED


def test_update_with_a_broken_optimizer_state(finished_job: Make, tmp_path: Path) -> None:
    potential_file(tmp_path / "potential_out.safetensors")
    (tmp_path / "optimizer_out.safetensors").write_bytes(b"x")
    _, result = parse(finished_job("update", results("update")), "update", tmp_path)
    assert (result.exit_status, "optimizer_out.safetensors" in result.exit_message) == (312, True)


def test_predict(finished_job: Make, tmp_path: Path, dataset: DatasetData) -> None:
    np.savez(tmp_path / "predictions.npz", energies=np.zeros(3))
    node = finished_job("predict", results("predict", predictions=[PRESSURE]), {"structures": dataset})
    outputs, result = parse(node, "predict", tmp_path)
    assert result.is_finished_ok, result.exit_message
    assert sorted(outputs["predictions"].get_arraynames()) == ["energies", "pressure_errors", "pressure_values"]


def test_predict_without_its_arrays(finished_job: Make, tmp_path: Path, dataset: DatasetData) -> None:
    node = finished_job("predict", results("predict"), {"structures": dataset})
    _, result = parse(node, "predict", tmp_path)
    assert result.exit_status == 304


@pytest.mark.parametrize("content", [b"x", b"PK\x03\x04"])
def test_predict_with_broken_arrays(finished_job: Make, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "predictions.npz").write_bytes(content)
    _, result = parse(finished_job("predict", results("predict")), "predict", tmp_path)
    assert result.exit_status == 312
