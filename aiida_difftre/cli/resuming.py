"""Going on with a run that failed or was killed: the same inputs again; what ended well is taken as it is stored."""

from __future__ import annotations

from typing import Any

from aiida import orm

from aiida_difftre.cli import doer
from aiida_difftre.workchains.facts import OURS


def builder_of(node: orm.Node, *, gone: bool = False) -> Any:
    """The builder of a run that repeats one, for a run that did not succeed and that nobody does any more.

    Args:
        node: The work chain.
        gone: That whatever did the run is no more, where this computer cannot tell.

    Returns:
        Its builder, with the same nodes as inputs.

    Raises:
        ValueError: for a node that is no run of this package, one that somebody does, and one that succeeded.
    """
    if not isinstance(node, orm.WorkChainNode) or not (node.process_type or "").startswith(OURS):
        kind = getattr(node, "process_label", None) or type(node).__name__
        raise ValueError(f"node {node.pk} is a {kind}; give a run")
    if node.caller is not None:
        raise ValueError(f"{node.pk} is a part of the run {node.caller.pk}; give the run")
    if not (node.is_terminated or gone or doer.is_gone(node)):
        if other := doer.of(node):
            raise ValueError(
                f"run {node.pk} is not over: {other} does it; end that first (Ctrl-C, or `kill PID`), or say --gone "
                "where it has ended on a computer that this one cannot look into"
            )
        paused = " ".join(str(one.pk) for one in (node, *node.called_descendants) if one.paused)
        play = f"; `verdi process play {paused}` ends the pause of what waits" if paused else ""
        raise ValueError(
            f"run {node.pk} is not over: it goes on where it is as soon as the daemon runs (`verdi daemon start`)"
            f"{play}; one that an earlier version did in a process that is gone needs --gone"
        )
    if node.is_finished_ok:
        raise ValueError(f"run {node.pk} has succeeded; there is nothing to go on with")
    builder: Any = node.get_builder_restart()
    builder.metadata.label = node.label
    builder.metadata.description = f"goes on with the run {node.uuid}"
    return builder


def stored(node: orm.ProcessNode) -> tuple[int, int]:
    """How many calculations of a run ended well and will be taken over, and how many did not."""
    done = [one.is_finished_ok for one in node.called_descendants if isinstance(one, orm.CalculationNode)]
    return sum(done), len(done) - sum(done)
