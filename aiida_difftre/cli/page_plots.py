"""The interactive figures of a report, as plain data for plotly; colours are variables of the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiida_difftre.cli import energies, words
from aiida_difftre.cli.live import DEVIATION, is_summarised, quantities, reweighted, rows, with_measured_errors
from aiida_difftre.cli.report import experiment_errors
from aiida_difftre.cli.snapshots import Iteration, Snapshot
from aiida_difftre.workchains import records

INK, EXPERIMENT, BEFORE, AFTER, GRID = (f"var(--{name})" for name in ("ink", "experiment", "before", "after", "grid"))
BANDS = {EXPERIMENT: "var(--experiment-band)", BEFORE: "var(--before-band)", AFTER: "var(--after-band)"}
COLOURS = {"before": BEFORE, "after": AFTER}

MOST_BARS = 80
"""Points of a measured curve that have error bars; one with more has a band."""

DIGITS = 6
"""Significant digits of numbers in figures."""

TICKS = (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
"""Of an axis that is linear near zero and logarithmic beyond."""


@dataclass(frozen=True)
class Plot:
    """A figure of the page.

    Args:
        name: Identifier in the page.
        title: What it shows.
        caption: How to read it.
        figure: ``data`` and ``layout`` of plotly.
        is_wide: Whether it takes the full width of the page.
    """

    name: str
    title: str
    caption: str
    figure: dict[str, Any]
    is_wide: bool = False


def _numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers with the digits that a figure shows; JSON knows no NaN."""
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values]


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 6}, "gridcolor": GRID, "zerolinecolor": GRID, "linecolor": INK,
        "ticks": "outside", "tickcolor": INK, "automargin": True, **more,
    }  # fmt: skip


def _layout(**more: Any) -> dict[str, Any]:
    return {
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": {"color": INK, "size": 13},
        "margin": {"l": 56, "r": 12, "t": 12, "b": 44}, "hovermode": "closest", "dragmode": "zoom",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--soft)", "activecolor": INK}, **more,
    }  # fmt: skip


def _band(x: Sequence[float], values: Any, errors: Any, colour: str, name: str, **more: Any) -> list[dict[str, Any]]:
    """A curve within one standard error."""
    values, errors = np.asarray(values, float), np.asarray(errors, float)
    errors = np.where(np.isfinite(errors), errors, 0.0)
    outline = np.concatenate([values + errors, (values - errors)[::-1]])
    return [
        {
            "type": "scatter", "x": _numbers([*x, *reversed(x)]), "y": _numbers(outline), "fill": "toself",
            "fillcolor": BANDS[colour], "line": {"width": 0}, "mode": "lines", "hoverinfo": "skip",
            "showlegend": False, "legendgroup": name, **more,
        },
        {
            "type": "scatter", "x": _numbers(x), "y": _numbers(values), "mode": "lines", "name": name,
            "legendgroup": name, "line": {"color": colour, "width": 2}, **more,
        },
    ]  # fmt: skip


def curves(report: dict[str, Any], titles: dict[str, str]) -> list[Plot]:
    """Every measured curve with its errors, the predictions with theirs, and the residuals below.

    Args:
        report: Report of a validation.
        titles: State points in words, by label.

    Returns:
        A figure for each.
    """
    return [
        _curve(f"curve-{number}", f"{label}, {titles.get(point, point)}", potentials)
        for number, (point, label, potentials) in enumerate(_compared(report))
        if potentials["after"].get("grid") is not None
    ]


def _compared(report: dict[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    return (
        (point, label, potentials)
        for point, targets in report["state_points"].items()
        for label, potentials in targets.items()
        if "after" in potentials
    )


def _curve(name: str, title: str, potentials: dict[str, Any]) -> Plot:
    item = potentials["after"]
    grid, abscissa_ordinate = item["grid"], words.curve_axes(item["observable"], item["unit"])
    measured, errors = np.array(item["experiment"]), np.array(item["experiment_errors"])
    if len(grid) > MOST_BARS:
        data = _band(grid, measured, errors, EXPERIMENT, "experiment")
    else:
        data = [
            {
                "type": "scatter", "x": _numbers(grid), "y": _numbers(measured), "mode": "markers",
                "name": "experiment", "marker": {"color": EXPERIMENT, "size": 5},
                "error_y": {"array": _numbers(errors), "color": EXPERIMENT, "thickness": 1, "width": 0},
            }
        ]  # fmt: skip
    limit = 5.0
    for when, one in potentials.items():
        values = np.array(one["values"])
        legend = f"{when}, χ² {words.number(one['chi2'])}"
        data += _band(grid, values, one["errors"], COLOURS[when], legend)
        pulls = (values - measured) / np.hypot(errors, np.array(one["errors"]))
        limit = max(limit, 1.1 * float(np.max(np.abs(pulls)))) if when == "after" else limit
        data.append(
            {
                "type": "scatter", "x": _numbers(grid), "y": _numbers(pulls), "mode": "lines", "yaxis": "y2",
                "name": when, "legendgroup": legend, "showlegend": False, "line": {"color": COLOURS[when], "width": 1},
            }
        )  # fmt: skip
    layout = _layout(
        height=460,
        xaxis=_axis(abscissa_ordinate[0], anchor="y2"),
        yaxis=_axis(abscissa_ordinate[1], domain=[0.4, 1.0]),
        yaxis2=_axis("deviation / σ", domain=[0.0, 0.3], range=[-limit, limit]),
        shapes=[_strip(-2, 2, "y2")],
    )
    caption = "Bands and bars: one standard error. Below: deviation from experiment in units of both errors together."
    return Plot(name, title + records.shown_role(item), caption, {"data": data, "layout": layout})


def _strip(low: float, high: float, axis: str, reference: str = "x domain") -> dict[str, Any]:
    """Two standard errors around agreement, shaded."""
    return {
        "type": "rect", "xref": reference, "x0": 0, "x1": 1, "yref": axis, "y0": low, "y1": high, "layer": "below",
        "fillcolor": "var(--agreement)", "line": {"width": 0},
    }  # fmt: skip


def pulls(report: dict[str, Any], titles: dict[str, str]) -> Plot | None:
    """How far every single value is from experiment, in standard errors; None where there are only curves.

    Args:
        report: Report of a validation.
        titles: State points in words, by label.

    Returns:
        The figure, on an axis that is linear near zero and logarithmic beyond.
    """
    several = len(report["state_points"]) > 1
    found: dict[str, dict[str, float]] = {}
    for point, label, potentials in _compared(report):
        if is_summarised(potentials["after"]):
            continue
        for when, item in potentials.items():
            spread = experiment_errors(label, item)
            for name, (value, error, measured, _) in rows(label, item).items():
                shown = words.symbol(name) + (f", {titles.get(point, point)}" if several else "")
                shown += records.shown_role(item)
                found.setdefault(shown, {})[when] = (value - measured) / math.hypot(error, spread[name] or 0.0)
    if not found:
        return None
    names = list(reversed(found))
    data = [
        {
            "type": "scatter", "mode": "markers", "name": when, "y": there,
            "x": _numbers(math.asinh(found[name][when]) for name in there),
            "marker": {"color": COLOURS[when], "size": 11, "symbol": "circle-open" if when == "before" else "circle"},
            "text": [f"{found[name][when]:+.3g} σ" for name in there], "hovertemplate": "%{y}: %{text}<extra></extra>",
        }
        for when in ("before", "after")
        if (there := [name for name in names if when in found[name]])
    ]  # fmt: skip
    largest = max(abs(value) for one in found.values() for value in one.values())
    ticks = [tick for tick in TICKS if tick <= max(3.0, largest)]
    marks = [*(-tick for tick in reversed(ticks[1:])), *ticks]
    edge = math.asinh(max(4.0, 1.5 * largest))
    layout = _layout(
        height=130 + 30 * len(names),
        xaxis=_axis(
            "deviation from experiment / σ", tickvals=[math.asinh(tick) for tick in marks],
            ticktext=[f"{tick:g}".replace("-", "−") for tick in marks], range=[-edge, edge], zeroline=True,
            zerolinecolor=EXPERIMENT,
        ),
        yaxis=_axis("", categoryorder="array", categoryarray=names, ticks=""),
        shapes=[
            {
                "type": "rect", "xref": "x", "x0": -math.asinh(2), "x1": math.asinh(2), "yref": "paper", "y0": 0,
                "y1": 1, "layer": "below", "fillcolor": "var(--agreement)", "line": {"width": 0},
            }
        ],
    )  # fmt: skip
    caption = (
        "In units of both standard errors together; shaded: within two. The axis is linear near zero and logarithmic "
        "beyond."
    )
    return Plot("pulls", "Residuals of single values", caption, {"data": data, "layout": layout}, is_wide=True)


def course(snapshot: Snapshot) -> list[Plot]:
    """Loss, effective samples and chi² against the optimizer step, and every observable.

    Args:
        snapshot: Snapshot of a run.

    Returns:
        The figures; none before the first iteration.
    """
    iterations = [iteration for iteration in snapshot.iterations if not iteration.discarded]
    if not iterations:
        return []
    starts = [0]
    for iteration in iterations[:-1]:
        starts.append(starts[-1] + iteration.number_of_steps)
    lines = [
        {
            "type": "line", "xref": "x", "x0": start, "x1": start, "yref": "paper", "y0": 0, "y1": 1, "layer": "below",
            "line": {"color": GRID, "width": 1, "dash": "dot"},
        }
        for start in starts
    ]  # fmt: skip
    steps = _axis("optimizer step", rangemode="tozero", dtick=1 if starts[-1] < 12 else None)
    made = [
        _steps("loss", "Loss", _loss(iterations, starts), steps, _axis("loss", type="log"), lines),
        _steps(
            "n-eff", "Effective samples", _effective(iterations, starts), steps,
            _axis("N<sub>eff</sub> / %", range=[0, 105]), lines,
        ),
        _chi2(iterations),
        *_observables(iterations, starts, steps, lines),
    ]  # fmt: skip
    return [plot for plot in made if plot.figure["data"]]


RESAMPLED = "Dotted: a fresh trajectory was sampled there."


def _steps(name: str, title: str, data: list[Any], x: Any, y: Any, lines: list[Any]) -> Plot:
    layout = _layout(height=300, xaxis=x, yaxis=y, shapes=lines, showlegend=False)
    return Plot(name, title, RESAMPLED, {"data": data, "layout": layout})


def _line(x: Iterable[float | None], y: Iterable[float], colour: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "scatter", "x": list(x), "y": _numbers(y), "mode": "lines+markers",
        "line": {"color": colour, "width": 2}, "marker": {"color": colour, "size": 6}, **more,
    }  # fmt: skip


def _loss(iterations: list[Iteration], starts: list[int]) -> list[dict[str, Any]]:
    return [
        _line(
            range(start, start + len(one.steps)), (step.loss for step in one.steps), AFTER,
            name=f"iteration {one.number}",
        )
        for one, start in zip(iterations, starts, strict=True)
        if one.steps
    ]  # fmt: skip


def _effective(iterations: list[Iteration], starts: list[int]) -> list[dict[str, Any]]:
    return [
        _line(
            range(start, start + len(one.steps)), (100 * step.n_eff_fraction for step in one.steps), AFTER,
            name=f"iteration {one.number}",
        )
        for one, start in zip(iterations, starts, strict=True)
        if one.steps
    ]  # fmt: skip


def _chi2(iterations: list[Iteration]) -> Plot:
    colours = {"training": AFTER, "selection": BEFORE}
    data = []
    for role, colour in colours.items():
        found = [(one.number, one.chi2[role]) for one in iterations if one.chi2.get(role) is not None]
        if found:
            numbers, values = zip(*found, strict=True)
            data.append(_line(numbers, values, colour, name=role))
    layout = _layout(
        height=300, xaxis=_axis("iteration", dtick=1 if len(iterations) < 20 else None),
        yaxis=_axis("reduced χ²", type="log"), showlegend=len(data) > 1,
    )  # fmt: skip
    caption = "Of each potential, on the trajectory that it sampled itself."
    return Plot("chi2", "Agreement with experiment", caption, {"data": data, "layout": layout})


def _observables(iterations: list[Iteration], starts: list[int], steps: Any, lines: list[Any]) -> Iterable[Plot]:
    caption = (
        "Discs: on a fresh trajectory, with one standard error; thin: reweighted; dashed: experiment with its error."
    )
    measured = quantities(with_measured_errors(iterations[0]))
    names = [name for name in quantities(iterations[0]) if not name.startswith((DEVIATION, "chi² "))]
    for number, name in enumerate(names):
        found = [quantities(one)[name] for one in iterations]
        data = [
            {
                **_line(range(start, start + len(thin)), thin, "var(--after-thin)", name="reweighted"),
                "line": {"color": "var(--after-thin)", "width": 1.5},
            }
            for start, one in zip(starts, iterations, strict=True)
            if (thin := reweighted(one).get(name, []))
        ]
        data.append(
            {
                "type": "scatter", "mode": "markers", "x": starts, "y": _numbers(row[0] for row in found),
                "name": "fresh trajectory", "marker": {"color": AFTER, "size": 9},
                "error_y": {"array": _numbers(row[1] for row in found), "color": AFTER, "width": 4},
            }
        )  # fmt: skip
        error = measured[name][1]
        band = _strip(found[0][2] - error, found[0][2] + error, "y")
        level = {
            "type": "line", "xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": found[0][2], "y1": found[0][2],
            "line": {"color": EXPERIMENT, "width": 1.5, "dash": "dash"},
        }  # fmt: skip
        y = _axis(words.axis(words.symbol(name), words.unit(found[0][3] or "1")))
        layout = _layout(height=280, xaxis=steps, yaxis=y, shapes=[*lines, band, level], showlegend=False)
        yield Plot(f"observable-{number}", words.symbol(name), caption, {"data": data, "layout": layout})


def learned(found: list[energies.Curve]) -> list[Plot]:
    """Energies along one coordinate before and after refinement, and what refinement changed.

    Args:
        found: The curves, of potentials named ``before`` and ``after``.

    Returns:
        A figure for each.
    """
    made = []
    for number, curve in enumerate(found):
        visible = _visible(curve)
        grid = curve.grid[visible]
        data = [
            {**_line(_numbers(grid), values[visible], COLOURS[when], name=when), "mode": "lines"}
            for when, values in curve.energies.items()
        ]
        if len(curve.energies) > 1:
            change = (curve.energies["after"] - curve.energies["before"])[visible]
            data.append(
                {
                    **_line(_numbers(grid), change, EXPERIMENT, name="change"),
                    "mode": "lines", "line": {"color": EXPERIMENT, "width": 1.5, "dash": "dash"},
                }
            )  # fmt: skip
        title = f"Energy of a pair {curve.name}" if curve.is_pair else "Energy of the cell, stretched uniformly"
        caption = "Two atoms alone, less the same atoms far apart." if curve.is_pair else "Perfect positions, at rest."
        y = _axis(words.axis("energy", curve.unit), **_window(curve, visible))
        layout = _layout(height=340, xaxis=_axis(curve.coordinate), yaxis=y)
        made.append(Plot(f"learned-{number}", title, caption, {"data": data, "layout": layout}))
    return made


def _visible(curve: energies.Curve) -> Any:
    """Where the energy of a pair is not that of atoms inside each other."""
    if not curve.is_pair:
        return np.full(len(curve.grid), True)
    return np.min(np.stack(list(curve.energies.values())), axis=0) < 20 * _depth(curve)


def _depth(curve: energies.Curve) -> float:
    """Depth of the deepest minimum beyond the wall, meV."""
    deepest = 0.0
    for values in curve.energies.values():
        outside = values[int(np.argmax(values)) :]
        deepest = max(deepest, -float(np.min(outside)))
    return deepest or 1.0


def _window(curve: energies.Curve, visible: Any) -> dict[str, Any]:
    """The part of the ordinate that tells: the well, and as much of the wall."""
    if not curve.is_pair:
        return {}
    depth = _depth(curve)
    return {"range": [-1.3 * depth, 2.0 * depth]}
