"""The lineage of a potential as a graph of a few boxes, laid out: experiment, DFT, potentials, trajectories."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiida import orm
from aiida.common.links import LinkType

from aiida_difftre.cli.lineage import Generation, generations
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData

SHOWN_UPDATES = 4
"""More updates than these are drawn as the first, a stack, and the last two."""

EXPERIMENT, CHAIN, TRAJECTORIES = 0, 1, 2
"""Rows of the drawing, from above."""

LISTED = 3
"""Names that fit into a box."""


@dataclass(frozen=True)
class Box:
    """One thing in the lineage, or a stack of things of one kind.

    Args:
        kind: ``experiment``, ``dft``, ``dataset``, ``trajectory``, ``potential``, ``updates`` or ``report``.
        row: Row of the drawing, from above.
        column: Place in the row; two boxes side by side are 1 apart.
        title: First line.
        details: Further lines.
        nodes: What it stands for; more than one is drawn as a stack.
    """

    kind: str
    row: int
    column: float
    title: str
    details: tuple[str, ...]
    nodes: tuple[orm.Node, ...]

    @property
    def is_stack(self) -> bool:
        """Whether it stands for several nodes."""
        return len(self.nodes) > 1


@dataclass
class Skeleton:
    """Boxes, and arrows between them by their indices."""

    boxes: list[Box] = field(default_factory=list)
    arrows: list[tuple[int, int]] = field(default_factory=list)

    def add(self, box: Box, *sources: int | None) -> int:
        """Add a box that was made from others; returns its index."""
        self.boxes.append(box)
        index = len(self.boxes) - 1
        self.arrows += [(source, index) for source in sources if source is not None]
        return index

    @property
    def columns(self) -> float:
        """Width of the drawing in columns."""
        return max((box.column for box in self.boxes), default=0.0) + 1


def skeleton(potential: PotentialData, validation: orm.ProcessNode | None = None) -> Skeleton:
    """The lineage of a potential from its origin to its validation.

    Args:
        potential: The potential.
        validation: The run that confirmed it; None for none.

    Returns:
        The graph.
    """
    chain = list(reversed(list(generations(potential))))
    made = Skeleton()
    updates = [generation for generation in chain if generation.trajectories]
    targets = _targets(updates, validation)
    origin, column = _origin(made, chain[0])
    for generation in chain[1:]:
        if not generation.trajectories:  # trained further on labels
            origin = made.add(_potential(generation, column), origin, _labels(made, generation, column - 1))
            column += 1
    experiment = None
    if targets:
        middle = (2 * column + len(_shown(updates)) - 1 + bool(validation)) / 2
        experiment = made.add(_experiment(targets, middle))
    before = origin
    for shown in _shown(updates):
        paths = tuple(node for generation in shown for node in generation.trajectories.values())
        temperatures = sorted({node.temperature for node in paths})
        snapshots = sum(node.number_of_snapshots for node in paths)
        trajectories = made.add(
            Box(
                "trajectory", TRAJECTORIES, column - 0.5, _count(len(paths), "trajectory", "trajectories"),
                (f"{snapshots} snapshots", _range(temperatures, "K")), paths,
            ),
            before,
        )  # fmt: skip
        if len(shown) == 1:
            box = _potential(shown[0], column)
        else:
            potentials = tuple(generation.potential for generation in shown)
            box = Box("updates", CHAIN, column, f"{len(shown)} updates", ("one after another",), potentials)
        before = made.add(box, before, trajectories, experiment)
        column += 1
    if validation is not None and "report" in validation.outputs:
        _validated(made, validation, before, experiment, column)
    return made


def _shown(updates: list[Generation]) -> list[list[Generation]]:
    """The updates by box: each for itself, or the first, those between, and the last two."""
    if len(updates) <= SHOWN_UPDATES:
        return [[generation] for generation in updates]
    return [updates[:1], updates[1:-2], updates[-2:-1], updates[-1:]]


def _origin(made: Skeleton, first: Generation) -> tuple[int, int]:
    labels = _labels(made, first, 1)
    column = 0 if labels is None else 2
    return made.add(_potential(first, column), labels), column + 1


def _labels(made: Skeleton, generation: Generation, column: float) -> int | None:
    """The labels of a potential, and the calculations behind them; None where it was not trained on any."""
    dataset = generation.dataset
    if dataset is None or generation.trajectories:
        return None
    kinds = sources_of(dataset)
    calculations = None
    if kinds:
        nodes = tuple(node for found in kinds.values() for node in found)
        names = tuple(f"{len(found)} {kind.removesuffix('Calculation')}" for kind, found in kinds.items())
        calculations = made.add(Box("dft", CHAIN, column - 1, "DFT", names, nodes))
    details = (f"{len(dataset)} configurations", "" if kinds else "given")
    return made.add(Box("dataset", CHAIN, column, "labels", details, (dataset,)), calculations)


def sources_of(dataset: DatasetData) -> dict[str, list[orm.Node]]:
    """The calculations that labelled a dataset, by kind.

    Args:
        dataset: The labels.

    Returns:
        Process nodes by their label; none where the labels are not from this database.
    """
    uuids = [uuid for uuid in dataset.base.attributes.get("sources") if uuid]
    found: dict[str, list[orm.Node]] = {}
    if uuids:
        query = orm.QueryBuilder().append(orm.ProcessNode, filters={"uuid": {"in": uuids}}, project="*")
        for (node,) in query.order_by({orm.ProcessNode: "id"}).all():
            found.setdefault(str(node.process_label), []).append(node)
    return found


def _potential(generation: Generation, column: float) -> Box:
    node = generation.potential
    terms = node.base.attributes.get("architectures")
    architecture = terms[0] + (f" + {len(terms) - 1} more" if len(terms) > 1 else "") if terms else "no terms"
    made_by = generation.made_by
    origin = "given" if made_by is None else str(made_by.process_label).removesuffix("Calculation").lower()
    how = {"pretrain": "trained on labels", "update": "refined"}.get(origin, origin)
    return Box("potential", CHAIN, column, f"potential {node.pk}", (architecture, how), (node,))


def _targets(updates: list[Generation], validation: orm.ProcessNode | None) -> tuple[TargetData, ...]:
    """All measurements, each once: those of the updates, and those that only the validation saw."""
    found = [node for generation in updates for point in generation.targets.values() for node in point.values()]
    if validation is not None:
        inputs = validation.base.links.get_incoming(link_type=LinkType.INPUT_WORK).nested()
        found += [node for point in inputs.get("state_points", {}).values() for node in point["targets"].values()]
    return tuple({node.uuid: node for node in found}.values())


def _experiment(targets: tuple[TargetData, ...], column: float) -> Box:
    names = list(dict.fromkeys(node.target.name for node in targets))
    shown = names[:LISTED] + ([f"and {len(names) - LISTED} more"] if len(names) > LISTED else [])
    return Box("experiment", EXPERIMENT, column, "experiment", (", ".join(shown),), targets)


def _validated(
    made: Skeleton, validation: orm.ProcessNode, potential: int, experiment: int | None, column: float
) -> None:
    """The long runs with the potential, and the report on them."""
    links = validation.base.links.get_outgoing(link_type=LinkType.RETURN).all()
    runs = tuple(link.node for link in links if link.link_label.startswith("trajectories__after"))
    report = validation.outputs.report
    snapshots = sum(node.base.attributes.get("number_of_snapshots") for node in runs)
    sampled = made.add(
        Box(
            "trajectory", TRAJECTORIES, column - 0.5, _count(len(runs), "long run", "long runs"),
            (f"{snapshots} snapshots", "independent"), runs or (validation,),
        ),
        potential,
    )  # fmt: skip
    chi2 = report.get_dict().get("chi2", {}).get("after", {})
    details = tuple(f"{role} χ² {chi2[role]:.3g}" for role in ("training", "test") if chi2.get(role) is not None)
    made.add(Box("report", CHAIN, column, "validation", details, (report,)), sampled, experiment)


def _count(number: int, one: str, several: str) -> str:
    return one if number == 1 else f"{number} {several}"


def _range(values: list[float], unit: str) -> str:
    if not values:
        return ""
    return f"{values[0]:g} {unit}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g} {unit}"
