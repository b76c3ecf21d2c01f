"""The verdict on a run: experiment, DFT, before and after refinement in one table, and where to look further."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiida_difftre.cli.live import rows, with_error
from aiida_difftre.cli.snapshots import Snapshot
from aiida_difftre.engine.contract.hot import HotRun
from aiida_difftre.engine.contract.matching_results import MatchingErrors
from aiida_difftre.engine.contract.observables import observable
from aiida_difftre.engine.contract.records import read
from aiida_difftre.engine.contract.results import StaticElasticity, Stationarity
from aiida_difftre.workchains import records
from aiida_difftre.workchains.verdict import of_report

MISSING = "–"

SMALL = 5e-4
"""Errors below this do not show in a fixed number of digits."""


@dataclass(frozen=True)
class Row:
    """One line of the table, as text.

    Args:
        name: Of the quantity, with its unit.
        experiment: Measured value.
        reference: Of DFT.
        before: Of the potential before refinement.
        after: Of the refined one.
        within: Whether that agrees with experiment within two standard errors, both together; None for what summarises
            a curve.
        experiment_error: Standard error of the measured value; None likewise.
    """

    name: str
    experiment: str
    reference: str
    before: str
    after: str
    within: bool | None = None
    experiment_error: float | None = None


SAME_DENSITY = 0.01
"""Relative difference of densities up to which the cell of the labels and a state point are the same thing."""


def table_rows(
    report: dict[str, Any], reference: dict[str, Any] | None, densities: dict[str, float] | None = None
) -> list[Row]:
    """The lines of the final table.

    Args:
        report: Report of a validation.
        reference: DFT itself, where it is known.
        densities: Densities of the state points, kg/m³; DFT is shown at those that have the density of its cell.
    """
    found = []
    several = len(report["state_points"]) > 1
    for point, targets in report["state_points"].items():
        dft = _static(_at(reference or {}, (densities or {}).get(point)))
        for label, by_potential in targets.items():
            after = rows(label, by_potential["after"])
            before = rows(label, by_potential["before"]) if "before" in by_potential else {}
            role = records.shown_role(by_potential["after"])
            measured_errors = experiment_errors(label, by_potential["after"])
            for name, (value, error, measured, unit) in after.items():
                spread = measured_errors[name]
                found.append(
                    Row(
                        name=f"{name}{f' {point}' if several else ''}{role}" + (f" / {unit}" if unit else ""),
                        experiment=f"{measured:.5g}",
                        reference=f"{dft[name]:.1f}" if name in dft else MISSING,
                        before=_number(*before[name][:2]) if name in before else MISSING,
                        after=_number(value, error),
                        within=None if spread is None else abs(value - measured) <= 2 * math.hypot(error, spread),
                        experiment_error=spread,
                    )
                )
    return found


def experiment_errors(label: str, item: dict[str, Any]) -> dict[str, float | None]:
    """Standard errors of the measured values of a comparison, by the names of its rows; None for summaries."""
    measured = rows(label, {**item, "errors": item["experiment_errors"]})
    return {name: None if math.isnan(row[1]) else row[1] for name, row in measured.items()}


def _at(reference: dict[str, Any], density: float | None) -> dict[str, Any]:
    """The reference where it is of this density, or where a density is not known; else nothing."""
    labelled = reference.get("density")
    if density is None or labelled is None or abs(labelled - density) <= SAME_DENSITY * density:
        return reference
    return {}


def _number(value: float, error: float) -> str:
    if error != error:  # what summarises a curve has no error bar
        return f"{value:.3g}"
    if error < SMALL:
        return with_error(value, error)
    digits = sum(error < limit for limit in (10, 0.05, 0.005))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def columns(lines: list[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headers and cells of the final table; there is no column for DFT where no DFT was done."""
    dft = any(row.reference != MISSING for row in lines)
    headers = ("", "experiment", *(("DFT as labelled",) if dft else ()), "before", "after")
    cells = [(row.name, row.experiment, *((row.reference,) if dft else ()), row.before, row.after) for row in lines]
    return headers, cells


def table(snapshot: Snapshot) -> Any:
    """The final table for a terminal.

    Raises:
        ValueError: when there is no validation yet.
    """
    from rich.table import Table

    made = Table(title="validation in long independent runs (± one standard error)")
    found = table_rows(_report(snapshot), snapshot.reference, snapshot.densities)
    headers, cells = columns(found)
    for header in headers:
        made.add_column(header, justify="right" if header else "left")
    for row, line in zip(found, cells, strict=True):
        style = {True: "green", False: "yellow", None: None}[row.within]
        after = f"[{style}]{row.after}[/]" if style else row.after
        made.add_row(*line[:-1], after)
    return made


def text_table(snapshot: Snapshot) -> list[str]:
    """The final table as plain lines, for a pipe or a log file."""
    headers, lines = columns(table_rows(_report(snapshot), snapshot.reference, snapshot.densities))
    cells = [headers, *lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(headers))]
    return [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _report(snapshot: Snapshot) -> dict[str, Any]:
    if snapshot.report is None:
        raise ValueError(f"run {snapshot.pk} has no validation report: {snapshot.why_unfinished}")
    return snapshot.report


def verdict_line(snapshot: Snapshot) -> str:
    """What the potential may be used for, and for what not; it stands at the top."""
    return f"Verdict: {of_report(_report(snapshot)).line}"


def _changes(report: dict[str, Any]) -> list[str]:
    """What came nearer to experiment and what went away, by how many combined errors."""
    found = []
    for word in ("improved", "unchanged", "worse"):
        named = [
            f"{one.target.replace('_', ' ')} at {one.state_point} ({one.significance:+.1f} σ)"
            for one in of_report(report).targets
            if one.change == word
        ]
        found += [f"{word}: {', '.join(named)}"] if named else []
    return found


def notes(snapshot: Snapshot) -> list[str]:
    """What the table does not say.

    That is the base, what became better and worse, chi², what was fitted of a measurement, independent snapshots,
    drifts, errors against DFT, static stiffness.
    """
    report = _report(snapshot)
    found = [f"base: {snapshot.base}"] if snapshot.base else []
    found += [snapshot.selection] if snapshot.selection else []
    found += _changes(report)
    for when, chi2 in report["chi2"].items():
        found.append(f"reduced chi² {when}: {records.shown_chi2(chi2)}")
    for point, targets in report["state_points"].items():
        for label, by_potential in targets.items():
            for when, item in by_potential.items():
                if item.get("fitted"):
                    described = ", ".join(f"{name} {value:.3g}" for name, value in item["fitted"].items())
                    # Of the dynamics nothing is fitted: it is what the value is made of.
                    how = "behind" if observable(item["observable"]).is_dynamic else "fitted with"
                    found.append(f"{how} {label} of {point}, {when}: {described}")
    found += _samples(report)
    for one in of_report(report).phonons:
        value = "not found" if one.value is None else f"{one.value:.5g}"
        found.append(
            f"{one.name} of {one.state_point} / {one.unit}: {value} at rest, measured {one.measured:g} ± {one.error:g}"
        )
    found += hot_notes(of_report(report).hot)
    for when, errors in report["dataset"].items():
        shown = records.shown_errors(read(MatchingErrors, errors))
        described = ", ".join(f"{name} {value:.3g} {unit}" for name, (value, unit) in shown.items())
        found.append(f"error against DFT {when}: {described}")
    found += snapshot.counted
    for when, values in report["static"].items():
        described = _in_gpa(values)
        found.append(f"static {when} (T = 0, no vibrations): {described}")
    if snapshot.reference:
        found.append(f"static DFT as labelled: {_in_gpa(snapshot.reference)}")
    return found


def hot_notes(hot: Mapping[str, Sequence[HotRun]]) -> list[str]:
    """What became of the hot runs, one sentence for each."""
    found = []
    for label, runs in hot.items():
        for one in runs:
            where = (
                f"{label} at {one.temperature:.4g} K ({one.factor:g} T), {one.walkers} walkers of {one.time_fs:g} fs"
            )
            if one.skipped:
                found.append(f"{where}: {one.skipped}")
                continue
            told = [
                f"walker {gone.walker} blew up after {gone.time_fs:g} fs: {gone.reason}" for gone in one.blown_up
            ] or ["all held"]
            told += [f"closest approach {one.closest:.3g} Å"] if one.closest is not None else []
            told += [f"drift {1000 * one.drift:.2g} meV/atom"] if one.drift is not None else []
            found.append(f"{where}: {'; '.join(told)}")
    return found


def _samples(report: dict[str, Any]) -> list[str]:
    """How many independent snapshots stand behind the predictions, and which runs were not stationary."""
    found = []
    for point, targets in report["state_points"].items():
        fewest: dict[str, float] = {}
        for by_potential in targets.values():
            for when, item in by_potential.items():
                if item.get("effective_samples") is not None:
                    fewest[when] = min(item["effective_samples"], fewest.get(when, float("inf")))
        if fewest:
            described = ", ".join(f"{number:.3g} {when}" for when, number in fewest.items())
            found.append(f"independent snapshots at {point}: {described}")
    for when, runs in report.get("stationarity", {}).items():
        found += [
            f"{label}, {when}: {warning}"
            for label, run in runs.items()
            if (warning := read(Stationarity, run).warning) is not None
        ]
    return found


def _static(content: dict[str, Any]) -> dict[str, float]:
    """Pressure and elastic constants, GPa; nothing where nothing is known."""
    return records.static_values(read(StaticElasticity, content)) if content else {}


def _in_gpa(static: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.1f} GPa" for name, value in _static(static).items())


def next_steps(snapshot: Snapshot, profile: str) -> list[str]:
    """Commands with which to look further: those that have something to show of this run, on this machine."""
    verdi = f"verdi -p {profile}"
    ours = f"aiida-difftre -p {profile}"
    steps = [f"{verdi} process report {snapshot.pk}", f"{verdi} process status {snapshot.pk}"]
    if shutil.which("dot") is not None:
        steps.append(f"{verdi} node graph generate {snapshot.pk}")
    if snapshot.has_potential:
        steps += [f"{ours} lineage {snapshot.pk}", f"{ours} potential export {snapshot.pk}"]
    if snapshot.report is not None:
        steps += [f"{ours} report {snapshot.pk}", f"{ours} report {snapshot.pk} --html report-{snapshot.pk}.html"]
    if any(not iteration.discarded for iteration in snapshot.iterations):
        steps.append(f"{ours} plot {snapshot.pk}")
    return steps
