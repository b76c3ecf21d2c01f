"""The pictures of a run on a terminal and in a log."""

import math
from typing import Any

import pytest

from aiida_difftre.cli import live, plots, report
from aiida_difftre.cli.look import Look
from aiida_difftre.cli.snapshots import Iteration, Progress, Snapshot, StatePoint
from aiida_difftre.engine.contract.results import StatePointStep, UpdateStep

STATIONARITY = {"stationary": True, "equilibration": 0.0, "drift": {}, "r_hat": {}, "independent_samples": 9.0}


def comparison(observable: str, labels: list[str], values: list[float], experiment: list[float]) -> dict[str, Any]:
    return {
        "observable": observable, "labels": labels, "unit": "GPa", "role": "training", "weight": 1.0,
        "experiment": experiment, "experiment_errors": [1.0] * len(values), "values": values,
        "errors": [3.0] * len(values), "chi2": 2.0,
    }  # fmt: skip


def curve(value: float) -> dict[str, Any]:
    """A measured curve of 300 points that is 1 everywhere, and a simulated one."""
    made = comparison("rdf", [], [value] * 300, [1.0] * 300)
    return {**made, "unit": "1", "grid": [0.05 + 0.1 * n for n in range(300)], "experiment_errors": [0.02] * 300}


def state_points(pressure: float) -> dict[str, Any]:
    stress = [-pressure] * 3 + [0.0] * 3
    return {
        "ambient": {
            "stress": comparison("stress", ["xx", "yy", "zz", "yz", "xz", "xy"], stress, [0.0] * 6),
            "stiffness": comparison("stiffness", ["C11", "C12", "C44"], [1000.0, 90.0, 550.0], [1079.0, 124.0, 578.0]),
            "rdf": curve(1.0 + pressure / 100),
        }
    }


def step(loss: float, fraction: float, pressure: float) -> UpdateStep:
    predictions = {"stress": [-pressure] * 3 + [0.0] * 3, "stiffness": [1000.0, 90.0, 550.0]}
    point = StatePointStep(n_eff_entropy=1.0, n_eff_kish=1.0, predictions=predictions)
    return UpdateStep(step=0, loss=loss, chi2=loss, n_eff_fraction=fraction, state_points={"ambient": point})


def snapshot(**changes: Any) -> Snapshot:
    steps = [step(100.0, 1.0, -14.0), step(50.0, 0.8, -7.0)]
    chi2 = {"training": 2.0, "selection": None, "test": None, "criterion": "training"}
    content: dict[str, Any] = {
        "pk": 7, "title": "diamond", "state": "waiting", "message": "", "labels": (13, 1, 50),
        "pretraining": {"force": (82.0, "meV/Å")},
        "iterations": [
            Iteration(0, chi2, state_points(-14.0), steps),
            Iteration(1, chi2, state_points(99.0), steps, discarded=True),
            Iteration(2, chi2, state_points(-1.0), []),
        ],
        "running": [Progress("sample 001 ambient", "production", 3, 50, {"temperature": 298.0})],
        "report": None, "reference": None,
    }  # fmt: skip
    return Snapshot(**{**content, **changes})


def test_densities_have_no_powers() -> None:
    assert live.with_error(10853.2, 7.3) == "10853 ± 7.3"
    assert live.with_error(-1.23456e-3, math.nan) == "-0.001235"
    assert live.plain(1.5e7) == "1.5e+07"


def test_stress_is_shown_as_pressure_and_curves_as_chi2() -> None:
    found = live.quantities(snapshot().iterations[0])
    assert list(found) == ["P", "C11", "C12", "C44", "chi² rdf", "rms rdf"]
    assert found["chi² rdf"][0::2] == (2.0, 1.0)
    assert found["rms rdf"][0::2] == (pytest.approx(0.14), pytest.approx(0.02))
    value, error, experiment, unit = found["P"]
    assert (value, error, experiment, unit) == (-14.0, pytest.approx(3.0), 0.0, "GPa")


def test_lines() -> None:
    text = live.lines(snapshot())
    assert text[0] == "diamond <7>: running"
    assert "DFT labels: 13/50, 1 failed" in text
    assert "pretraining: force 82 meV/Å" in text
    assert "sample 001 ambient: production 3/50, temperature 298" in text
    assert any(line.startswith("iteration 1 (rolled back)") for line in text)
    assert any("chi² rdf 2, rms rdf 0.14;" in line for line in text), "300 points in two numbers"
    log = live.lines(snapshot(), is_log=True)
    assert not any("DFT" in line or "production" in line for line in log)
    assert "DFT labels: 50/50" in live.lines(snapshot(labels=(50, 0, 50)), is_log=True)


def test_the_criterion_is_named() -> None:
    chi2 = {"training": 3.43, "selection": 4.06, "test": None, "criterion": "selection"}
    told = "the best is iteration 1, by selection targets: training chi² 3.43, lowest 0.84 at iteration 4"
    shown = snapshot(
        iterations=[Iteration(1, chi2, state_points(-14.0), [])], selection=told, report=validation(0.5, 0.9)
    )
    assert live.lines(shown)[-2] == told
    assert any("chi² 3.43 (selection 4.06), P" in line for line in live.lines(shown))
    assert report.notes(shown)[0] == told


def test_picture_holds_everything() -> None:
    from rich.console import Console

    console = Console(width=200, record=True)
    console.print(live.picture(snapshot()))
    text = console.export_text()
    assert "nan" not in text
    for expected in ("diamond", "13/50", "(1079)", "-14 ± 3", "80 %", "0.14"):
        assert expected in text


def test_reweighted_quantities_follow_the_steps_but_for_curves() -> None:
    first, _, last = snapshot().iterations
    assert live.reweighted(first) == {"P": [-14.0, -7.0], "C11": [1000.0] * 2, "C12": [90.0] * 2, "C44": [550.0] * 2}
    assert live.reweighted(last) == {}


def test_plots_leave_out_what_was_rolled_back(tmp_path: Any) -> None:
    assert [iteration.number for iteration in plots.kept(snapshot())] == [0, 2]
    assert len(plots.plot(snapshot(), tmp_path)) == 3
    with pytest.raises(ValueError, match="no iteration to plot"):
        plots.plot(snapshot(iterations=[]), tmp_path)


def validation(before: float, after: float) -> dict[str, Any]:
    compared = {"before": curve(before), "after": curve(after)}
    return {"state_points": {"ambient": {"rdf": compared}}, "chi2": {}, "dataset": {}, "static": {}}


def test_curves_come_from_the_validation_or_from_the_iterations() -> None:
    found = plots.curves(snapshot())
    assert list(found) == ["pretrained on DFT", "iteration 2"]
    assert list(found["iteration 2"]["ambient"]) == ["rdf"]
    assert found["iteration 2"]["ambient"]["rdf"]["values"][0] == pytest.approx(0.99)
    found = plots.curves(snapshot(report=validation(0.5, 0.9), pretraining=None))
    assert {name: points["ambient"]["rdf"]["values"][0] for name, points in found.items()} == {
        "before": 0.5, "refined": 0.9,
    }  # fmt: skip
    without = {"ambient": {"stress": state_points(0.0)["ambient"]["stress"]}}
    assert plots.curves(snapshot(iterations=[Iteration(0, {"training": 1.0}, without, [])])) == {}


def test_curves_of_a_validation_alone(tmp_path: Any) -> None:
    (drawn,) = plots.plot(snapshot(iterations=[], report=validation(0.5, 0.9)), tmp_path)
    assert drawn.name == "difftre-7-curves.png"
    assert drawn.stat().st_size > 10_000


def drawn(monkeypatch: pytest.MonkeyPatch, made: Snapshot, folder: Any, look: Look | None = None) -> list[Any]:
    """The axes of each figure of a run."""
    figures: list[Any] = []
    save = Look.save

    def remember(look: Look, figure: Any, *args: Any) -> Any:
        figures.append([axis for axis in figure.axes if axis.get_visible()])
        return save(look, figure, *args)

    monkeypatch.setattr(Look, "save", remember)
    plots.plot(made, folder, look)
    return figures


def test_axes_hold_every_curve(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    point = StatePoint("Ar", 108, 85.0, None, 1409.6)
    made = snapshot(iterations=[], report=validation(0.5, 0.9), state_points={"ambient": point})
    ((axis,),) = drawn(monkeypatch, made, tmp_path)
    assert [line.get_label() for line in axis.lines] == ["experiment", "pretrained on DFT, χ² 2", "refined, χ² 2"]
    assert [line.get_ydata()[0] for line in axis.lines] == [1.0, 0.5, 0.9]
    assert len(axis.collections) == 3, "a band of errors for each"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("r / Å", "g(r)")
    assert axis.get_legend().get_title().get_text() == "Ar, 85 K"
    assert axis.get_title() == ""


def test_observables_show_symbols_and_the_error_of_the_experiment(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = StatePoint("C", 64, 298.15, None, 3512.0)
    figures = drawn(monkeypatch, snapshot(state_points={"ambient": point}), tmp_path, Look(columns=1))
    _, observables, _ = figures
    assert observables[1].get_ylabel() == "C₁₁ / GPa"
    legend = observables[0].get_legend()
    assert legend.get_title().get_text() == "C, 298.15 K"
    assert {text.get_text() for text in legend.get_texts()} == {"experiment", "reweighted", "fresh trajectory"}
    (band,) = observables[1].patches
    assert band.get_y() == 1078.0
    assert band.get_height() == pytest.approx(2.0)


@pytest.mark.parametrize(("form", "begin"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_formats_and_widths(tmp_path: Any, form: Any, begin: bytes) -> None:
    style = tmp_path / "large.mplstyle"
    style.write_text("# larger\nfont.size: 14\nlegend.frameon: True\n")
    (path,) = plots.plot(snapshot(iterations=[], report=validation(0.5, 0.9)), tmp_path, Look(form, 1, style))
    assert path.suffix == f".{form}"
    assert path.read_bytes().startswith(begin)
    if form == "svg":
        assert 'width="244' in path.read_text(encoding="utf-8"), "8.6 cm in points"


@pytest.mark.parametrize(
    ("line", "message"),
    [("font.sise: 3", "line 1.*'font.sise' is no setting"), ("font.size: big", "line 1.*this value")],
)
def test_a_style_that_is_none(tmp_path: Any, line: str, message: str) -> None:
    style = tmp_path / "my.mplstyle"
    style.write_text(line)
    with pytest.raises(ValueError, match=message):
        plots.plot(snapshot(), tmp_path, Look(style=style))


def test_report_summarises_curves() -> None:
    table = report.text_table(snapshot(report=validation(0.5, 0.9)))
    assert len(table) == 3
    assert [cell.strip() for cell in table[1].split("|")] == ["chi² rdf", "1", "2", "2"]
    assert [cell.strip() for cell in table[2].split("|")] == ["rms rdf", "0.02", "0.5", "0.1"]


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (1079.0, 12.0, "1079 ± 12"),
        (-14.0, 3.0, "-14.0 ± 3.0"),
        (6.93e-5, 1.2e-6, "6.93e-05 ± 1.2e-06"),
        (-0.058493, 7.8e-5, "-0.05849 ± 0.00008"),
        (12.25, 1.2e-5, "12.25 ± 1.2e-05"),
    ],
)
def test_numbers_keep_their_digits(value: float, error: float, expected: str) -> None:
    assert report._number(value, error) == expected


def test_report_puts_everything_side_by_side() -> None:
    points = {
        point: {label: {"before": item, "after": item} for label, item in targets.items()}
        for point, targets in state_points(-14.0).items()
    }
    item = points["ambient"]["stress"]["after"]
    more = {"fitted": {"s02": 0.84, "e0_shift": 6.6}, "effective_samples": 87.65}
    points["ambient"]["stress"]["after"] = {**item, **more}
    content = {
        "chi2": {
            "before": {"training": 9.0, "held_out": 8.0},
            "after": {"training": 2.0, "selection": 3.0, "test": 4.0},
        },
        "state_points": points,
        "stationarity": {
            "before": {"ambient": {**STATIONARITY, "warning": None}},
            "after": {"ambient": {**STATIONARITY, "warning": "it drifts"}},
        },
        "dataset": {"after": {"force_rmse": 82.0}},
        "static": {},
    }
    reference = {"stress": [15.1, 15.1, 15.1, 0, 0, 0], "stiffness": {"C11": 1023.0, "C12": 95.0, "C44": 552.0}}
    made = snapshot(report=content, reference=reference)
    table = report.text_table(made)
    assert [cell.strip() for cell in table[1].split("|")] == ["P / GPa", "0", "-15.1", "-14.0 ± 3.0", "-14.0 ± 3.0"]
    notes = "\n".join(report.notes(made))
    for expected in (
        "chi² before: training 9, held out 8",
        "chi² after: training 2, selection 3, test 4",
        "fitted with stress of ambient, after: s02 0.84, e0_shift 6.6",
        "independent snapshots at ambient: 87.7 after",
        "ambient, after: it drifts",
        "force 82 meV/Å",
        "static DFT as labelled: P -15.1 GPa, C11 1023.0 GPa",
    ):
        assert expected in notes
    with pytest.raises(ValueError, match="no validation report"):
        report.table(snapshot())


def test_dft_is_shown_where_its_cell_has_the_density_of_the_state_point() -> None:
    targets = {"stress": {"after": state_points(-14.0)["ambient"]["stress"]}}
    content = {"state_points": {"ambient": targets, "dense": targets}}
    dft = {"stress": [15.1] * 3 + [0.0] * 3, "stiffness": {}, "density": 3510.0}
    rows = report.table_rows(content, dft, {"ambient": 3512.0, "dense": 3600.0})
    assert [row.reference for row in rows] == ["-15.1", report.MISSING]
