"""Targets from tables: units, errors, conversion against the transform, and every refusal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.observables.filters import fourier_filter
from aiida_difftre.engine.observables.scattering import rdf_from_structure_factor
from aiida_difftre.engine.tables.readings import Reading
from aiida_difftre.engine.tables.target import target_from_table

FIELDS: dict[str, Any] = {"observable": "rdf", "conditions": {"temperature": 85.0}, "citation": "nobody"}
STIFFNESS = {**FIELDS, "observable": "stiffness"}


def make(tmp_path: Path, text: str, fields: dict[str, Any] | None = None, **reading: Any) -> Target:
    path = tmp_path / "table.csv"
    path.write_text(text)
    return target_from_table(path, Reading(**reading), **(fields or FIELDS))


def curve(**columns: Any) -> str:
    rows = np.array(list(columns.values())).T
    return ",".join(columns) + "\n" + "\n".join(",".join(f"{x:.8g}" for x in row) for row in rows)


R = np.linspace(0.05, 10, 200)
TABLE = curve(r=R / 10, g=1 - np.exp(-R), sigma=0.02 + 0 * R)


def test_units_names_and_source(tmp_path: Path) -> None:
    target = make(
        tmp_path, TABLE, columns={"r": "r", "G": "g", "error": "sigma"}, units={"r": "nm"}, grid=(0.5, 9.5, 30)
    )
    assert target.grid is not None
    np.testing.assert_allclose(target.grid, 0.65 + 0.3 * np.arange(30))
    edges = 0.5 + 0.3 * np.arange(31)
    exact = 1 - np.diff(-np.exp(-edges) * (edges**2 + 2 * edges + 2)) / np.diff(edges**3 / 3)
    np.testing.assert_allclose(target.values, exact, atol=1e-4)
    # Six points in a bin, the outer ones half.
    np.testing.assert_allclose(target.errors, 0.02 / np.sqrt(6), rtol=0.05)
    assert target.error_source == "measured"
    assert target.source is not None
    assert target.source.file == "table.csv"
    assert "nm to angstrom" in target.source.processing
    assert "30 bins" in target.source.processing


def test_points_of_the_table_where_no_grid_is_given(tmp_path: Path) -> None:
    target = make(tmp_path, TABLE, units={"r": "nm"}, error="2%+0.01")
    np.testing.assert_allclose(target.grid, R)
    np.testing.assert_allclose(target.errors, np.hypot(0.02 * (1 - np.exp(-R)), 0.01), rtol=1e-3)
    assert target.error_source == "assumed"


def test_percent_errors(tmp_path: Path) -> None:
    text = curve(r=1 + R, g=1 + 0 * R, percent=5 + 0 * R)
    target = make(tmp_path, text, columns={"error": "percent"}, units={"error": "%"})
    np.testing.assert_allclose(target.errors, 0.05)


def test_assumed_errors_of_points_propagate_and_those_of_the_target_do_not(tmp_path: Path) -> None:
    grid = (0.5, 9.5, 30)
    of_points = make(tmp_path, TABLE, units={"r": "nm"}, point_error="0.02", grid=grid)
    np.testing.assert_allclose(of_points.errors, 0.02 / np.sqrt(6), rtol=0.05)
    assert of_points.error_source == "assumed"
    common = make(tmp_path, TABLE, units={"r": "nm"}, point_error="0.02", correlated=True, grid=grid)
    np.testing.assert_allclose(common.errors, 0.02, rtol=1e-3)
    of_target = make(tmp_path, TABLE, units={"r": "nm"}, error="0.02", grid=grid)
    np.testing.assert_allclose(of_target.errors, 0.02)
    both = make(
        tmp_path, TABLE, columns={"error": "sigma"}, units={"r": "nm"}, error="0.02", correlated=True, grid=grid
    )
    np.testing.assert_allclose(both.errors, 0.02 * np.sqrt(2), rtol=1e-3)


def test_narrow_bins_are_said_to_be_interpolated(tmp_path: Path) -> None:
    target = make(tmp_path, TABLE, units={"r": "nm"}, error="0.02", grid=(0.05, 9.95, 990))
    assert target.source is not None
    assert "bins narrower than the distance of the points: monotone interpolation" in target.source.processing


def test_a_row_of_components(tmp_path: Path) -> None:
    text = "T,C11,C12,C44,e\n300,1600,900,460,10\n600,1400,970,400,10\n"
    columns = {"C11": "C11", "C12": "C12", "C44": "C44"}
    target = make(tmp_path, text, STIFFNESS, columns=columns, rows={"T": "600"}, units={"value": "kbar"}, error="1%")
    assert target.values == [140.0, 97.0, 40.0]
    assert target.errors == [1.4, 0.97, 0.4]
    errors = {f"{name}_error": "e" for name in columns}
    target = make(tmp_path, text, STIFFNESS, columns={**columns, **errors}, rows={"T": "300"})
    assert target.errors == [10.0, 10.0, 10.0]
    assert target.error_source == "measured"


def test_conversion_of_a_structure_factor(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    q = np.arange(0.05, 12, 0.05)
    sigma = 0.01 + 0.01 * np.exp(-q)
    s = 1 + 0.3 * np.exp(-((q - 2) ** 2) / 0.1) - 0.3 * np.exp(-q)
    reading: dict[str, Any] = {"convert": True, "number_density": 0.02, "grid": (2.0, 10.0, 80), "window": "none"}
    target = make(tmp_path, curve(q=q, S=s, e=sigma), columns={"error": "e"}, **reading)
    grid = np.array(target.grid)
    np.testing.assert_allclose(target.values, rdf_from_structure_factor(q, s, grid, 0.02, "none"), atol=4e-3)
    noisy = [rdf_from_structure_factor(q, s + sigma * rng.normal(size=q.size), grid, 0.02, "none") for _ in range(600)]
    np.testing.assert_allclose(target.errors, np.std(noisy, axis=0), rtol=0.15)
    for missing, message in (({"grid": None}, "needs a grid"), ({"number_density": None}, "needs the number density")):
        with pytest.raises(ValueError, match=f"a conversion {message}"):
            make(tmp_path, curve(q=q, S=s, e=sigma), columns={"error": "e"}, **{**reading, **missing})
    with pytest.raises(ValueError, match="errors of a table that is converted must be independent"):
        make(tmp_path, curve(q=q, S=s, e=sigma), columns={"error": "e"}, correlated=True, **reading)
    with pytest.raises(ValueError, match="errors of a table that is converted must be independent"):
        make(tmp_path, curve(q=q, S=s, e=sigma), columns={"error": "e"}, correlation_length="0.2", **reading)
    with pytest.raises(ValueError, match="C11, C12, C44: it knows no correlated errors"):
        make(tmp_path, TABLE, STIFFNESS, correlation_length="0.2")
    with pytest.raises(ValueError, match="observable 'stiffness' has values C11, C12, C44: it knows no conversion"):
        make(tmp_path, TABLE, STIFFNESS, convert=True)


def test_bins_of_a_structure_factor_are_those_of_its_method(tmp_path: Path) -> None:
    """Wave vectors fill a bin as its shell; a transform is computed at the points."""
    q = np.arange(0.5, 5.0, 0.01)
    s = 1 + 0.3 * q + np.sin(3 * q)
    fine = np.linspace(1, 4, 6001)
    fine = ((fine[1:] + fine[:-1]) / 2).reshape(6, -1)
    exact = 1 + 0.3 * fine + np.sin(3 * fine)
    for method, weights in (("direct", fine**2), ("transform", np.ones_like(fine))):
        fields = {**FIELDS, "observable": "structure_factor", "options": {"method": method}}
        target = make(tmp_path, curve(q=q, S=s), fields, grid=(1.0, 4.0, 6), error="0.01")
        np.testing.assert_allclose(target.values, (weights * exact).sum(1) / weights.sum(1), atol=1e-5)
    with pytest.raises(ValueError, match="reach beyond the data"):
        make(tmp_path, curve(q=q, S=s - s[0]), fields, grid=(0.2, 4.2, 20), error="0.01")


@pytest.mark.parametrize(
    ("text", "reading", "message"),
    [
        ("0.1,1\n0.3,1\n0.2,1\n0.4,1\n", {"error": "1"}, "table.csv: line 3: grid 0.2 is below 0.3 before it; sort"),
        ("r,g\n0.1,1\n0.2,1\n0.2,1\n0.4,1\n", {"error": "1"}, "table.csv: line 4: grid 0.2 repeats 0.2 before it"),
        ("-0.1,1\n0.2,1\n0.3,1\n0.4,1\n", {"error": "1"}, "line 1: grid -0.1 is negative"),
        ("0.1,1\n0.2,1\n0.3,1\n", {"error": "1"}, "it has 3 points where at least 4 are needed"),
        ("0.1,1\n0.2,nan\n0.3,1\n0.4,1\n", {"error": "1"}, r"line 2, column 2 \(value\) is nan"),
        (
            curve(r=R, g=1 - np.exp(-R)),
            {},
            "no errors; name their column, as in --columns error=3, or assume one: --error 0.02",
        ),
        (TABLE, {"error": "-1"}, "assumed error '-1' is negative"),
        (TABLE, {"error": "small"}, "'small' is no quantity"),
        (
            TABLE,
            {"error": "0"},
            r"value .* at index 0 \(0.005\) has no error, nor have 199 others; assume an absolute one too",
        ),
        ("1,0,0\n2,1,-1\n3,1,1\n4,1,1\n", {"columns": {"error": "3"}}, "table.csv, line 2: error -1 is negative"),
        (
            TABLE,
            {"error": "1", "columns": {"h": "1"}},
            "column 'h' of a curve is unknown; choose grid, value and error",
        ),
        (TABLE, {"error": "1", "columns": {"g": "h"}}, "no column 'h'; there are 3 columns, called r, g, sigma"),
        (TABLE, {"error": "1", "units": {"r": "GPa"}}, "unit 'GPa' does not convert to 'angstrom'"),
        (TABLE, {"error": "1", "units": {"error": "%"}}, "a unit is given for 'error', which is no column"),
        (TABLE, {"error": "1", "grid": (0.1, 20.0, 10)}, "bins from 0.1 to 20 reach beyond the data"),
        (
            TABLE,
            {"point_error": "1", "columns": {"error": "3"}},
            "an error of each point is assumed, and column '3' has",
        ),
    ],
)
def test_curves_refused(tmp_path: Path, text: str, reading: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, text, **reading)


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ({}, "no column is given for C11, C12, C44 of 'stiffness'; name it as in --columns C11=COLUMN"),
        ({"columns": {"C33": "1"}}, "column 'C33' is none of C11, C12, C44, C11_error"),
        ({"columns": {"C11": "2", "C12": "3", "C44": "4"}}, "table.csv has 2 rows; choose one"),
        ({"columns": {"C11": "2", "C12": "3", "C44": "4", "C11_error": "5"}, "rows": {"T": "300"}}, "C11_error alone"),
        ({"grid": (0.0, 1.0, 5)}, "it knows no grid"),
    ],
)
def test_rows_refused(tmp_path: Path, reading: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, "T,a,b,c,d\n300,1,2,3,4\n400,1,2,3,4\n", STIFFNESS, **{"error": "1", **reading})


def test_problems_of_the_target_itself_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"table\.csv: conditions\.temperature.*above 0"):
        make(tmp_path, TABLE, {**FIELDS, "conditions": {"temperature": 0.0}}, error="1")
    with pytest.raises(ValueError, match="unknown observable 'rfd'"):
        make(tmp_path, TABLE, {**FIELDS, "observable": "rfd"}, error="1")


SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the measured tables beside the project")
def test_measured_structure_factor_gives_the_published_rdf() -> None:
    grid = (3.3, 20.0, 240)
    reading = Reading(point_error="1%", convert=True, number_density=0.02125, grid=grid, window="none")
    target = target_from_table(SHARED / "argon_yarnell1973_sq_85K.dat", reading, **FIELDS)
    published = target_from_table(SHARED / "argon_yarnell1973_gr_85K.csv", Reading(error="1", grid=grid), **FIELDS)
    difference = np.array(target.values) - np.array(published.values)
    assert np.sqrt(np.mean(difference**2)) < 2e-3


K = np.arange(0, 16.01, 0.05)
CHI = np.sin(5 * K) * np.exp(-0.02 * K**2) + 0.2 * np.sin(9 * K)
EXAFS: dict[str, Any] = {
    **FIELDS, "observable": "exafs", "options": {"absorber": "Cu", "k_weight": 2, "r_range": [1.0, 3.5]}
}  # fmt: skip


def test_fine_structure_is_weighted_and_filtered(tmp_path: Path) -> None:
    """However the table is weighted; errors of the points go through the filter as independent ones."""
    inside = slice(60, 261)
    matrix = fourier_filter(K[inside], (1.0, 3.5), 1.0, 0.5)
    expected = matrix @ (K**2 * CHI)[inside]
    for unit, power in (("1", 0), ("1/A", 1), ("Å^-2", 2)):
        text = curve(k=K, chi=CHI * K**power, sigma=0.01 + 0 * K)
        target = make(
            tmp_path, text, EXAFS, columns={"error": "sigma"}, units={"chi": unit, "error": "1"} if not power else
            {"chi": unit}, between=(3.0, 13.0),
        )  # fmt: skip
        np.testing.assert_allclose(target.values, expected, atol=1e-4 * np.abs(expected).max())
        spread = np.sqrt(matrix**2 @ (0.01 * K ** (2 - power))[inside] ** 2)
        np.testing.assert_allclose(target.errors, spread, rtol=1e-3)
    assert target.grid == pytest.approx(K[inside])
    assert target.source is not None
    assert "201 points from 3 to 13 1/angstrom; Fourier filtered from 1 to 3.5 Å" in target.source.processing
    assumed = make(tmp_path, curve(k=K, chi=CHI), EXAFS, units={"chi": "1"}, point_error="0.01", between=(3.0, 13.0))
    np.testing.assert_allclose(assumed.errors, np.sqrt(matrix**2 @ (0.01 * K**2)[inside] ** 2), rtol=1e-3)
    assert "multiplied by the power 2 of the grid" in assumed.source.processing  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (
            {"between": (3.0, 13.0)},
            r"say what the values are.* 1 where they still .* 1/angstrom\^2 where they have been",
        ),
        ({"units": {"chi": "GPa"}}, "unit 'GPa' of the values is none of 1, 1/angstrom"),
        (
            {"units": {"chi": "1"}, "between": (3.0, 18.0)},
            "points from 3 to 18 are asked for; the data go from 0 to 16",
        ),
        ({"units": {"chi": "1"}, "between": (3.0, 13.0), "grid": (3, 13, 100)}, "either a grid of bins or the range"),
        ({"units": {"chi": "1"}, "between": (3.0, 13.0), "correlated": True}, "filtered must be independent"),
    ],
)
def test_refused_fine_structure(tmp_path: Path, reading: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, curve(k=K, chi=CHI), EXAFS, point_error="0.01", **reading)


@pytest.mark.parametrize(
    ("text", "values", "errors"),
    [
        ("T,C11,C12,C44,C11_error,C12_error,C44_error\n300,1079,124,578,5,4,2\n", [1079, 124, 578], [5, 4, 2]),
        ("c44 (GPa);c11 (GPa);c12 (GPa);dC11;dC12;dC44\n578;1079;124;5;4;2\n", [1079, 124, 578], [5, 4, 2]),
        ("C11,C12,C44\n1079,124,578\n", [1079, 124, 578], [10.79, 1.24, 5.78]),
    ],
)
def test_columns_that_are_called_what_they_hold(
    tmp_path: Path, text: str, values: list[float], errors: list[float]
) -> None:
    target = make(tmp_path, text, STIFFNESS, **({} if "d" in text or "_" in text else {"error": "1%"}))
    assert (target.values, target.errors) == (values, errors)
    assert target.source is not None
    assert "columns by their names: C11=" in target.source.processing
    assert target.error_source == ("assumed" if errors[0] > 10 else "measured")


def test_columns_of_a_single_value_and_of_errors_of_a_curve(tmp_path: Path) -> None:
    density = {**FIELDS, "observable": "density"}
    target = make(tmp_path, "T,density,error\n85,1410,2\n", density)
    assert (target.values, target.errors) == ([1410.0], [2.0])
    curve_of_errors = make(tmp_path, TABLE, units={"r": "nm"})
    np.testing.assert_allclose(curve_of_errors.errors, 0.02)
    assert curve_of_errors.source is not None
    assert "errors from the column sigma" in curve_of_errors.source.processing


@pytest.mark.parametrize(
    ("text", "reading", "message"),
    [
        ("C11,C12,c44,c44\n1,2,3,4\n", {"error": "1%"}, "no column is given for C11"),
        ("C11,C12\n1,2\n", {"error": "1%"}, "no column is given for C11"),
        ("C11 (kbar),C12,C44\n1,2,3\n", {"error": "1%"}, r"'C11 \(kbar\)' says kbar; say --units C11=kbar, or C11=GPa"),
        ("T,C11,C12,C44\n300,1,2,3\n500,1,2,3\n", {"error": "1%"}, "has 2 rows; .*, as in --row T=300"),
        ("C11,C12,C44,C11_error\n1,2,3,1\n", {}, "no errors; name their column"),
    ],
)
def test_names_that_leave_something_open(tmp_path: Path, text: str, reading: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, text, STIFFNESS, **reading)
