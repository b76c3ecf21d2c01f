"""Plots of a run as PNG: loss and effective samples, observables against the optimizer step, and measured curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_difftre.cli.live import DEVIATION, quantities, reweighted
from aiida_difftre.cli.snapshots import Iteration, Snapshot
from aiida_difftre.engine.contract.observables import observable
from aiida_difftre.workchains import records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Comparisons = dict[str, dict[str, dict[str, Any]]]
"""What is compared, by state point and target."""

COLOURS = ("#0b6fa4", "#c8553d", "#588157", "#7d5ba6", "#b08900", "#444444")


def _figure(rows: int, columns: int = 1, height: float = 2.6, *, share: bool = True) -> tuple[Figure, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns + 1.2, height * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=share, squeeze=False)
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
        loss.plot(numbers, [step.loss for step in iteration.steps], ".-", color=COLOURS[0])
        fractions = [100 * step.n_eff_fraction for step in iteration.steps]
        effective.plot(numbers, fractions, ".-", color=COLOURS[1])
        start += iteration.number_of_steps
    loss.set(ylabel="loss")
    positive = [step.loss for iteration in iterations for step in iteration.steps]
    if positive and min(positive) > 0:
        loss.set_yscale("log")
    effective.set(ylabel="effective samples / %", ylim=(0, 105))
    _label_steps(effective)
    figure.savefig(path, dpi=160)
    return path


def _label_steps(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_xlabel("optimizer step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def plot_observables(iterations: list[Iteration], path: Path) -> Path:
    """Every observable against the optimizer step, with the experiment as a line.

    Filled: of a potential on the trajectory that it sampled, with errors. Thin: reweighted from that trajectory, while
    the parameters move.
    """
    # The deviations of curves are in a figure of their own.
    names = [name for name in quantities(iterations[0]) if not name.startswith(DEVIATION)]
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
        _label_steps(axis)
        axis.xaxis.set_tick_params(labelbottom=True)
    figure.suptitle("discs: on a fresh trajectory; thin: reweighted; dashed: experiment", fontsize="medium")
    figure.savefig(path, dpi=160)
    return path


def curves(snapshot: Snapshot) -> dict[str, Comparisons]:
    """The comparisons of measured curves, before and after refinement, in the words of a legend.

    From the validation where there is one, else from the first and the last iteration.
    """
    before = "pretrained on DFT" if snapshot.pretraining is not None else "before"
    if snapshot.report is not None:
        points = snapshot.report["state_points"]
        found = {
            legend: {
                point: {label: potentials[when] for label, potentials in targets.items() if when in potentials}
                for point, targets in points.items()
            }
            for when, legend in (("before", before), ("after", "refined"))
        }
    else:
        iterations = [iteration for iteration in snapshot.iterations if not iteration.discarded]
        found = {before: iterations[0].state_points} if iterations else {}
        if len(iterations) > 1:
            found[f"iteration {iterations[-1].number}"] = iterations[-1].state_points
    return {legend: kept for legend, points in found.items() if (kept := _on_grids(points))}


def _on_grids(points: Comparisons) -> Comparisons:
    chosen = {
        point: {label: item for label, item in targets.items() if item.get("grid") is not None}
        for point, targets in points.items()
    }
    return {point: targets for point, targets in chosen.items() if targets}


def plot_curves(compared: dict[str, Comparisons], path: Path) -> Path:
    """Every measured curve with a band of its errors, and the simulated ones with theirs.

    Args:
        compared: What is compared by legend, from :func:`curves`; not empty.
        path: Path of the figure.
    """
    found = list(
        dict.fromkeys(
            (point, label) for points in compared.values() for point, targets in points.items() for label in targets
        )
    )
    figure, axes = _figure((len(found) + 1) // 2, min(len(found), 2), height=2.8, share=False)
    for axis, (point, label) in zip(axes, found, strict=False):
        items = {legend: points[point][label] for legend, points in compared.items() if label in points.get(point, {})}
        item = next(iter(items.values()))
        grid = item["grid"]
        _band(axis, grid, item["experiment"], item["experiment_errors"], "0.5", "experiment", width=3)
        for (legend, one), colour in zip(items.items(), (COLOURS[1], COLOURS[0]), strict=False):
            _band(axis, grid, one["values"], one["errors"], colour, f"{legend}, χ² {one['chi2']:.3g}")
        grid_unit = (observable(item["observable"]).grid_unit or "").replace("angstrom", "Å")
        unit = f" / {item['unit']}" if item["unit"] != "1" else ""
        axis.set(xlabel=grid_unit, ylabel=f"{label}{unit}")
        axis.set_title(f"{label}, {point}{records.shown_role(item)}", fontsize="medium")
        axis.legend(frameon=False, fontsize="small")
    for axis in axes[len(found) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=160)
    return path


def _band(
    axis: Any, grid: list[float], values: list[float], errors: list[float], colour: str, label: str, width: float = 1.2
) -> None:
    """A curve within one standard error."""
    low = [value - error for value, error in zip(values, errors, strict=True)]
    high = [value + error for value, error in zip(values, errors, strict=True)]
    axis.fill_between(grid, low, high, color=colour, alpha=0.25, linewidth=0)
    axis.plot(grid, values, color=colour, linewidth=width, label=label)


def plot(snapshot: Snapshot, folder: Path) -> list[Path]:
    """Draw everything that can be drawn of a run; returns the files.

    Raises:
        ValueError: when there is nothing yet.
    """
    found = curves(snapshot)
    iterations = [] if found and not snapshot.iterations else kept(snapshot)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    if iterations:
        drawn.append(plot_course(iterations, folder / f"difftre-{snapshot.pk}-course.png"))
        drawn.append(plot_observables(iterations, folder / f"difftre-{snapshot.pk}-observables.png"))
    if found:
        drawn.append(plot_curves(found, folder / f"difftre-{snapshot.pk}-curves.png"))
    return drawn
