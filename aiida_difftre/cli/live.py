"""The picture of a run: its snapshot as lines or as tables, running or finished alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiida_difftre.cli import words
from aiida_difftre.cli.snapshots import Iteration, Snapshot
from aiida_difftre.workchains import records

if TYPE_CHECKING:
    from rich.console import Group

MAX_COMPONENTS = 6
"""An observable without a grid that has more values than this is summarised, as a curve is."""

DEVIATION = "rms "
"""Begins the name of the deviation of a curve from the experiment."""

TINY = 1e-12
"""In place of zero, where logarithms are taken."""

LABELS_PER_LINE = 10
"""In a log, which has no line to rewrite."""


def lines(snapshot: Snapshot, *, is_log: bool = False) -> list[str]:
    """The snapshot as plain lines, for a pipe or a log file.

    Args:
        snapshot: Snapshot of a run.
        is_log: leave out what changes all the time: running jobs, and labels but for every tenth.
    """
    text = [
        f"{snapshot.title} <{snapshot.pk}>: {snapshot.outcome}" + (f", {snapshot.message}" if snapshot.message else "")
    ]
    text.extend(snapshot.paused.values())
    if snapshot.labels is not None:
        done = snapshot.labels[0]
        if not is_log or done % LABELS_PER_LINE == 0 or _is_labelled(snapshot):
            text.append(labels_line(snapshot.labels))
    if snapshot.pretraining is not None:
        text.append("pretraining: " + pretraining_line(snapshot.pretraining))
    text.extend(iteration_line(iteration) for iteration in snapshot.iterations)
    if snapshot.iterations and snapshot.selection:
        text.append(snapshot.selection)
    if not is_log:
        text.extend(str(progress) for progress in snapshot.running)
        text.extend(outlook(snapshot))
    return text


BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float]) -> str:
    """Positive values as a row of blocks, on a logarithmic scale.

    Args:
        values: The values, in their order.

    Returns:
        A character for each.
    """
    heights = [math.log(max(value, TINY)) for value in values]
    low, span = min(heights), (max(heights) - min(heights)) or 1.0
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * (height - low) / span)] for height in heights)


def chi2_lines(iterations: Sequence[Iteration]) -> list[str]:
    """The course of chi² of each role that is looked at, as sparklines; nothing before the second iteration."""
    kept = [iteration for iteration in iterations if not iteration.discarded]
    found = []
    for role in ("training", "selection"):
        values = [value for iteration in kept if (value := iteration.chi2.get(role)) is not None]
        if len(values) > 1:
            found.append(
                f"chi² of {role} targets: {words.number(values[0])} {sparkline(values)} {words.number(values[-1])}"
            )
    return found


def outlook(snapshot: Snapshot) -> list[str]:
    """The course of chi², what was spent, and when the run will be over."""
    spent = f"cost{'' if snapshot.is_over else ' so far'}: {snapshot.cost}" if snapshot.cost else ""
    return [line for line in (*chi2_lines(snapshot.iterations), spent, snapshot.expected) if line]


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


def with_measured_errors(iteration: Iteration) -> Iteration:
    """An iteration whose predictions have the errors of the experiment, to show these by the same names."""
    points = {
        point: {label: {**item, "errors": item["experiment_errors"]} for label, item in targets.items()}
        for point, targets in iteration.state_points.items()
    }
    return replace(iteration, state_points=points)


def reweighted(iteration: Iteration) -> dict[str, list[float]]:
    """The same quantities after each optimizer step, reweighted from the trajectory; those on a grid are left out."""
    found: dict[str, list[float]] = {}
    for step in iteration.steps:
        predicted = {point: numbers.predictions for point, numbers in step.state_points.items()}
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
    """A value with its standard error, where it has one; without powers of ten beside a value that has none."""
    if error != error:
        return plain(value)
    text, shown = plain(value), f"{error:.2g}"
    if "e-" in shown and "e" not in text:
        fixed = f"{error:.{len(text.partition('.')[2])}f}"
        shown = fixed if float(fixed) > 0 else shown
    return f"{text} ± {shown}"


def plain(value: float) -> str:
    """Four digits of a number, or all before its point where these are more: a density of 10490 kg/m³ has no power."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e6 else f"{value:.4g}"


def iteration_line(iteration: Iteration) -> str:
    """One iteration in one line."""
    values = ", ".join(f"{name} {with_error(*row[:2])}" for name, row in quantities(iteration).items())
    steps = iteration.steps
    moved = f"; {iteration.number_of_steps} steps, loss {steps[0].loss:.4g} -> {steps[-1].loss:.4g}" if steps else ""
    discarded = " (rolled back)" if iteration.discarded else ""
    return f"iteration {iteration.number}{discarded}: chi² {iteration_chi2(iteration)}, {values}{moved}"


def iteration_chi2(iteration: Iteration) -> str:
    """The reduced chi² of the training targets, and of those of other roles where there are some."""
    chi2 = iteration.chi2
    others = records.shown_chi2({role: value for role, value in chi2.items() if role != "training"})
    return f"{chi2['training']:.3g}" + (f" ({others})" if others else "")


def picture(snapshot: Snapshot) -> Group:
    """The snapshot for a terminal."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Text(f"{snapshot.title}  <{snapshot.pk}>  {snapshot.outcome}", style="bold")
    if snapshot.message:
        head.append(f"\n{snapshot.message}", style="red")
    for reason in snapshot.paused.values():
        head.append(f"\n{reason}", style="yellow")
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
        if snapshot.selection:
            parts.append(Text(snapshot.selection))
    parts += [Text(line) for line in outlook(snapshot)]
    return Group(Panel(Group(*parts), title="aiida-difftre", expand=False))


def iteration_table(iterations: list[Iteration]) -> Any:
    """A row per iteration: chi², loss, effective samples, and every quantity against its target."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="refinement (each potential on the trajectory that it sampled)")
    for name in ("iteration", "reduced chi²", "loss", "N_eff"):
        table.add_column(name, justify="right")
    names = list(quantities(iterations[0]))
    for name, row in quantities(iterations[0]).items():
        # Text: a unit in brackets would be taken for markup.
        quantity = words.axis(words.symbol(name), words.unit(row[3] or "1"))
        table.add_column(Text(f"{quantity}\n({plain(row[2])})"), justify="right")
    for iteration in iterations:
        steps = iteration.steps
        values = quantities(iteration)
        table.add_row(
            str(iteration.number),
            iteration_chi2(iteration),
            f"{steps[0].loss:.4g} → {steps[-1].loss:.4g}" if steps else "",
            f"{100 * steps[-1].n_eff_fraction:.0f} %" if steps else "",
            *(with_error(*values[name][:2]) if name in values else "" for name in names),
            style="dim" if iteration.discarded else None,
        )
    return table
