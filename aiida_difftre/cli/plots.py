"""Plots of a refinement as PNG: loss and effective samples against optimizer step, observables against step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_difftre.cli.live import Iteration, Snapshot, quantities, reweighted
from aiida_difftre.workchains import records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0b6fa4", "#c8553d", "#588157", "#7d5ba6", "#b08900", "#444444")


def _figure(rows: int, columns: int = 1, height: float = 2.6) -> tuple[Figure, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns + 1.2, height * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes.flat)


def kept(snapshot: Snapshot) -> list[Iteration]:
    """The iterations whose update was not rolled back.

    Raises:
        ValueError: when there are none yet.
    """
    found = [iteration for iteration in snapshot.iterations if not iteration.discarded]
    if not found:
        raise ValueError(f"run {snapshot.pk} has no iteration to plot yet")
    return found


def plot_course(iterations: list[Iteration], path: Path) -> Path:
    """Loss and effective sample fraction against the optimizer step; a vertical line where a trajectory is fresh."""
    figure, (loss, effective) = _figure(2)
    start = 0
    for iteration in iterations:
        for axis in (loss, effective):
            axis.axvline(start, color="0.85", linewidth=0.8, zorder=0)
        if not iteration.steps:
            continue
        numbers = range(start, start + len(iteration.steps))
        loss.plot(numbers, [step["loss"] for step in iteration.steps], ".-", color=COLOURS[0])
        fractions = [100 * records.effective_fraction(step) for step in iteration.steps]
        effective.plot(numbers, fractions, ".-", color=COLOURS[1])
        start += iteration.number_of_steps
    loss.set(ylabel="loss")
    positive = [step["loss"] for iteration in iterations for step in iteration.steps]
    if positive and min(positive) > 0:
        loss.set_yscale("log")
    effective.set(ylabel="effective samples / %", xlabel="optimizer step", ylim=(0, 105))
    figure.savefig(path, dpi=160)
    return path


def plot_observables(iterations: list[Iteration], path: Path) -> Path:
    """Every observable against the optimizer step, with the experiment as a line.

    Filled: of a potential on the trajectory that it sampled, with errors. Thin: reweighted from that trajectory, while
    the parameters move.
    """
    names = list(quantities(iterations[0]))
    figure, axes = _figure((len(names) + 1) // 2, min(len(names), 2), height=2.2)
    steps = [0]
    for iteration in iterations[:-1]:
        steps.append(steps[-1] + iteration.number_of_steps)
    for index, (axis, name) in enumerate(zip(axes, names, strict=False)):
        rows = [quantities(iteration)[name] for iteration in iterations]
        colour = COLOURS[index % len(COLOURS)]
        axis.errorbar(
            steps, [row[0] for row in rows], [row[1] for row in rows], fmt="o", color=colour, capsize=2, markersize=6
        )
        for start, iteration in zip(steps, iterations, strict=True):
            between = reweighted(iteration).get(name, [])
            axis.plot(range(start, start + len(between)), between, ".-", color=colour, alpha=0.45, linewidth=1)
        axis.axhline(rows[0][2], color="0.3", linestyle="--", linewidth=1)
        axis.set(ylabel=f"{name} / {rows[0][3]}" if rows[0][3] else name)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    for axis in axes[max(0, len(names) - 2) : len(names)]:
        axis.set_xlabel("optimizer step")
        axis.xaxis.set_tick_params(labelbottom=True)
    figure.suptitle("discs: on a fresh trajectory; thin: reweighted; dashed: experiment", fontsize="medium")
    figure.savefig(path, dpi=160)
    return path


def plot(snapshot: Snapshot, folder: Path) -> list[Path]:
    """Draw everything that can be drawn of a run; returns the files.

    Raises:
        ValueError: when there is nothing yet.
    """
    iterations = kept(snapshot)
    folder.mkdir(parents=True, exist_ok=True)
    return [
        plot_course(iterations, folder / f"difftre-{snapshot.pk}-course.png"),
        plot_observables(iterations, folder / f"difftre-{snapshot.pk}-observables.png"),
    ]
