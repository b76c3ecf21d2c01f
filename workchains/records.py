"""What stored nodes say about an iteration: the one reader that the history, the report and the live display share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm

from aiida_difftre.engine.contract.matching_results import MatchingErrors, PretrainResults
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.records import read
from aiida_difftre.engine.contract.results import StaticElasticity, UpdateResults
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains.comparison import Comparison, compare_all, judgement

SHOWN_ROLES = {"selection": "selection", "test": "test", "held_out": "held out"}
"""Roles beside that of training, in words; ``held_out`` is of nodes that earlier versions stored."""


def shown_role(comparison: Mapping[str, Any]) -> str:
    """The role of a target as it follows its name: nothing for a training target."""
    role = SHOWN_ROLES.get(comparison["role"])
    return "" if role is None else f" ({role})"


def shown_chi2(chi2: Mapping[str, Any]) -> str:
    """Reduced chi² of the targets of each role that has some."""
    words = {"training": "training", **SHOWN_ROLES}
    return ", ".join(f"{word} {chi2[role]:.3g}" for role, word in words.items() if chi2.get(role) is not None)


def predictions_of(node: orm.ArrayData) -> list[Prediction]:
    """The predictions in the output ``predictions`` of a job."""
    found = []
    for description in node.base.attributes.get("predictions"):
        label = description["label"]
        numbers = {name: node.get_array(f"{label}_{name}").tolist() for name in ("values", "errors")}
        if f"{label}_grid" in node.get_arraynames():
            numbers["grid"] = node.get_array(f"{label}_grid").tolist()
        found.append(validate(Prediction, {**description, **numbers}))
    return found


def update_results(parameters: orm.Dict) -> UpdateResults:
    """The output parameters of an update; what it predicts after its last step is a node of its own."""
    return read(UpdateResults, parameters.get_dict())


def predictions_before(update: UpdateResults) -> dict[str, list[Prediction]]:
    """By state point, what a potential predicts on the trajectory that it sampled; from the results of an update."""
    return {label: point.before for label, point in update.state_points.items()}


def compare_points(
    targets: Mapping[str, Mapping[str, Target]], predictions: Mapping[str, Sequence[Prediction]]
) -> dict[str, dict[str, Comparison]]:
    """Compare the predictions of every state point with its targets, by state point and target."""
    return {label: compare_all(targets[label], found) for label, found in predictions.items() if label in targets}


def judge(compared: Mapping[str, Mapping[str, Comparison]]) -> dict[str, Any]:
    """Reduced chi² over all state points; see :func:`aiida_difftre.workchains.comparison.judgement`."""
    return judgement(item for point in compared.values() for item in point.values())


def iteration_record(compared: Mapping[str, Mapping[str, Comparison]], update: UpdateResults | None) -> dict[str, Any]:
    """What the history and the display tell about an iteration.

    Args:
        compared: Targets and predictions of the potential that sampled, by state point and target.
        update: results of the update; None where there was none.

    Returns:
        ``chi2`` (by role, and the criterion; see :func:`aiida_difftre.workchains.comparison.judgement`),
        ``state_points`` (comparisons) and ``steps`` (each a
        :class:`~aiida_difftre.engine.contract.results.UpdateStep`).
    """
    steps = [] if update is None else [step.content() for step in update.history]
    return {
        "chi2": judge(compared),
        "state_points": {label: dict(items) for label, items in compared.items()},
        "steps": steps,
    }


def shown_errors(errors: MatchingErrors) -> dict[str, tuple[float, str]]:
    """The errors of a matching that are worth showing, by what they are: value and unit."""
    found = {
        "energy": errors.energy_rmse,
        "energy without offset": errors.energy_shifted_rmse,
        "force": errors.force_rmse,
        "stress": errors.stress_rmse,
    }
    units = ("meV/atom", "meV/atom", "meV/Å", "GPa")
    shown = zip(found.items(), units, strict=True)
    return {name: (value, unit) for (name, value), unit in shown if value is not None}


def pretraining_errors(results: PretrainResults) -> dict[str, tuple[float, str]]:
    """Errors of a pretrained potential on what it was not trained on, where something was held out."""
    errors = results.errors.validation or results.errors.training
    return {} if errors is None else shown_errors(errors)


def static_values(static: StaticElasticity) -> dict[str, float]:
    """Pressure and elastic constants at rest, in GPa, of DFT or of a potential."""
    return {"P": -sum(static.stress[:3]) / 3, **static.stiffness}
