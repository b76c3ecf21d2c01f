"""Going on with a run that failed or was killed: the same inputs again; what ended well is taken as it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common.links import LinkType

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
        ValueError: for a node that is no run of this package, one that somebody does, one that succeeded, and one with
            which another run goes on.
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
    for later in successors(node):
        if later.is_finished_ok or not (later.is_terminated or doer.is_gone(later)):
            state = "has succeeded" if later.is_finished_ok else "is not over"
            raise ValueError(
                f"run {later.pk} goes on with the run {node.pk} already, and {state}: `aiida-difftre status {later.pk}`"
            )
    builder = again(node)
    builder.metadata.label = node.label
    builder.metadata.description = going_on_with(node)
    return builder


def going_on_with(node: orm.ProcessNode) -> str:
    """The description of a run that goes on with another one."""
    return f"goes on with the run {node.uuid}"


def successors(node: orm.ProcessNode) -> list[orm.WorkChainNode]:
    """The runs that go on with a run, in the order of time."""
    query = orm.QueryBuilder()
    query.append(orm.WorkChainNode, filters={"description": going_on_with(node)}, tag="run")
    found: list[orm.WorkChainNode] = query.order_by({"run": {"id": "asc"}}).all(flat=True)
    return found


def again(node: orm.WorkChainNode) -> Any:
    """The builder of a run with the inputs of another one, as the same nodes.

    ``get_builder_restart`` of AiiDA calls ``update`` of each namespace, which of a refinement is its part of that name.
    """
    builder: Any = node.process_class.get_builder()
    inputs: dict[str, Any] = node.base.links.get_incoming(link_type=LinkType.INPUT_WORK).nested()
    node.recursive_merge(inputs, node.get_metadata_inputs() or {})
    _fill(builder, inputs)
    return builder


def _fill(namespace: Any, inputs: Mapping[str, Any]) -> None:
    """Set inputs in a namespace of a builder, one by one where it has a namespace of that name itself."""
    for name, value in inputs.items():
        if isinstance(value, Mapping) and name in namespace:
            _fill(namespace[name], value)
        else:
            namespace[name] = value


def stored(node: orm.ProcessNode) -> tuple[int, int]:
    """How many calculations of a run ended well and will be taken over, and how many did not."""
    done = [one.is_finished_ok for one in node.called_descendants if isinstance(one, orm.CalculationNode)]
    return sum(done), len(done) - sum(done)
