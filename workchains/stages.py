"""Stages of a refinement: smaller cells first, on which far steps are cheap, before the cells of the run polish.

Energy differences between two potentials grow with the square root of the number of atoms, so that a large cell bears
only short steps. A potential that was refined in a small cell needs few of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from aiida import orm

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.jobs import SamplingSettings, UpdateSettings
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains.protocols import deep_merge
from aiida_difftre.workchains.refine_checks import check_dataset_weight
from aiida_difftre.workchains.refine_settings import RefineSettings

SAME_DENSITY = 1e-6
"""Relative difference up to which the volumes per atom of two cells are the same."""


class StageChanges(Strict):
    """What a stage does otherwise than the refinement of the run.

    Args:
        settings: merged into the settings of the loop.
        sampling: merged into the settings of the reference trajectories.
        update: merged into the settings of each update.
    """

    settings: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    update: dict[str, Any] = {}


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
        if unknown := sorted(set(stage) - {"structures", "changes"}):
            return f"stage {name!r} has {', '.join(unknown)}; it takes structures and changes"
        for label, structure in (stage.get("structures") or {}).items():
            if not isinstance(structure, orm.StructureData):
                return f"stage {name!r}: the structure of {label!r} is {type(structure).__name__}, no StructureData"
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
        refine = changed(inputs["refine"], stage)
        try:
            settings = validate(RefineSettings, refine["settings"])
            settings.check_lengths(validate(SamplingSettings, refine["sampling"]))
            validate(UpdateSettings, refine["update"])
        except ValueError as error:
            return f"stage {name!r}: {error}"
        if problem := check_dataset_weight(refine["update"].get("loss", {}), has_dataset=has_dataset):
            return f"stage {name!r}: {problem}"
    return None


def changed(refine: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of a stage: those of the run, with the changes merged into them.

    Args:
        refine: Inputs of the refinement of the run.
        stage: Inputs of the stage.

    Returns:
        ``settings``, ``sampling`` and ``update`` as plain data.
    """
    changes = validate(StageChanges, stage["changes"].get_dict() if "changes" in stage else {})
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
    structures = stage.get("structures") or {}
    for label, point in refine["state_points"].items():
        for name in ("trajectory", "earlier"):  # which are of the cell of the run
            point.pop(name, None)
        if label in structures:
            point["structure"] = structures[label]
