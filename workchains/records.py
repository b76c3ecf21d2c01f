"""What stored nodes say about an iteration: the one reader that the history, the report and the live display share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm

from aiida_difftre.engine.contract.jobs import Prediction, validate
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.workchains.comparison import Comparison, compare_all, judgement

SHOWN_ERRORS = {
    "energy": ("energy", "meV/atom"),
    "energy_shifted": ("energy without offset", "meV/atom"),
    "force": ("force", "meV/Å"),
    "stress": ("stress", "GPa"),
}
"""Root-mean-square errors of a matching: in words, and their units."""


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


def predictions_before(update: orm.Dict) -> dict[str, list[Prediction]]:
    """By state point, what a potential predicts on the trajectory that it sampled; from the output of an update."""
    return {
        label: [validate(Prediction, item) for item in point["before"]]
        for label, point in update.get_dict()["state_points"].items()
    }


def compare_points(
    targets: Mapping[str, Mapping[str, Target]], predictions: Mapping[str, Sequence[Prediction]]
) -> dict[str, dict[str, Comparison]]:
    """Compare the predictions of every state point with its targets, by state point and target."""
    return {label: compare_all(targets[label], found) for label, found in predictions.items() if label in targets}


def judge(compared: Mapping[str, Mapping[str, Comparison]]) -> dict[str, Any]:
    """Reduced chi² over all state points; see :func:`aiida_difftre.workchains.comparison.judgement`."""
    return judgement(item for point in compared.values() for item in point.values())


def iteration_record(compared: Mapping[str, Mapping[str, Comparison]], update: orm.Dict | None) -> dict[str, Any]:
    """What the history and the display tell about an iteration.

    Args:
        compared: of the potential that sampled, by state point and target.
        update: output parameters of the update; None where there was none.

    Returns:
        ``chi2`` (by role, and the criterion; see :func:`aiida_difftre.workchains.comparison.judgement`),
        ``state_points`` (comparisons) and ``steps`` (loss and effective sample fraction of each optimizer step).
    """
    steps = [] if update is None else update.get_dict()["history"]
    return {
        "chi2": judge(compared),
        "state_points": {label: dict(items) for label, items in compared.items()},
        "steps": steps,
    }


def effective_fraction(step: Mapping[str, Any]) -> float:
    """The effective samples over all samples after an optimizer step; the smallest of all state points."""
    return float(step["n_eff_fraction"])


def shown_errors(errors: Mapping[str, float]) -> dict[str, tuple[float, str]]:
    """The errors of a matching that are worth showing, by what they are: value and unit."""
    return {
        text: (errors[f"{name}_rmse"], unit) for name, (text, unit) in SHOWN_ERRORS.items() if f"{name}_rmse" in errors
    }


def pretraining_errors(parameters: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """Errors of a pretrained potential on what it was not trained on, where something was held out."""
    errors = parameters["errors"]
    return shown_errors(errors.get("validation") or errors.get("training") or {})


def static_values(static: Mapping[str, Any]) -> dict[str, float]:
    """Pressure and elastic constants at rest, in GPa, from ``stress`` and ``stiffness`` of DFT or of a potential."""
    if not static:
        return {}
    return {"P": -sum(static["stress"][:3]) / 3, **static["stiffness"]}
