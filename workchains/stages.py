"""Stages of a refinement: smaller cells first, on which far steps are cheap, before the cells of the run polish.

Energy differences between two potentials grow with the square root of the number of atoms, so that a large cell bears
only short steps. A potential that was refined in a small cell needs few of them. What a small cell cannot hold, such as
a radial distribution function beyond half of it, other targets of the same labels replace there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from aiida import orm

from aiida_difftre.calculations.checks import check_target_nodes
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.jobs import SamplingSettings, UpdateSettings
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains import absorption
from aiida_difftre.workchains.protocols import deep_merge
from aiida_difftre.workchains.refine_checks import check_dataset_weight
from aiida_difftre.workchains.refine_settings import RefineSettings
from aiida_difftre.workchains.state_points import (
    check_state_points,
    check_targets,
    check_training_target,
    in_refinement,
)

SAME_DENSITY = 1e-6
"""Relative difference up to which the volumes per atom of two cells are the same."""


class StageChanges(Strict):
    """What a stage does otherwise than the refinement of the run.

    Args:
        settings: merged into the settings of the loop.
        sampling: merged into the settings of the reference trajectories.
        update: merged into the settings of each update.
        without: Labels of the targets that it leaves out, by state point.
    """

    settings: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    update: dict[str, Any] = {}
    without: dict[str, list[str]] = {}


def stage_names(inputs: Mapping[str, Any]) -> list[str]:
    """The stages of a run in their order.

    Args:
        inputs: Inputs of the work chain.

    Returns:
        Names of the stages; none of a run without.
    """
    return sorted(inputs.get("stages") or {}, key=lambda name: (len(name), name))


def check_stages(stages: Mapping[str, Any] | None, _: Any) -> str | None:
    """Port validator of the stages."""
    for name, stage in (stages or {}).items():
        if unknown := sorted(set(stage) - {"structures", "targets", "changes"}):
            return f"stage {name!r} has {', '.join(unknown)}; it takes structures, targets and changes"
        for label, structure in (stage.get("structures") or {}).items():
            if not isinstance(structure, orm.StructureData):
                return f"stage {name!r}: the structure of {label!r} is {type(structure).__name__}, no StructureData"
        for label, targets in (stage.get("targets") or {}).items():
            if not isinstance(targets, Mapping):
                return f"stage {name!r}: the targets of {label!r} are {type(targets).__name__}; give them by label"
            if problem := check_target_nodes(targets):
                return f"stage {name!r}: {label!r}: {problem}"
        try:
            validate(StageChanges, stage["changes"].get_dict() if "changes" in stage else {})
        except ValueError as error:
            return f"stage {name!r}: {error}"
    return None


def check_stages_with(inputs: Mapping[str, Any], *, has_dataset: bool) -> str | None:
    """Find what of the stages does not fit the run.

    Args:
        inputs: Inputs of the work chain, with ``stages``, ``state_points`` and ``refine``.
        has_dataset: True if there are labels to match.

    Returns:
        A message, or None.
    """
    for name in stage_names(inputs):
        stage = inputs["stages"][name]
        for label, structure in (stage.get("structures") or {}).items():
            point = inputs["state_points"].get(label)
            if point is None:
                return (
                    f"stage {name!r}: there is no state point {label!r}; there are {', '.join(inputs['state_points'])}"
                )
            small, large = structure.get_ase(), point["structure"].get_ase()
            if small.symbols.formula.reduce()[0] != large.symbols.formula.reduce()[0]:
                return (
                    f"stage {name!r}: the cell of {label!r} is {small.symbols.formula:metal}, that of the run "
                    f"{large.symbols.formula:metal}; take the same composition"
                )
            here, there = (float(cell.get_volume()) / len(cell) for cell in (small, large))
            if not np.isclose(here, there, rtol=SAME_DENSITY):
                return (
                    f"stage {name!r}: the cell of {label!r} has {here:.5g} Å³ per atom, that of the run {there:.5g}; "
                    "take the same density"
                )
        if problem := _check_points(inputs["state_points"], stage):
            return f"stage {name!r}: {problem}"
        refine = changed(inputs["refine"], stage)
        try:
            settings = validate(RefineSettings, refine["settings"])
            settings.check_lengths(validate(SamplingSettings, refine["sampling"]))
            validate(UpdateSettings, refine["update"])
        except ValueError as error:
            return f"stage {name!r}: {error}"
        points = points_of(inputs["state_points"], stage)
        problem = check_dataset_weight(refine["update"].get("loss", {}), has_dataset=has_dataset)
        if problem := problem or check_targets(points, orm.Dict({"sampling": refine["sampling"]})):
            return f"stage {name!r}: {problem}"
    return None


def _check_points(state_points: Mapping[str, Any], stage: Mapping[str, Any]) -> str | None:
    """What of the targets of a stage does not fit those of the run, or its cells."""
    replaced, without = stage.get("targets") or {}, _changes(stage).without
    for label in (*replaced, *without):
        if label not in state_points:
            return f"it has targets of the state point {label!r}; there are {', '.join(state_points)}"
        known = state_points[label]["targets"]
        for name in (*replaced.get(label, {}), *without.get(label, [])):
            if name not in known:
                return f"{label!r} has no target {name!r} that it could change; there are {', '.join(known)}"
        for name, node in replaced.get(label, {}).items():
            if "test" in (node.target.role, known[name].target.role):
                return f"target {name!r} of {label!r} is of role test, here or in the run, which no refinement sees"
    points = points_of(state_points, stage)
    if problem := check_training_target(points):
        return problem
    if problem := check_state_points(points, None):
        return f"{problem}; or give the stage a target of the same label that its cell holds, or leave it out (null)"
    return absorption.check_paths({label: {"targets": targets} for label, targets in replaced.items()})


def _changes(stage: Mapping[str, Any]) -> StageChanges:
    return validate(StageChanges, stage["changes"].get_dict() if "changes" in stage else {})


def points_of(state_points: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The state points of a stage: its cells and targets, and of the run what it leaves as it is.

    Test targets, and state points that have no others, are no part of a refinement.

    Args:
        state_points: Those of the run.
        stage: Inputs of the stage.

    Returns:
        State points without trajectories, which are of the cells of the run.
    """
    structures, replaced, without = stage.get("structures") or {}, stage.get("targets") or {}, _changes(stage).without
    found: dict[str, dict[str, Any]] = {}
    for label, point in state_points.items():
        targets = {**point["targets"], **replaced.get(label, {})}
        found[label] = {
            **{name: node for name, node in point.items() if name not in ("trajectory", "earlier")},
            "structure": structures.get(label, point["structure"]),
            "targets": {name: node for name, node in targets.items() if name not in without.get(label, [])},
        }
    return in_refinement(found)


def changed(refine: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of a stage: those of the run, with the changes merged into them.

    Args:
        refine: Inputs of the refinement of the run.
        stage: Inputs of the stage.

    Returns:
        ``settings``, ``sampling`` and ``update`` as plain data.
    """
    changes = _changes(stage)
    settings = refine["settings"].get_dict() if "settings" in refine else {}
    sampling = refine["sample"]["calc"]["parameters"].get_dict().get("sampling", {})
    update = refine["update"]["calc"]["parameters"].get_dict().get("update", {})
    return {
        "settings": deep_merge(settings, changes.settings),
        "sampling": deep_merge(sampling, changes.sampling),
        "update": deep_merge(update, changes.update),
    }


def apply_stage(refine: dict[str, Any], stage: Mapping[str, Any]) -> None:
    """Turn the inputs of the refinement of a run into those of a stage, in place.

    Args:
        refine: Inputs of the refinement, with its state points.
        stage: Inputs of the stage.
    """
    found = changed(refine, stage)
    refine["settings"] = orm.Dict(found["settings"])
    for part, key in (("sample", "sampling"), ("update", "update")):
        calc = refine[part]["calc"]
        calc["parameters"] = orm.Dict({**calc["parameters"].get_dict(), key: found[key]})
    refine["state_points"] = points_of(refine["state_points"], stage)
