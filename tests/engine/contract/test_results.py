"""Results as models: what engines write, what nodes of earlier versions hold, and what breaks the contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import Field, ValidationError

from aiida_difftre.engine.contract.kinds import RESULTS_OF
from aiida_difftre.engine.contract.matching_results import MatchingErrors, PretrainResults
from aiida_difftre.engine.contract.reasons import Reason
from aiida_difftre.engine.contract.records import ProgressLine, Record, Timings, finite, not_finite, read
from aiida_difftre.engine.contract.results import (
    PredictResults,
    SampleResults,
    StatePointStep,
    UpdateResults,
    UpdateStep,
    UpdateSummary,
)

STEP = {
    "step": 0, "loss": 2.0, "loss_targets": 2.0, "loss_extra": 0.0, "chi2": 2.0, "n_eff_fraction": 1.0,
    "state_points": {"t85": {"n_eff_entropy": 6.0, "n_eff_kish": 6.0, "n_eff_independent": 4.0, "predictions": {}}},
}  # fmt: skip
EARLIEST: dict[str, dict[str, Any]] = {
    "sample": {
        "schema_version": 1, "kind": "sample", "engine": {"version": "0.1.0", "jax": "0.6.0", "platform": "cpu",
        "device": "cpu"}, "timings": {"sampling_s": 1.0, "observables_s": 0.5, "start_s": 0.1, "total_s": 1.6},
        "snapshots": 6, "walkers": 2, "mean_temperature": 85.0, "mean_energy": -0.5, "statistical_inefficiency": 1.5,
    },
    "update": {
        "steps": 0, "reason": "gate", "chi2_before": 2.0, "chi2_after": 2.0, "chi2_before_held_out": None,
        "history": [STEP],
        "state_points": {"t85": {
            "snapshots": 6, "statistical_inefficiency": 1.5, "n_eff_entropy": 6.0, "n_eff_kish": 6.0, "before": [],
            "chi2_before": {"training": 2.0, "held_out": None}, "chi2_after": {"training": 2.0, "held_out": None},
        }},
    },
    "pretrain": {
        "errors": {"training": {"loss": 1.0, "force_rmse": 80.0}}, "configurations": {"training": 3, "validation": 0},
        "history": [], "steps": 1, "best_step": 1, "best_loss": 1.0, "stopped_early": False,
        "number_of_parameters": 5, "atomic_energies": {"Ar": 0.0}, "seconds": 1.5,
    },
    "predict": {"structures": 3, "errors": {"energy_rmse": 1.0}},
}  # fmt: skip
"""Output parameters as the first version stored them."""


@pytest.mark.parametrize("kind", sorted(EARLIEST))
def test_nodes_of_the_first_version_are_read_and_lose_nothing(kind: str) -> None:
    results = read(RESULTS_OF[kind], EARLIEST[kind])
    assert results.content() == EARLIEST[kind]
    assert json.loads(json.dumps(results.content(), allow_nan=False)) == EARLIEST[kind]


def test_what_was_not_recorded_has_a_default() -> None:
    sampled, updated = read(SampleResults, EARLIEST["sample"]), read(UpdateResults, EARLIEST["update"])
    assert (sampled.stationarity, sampled.ensemble, sampled.predictions) == (None, None, [])
    assert (updated.chi2_before_selection, updated.state_points["t85"].after) == (None, None)
    assert read(PredictResults, {}).errors is None
    assert read(PretrainResults, EARLIEST["pretrain"]).errors.validation is None


def test_the_engine_cannot_write_what_no_model_knows() -> None:
    with pytest.raises(ValidationError, match="n_eff"):
        StatePointStep(n_eff_entropy=1.0, n_eff_kish=1.0, n_eff=1.0)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="coffee_s"):
        Timings(coffee_s=300.0)  # type: ignore[call-arg]


def test_only_what_was_given_is_written() -> None:
    step = read(UpdateStep, STEP)
    assert "step_scale" not in step.content()
    step.step_scale = 0.5
    assert step.content() == {**STEP, "step_scale": 0.5}
    assert MatchingErrors(force_rmse=1.0).content() == {"force_rmse": 1.0}


def test_what_was_added_to_a_default_is_written() -> None:
    class Found(Record):
        names: list[str] = Field(default_factory=list)
        number: int | None = None

    found = Found()
    assert found.content() == {}
    found.names.append("X")
    assert found.content() == {"names": ["X"]}


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (UpdateResults, {"reason": "bored"}, r"reason: must be .*'interrupted'.* \(got 'bored'\)"),
        (UpdateResults, {"history": [{**STEP, "chi2": None}]}, r"history.0.chi2: .*number \(got None\)"),
        (
            UpdateResults,
            {"state_points": {"t85": {"snapshots": 1}}},
            r"state_points.t85.before: missing; write",
        ),
    ],
)
def test_the_field_is_named(model: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(model, {**EARLIEST["update"], **changes})


@pytest.mark.parametrize(
    ("steps", "reason", "moved"),
    [(1, Reason.GATE, True), (0, Reason.CHI2, True), (0, Reason.NO_DESCENT, False), (0, Reason.WALLTIME, False)],
)
def test_an_update_has_moved(steps: int, reason: Reason, moved: bool) -> None:
    content = {**EARLIEST["update"], "history": [STEP] * (steps + 1), "reason": reason}
    assert read(UpdateSummary, content).has_moved is moved


def test_numbers_that_are_not_finite_are_named_and_written_as_text() -> None:
    line = read(ProgressLine, {"phase": "update", "step": 1, "total": 2, "loss": float("nan"), "chi2": 3})
    assert line.numbers["chi2"] == 3.0
    assert list(not_finite(line.content())) == ["loss"]
    assert finite(line.content()) == {"phase": "update", "step": 1, "total": 2, "loss": "nan", "chi2": 3.0}
    assert list(not_finite({"a": [0.0, {"b": float("-inf")}]})) == ["a.1.b"]
