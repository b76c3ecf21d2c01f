"""The page of a report: its figures are what plotly takes, and its words what they should be."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import pytest

from aiida_difftre.cli import costs, page_plots, words
from aiida_difftre.engine.contract.observables import observable, registered
from tests.cli.test_live import curve, snapshot, state_points, validation


@pytest.mark.parametrize(
    ("written", "printed"),
    [("angstrom", "Å"), ("1/angstrom^2", "Å⁻²"), ("angstrom^3/atom", "Å³/atom"), ("1/rad", "rad⁻¹"), ("1", ""),
     ("kg/m3", "kg/m³"), ("GPa", "GPa"), ("1/K", "K⁻¹"), ("degree", "°"), ("eV/atom", "eV/atom")],
)  # fmt: skip
def test_units(written: str, printed: str) -> None:
    assert words.unit(written) == printed


def test_axes() -> None:
    assert words.curve_axes("rdf", "1") == ("r / Å", "g(r)")
    assert words.curve_axes("structure_factor", "1") == ("q / Å⁻¹", "S(q)")
    assert words.curve_axes("exafs", "1") == ("k / Å⁻¹", "χ(k)")
    assert words.curve_axes("exafs", "1/angstrom^2") == ("k / Å⁻¹", "k²χ(k) / Å⁻²")
    assert words.axis(words.symbol("C11"), "GPa") == "C₁₁ / GPa"
    assert words.axis("U", "eV/atom") == "U / (eV/atom)"
    assert words.symbol("C44 ambient") == "C₄₄ ambient"
    curves = [observable(name) for name in registered() if observable(name).grid_unit is not None]
    assert all(spec.symbol and spec.grid_symbol for spec in curves)


@pytest.mark.parametrize(
    ("value", "shown"), [(6700.4, "6700"), (0.01912, "0.0191"), (2.5e-9, "2.5e-09"), (1e9, "1e+09")]
)
def test_numbers(value: float, shown: str) -> None:
    assert words.number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(59.6, "60 s"), (5400, "90 min"), (12_000, "3 h 20 min"), (2e5, "2 d 7 h")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert costs.duration(seconds) == shown


def figures() -> list[page_plots.Plot]:
    scalars = {label: {"before": item, "after": item} for label, item in state_points(-14.0)["ambient"].items()}
    report = {**validation(0.5, 0.9), "state_points": {"ambient": scalars}}
    several = page_plots.curves(validation(0.5, 0.9), {"ambient": "Ar, 85 K"})
    single = page_plots.pulls(report, {})
    assert single is not None
    return [*several, single, *page_plots.course(snapshot())]


def test_plotly_takes_every_figure() -> None:
    found = figures()
    assert len({plot.name for plot in found}) == len(found)
    for plot in found:
        go.Figure(plot.figure)  # refuses what it does not know


def test_a_curve_stands_with_both_errors_over_its_residuals() -> None:
    few = {when: {**curve(value), "grid": [1.0, 2.0]} for when, value in (("before", 0.5), ("after", 0.9))}
    for item in few.values():
        item.update({name: item[name][:2] for name in ("values", "errors", "experiment", "experiment_errors")})
        item["errors"] = [0.015] * 2
    (plot,) = page_plots.curves({"state_points": {"liquid": {"rdf": few}}}, {"liquid": "Ar, 85 K"})
    data = {(trace.get("name"), trace.get("yaxis", "y")): trace for trace in plot.figure["data"]}
    assert plot.title == "rdf, Ar, 85 K"
    assert data["experiment", "y"]["error_y"]["array"] == [0.02, 0.02]
    assert data["after", "y2"]["y"] == pytest.approx([-0.1 / 0.025] * 2)
    assert plot.figure["layout"]["xaxis"]["title"]["text"] == "r / Å"


def test_single_values_in_standard_errors() -> None:
    scalars = {"stiffness": {"after": state_points(0.0)["ambient"]["stiffness"]}}
    plot = page_plots.pulls({"state_points": {"ambient": scalars}}, {})
    assert plot is not None
    (after,) = plot.figure["data"]
    assert dict(zip(after["y"], after["text"], strict=True))["C₁₁"] == "-25 σ"  # 79 GPa, of errors 3 and 1


def test_colours_are_those_of_the_style_sheet() -> None:
    from importlib.resources import files

    sheet = files("aiida_difftre.cli").joinpath("templates/report.css").read_text(encoding="utf-8")
    light, dark = sheet.split("prefers-color-scheme: dark")

    def names(value: Any) -> set[str]:
        if isinstance(value, dict | list):
            return set().union(*map(names, value.values() if isinstance(value, dict) else value), set())
        return {value[6:-1]} if isinstance(value, str) and value.startswith("var(--") else set()

    used = names([plot.figure for plot in figures()])
    assert {"ink", "after", "before", "experiment"} <= used
    for name in used:
        assert f"{name}:" in light, name
        assert f"{name}:" in dark, name
