"""Where a potential comes from: experiment -> targets -> trajectories -> parameter sets, read from the graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiida import orm
from aiida.common.links import LinkType

from aiida_difftre.data.dataset import DatasetData, counted
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData


@dataclass(frozen=True)
class Generation:
    """A parameter set and what it was made from.

    Args:
        potential: the parameter set.
        made_by: the calculation that made it; None for one that was imported.
        trajectories: reference trajectories, by state point.
        targets: measurements that it was fitted to, by state point and link label.
        dataset: first-principles labels that it was fitted to.
        others: potentials that sampled trajectories, by the UUID of these, where that was not the one before it.
        pooled: earlier trajectories that were given beside, by state point, the latest first.
    """

    potential: PotentialData
    made_by: orm.CalcJobNode | None
    trajectories: dict[str, TrajectoryEnsembleData] = field(default_factory=dict)
    targets: dict[str, dict[str, TargetData]] = field(default_factory=dict)
    dataset: DatasetData | None = None
    others: dict[str, PotentialData] = field(default_factory=dict)
    pooled: dict[str, list[TrajectoryEnsembleData]] = field(default_factory=dict)


def potential_of(node: orm.Node) -> PotentialData:
    """The potential that a node is, or that a process returned.

    Raises:
        ValueError: for a node that has to do with none.
    """
    if isinstance(node, PotentialData):
        return node
    if isinstance(node, orm.ProcessNode) and "potential" in node.outputs:
        return node.outputs.potential
    if isinstance(node, orm.ProcessNode) and not node.is_terminated:
        raise ValueError(
            f"run {node.pk} is not over and has no potential yet; `aiida-difftre status {node.pk}` says how far it is"
        )
    raise ValueError(f"node {node.pk} ({type(node).__name__}) is no potential and returned none; give one of those")


def generations(potential: PotentialData) -> Iterator[Generation]:
    """The parameter sets that led to a potential, itself first, back to the one that was pretrained or imported."""
    current: PotentialData | None = potential
    while current is not None:
        made_by = current.creator
        if made_by is None:
            yield Generation(current, None)
            return
        inputs = made_by.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
        points = inputs.get("state_points", {})
        yield Generation(
            current,
            made_by,
            trajectories={label: point["trajectory"] for label, point in points.items()},
            targets={label: dict(point["targets"]) for label, point in points.items()},
            dataset=inputs.get("dataset"),
            others={
                one["trajectory"].uuid: one["potential"]
                for point in points.values()
                for one in (point, *point.get("earlier", {}).values())
                if "potential" in one
            },
            pooled={
                label: [one["trajectory"] for _, one in sorted(point["earlier"].items(), reverse=True)]
                for label, point in points.items()
                if "earlier" in point
            },
        )
        current = inputs.get("potential")


def lines(potential: PotentialData) -> Iterator[str]:
    """The lineage of a potential as indented lines, from the result back to its origin."""
    for generation in generations(potential):
        attributes = generation.potential.base.attributes
        yield f"potential {_name(generation.potential)} ({attributes.get('architecture')}){_base(generation)}"
        if generation.made_by is None:
            yield "  imported"
            continue
        yield f"  made by {generation.made_by.process_label} {_name(generation.made_by)}"
        for label, trajectory in generation.trajectories.items():
            yield f"  trajectory {_trajectory(trajectory, label, generation)}"
            yield from (f"    {line}" for line in _given(trajectory))
            for one in generation.pooled.get(label, []):
                yield f"    pooled with {_trajectory(one, label, generation)}"
            for node in generation.targets[label].values():
                yield f"    {_target(node)}"
                yield from (f"      {line}" for line in paths_of(node))
        if generation.dataset is not None:
            dataset = generation.dataset
            yield f"  dataset {_name(dataset)}: {counted(len(dataset), 'configuration')}{_sources(dataset)}"


def _trajectory(trajectory: TrajectoryEnsembleData, label: str, generation: Generation) -> str:
    """A trajectory in words: how long it is, where it was sampled, and with which potential, if with another one."""
    sampled, other = trajectory.creator, generation.others.get(trajectory.uuid)
    how = f", sampled by {sampled.process_label} {_name(sampled)}" if sampled is not None else ""
    of = f" with potential {_name(other)}" if other is not None else ""
    snapshots = counted(trajectory.number_of_snapshots, "snapshot")
    return f"{_name(trajectory)} at {label!r}: {snapshots} at {trajectory.temperature:g} K{how}{of}"


def _base(generation: Generation) -> str:
    """What a potential is a correction to, with the node of it where its job had one."""
    spec = generation.potential.spec.base
    if spec is None:
        return ""
    made = generation.made_by
    node = None if made is None or "base" not in made.inputs else made.inputs.base
    return f" on the base {spec.label}{'' if node is None else ' ' + _name(node)}, digest {spec.digest[:12]}"


def _given(trajectory: TrajectoryEnsembleData) -> Iterator[str]:
    """Where a trajectory came from that was taken in place of sampling."""
    made = trajectory.creator
    if made is None or "trajectory" not in made.inputs:
        return
    given = made.inputs.trajectory
    files = ", ".join(f"{file['name']} ({file['sha256'][:12]})" for file in given.origin.get("files", []))
    yield f"taken from trajectory {_name(given)}{', imported from ' + files if files else ''}"


def _name(node: orm.Node) -> str:
    return f"<{node.pk}>" + (f" '{node.label}'" if node.label else "")


def paths_of(target: TargetData) -> Iterator[str]:
    """The table of scattering paths that a target was given, where it was."""
    attached = target.creator
    if attached is None or "paths" not in attached.inputs:
        return
    paths = attached.inputs.paths
    made = paths.creator
    origin = "imported" if made is None else f"made by {made.process_label}<{made.pk}>"
    yield f"scattering paths <{paths.pk}> ({paths.get_dict().get('source', 'unknown source')}), {origin}"


def _target(node: TargetData) -> str:
    target = node.target
    doi = f", doi:{target.doi}" if target.doi else ""
    return f"target {_name(node)} {target.name} ({target.role}): {target.citation}{doi}"


def _sources(dataset: DatasetData) -> str:
    """The calculations that labelled a dataset, counted by kind."""
    uuids = [uuid for uuid in dataset.base.attributes.get("sources") if uuid]
    if not uuids:
        return ""
    query = orm.QueryBuilder().append(
        orm.ProcessNode, filters={"uuid": {"in": uuids}}, project="attributes.process_label"
    )
    kinds: dict[Any, int] = {}
    for (kind,) in query.iterall():
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", labelled by " + ", ".join(f"{number} {kind}" for kind, number in kinds.items()) if kinds else ""
