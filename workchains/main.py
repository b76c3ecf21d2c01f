"""Launching a chain on nodes from the shell: what ``verdi run workchains/CHAIN.py`` does."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent
from aiida.engine import run_get_node, submit
from aiida.plugins import WorkflowFactory

from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData

NODE_OF: dict[str, type[orm.Data]] = {
    "structure": orm.StructureData,
    "structures": DatasetData,
    "dataset": DatasetData,
    "potential": PotentialData,
    "start": PotentialData,
    "trajectory": TrajectoryEnsembleData,
    "target": TargetData,
}
"""The kind of node of each argument."""


def one_state_point(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs of an update on one trajectory with one target."""
    trajectory, target = inputs.pop("trajectory"), inputs.pop("target")
    return {**inputs, "state_points": {"state_point": {"trajectory": trajectory, "targets": {"target": target}}}}


def labels_by_dft(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs of first-principles labels, whose code is that of pw.x."""
    return {"pw_code": inputs.pop("code"), **inputs}


def launch(
    entry_point: str,
    *,
    nodes: Sequence[str],
    values: Mapping[str, Callable[[str], Any]] | None = None,
    prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    arguments: Sequence[str] | None = None,
) -> orm.ProcessNode:
    """Parse the command line, build the chain from its protocol, run or submit it.

    The class comes from its entry point: one that is defined in ``__main__`` cannot be loaded by a daemon.

    Args:
        entry_point: Entry point of the chain.
        nodes: arguments of its builder that are nodes, given by PK, UUID or label.
        values: arguments of its builder that are values, each with its type.
        prepare: turns what was given into the arguments of the builder.
        arguments: Arguments of the command line; None for those of this program.
    """
    chain: Any = WorkflowFactory(entry_point)
    parser = argparse.ArgumentParser(
        prog=f"verdi run -- workchains/{entry_point.split('.')[1]}.py",
        description=chain.__doc__.strip().splitlines()[0],
    )
    parser.add_argument("--code", required=True, help="label, PK or UUID of the code")
    parser.add_argument("--protocol", help="quick (the default), cpu or paper")
    parser.add_argument("--submit", action="store_true", help="leave the work to the daemon")
    for name in nodes:
        parser.add_argument(f"--{name}", required=True, help="PK, UUID or label of the node")
    for name, kind in (values or {}).items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    given = vars(parser.parse_args(arguments))
    kinds: dict[str, type[orm.Data]] = {"code": orm.AbstractCode, **{name: NODE_OF[name] for name in nodes}}
    is_submitted, inputs = given.pop("submit"), dict(given)
    for name, load in (("code", orm.load_code), *((name, orm.load_node) for name in nodes)):
        try:
            inputs[name] = load(inputs[name])
        except (NotExistent, MultipleObjectsError, ValueError) as error:
            parser.error(f"--{name} {inputs[name]}: {error}")
        if not isinstance(inputs[name], kinds[name]):
            found = type(inputs[name]).__name__
            parser.error(f"--{name} is a {found}<{inputs[name].pk}>; give a {kinds[name].__name__}")
    try:
        builder = chain.get_builder_from_protocol(**(prepare or dict)(inputs))
    except ValueError as error:
        parser.error(str(error))
    if is_submitted:
        node = submit(builder)
        print(f"submitted {node.process_label}<{node.pk}>; follow it with: verdi process status {node.pk}")
        return node
    _, node = run_get_node(builder)
    print(
        f"{node.process_label}<{node.pk}> ended with exit status {node.exit_status}: {node.exit_message or 'finished'}"
    )
    for link in node.base.links.get_outgoing().all():
        if isinstance(link.node, orm.Data):
            print(f"  {link.link_label}: {type(link.node).__name__}<{link.node.pk}>")
    return node
