"""Names of the extras that make questions to the database one-liners: flat, and found again from what is stored.

A node carries some of these, each as ``difftre_NAME``; see the page "Ask the graph". Extras are no part of a result:
they can be removed and made again, and a node without them (of an earlier version) is only not found by them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from aiida import orm

PREFIX = "difftre_"

RUN, PART, STATE_POINT, SYSTEM, ITERATION = "run", "part", "state_point", "system", "iteration"
"""UUID of the run's work chain; dataset, pretrain, refine or validate; label; reduced formula; from 0."""

JUDGED_IN, OUTCOME = "judged_in", "outcome"
"""``refinement`` or ``validation``; why a refinement ended."""

N_EFF, N_EFF_FRACTION, STATIONARY = "n_eff", "n_eff_fraction", "stationary"
"""Independent snapshots of a trajectory; the fraction that the last step of an update left; whether none drifts."""

CPU_HOURS, WALL_HOURS = "cpu_hours", "wall_hours"
"""Of a calculation job."""

TARGETS, DATASETS = "targets", "datasets"
"""UUIDs of the training targets and labelled datasets behind a potential, through all its predecessors."""

LINEAGE = (TARGETS, DATASETS)
"""What stays when a potential is judged again."""


def key(name: str) -> str:
    """The extra of a name."""
    return f"{PREFIX}{name}"


def chi2_name(role: str) -> str:
    """The name of the reduced chi² of the targets of a role."""
    return f"chi2_{role}"


def deviation_name(component: str) -> str:
    """The name of the largest relative deviation of a component from experiment, over all state points."""
    return f"{component}_deviation"


def told(node: orm.Node) -> dict[str, Any]:
    """What a node was told, by name; empty for a node of an earlier version."""
    return {name.removeprefix(PREFIX): value for name, value in node.base.extras.all.items() if name.startswith(PREFIX)}


def tell(node: orm.Node, facts: Mapping[str, Any], *, forget: bool = False) -> None:
    """Set extras of a node.

    Args:
        node: A stored node.
        facts: Values by name; None and numbers that are not finite are left out, since no database orders them.
        forget: True to remove what it was told before, but for :data:`LINEAGE`.
    """
    new = {
        key(name): value
        for name, value in facts.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }
    if not forget:
        node.base.extras.set_many(new)
        return
    lineage = {key(name) for name in LINEAGE}
    kept = {
        name: value for name, value in node.base.extras.all.items() if not name.startswith(PREFIX) or name in lineage
    }
    node.base.extras.reset({**kept, **new})
