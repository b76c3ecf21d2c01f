"""The course of a refinement in one node: what the chain decided, what its potentials predicted."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine import calcfunction

from aiida_difftre.workchains import records
from aiida_difftre.workchains import state_points as points


@calcfunction
def collect_history(plan: orm.Dict, **nodes: Any) -> orm.Dict:
    """The course of a refinement in one node.

    Args:
        plan: list ``iterations`` of what the chain decided, outcome, best iteration.
        **nodes: ``targets`` by state point; ``updates``, output parameters by iteration; ``sampled``, predictions of
            the last trajectories by state point.

    Returns:
        ``iterations`` (see :func:`records.iteration_record`), ``best`` (index of the kept potential's), ``outcome``.
    """
    content = plan.get_dict()
    targets = {label: points.targets_of(group) for label, group in nodes["targets"].items()}
    iterations = []
    for decision in content["iterations"]:
        name = f"i{decision['iteration']:03d}"
        update = nodes.get("updates", {}).get(name)
        if update is not None:
            predictions = records.predictions_before(update)
        else:
            predictions = {label: records.predictions_of(node) for label, node in nodes["sampled"].items()}
        compared = records.compare_points(targets, predictions)
        iterations.append({**decision, **records.iteration_record(compared, update)})
    return orm.Dict({**content, "iterations": iterations})
