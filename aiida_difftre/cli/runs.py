"""The runs of a profile, the newest first."""

from __future__ import annotations

from typing import Any

from aiida import orm

from aiida_difftre.cli import doer, words
from aiida_difftre.cli.snapshots import CHAINS

MOST_RUNS = 10
"""That are listed; `verdi process list -a` has all."""


def newest(most: int = MOST_RUNS) -> list[dict[str, Any]]:
    """The newest runs, without the refinements and validations that a run called.

    Args:
        most: Number of runs.

    Returns:
        A row for each: PK, label, when it began, state.
    """
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={"attributes.process_label": {"in": CHAINS}})
    found: list[orm.WorkChainNode] = []
    for (node,) in query.order_by({orm.WorkChainNode: {"id": "desc"}}).iterall(batch_size=most):
        if node.caller is None:
            found.append(node)
        if len(found) == most:
            break
    return [
        {"run": node.pk, "label": node.label, "began": f"{node.ctime:%Y-%m-%d %H:%M}", "state": _state(node)}
        for node in found
    ]


def _state(node: orm.WorkChainNode) -> str:
    if doer.is_gone(node):
        return f"gone; aiida-difftre resume {node.pk}"
    if node.is_finished and node.exit_status:
        return f"failed ({node.exit_status})"
    return "created" if node.process_state is None else words.state(str(node.process_state.value))
