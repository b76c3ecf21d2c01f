"""What is known of a run at one moment: a snapshot built from the provenance graph, running or finished alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from aiida import orm
from aiida.common.links import LinkType

from aiida_difftre.cli import costs, words
from aiida_difftre.cli.doer import farewell, neglected
from aiida_difftre.cli.expectation import expected
from aiida_difftre.data.base import BasePotentialData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.choice import Selected
from aiida_difftre.engine.contract.jobs import PROGRESS
from aiida_difftre.engine.contract.matching_results import PretrainResults
from aiida_difftre.engine.contract.records import ProgressLine, read
from aiida_difftre.engine.contract.results import UpdateStep
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.units import AMU_PER_A3_IN_KG_PER_M3
from aiida_difftre.workchains import records
from aiida_difftre.workchains.label_counts import shown
from aiida_difftre.workchains.state_points import pressure_of, targets_of
from aiida_difftre.workchains.validate_checks import WHEN

CHAINS = ("TrainWorkChain", "RefineWorkChain", "ValidateWorkChain")
LONGEST_MESSAGE = 200
"""Characters of a log message that are shown."""

DATASET, PRETRAIN, REFINE, VALIDATE = "dataset", "pretrain", "refine", "validate"


@dataclass(frozen=True)
class Progress:
    """The last line of a running job's ``progress.jsonl``."""

    job: str
    phase: str
    step: int
    total: int
    numbers: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None

    @property
    def left_s(self) -> float | None:
        """Time that the phase still needs at its present pace, s; None where that is not known."""
        return None if self.seconds is None or not self.step else self.seconds / self.step * (self.total - self.step)

    def __str__(self) -> str:
        numbers = "".join(f", {name.replace('_', ' ')} {value:.4g}" for name, value in self.numbers.items())
        return f"{self.job}: {self.phase} {self.step}/{self.total}{numbers}"


@dataclass(frozen=True)
class Iteration:
    """One iteration of the refinement: the potential that sampled, judged, and the steps that followed."""

    number: int
    chi2: dict[str, Any]
    state_points: dict[str, Any]
    steps: list[UpdateStep]
    discarded: bool = False

    @property
    def number_of_steps(self) -> int:
        """Optimizer steps: the history of an update starts with where it began."""
        return max(0, len(self.steps) - 1)


@dataclass(frozen=True)
class StatePoint:
    """Where a run samples.

    Args:
        formula: Of the simulation cell, in lowest terms.
        atoms: Number of its atoms.
        temperature: K.
        pressure: GPa; None at constant volume.
        density: Of the simulation cell as it was given, kg/m³.
    """

    formula: str
    atoms: int
    temperature: float
    pressure: float | None
    density: float

    def __str__(self) -> str:
        return f"{self.formula}, {self.temperature:g} K" + ("" if self.pressure is None else f", {self.pressure:g} GPa")


@dataclass(frozen=True)
class Snapshot:
    """What is known of a run at one moment.

    Args:
        pk: PK of the work chain.
        title: its label, or its kind.
        state: State of the process, in AiiDA's words.
        message: Message of a process that failed.
        labels: DFT calculations done, failed, and in all (None where it is not known yet).
        pretraining: errors on the validation part, by name; None before.
        iterations: Iterations of the refinement.
        running: what the running jobs say.
        report: Report of the validation; None before.
        reference: DFT itself; None where unknown.
        state_points: The state points, by label.
        exit_status: Exit status of a process that finished; None before, and for one that did not.
        paused: processes that stand still until somebody plays them, by PK, and why.
        has_potential: whether it returned one.
        cost: what its jobs have cost so far, in words; empty where none is over.
        expected: when it will be over, in words; empty where that is not known.
        selection: the best iteration of a refinement, and by which targets; the latter alone while it runs; empty where
            that is not known.
        base: the base to which the potentials are corrections, in words; empty without one.
        counted: how many labels count in pretraining and in updates, in words, where they count by their distance.
    """

    pk: int
    title: str
    state: str
    message: str
    labels: tuple[int, int, int | None] | None
    pretraining: dict[str, Any] | None
    iterations: list[Iteration]
    running: list[Progress]
    report: dict[str, Any] | None
    reference: dict[str, Any] | None
    state_points: dict[str, StatePoint] = field(default_factory=dict)
    exit_status: int | None = None
    paused: dict[int, str] = field(default_factory=dict)
    has_potential: bool = False
    selection: str = ""
    base: str = ""
    counted: list[str] = field(default_factory=list)
    cost: str = ""
    expected: str = ""

    @property
    def outcome(self) -> str:
        """The state in words, also of a process that finished because it failed, or that is paused."""
        if self.exit_status:
            return f"failed ({self.exit_status})"
        return "paused" if self.paused and not self.is_over else words.state(self.state)

    @property
    def why_unfinished(self) -> str:
        """Why what a run ends with is not there."""
        progress = "" if self.is_over else f"; `aiida-difftre status {self.pk}` shows how far it is"
        return self.message or f"it is {self.outcome}{progress}"

    @property
    def densities(self) -> dict[str, float]:
        """Densities of the state points, kg/m³, by label."""
        return {label: point.density for label, point in self.state_points.items()}

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in {"finished", "excepted", "killed"}


def called(node: orm.ProcessNode) -> dict[str, orm.ProcessNode]:
    """The processes that a chain called, by link label, in the order of the calls."""
    links = node.base.links.get_outgoing(link_type=(LinkType.CALL_WORK, LinkType.CALL_CALC)).all()
    ordered = sorted(links, key=lambda link: link.node.pk or 0)
    return {link.link_label: link.node for link in ordered if isinstance(link.node, orm.ProcessNode)}


def take(pk: int) -> Snapshot:
    """Build the snapshot of a run.

    Args:
        pk: PK of a TrainWorkChain, RefineWorkChain or ValidateWorkChain.

    Raises:
        ValueError: for another node.
    """
    node = orm.load_node(pk)
    if not isinstance(node, orm.WorkChainNode) or node.process_label not in CHAINS:
        kind = getattr(node, "process_label", None) or type(node).__name__
        raise ValueError(f"node {pk} is a {kind}; give a {', '.join(CHAINS[:-1])} or {CHAINS[-1]}")
    found = parts(node)
    reference = found[DATASET].outputs.reference.get_dict() if _has_output(found.get(DATASET), "reference") else None
    state = node.process_state.value if node.process_state else "created"
    below = list(costs.processes(node))
    labels, running = _labels(found.get(DATASET)), list(_running(node))
    return Snapshot(
        pk=pk,
        title=node.label or node.process_label,
        state=state,
        message="" if node.is_finished_ok or not node.is_terminated else (node.exit_message or state),
        labels=labels,
        pretraining=_pretraining(found.get(PRETRAIN)),
        iterations=list(_iterations(found[REFINE])) if REFINE in found else [],
        running=running,
        report=_report(found.get(VALIDATE)),
        reference=reference,
        state_points={label: _state_point(point) for label, point in _state_points(node).items()},
        exit_status=node.exit_status,
        paused={process.pk or 0: _why_paused(process) for process in _standing_still(node, below)},
        has_potential="potential" in node.outputs,
        selection=_selection(found[REFINE]) if REFINE in found else "",
        base=_base(node),
        counted=list(_counted(found)),
        cost=costs.total_line(costs.costs(node, below)),
        expected=""
        if node.is_terminated
        else farewell(node) or neglected(node, below) or expected(node, below, labels, [job.left_s for job in running]),
    )


def _counted(found: dict[str, orm.ProcessNode]) -> Iterator[str]:
    """How many labels counted in pretraining and in the latest update, where they count by their distance."""
    updates = [one for one in called(found[REFINE]).values() if _is_update(one)] if REFINE in found else []
    for part, jobs in (("pretraining", [found.get(PRETRAIN)]), ("updates", updates[-1:])):
        for job in jobs:
            if _has_output(job, "output_parameters"):
                weights = job.outputs.output_parameters.get_dict().get("label_weights")  # type: ignore[union-attr]
                if weights:
                    yield shown(part, weights)


def _is_update(node: orm.ProcessNode) -> bool:
    return node.process_label == "UpdateBaseWorkChain" and bool(node.is_finished_ok)


def _base(node: orm.WorkChainNode) -> str:
    """The base of the potentials of a run, with its digest."""
    nodes: list[orm.Node] = node.base.links.get_incoming(link_type=LinkType.INPUT_WORK).all_nodes()
    nodes += [node.outputs.potential] if "potential" in node.outputs else []
    for given in nodes:
        if isinstance(given, BasePotentialData):
            return f"{given.spec.label} <{given.pk}>, digest {given.digest[:12]}"
    specs = [given.spec.base for given in nodes if isinstance(given, PotentialData)]
    return next((f"{spec.label}, digest {spec.digest[:12]}" for spec in specs if spec is not None), "")


def _standing_still(node: orm.ProcessNode, below: list[costs.Process]) -> Iterator[orm.ProcessNode]:
    """The run and the processes below it that are paused."""
    if node.paused and not node.is_terminated:
        yield node
    for process in below:
        if process.is_paused and not process.is_over:
            yield cast("orm.ProcessNode", orm.load_node(process.pk))


def _why_paused(process: orm.ProcessNode) -> str:
    """Which process is paused, why, and the last thing that was logged about it."""
    name = f"{process.process_label} <{process.pk}> is paused"
    status = process.process_status
    logs = orm.Log.collection.get_logs_for(process, order_by=[{"id": "desc"}])
    said = [line.strip() for line in logs[0].message.splitlines() if line.strip()] if logs else []
    return name + (f": {status}" if status else "") + (f"; last message: {said[-1][:LONGEST_MESSAGE]}" if said else "")


def in_time(content: Any) -> Any:
    """A stored report with what was before ahead of what came after; PostgreSQL does not keep the order of keys."""
    if not isinstance(content, dict):
        return content
    names = [name for name in WHEN if name in content] if content.keys() <= set(WHEN) else content
    return {name: in_time(content[name]) for name in names}


def _report(validation: orm.ProcessNode | None) -> dict[str, Any] | None:
    return in_time(validation.outputs.report.get_dict()) if _has_output(validation, "report") else None  # type: ignore[union-attr]


def runs_called(label: str) -> list[int]:
    """The PKs of the runs that have a label, the oldest first."""
    query = orm.QueryBuilder().append(
        orm.WorkChainNode, filters={"label": label, "attributes.process_label": {"in": CHAINS}}, project="id"
    )
    return sorted(query.all(flat=True))


def _state_point(point: dict[str, Any]) -> StatePoint:
    cell = point["structure"].get_ase()
    return StatePoint(
        formula=cell.symbols.formula.reduce()[0].format("metal"),
        atoms=len(cell),
        temperature=point["temperature"].value,
        pressure=pressure_of(point),
        density=float(cell.get_masses().sum() / cell.get_volume() * AMU_PER_A3_IN_KG_PER_M3),
    )


def parts(node: orm.ProcessNode) -> dict[str, orm.ProcessNode]:
    """The processes of a run by the part that they do, for a run of any of the chains."""
    if node.process_label == "RefineWorkChain":
        return {REFINE: node}
    if node.process_label == "ValidateWorkChain":
        return {VALIDATE: node}
    return called(node)


def validation_of(node: orm.Node) -> orm.ProcessNode | None:
    """The process that confirmed the potential of a run; None for another node, and where there was no validation."""
    is_run = isinstance(node, orm.WorkChainNode) and node.process_label in CHAINS
    return parts(node).get(VALIDATE) if is_run else None  # type: ignore[arg-type]


def _has_output(node: orm.ProcessNode | None, name: str) -> bool:
    return node is not None and name in node.outputs


def _labels(node: orm.ProcessNode | None) -> tuple[int, int, int | None] | None:
    if node is None:
        return None
    children = called(node)
    jobs = [child for child in children.values() if child.process_label == "PwBaseWorkChain"]
    done = sum(bool(job.is_finished_ok) for job in jobs)
    failed = sum(job.is_terminated and not job.is_finished_ok for job in jobs)
    generated = children.get("generate_structures")
    total = None
    if generated is not None and generated.is_finished:
        given = node.base.links.get_incoming(link_type=LinkType.INPUT_WORK).nested().get("structures", {})
        total = len(generated.base.links.get_outgoing(link_type=LinkType.CREATE).all()) + len(given)
    return done, failed, total


def _pretraining(node: orm.ProcessNode | None) -> dict[str, Any] | None:
    if not _has_output(node, "output_parameters"):
        return None
    results = read(PretrainResults, node.outputs.output_parameters.get_dict())  # type: ignore[union-attr]
    return records.pretraining_errors(results) or None


def _iterations(node: orm.ProcessNode) -> Iterator[Iteration]:
    """Iterations from the history of a refinement that is over, else from its updates so far."""
    if _has_output(node, "history"):
        for item in node.outputs.history.get_dict()["iterations"]:
            steps = [read(UpdateStep, step) for step in item["steps"]]
            yield Iteration(item["iteration"], item["chi2"], item["state_points"], steps, discarded=item["discarded"])
        return
    targets = {label: targets_of(point["targets"]) for label, point in _state_points(node).items()}
    for number, update in enumerate(filter(_is_update, called(node).values())):
        results = records.update_results(update.outputs.output_parameters)
        compared = records.compare_points(targets, records.predictions_before(results))
        yield Iteration(number, records.judge(compared), compared, results.history)


def _state_points(node: orm.ProcessNode) -> dict[str, Any]:
    """The state points of a run; none where an archive brought the run without its inputs."""
    points: dict[str, Any] = inputs_of(node).get("state_points", {})
    return points


def inputs_of(process: orm.ProcessNode) -> dict[str, Any]:
    """Inputs of a chain by name, namespaces as dictionaries; none where an archive brought it without them."""
    nested: dict[str, Any] = process.base.links.get_incoming(link_type=LinkType.INPUT_WORK).nested()
    return nested


def _selection(node: orm.ProcessNode) -> str:
    """The best iteration and by what it was chosen, in words, where a refinement is over; else by what it will be."""
    if _has_output(node, "history"):
        selected = node.outputs.history.get_dict().get("selected")  # earlier versions did not tell
        return "" if selected is None else f"the best is {validate(Selected, selected).sentence()}"
    targets = [item.target for point in _state_points(node).values() for item in point["targets"].values()]
    chooses = "selection" if any(target.role == "selection" for target in targets) else "training"
    return f"the best is chosen by {chooses} targets"


def _running(node: orm.ProcessNode) -> Iterator[Progress]:
    for child in called(node).values():
        if child.is_terminated:
            continue
        if isinstance(child, orm.CalcJobNode):
            progress = _read_progress(child)
            if progress is not None:
                yield progress
        elif child.process_label != "DftDatasetWorkChain":
            yield from _running(child)


def _read_progress(job: orm.CalcJobNode) -> Progress | None:
    """The last whole line of ``progress.jsonl``, where the job runs on this machine."""
    folder = job.get_remote_workdir()
    if folder is None or job.computer is None or job.computer.transport_type != "core.local":
        return None
    try:
        lines = (Path(folder) / PROGRESS).read_text().splitlines()
    except OSError:
        return None
    for text in reversed(lines):
        try:
            line = read(ProgressLine, json.loads(text))
        except ValueError:
            continue  # the job is writing this line
        return Progress(_job_name(job), line.phase, line.step, line.total, line.numbers, line.seconds)
    return None


def _job_name(job: orm.CalcJobNode) -> str:
    """The link label under which a composite chain called the job's restart chain, in words."""
    caller = job.caller
    labels = (
        []
        if caller is None
        else [link.link_label for link in caller.base.links.get_incoming(link_type=(LinkType.CALL_WORK,)).all()]
    )
    name = labels[0] if labels else str(job.process_label)
    return name.replace("_", " ")
