"""What of the inputs of a refinement does not go together, before anything is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida_difftre.calculations.checks import check_base, check_base_labels
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.smoothness import check_curvature_width
from aiida_difftre.workchains import absorption
from aiida_difftre.workchains.kept import check_kept, check_reach
from aiida_difftre.workchains.label_counts import check_counts
from aiida_difftre.workchains.refine_settings import check_growth
from aiida_difftre.workchains.state_points import (
    check_structures,
    check_targets,
    check_training_target,
    check_trajectories,
)


def check_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Validator of all inputs together."""
    state_points = inputs["state_points"]
    base = inputs["potential"].spec.base if "potential" in inputs else None
    loss = inputs["update"]["calc"]["parameters"].get_dict().get("update", {}).get("loss", {})
    return (
        check_dataset_weight(loss, has_dataset="dataset" in inputs)
        or ("dataset" in inputs and check_counts(inputs))
        or ("potential" in inputs and check_smoothness(loss, inputs["potential"].spec))
        or check_training_target(state_points)
        or check_targets(state_points, inputs["sample"]["calc"]["parameters"])
        or check_trajectories(state_points, inputs["sample"]["calc"]["parameters"])
        or check_kept(inputs["sample"], {"update": inputs["update"]})
        or check_reach(state_points, inputs["sample"], inputs["update"])
        or check_growth(inputs.get("settings"), inputs["sample"]["calc"]["parameters"])
        or absorption.check_paths(state_points)
        or ("potential" in inputs and check_structures(inputs["potential"], state_points))
        or ("potential" in inputs and check_base(inputs.get("base"), base, None))
        or ("potential" in inputs and check_base_labels(inputs.get("base_labels"), base, inputs.get("dataset")))
        or None
    )


def check_dataset_weight(loss: Mapping[str, Any], *, has_dataset: bool) -> str | None:
    """Find out whether an update has labels to match, where its loss asks for it.

    Args:
        loss: Settings of the loss of an update.
        has_dataset: True if there are labels.

    Returns:
        A message, or None.
    """
    weight = loss.get("dataset_weight", 0)
    return f"loss.dataset_weight is {weight}, but there is no dataset" if weight > 0 and not has_dataset else None


def check_smoothness(loss: Mapping[str, Any], spec: PotentialSpec) -> str | None:
    """Find out whether a potential has the splines whose curvature a loss restrains, where it restrains any.

    Args:
        loss: Settings of the loss of an update.
        spec: The potential.

    Returns:
        A message, or None.
    """
    try:
        check_curvature_width(loss.get("curvature_width"), spec)
    except ValueError as error:
        return str(error)
    return None
