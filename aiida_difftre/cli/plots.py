"""Figures of a run for a paper: loss and effective samples, observables against the step, and measured curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aiida_difftre.cli import words
from aiida_difftre.cli.live import DEVIATION, quantities, reweighted, with_measured_errors
from aiida_difftre.cli.look import Look
from aiida_difftre.cli.snapshots import Iteration, Snapshot
from aiida_difftre.workchains import records

Comparisons = dict[str, dict[str, dict[str, Any]]]
"""What is compared, by state point and target."""

EXPERIMENT = "0.25"
"""Colour of what was measured; those of potentials are from the cycle of the style."""

BAND = 0.3
"""Opacity of a band of one standard error."""

MOST_BARS = 80
"""Points of a measured curve that have error bars; one with more has a band."""

BROAD = 3.0
"""Widths of a line, of a measured curve without bars: what agrees with it is seen on it."""


def kept(snapshot: Snapshot) -> list[Iteration]:
    """The iterations whose update was not rolled back.

    Raises:
        ValueError: when there are none yet.
    """
    found = [iteration for iteration in snapshot.iterations if not iteration.discarded]
    if not found:
        raise ValueError(f"run {snapshot.pk} has no iteration to plot yet")
    return found


def plot_course(iterations: list[Iteration], folder: Path, name: str, look: Look) -> Path:
    """Loss and effective sample fraction against the optimizer step; a vertical line where a trajectory is fresh."""
    figure, (loss, effective) = look.panels(2, 2.2)
    for start, iteration in zip(_starts(iterations), iterations, strict=True):
        for axis in (loss, effective):
            axis.axvline(start, color="0.85", linewidth=0.6, zorder=0)
        numbers = range(start, start + len(iteration.steps))
        loss.plot(numbers, [step.loss for step in iteration.steps], ".-", color="C1")
        effective.plot(numbers, [100 * step.n_eff_fraction for step in iteration.steps], ".-", color="C0")
    loss.set(ylabel="loss")
    positive = [step.loss for iteration in iterations for step in iteration.steps]
    if positive and min(positive) > 0:
        loss.set_yscale("log")
    effective.set(ylabel=r"$N_\mathrm{eff}$ / %", ylim=(0, 105))
    for axis in (loss, effective):
        _label_steps(axis)
    return look.save(figure, folder, name)


def _starts(iterations: list[Iteration]) -> list[int]:
    """The optimizer step at which each iteration begins."""
    steps = [iteration.number_of_steps for iteration in iterations]
    return [sum(steps[:number]) for number in range(len(steps))]


def _label_steps(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_xlabel("optimizer step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def plot_observables(
    iterations: list[Iteration], folder: Path, name: str, look: Look, systems: Mapping[str, str] | None = None
) -> Path:
    """Every observable against the optimizer step, with the experiment and its error as a band.

    Args:
        iterations: What is drawn.
        folder: Folder of the file.
        name: Its name, without suffix.
        look: Format, width and style.
        systems: State points in words, by label.
    """
    # The deviations of curves are in a figure of their own.
    shown = [one for one in quantities(iterations[0]) if not one.startswith(DEVIATION)]
    figure, axes = look.panels(len(shown), 2.0)
    starts = _starts(iterations)
    measured = quantities(with_measured_errors(iterations[0]))
    sampled = {label: (systems or {}).get(label, label) for label in iterations[0].state_points}
    explained: set[bool] = set()
    for axis, quantity in zip(axes, shown, strict=True):
        found = [quantities(iteration)[quantity] for iteration in iterations]
        experiment, error, unit = found[0][2], measured[quantity][1], found[0][3]
        label = "agreement" if error != error else "experiment"
        axis.axhline(experiment, color=EXPERIMENT, linestyle="--", linewidth=0.9, label=label)
        if error == error:  # a summary of a curve has none
            axis.axhspan(experiment - error, experiment + error, color=EXPERIMENT, alpha=0.15, linewidth=0)
        thin: str | None = "reweighted"
        for start, iteration in zip(starts, iterations, strict=True):
            between = reweighted(iteration).get(quantity, [])
            if between:
                numbers = range(start, start + len(between))
                axis.plot(numbers, between, ".-", color="C1", alpha=0.5, linewidth=0.8, label=thin)
                thin = None
        values, errors = [row[0] for row in found], [row[1] for row in found]
        axis.errorbar(starts, values, errors, fmt="o", color="C1", label="fresh trajectory")
        axis.set_ylabel(words.axis(words.symbol(_without_point(quantity, sampled)), words.unit(unit or "1")))
        kind = quantity.startswith("chi² ")
        if kind not in explained or len(sampled) > 1:
            explained.add(kind)
            _legend(axis, _system(quantity, sampled))
        _label_steps(axis)
    return look.save(figure, folder, name)


def _legend(axis: Any, title: str | None) -> None:
    """A legend under the name of the system, what was measured first; above the axes where it would hide a curve."""
    entries = sorted(zip(*axis.get_legend_handles_labels(), strict=True), key=lambda entry: entry[1] != "experiment")
    handles, labels = zip(*entries, strict=True)
    legend = axis.legend(handles, labels, title=title, alignment="left")
    axis.figure.draw_without_rendering()
    box = legend.get_window_extent()
    if any(line.get_path().transformed(line.get_transform()).intersects_bbox(box, filled=False) for line in axis.lines):
        above = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.0}
        axis.legend(handles, labels, title=title, alignment="left", **above)


def _system(quantity: str, systems: Mapping[str, str]) -> str | None:
    """The state point of a quantity in words: the one that its name ends with, or the only one."""
    if len(systems) == 1:
        return next(iter(systems.values()))
    return next((shown for label, shown in systems.items() if quantity.endswith(f" {label}")), None)


def _without_point(quantity: str, systems: Mapping[str, str]) -> str:
    """The name of a quantity without its state point, which the legend tells."""
    for label in systems:
        quantity = quantity.removesuffix(f" {label}")
    return quantity


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


def plot_curves(
    compared: dict[str, Comparisons], folder: Path, name: str, look: Look, systems: Mapping[str, str] | None = None
) -> Path:
    """Every measured curve with its errors, and the simulated ones with theirs.

    Args:
        compared: What is compared by legend, from :func:`curves`; not empty.
        folder: Folder of the file.
        name: Its name, without suffix.
        look: Format, width and style.
        systems: State points in words, by label.
    """
    found = list(
        dict.fromkeys(
            (point, label) for points in compared.values() for point, targets in points.items() for label in targets
        )
    )
    figure, axes = look.panels(len(found), 2.4)
    for axis, (point, label) in zip(axes, found, strict=True):
        items = {legend: points[point][label] for legend, points in compared.items() if label in points.get(point, {})}
        item = next(iter(items.values()))
        grid = item["grid"]
        if len(grid) > MOST_BARS:
            _band(axis, grid, item["experiment"], item["experiment_errors"], EXPERIMENT, "experiment", broad=True)
        else:
            axis.errorbar(
                grid, item["experiment"], item["experiment_errors"], fmt="o", color=EXPERIMENT, markersize=2.2,
                elinewidth=0.7, capsize=0, label="experiment", zorder=3,
            )  # fmt: skip
        for number, (legend, one) in enumerate(items.items()):
            _band(axis, grid, one["values"], one["errors"], f"C{number}", f"{legend}, χ² {words.number(one['chi2'])}")
        abscissa, ordinate = words.curve_axes(item["observable"], item["unit"])
        axis.set(xlabel=abscissa, ylabel=ordinate)
        system = (systems or {}).get(point, point)
        named = "" if label == item["observable"] else f"{label}, "
        _legend(axis, f"{named}{system}{records.shown_role(item)}")
    return look.save(figure, folder, name)


def _band(
    axis: Any,
    grid: list[float],
    values: list[float],
    errors: list[float],
    colour: str,
    label: str,
    *,
    broad: bool = False,
) -> None:
    """A curve within one standard error, or a broad pale one below others."""
    from matplotlib import rcParams

    middle, spread = np.asarray(values, float), np.nan_to_num(np.asarray(errors, float))
    axis.fill_between(grid, middle - spread, middle + spread, color=colour, alpha=BAND, linewidth=0)
    if broad:
        width = BROAD * rcParams["lines.linewidth"]
        axis.plot(grid, middle, color=colour, label=label, linewidth=width, alpha=BAND, solid_capstyle="butt")
    else:
        axis.plot(grid, middle, color=colour, label=label)


def plot(snapshot: Snapshot, folder: Path, look: Look | None = None) -> list[Path]:
    """Draw everything that can be drawn of a run; returns the files.

    Args:
        snapshot: Snapshot of the run.
        folder: Where to; it is made where it does not exist.
        look: Format, width and style.

    Raises:
        ValueError: when there is nothing yet, or the style is none.
    """
    look = look or Look()
    found = curves(snapshot)
    iterations = [] if found and not snapshot.iterations else kept(snapshot)
    systems = {label: str(point) for label, point in snapshot.state_points.items()}
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"difftre-{snapshot.pk}"
    drawn = []
    with look.applied():
        if iterations:
            drawn.append(plot_course(iterations, folder, f"{stem}-course", look))
            drawn.append(plot_observables(iterations, folder, f"{stem}-observables", look, systems))
        if found:
            drawn.append(plot_curves(found, folder, f"{stem}-curves", look, systems))
    return drawn
