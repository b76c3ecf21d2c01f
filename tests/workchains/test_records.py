"""What work chains make of stored results, those of earlier versions too."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import orm

from aiida_difftre.data.target import TargetData
from aiida_difftre.engine.contract.matching_results import MatchingErrors, PretrainResults
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.records import read
from aiida_difftre.engine.contract.results import StaticElasticity
from aiida_difftre.parsers.engine import predictions_node
from aiida_difftre.workchains import records
from aiida_difftre.workchains.history import collect_history
from aiida_difftre.workchains.validation_report import validation_report
from tests.engine.contract.test_results import EARLIEST, STEP
from tests.fixtures.nodes import target_content

PRESSURE = Prediction(label="pressure", observable="pressure", unit="GPa", labels=["P"], values=[0.3], errors=[0.1])
STATIONARITY = {
    "stationary": False, "equilibration": 0.5, "drift": {"energy": 4.0}, "r_hat": {"energy": None},
    "independent_samples": 4.0, "warning": "it drifts",
}  # fmt: skip


@pytest.fixture
def targets(aiida_profile_clean: Any) -> dict[str, dict[str, TargetData]]:
    return {"t85": {"pressure": TargetData(target_content(values=[0.1], errors=[0.1])).store()}}


def test_history_of_updates_of_the_first_version(targets: Any) -> None:
    update = {**EARLIEST["update"]}
    point = {**update["state_points"]["t85"], "before": [PRESSURE.model_dump()]}
    del point["chi2_after"]
    update["state_points"] = {"t85": point}
    plan = {"iterations": [{"iteration": 0}, {"iteration": 1}], "best": 0}
    history = collect_history(
        orm.Dict(plan), targets=targets, updates={"i000": orm.Dict(update)},
        sampled={"t85": predictions_node([PRESSURE], {}).store()},
    ).get_dict()  # fmt: skip
    first, last = history["iterations"]
    assert (first["steps"], last["steps"]) == ([STEP], [])
    assert first["state_points"] == last["state_points"]
    assert first["chi2"]["training"] == pytest.approx(2.0)  # 0.2²/(0.1² + 0.1²)


def test_report_of_a_validation(targets: Any) -> None:
    static = {"stress": [-1.0, -2.0, -3.0, 0.0, 0.0, 0.0], "stiffness": {"C11": 3.0}}
    runs = {"before": EARLIEST["sample"], "after": {**EARLIEST["sample"], "stationarity": STATIONARITY}}
    report = validation_report(
        targets=targets,
        predictions={when: {"t85": predictions_node([PRESSURE], {}).store()} for when in runs},
        sampled={when: {"t85": orm.Dict(content)} for when, content in runs.items()},
        compared={"after": orm.Dict({"structures": 3, "errors": {"force_rmse": 80.0}})},
        static={"after": orm.Dict({"structures": 1, "errors": {}, "static": static})},
    ).get_dict()
    # The first version did not look at stationarity.
    assert report["stationarity"] == {"before": {}, "after": {"t85": STATIONARITY}}
    assert report["dataset"] == {"after": {"force_rmse": 80.0}}
    assert report["static"] == {"after": static}
    assert set(report["state_points"]["t85"]["pressure"]) == {"before", "after"}


def test_errors_and_elasticity_in_words() -> None:
    errors = read(MatchingErrors, {"energy_shifted_rmse": 1.5, "force_rmse": 80.0, "force_mae": 60.0, "loss": 2.0})
    shown = {"energy without offset": (1.5, "meV/atom"), "force": (80.0, "meV/Å")}
    assert records.shown_errors(errors) == shown
    trained = read(PretrainResults, EARLIEST["pretrain"])
    assert records.pretraining_errors(trained) == {"force": (80.0, "meV/Å")}  # nothing was held out
    assert trained.errors.training is not None
    trained.errors.validation = errors
    assert records.pretraining_errors(trained) == shown
    static = StaticElasticity(stress=[-1.0, -2.0, -3.0, 0.0, 0.0, 0.0], stiffness={"C11": 3.0})
    assert records.static_values(static) == {"P": 2.0, "C11": 3.0}
