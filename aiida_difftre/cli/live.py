"""The picture of a run: a snapshot built from the provenance graph, and its rendering; running or finished alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida import orm
from aiida.common.links import LinkType

from aiida_difftre.engine.jobs import PROGRESS
from aiida_difftre.engine.units import AMU_PER_A3_IN_KG_PER_M3
from aiida_difftre.workchains import records
from aiida_difftre.workchains import state_points as points

if TYPE_CHECKING:
    from rich.console import Group

CHAINS = ("TrainWorkChain", "RefineWorkChain", "ValidateWorkChain")
DATASET, PRETRAIN, REFINE, VALIDATE = "dataset", "pretrain", "refine", "validate"
MAX_COMPONENTS = 6
"""An observable without a grid that has more values than this is summarised, as a curve is."""

DEVIATION = "rms "
"""Begins the name of the deviation of a curve from the experiment."""

LABELS_PER_LINE = 10
"""In a log, which has no line to rewrite."""


@dataclass(frozen=True)
class Progress:
    """The last line of a running job's ``progress.jsonl``."""

    job: str
    phase: str
    step: int
    total: int
    numbers: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        numbers = "".join(f", {name.replace('_', ' ')} {value:.4g}" for name, value in self.numbers.items())
        return f"{self.job}: {self.phase} {self.step}/{self.total}{numbers}"


@dataclass(frozen=True)
class Iteration:
    """One iteration of the refinement: the potential that sampled, judged, and the steps that followed."""

    number: int
    chi2: dict[str, Any]
    state_points: dict[str, Any]
    steps: list[dict[str, Any]]
    discarded: bool = False

    @property
    def number_of_steps(self) -> int:
        """Optimizer steps: the history of an update starts with where it began."""
        return max(0, len(self.steps) - 1)


@dataclass(frozen=True)
class Snapshot:
    """What is known of a run at one moment.

    Args:
        pk: of the work chain.
        title: its label, or its kind.
        state: of the process, in AiiDA's words.
        message: of a process that failed.
        labels: DFT calculations done, failed, and in all (None where it is not known yet).
        pretraining: errors on the validation part, by name; None before.
        iterations: of the refinement.
        running: what the running jobs say.
        report: of the validation; None before.
        reference: DFT itself; None where unknown.
        densities: of the state points, kg/m³, by label.
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
    densities: dict[str, float] = field(default_factory=dict)

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
        pk: of a TrainWorkChain, RefineWorkChain or ValidateWorkChain.

    Raises:
        ValueError: for another node.
    """
    node = orm.load_node(pk)
    if not isinstance(node, orm.WorkChainNode) or node.process_label not in CHAINS:
        kind = getattr(node, "process_label", None) or type(node).__name__
        raise ValueError(f"node {pk} is a {kind}; give a {', '.join(CHAINS[:-1])} or {CHAINS[-1]}")
    parts = _parts(node)
    reference = parts[DATASET].outputs.reference.get_dict() if _has_output(parts.get(DATASET), "reference") else None
    state = node.process_state.value if node.process_state else "created"
    return Snapshot(
        pk=pk,
        title=node.label or node.process_label,
        state=state,
        message="" if node.is_finished_ok or not node.is_terminated else (node.exit_message or state),
        labels=_labels(parts.get(DATASET)),
        pretraining=_pretraining(parts.get(PRETRAIN)),
        iterations=list(_iterations(parts[REFINE])) if REFINE in parts else [],
        running=list(_running(node)),
        report=parts[VALIDATE].outputs.report.get_dict() if _has_output(parts.get(VALIDATE), "report") else None,
        reference=reference,
        densities=_densities(node),
    )


def _densities(node: orm.WorkChainNode) -> dict[str, float]:
    nested = node.base.links.get_incoming(link_type=LinkType.INPUT_WORK).nested()
    cells = {label: point["structure"].get_ase() for label, point in nested["state_points"].items()}
    return {
        label: float(cell.get_masses().sum() / cell.get_volume() * AMU_PER_A3_IN_KG_PER_M3)
        for label, cell in cells.items()
    }


def _parts(node: orm.WorkChainNode) -> dict[str, orm.ProcessNode]:
    if node.process_label == "RefineWorkChain":
        return {REFINE: node}
    if node.process_label == "ValidateWorkChain":
        return {VALIDATE: node}
    return called(node)


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
    return records.pretraining_errors(node.outputs.output_parameters.get_dict()) or None  # type: ignore[union-attr]


def _iterations(node: orm.ProcessNode) -> Iterator[Iteration]:
    """From the history of a refinement that is over, else from its updates so far."""
    if _has_output(node, "history"):
        for item in node.outputs.history.get_dict()["iterations"]:
            yield Iteration(
                item["iteration"], item["chi2"], item["state_points"], item["steps"], discarded=item["discarded"]
            )
        return
    nested = node.base.links.get_incoming(link_type=LinkType.INPUT_WORK).nested()
    targets = {label: points.targets_of(point["targets"]) for label, point in nested["state_points"].items()}
    updates = [child for child in called(node).values() if child.process_label == "UpdateBaseWorkChain"]
    for number, update in enumerate(child for child in updates if child.is_finished_ok):
        parameters = update.outputs.output_parameters
        compared = records.compare_points(targets, records.predictions_before(parameters))
        record = records.iteration_record(compared, parameters)
        yield Iteration(number, record["chi2"], record["state_points"], record["steps"])


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
    for line in reversed(lines):
        try:
            content = json.loads(line)
        except ValueError:
            continue  # the job is writing this line
        numbers = {name: value for name, value in content.items() if name not in {"phase", "step", "total", "seconds"}}
        return Progress(_job_name(job), content["phase"], content["step"], content["total"], numbers)
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


def lines(snapshot: Snapshot, *, is_log: bool = False) -> list[str]:
    """The snapshot as plain lines, for a pipe or a log file.

    Args:
        snapshot: of a run.
        is_log: leave out what changes all the time: running jobs, and labels but for every tenth.
    """
    text = [
        f"{snapshot.title} <{snapshot.pk}>: {snapshot.state}" + (f", {snapshot.message}" if snapshot.message else "")
    ]
    if snapshot.labels is not None:
        done = snapshot.labels[0]
        if not is_log or done % LABELS_PER_LINE == 0 or _is_labelled(snapshot):
            text.append(labels_line(snapshot.labels))
    if snapshot.pretraining is not None:
        text.append("pretraining: " + pretraining_line(snapshot.pretraining))
    text.extend(iteration_line(iteration) for iteration in snapshot.iterations)
    if not is_log:
        text.extend(str(progress) for progress in snapshot.running)
    return text


def _is_labelled(snapshot: Snapshot) -> bool:
    done, failed, total = snapshot.labels or (0, 0, None)
    return done + failed == total


def labels_line(labels: tuple[int, int, int | None]) -> str:
    """How far the DFT labels are."""
    done, failed, total = labels
    return f"DFT labels: {done}/{total if total is not None else '?'}" + (f", {failed} failed" if failed else "")


def pretraining_line(errors: dict[str, Any]) -> str:
    """Errors of the pretrained potential on configurations that it was not trained on."""
    return ", ".join(f"{name} {value:.3g} {unit}" for name, (value, unit) in errors.items())


def quantities(iteration: Iteration) -> dict[str, tuple[float, float, float, str]]:
    """What fits into a table row, by name: value, error, experiment, unit. A stress tensor becomes its pressure."""
    found: dict[str, tuple[float, float, float, str]] = {}
    several = len(iteration.state_points) > 1
    for point, targets in iteration.state_points.items():
        for label, item in targets.items():
            found.update({f"{name} {point}" if several else name: row for name, row in rows(label, item).items()})
    return found


def reweighted(iteration: Iteration) -> dict[str, list[float]]:
    """The same quantities after each optimizer step, reweighted from the trajectory; those on a grid are left out."""
    found: dict[str, list[float]] = {}
    for step in iteration.steps:
        predicted = {point: numbers["predictions"] for point, numbers in step["state_points"].items()}
        points = {
            point: {
                label: {**item, "values": predicted[point][label]}
                for label, item in targets.items()
                if not is_summarised(item) and label in predicted.get(point, {})
            }
            for point, targets in iteration.state_points.items()
        }
        for name, row in quantities(replace(iteration, state_points=points)).items():
            found.setdefault(name, []).append(row[0])
    return found


def rows(label: str, item: dict[str, Any]) -> dict[str, tuple[float, float, float, str]]:
    """The rows of one comparison; a curve is summarised by its reduced chi² and its deviation from the experiment.

    Beside the deviation stands the experiment's own error, both as roots of mean squares.
    """
    if item["observable"] == "stress":
        pressure = [0.0 - sum(numbers[:3]) / 3 for numbers in (item["values"], item["experiment"])]
        # An upper bound: the three components fluctuate together.
        error = sum(item["errors"][:3]) / 3
        return {"P": (pressure[0], error, pressure[1], item["unit"])}
    if is_summarised(item):
        no_error = float("nan")
        return {
            f"chi² {label}": (item["chi2"], no_error, 1.0, ""),
            f"{DEVIATION}{label}": (
                _rms_deviation(item),
                no_error,
                _rms(item["experiment_errors"]),
                _shown_unit(item["unit"]),
            ),
        }
    numbers = zip(item["labels"], item["values"], item["errors"], item["experiment"], strict=True)
    return {name: (value, error, measured, item["unit"]) for name, value, error, measured in numbers}


def is_summarised(item: dict[str, Any]) -> bool:
    """Whether a comparison has too many values for a row of each: a curve, or many components."""
    return item.get("grid") is not None or len(item["values"]) > MAX_COMPONENTS


def _rms(numbers: list[float]) -> float:
    return float(sum(number**2 for number in numbers) / len(numbers)) ** 0.5


def _rms_deviation(item: dict[str, Any]) -> float:
    return _rms([value - measured for value, measured in zip(item["values"], item["experiment"], strict=True)])


def _shown_unit(unit: str) -> str:
    return "" if unit == "1" else unit


def with_error(value: float, error: float) -> str:
    """A value with its standard error, where it has one."""
    return f"{value:.4g}" if error != error else f"{value:.4g} ± {error:.2g}"


def iteration_line(iteration: Iteration) -> str:
    """One iteration in one line."""
    values = ", ".join(f"{name} {with_error(*row[:2])}" for name, row in quantities(iteration).items())
    steps = iteration.steps
    moved = (
        f"; {iteration.number_of_steps} steps, loss {steps[0]['loss']:.4g} -> {steps[-1]['loss']:.4g}" if steps else ""
    )
    discarded = " (rolled back)" if iteration.discarded else ""
    return f"iteration {iteration.number}{discarded}: chi² {iteration.chi2['training']:.3g}, {values}{moved}"


def picture(snapshot: Snapshot) -> Group:
    """The snapshot for a terminal."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Text(f"{snapshot.title}  <{snapshot.pk}>  {snapshot.state}", style="bold")
    if snapshot.message:
        head.append(f"\n{snapshot.message}", style="red")
    parts: list[Any] = [head]
    stages = Table.grid(padding=(0, 2))
    if snapshot.labels is not None:
        done, _, total = snapshot.labels
        stages.add_row(labels_line(snapshot.labels), ProgressBar(total=total or 1, completed=done, width=30))
    for progress in snapshot.running:
        stages.add_row(str(progress), ProgressBar(total=max(progress.total, 1), completed=progress.step, width=30))
    if snapshot.pretraining is not None:
        stages.add_row("pretrained, on held-out configurations", pretraining_line(snapshot.pretraining))
    parts.append(stages)
    if snapshot.iterations:
        parts.append(iteration_table(snapshot.iterations))
    return Group(Panel(Group(*parts), title="aiida-difftre", expand=False))


def iteration_table(iterations: list[Iteration]) -> Any:
    """A row per iteration: chi², loss, effective samples, and every quantity against its target."""
    from rich.table import Table

    table = Table(title="refinement (each potential on the trajectory that it sampled)")
    for name in ("iteration", "reduced chi²", "loss", "N_eff"):
        table.add_column(name, justify="right")
    names = list(quantities(iterations[0]))
    for name, row in quantities(iterations[0]).items():
        unit = f" [{row[3]}]" if row[3] else ""
        table.add_column(f"{name}{unit}\n({row[2]:.4g})", justify="right")
    for iteration in iterations:
        steps = iteration.steps
        values = quantities(iteration)
        table.add_row(
            str(iteration.number),
            f"{iteration.chi2['training']:.3g}",
            f"{steps[0]['loss']:.4g} → {steps[-1]['loss']:.4g}" if steps else "",
            f"{100 * records.effective_fraction(steps[-1]):.0f} %" if steps else "",
            *(with_error(*values[name][:2]) if name in values else "" for name in names),
            style="dim" if iteration.discarded else None,
        )
    return table
