"""Curves in another normalisation or unit: refused with the conversion that fits, which then gives the right curve."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.tables.readings import Reading
from aiida_difftre.engine.tables.target import target_from_table

DENSITY = 0.02125
R = np.arange(0.05, 15, 0.05)
G = (R > 3) * (1 + 2 * np.exp(-2 * (R - 3.7) ** 2) - 0.4 * np.exp(-2 * (R - 5.3) ** 2))
Q = np.arange(0.05, 12, 0.05)
S = 1 - np.exp(-(Q**2)) + 1.5 * np.exp(-8 * (Q - 2) ** 2)
THETA = np.arange(0.5, 180, 1.0)
K = np.arange(2.0, 14, 0.05)
CONDITIONS: dict[str, Any] = {"conditions": {"temperature": 85.0}, "citation": "nobody"}
IN_RDF = {
    "G": (4 * np.pi * R * DENSITY * (G - 1), {"number_density": DENSITY}),
    "g-1": (G - 1, {}),
    "R": (4 * np.pi * R**2 * DENSITY * G, {"number_density": DENSITY}),
    "T": (4 * np.pi * R * DENSITY * G, {"number_density": DENSITY}),
    "g": (G, {}),
}
# Bound coherent lengths of D and O: 6.671 (as of 1992 6.67) and 5.803 fm.
MEAN, SQUARE = ((2 * 6.67 + 5.803) / 3) ** 2 / 100, (2 * 6.67**2 + 5.803**2) / 300
IN_S = {
    "S-1": (S - 1, {}),
    "Q(S-1)": (Q * (S - 1), {}),
    "F": (MEAN * (S - 1), {"composition": "D2O"}),
    "DCS": (MEAN * (S - 1) + SQUARE, {"composition": "D2O"}),
    "S": (S, {}),
}


def fields(
    observable: str, grid: np.ndarray, values: np.ndarray, error: float = 0.02, **options: Any
) -> dict[str, Any]:
    units = {"adf": "1/rad"}
    return {
        **CONDITIONS, "observable": observable, "options": options, "grid": grid.tolist(), "values": values.tolist(),
        "errors": [error] * len(grid), "unit": units.get(observable, "1"),
    }  # fmt: skip


def made(tmp_path: Path, x: np.ndarray, y: np.ndarray, observable: str, head: str = "", **reading: Any) -> Target:
    path = tmp_path / "curve.dat"
    np.savetxt(path, np.stack([x, y], 1), fmt="%.9g", header=head, comments="")
    options = reading.pop("options", {})
    return target_from_table(
        path, Reading(**{"error": "0.02", **reading}), observable=observable, options=options, **CONDITIONS
    )


@pytest.mark.parametrize("quantity", IN_RDF)
def test_quantities_become_the_radial_distribution_function(tmp_path: Path, quantity: str) -> None:
    values, constants = IN_RDF[quantity]
    target = made(tmp_path, R, values, "rdf", quantity=quantity, **constants)
    np.testing.assert_allclose(target.values, G, atol=1e-5)
    assert target.source is not None
    assert ("ρ = 0.02125 1/Å³" in target.source.processing) == (quantity in "GRT")


@pytest.mark.parametrize("quantity", IN_S)
def test_quantities_become_the_structure_factor(tmp_path: Path, quantity: str) -> None:
    values, constants = IN_S[quantity]
    target = made(tmp_path, Q, values, "structure_factor", quantity=quantity, **constants)
    np.testing.assert_allclose(target.values, S, atol=2e-3)


def test_errors_of_points_are_converted_with_their_quantity(tmp_path: Path) -> None:
    values, _ = IN_RDF["G"]
    reading = {"quantity": "G", "number_density": DENSITY, "error": None, "point_error": "0.1"}
    target = made(tmp_path, R, values, "rdf", **reading)
    np.testing.assert_allclose(target.errors, 0.1 / (4 * np.pi * R * DENSITY), rtol=1e-3)
    # F in square femtometres: a hundredth of a barn.
    values, constants = IN_S["F"]
    units = {"value": "fm2"}
    target = made(tmp_path, Q, 100 * values, "structure_factor", quantity="F", units=units, **constants)
    np.testing.assert_allclose(target.values, S, atol=2e-3)


def test_a_point_at_zero_says_nothing_of_the_observable(tmp_path: Path) -> None:
    """PDFgetX3 writes G(0) = 0."""
    x = np.concatenate([[0.0], R])
    values = np.concatenate([[0.0], IN_RDF["G"][0]])
    head = "[DEFAULT]\nversion = pdfgetx3 2.0.0\nqmax = 24.0\n\n#### start data\n#S 1\n#L r($\\AA$)  G($\\AA^{-2}$)"
    target = made(tmp_path, x, values, "rdf", head, quantity="G", number_density=DENSITY)
    np.testing.assert_allclose(target.values, G, atol=1e-5)
    assert "left out the point at 0" in target.source.processing  # type: ignore[union-attr]


def test_a_quantity_of_what_is_transformed(tmp_path: Path) -> None:
    """F(q) to S(q) to g(r): the same as from S(q)."""
    grid = {"convert": True, "number_density": DENSITY, "grid": (3.0, 10.0, 70), "window": "none"}
    from_s = made(tmp_path, Q, S, "rdf", **grid)
    one = {"quantity": "F", "composition": "Ar"}
    length = 1.909
    from_f = made(tmp_path, Q, (S - 1) * length**2 / 100, "rdf", **grid, **one)
    np.testing.assert_allclose(from_f.values, from_s.values, atol=2e-3)


@pytest.mark.parametrize(
    ("observable", "x", "y", "message"),
    [
        ("rdf", R, IN_RDF["G"][0], "tend to .* at large r, where g.r. tends to 1: G.r. = .* --quantity G --number"),
        ("rdf", R, IN_RDF["g-1"][0], "where g.r. tends to 1: .* or --quantity g-1"),
        ("rdf", R, IN_RDF["R"][0], "reach .* at large r, where g.r. tends to 1: 4πr²ρg .* --quantity R or T"),
        ("rdf", R, IN_RDF["T"][0], "reach .* at large r"),
        ("rdf", R, 100 * G, "or say --units g=%"),
        ("rdf", R[:100], IN_RDF["G"][0][:100], r"is -\d\S*, and a density is not negative: G.r."),
        ("rdf", R, np.where(np.arange(R.size) == 70, -3, G), r"g\(3.55 Å\) is -3, and a density is not negative"),
        ("rdf", R, np.where(np.arange(R.size) == 70, 300, G), r"g\(3.55 Å\) is 300, above 100: counts"),
        ("rdf", R[R < 8] / 10, G[R < 8], r"ends at 0.795 Å, where no two atoms are: .* --units r=nm"),
        ("rdf", R / 10, G, r"has g = 1.\d+ at 0.305 Å, where no two atoms are: .* --units r=nm"),
        ("rdf", 100 * R, G, "rises above 0.5 at 305 Å first.* --units r=pm"),
        ("structure_factor", Q, IN_S["S-1"][0], "at large q, where S.q. tends to 1: S - 1, .* --quantity S-1"),
        ("structure_factor", Q, IN_S["Q(S-1)"][0], r"--quantity 'Q\(S-1\)'"),
        ("structure_factor", Q, IN_S["F"][0], "or --quantity F with --composition"),
        ("structure_factor", Q, 5 * S, "tend to 5 at large q, .*; a cross-section .* --quantity DCS"),
        ("structure_factor", 10 * Q, S, "is highest at 20 1/Å, which would be distances of 0.31 Å: .* --units q=1/nm"),
        ("adf", THETA, np.full(180, 1 / 180), "the integral 0.0175 over the angle, .* --units value=1/deg"),
        ("adf", THETA, np.full(180, 100.0), "have the integral 314 over the angle, and a probability has 1"),
        ("density_profile", np.arange(0.05, 1, 0.1), np.full(10, 20.0), "the integral 20 over the cell"),
        ("exafs", 1000 * K, np.sin(5 * K), "goes to 13950 1/Å: an absorption μ.E. over the energy"),
        ("exafs", K, 1 + 0.1 * np.sin(5 * K), "lie around .* and do not oscillate around 0"),
        ("exafs", K, K**3 * np.sin(5 * K), r"is -?\d\S*, and fine structure is less than 1: say with --units chi"),
    ],
)  # fmt: skip
def test_curves_of_any_origin_that_are_something_else(
    tmp_path: Path, observable: str, x: np.ndarray, y: np.ndarray, message: str
) -> None:
    """A target in an input and a table are held to the same."""
    options = {"adf": {"cutoff": 3.0}, "exafs": {"absorber": "Cu"}}.get(observable, {})
    with pytest.raises(ValueError, match=f"is no {observable}: .*{message}"):
        validate(Target, fields(observable, x, y, **options))
    with pytest.raises(ValueError, match=rf"^curve\.dat: .*{message}"):
        made(tmp_path, x, y, observable, options=options)


def test_large_errors_do_not_hide_another_quantity() -> None:
    with pytest.raises(ValueError, match="tends to 1"):
        validate(Target, fields("rdf", R, IN_RDF["G"][0], error=10.0))
    # A ripple of a quarter is one; a larger one is within its error, or is left out.
    validate(Target, fields("rdf", R, np.where(R < 0.1, -0.2, G)))
    validate(Target, fields("rdf", R, np.where(R < 0.1, -0.6, G), error=0.3))


@pytest.mark.parametrize(
    "values",
    [
        # A cold crystal, an intramolecular bond, a curve that ends in its first minimum, one that ends at its peak.
        np.where(np.abs(R % 2.5 - 1.25) < 0.1, 12.0, 0.0) * (R > 1),
        G + 30 * np.exp(-400 * (R - 0.96) ** 2),
    ],
)
def test_true_curves_pass(values: np.ndarray) -> None:
    validate(Target, fields("rdf", R, values))
    for end in (3.0, 4.0, 5.3):
        part = slice(int(end / 0.05))
        validate(Target, fields("rdf", R[part], values[part]))


def test_scattering_lengths_of_both_signs_have_wide_structure_factors() -> None:
    """H2O: <b²>/<b>² is 66, and S(q) far from 1 at small q."""
    validate(Target, fields("structure_factor", Q, 1 - 65 * np.sinc(Q / np.pi) ** 2))


def test_a_table_is_judged_as_a_whole_where_little_of_it_is_taken(tmp_path: Path) -> None:
    """Of G(r) near its first peak alone nobody could say."""
    with pytest.raises(ValueError, match="tends to 1"):
        made(tmp_path, R, IN_RDF["G"][0], "rdf", grid=(3.0, 5.0, 20))


@pytest.mark.parametrize(
    ("observable", "y", "reading", "message"),
    [
        ("rdf", G, {"quantity": "F"}, "quantity 'F' gives no rdf; choose one of g .*; G .g = 1 . G/.4πrρ"),
        ("rdf", IN_RDF["G"][0], {"quantity": "G"}, "needs the number density: give --number-density"),
        ("rdf", G, {"quantity": "g-1"}, "the values tend to 1, and g-1 tends to 0: is it --quantity g?"),
        ("rdf", G, {"number_density": 0.02}, "a number density is for --quantity and --convert"),
        ("rdf", G, {"window": "none"}, "a window is for the transform"),
        ("rdf", G, {"interpolation": "cubic"}, "an interpolation is for the bins of a grid"),
        ("rdf", G, {"composition": "SiO2"}, "a total g.r. of SiO2 weighs pairs by .* --option pair="),
        ("rdf", G, {"composition": "58NiO"}, "composition '58NiO' is no formula; give one such as SiO2, D2O"),
        ("rdf", G, {"composition": "Qq"}, "composition 'Qq' is no formula"),
        ("rdf", G, {"units": {"g": "barn"}}, "unit 'barn' does not convert to '1'.*--quantity F or DCS"),
        ("rdf", G, {"units": {"g": "1/A^2"}}, "does not convert to '1'.*--quantity G or T and --number-density"),
        ("rdf", G, {"units": {"r": "1/A"}}, "does not convert to 'angstrom'.*is read with --convert"),
        ("structure_factor", S, {"quantity": "F"}, "S = 1 . F/<b>² needs --composition, such as D2O"),
        ("structure_factor", S, {"quantity": "F", "options": {"radiation": "xray"}}, "is of neutrons"),
        (
            "structure_factor", S, {"quantity": "F", "composition": "Ti2.08Zr"},
            "the mean scattering length of Ti2.08Zr vanishes",
        ),
        (
            "structure_factor", S,
            {"quantity": "F", "composition": "Ar", "options": {"scattering_lengths": {"Kr": 1.0}}},
            "scattering_lengths names 'Kr'; Ar has Ar",
        ),
        ("pressure", S, {"quantity": "F", "columns": {"P": "2"}}, "it knows no quantity"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, observable: str, y: np.ndarray, reading: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(tmp_path, R[: len(y)] if observable == "rdf" else Q, y, observable, **reading)


def test_names_of_columns_that_state_a_unit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the name of column '1' says nm; say --units grid=nm, or grid=angstrom"):
        made(tmp_path, R / 10, G, "rdf", "r(nm) g(r)")
    target = made(tmp_path, R / 10, G, "rdf", "r(nm) g(r)", units={"r": "nm"})
    np.testing.assert_allclose(target.values, G, atol=1e-5)


def test_density_and_composition_give_the_number_density(tmp_path: Path) -> None:
    path = tmp_path / "G.dat"
    np.savetxt(path, np.stack([R, IN_RDF["G"][0]], 1))
    conditions = {"temperature": 85.0, "density": 1409.6}
    given = {"observable": "rdf", "citation": "nobody", "conditions": conditions}
    target = target_from_table(path, Reading(quantity="G", composition="Ar", error="0.02"), **given)
    np.testing.assert_allclose(target.values, G, atol=2e-3)
    with pytest.raises(ValueError, match=r"number density 0.03 1/Å³ contradicts 1409.6 kg/m³ of Ar, which is 0.02125"):
        target_from_table(path, Reading(quantity="G", composition="Ar", number_density=0.03, error="0.02"), **given)


def test_points_without_an_error_and_rows_of_zeros_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "g.csv"
    rows = [f"{r:.2f},{g:.5f},{0.02 if r > 3 else 0}" for r, g in zip(R, G, strict=True)] + ["0,0,0"] * 3
    path.write_text("r,g,error\n" + "\n".join(rows))
    given = {"observable": "rdf", **CONDITIONS}
    columns = {"error": "error"}
    with pytest.raises(
        ValueError, match=r"value 0 at index 0 \(0.05\) has no error, nor have 59 others; .*--error 0.005"
    ):
        target_from_table(path, Reading(columns=columns), **given)
    target = target_from_table(path, Reading(columns=columns, error="0.005"), **given)
    assert target.errors[0] == 0.005
    assert target.errors[-1] == pytest.approx(np.hypot(0.02, 0.005), rel=1e-3)
    assert "left out 3 rows of zeros at the end" in target.source.processing  # type: ignore[union-attr]
    between = target_from_table(path, Reading(columns=columns, between=(3.05, 12.0)), **given)
    assert between.errors[0] == 0.02


def test_points_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "row.csv"
    path.write_text("P\n1.0\n")
    reading = Reading(columns={"P": "P"}, point_error="1%")
    with pytest.raises(ValueError, match="has values P: it knows no error of points: give it as --error"):
        target_from_table(path, reading, observable="pressure", **CONDITIONS)


SHARED = Path(__file__).parents[5] / "shared" / "data"
measured = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the measured tables beside the project")


@measured
@pytest.mark.parametrize(
    ("name", "composition", "contrast"),
    [("silica_glass_neutron_NIMROD.mint01", "SiO2", 0.1), ("water_neutron_SLS18502-D2O.mint01", "D2O", 0.05)],
)
def test_measured_cross_sections(name: str, composition: str, contrast: float) -> None:
    """F(q) in barn per steradian and atom is no S(q); converted, it vanishes at small q and is 1 at large q."""
    given = {"observable": "structure_factor", **CONDITIONS}
    columns = {"error": "3"}
    raw = Reading(columns=columns, between=(0.6, 30.0))
    with pytest.raises(ValueError, match=rf"{name}: .* tends to 1: S - 1, .* --quantity F with --composition"):
        target_from_table(SHARED / name, raw, **given)
    reading = Reading(columns=columns, between=(0.6, 30.0), quantity="F", composition=composition)
    target = target_from_table(SHARED / name, reading, **given)
    s = np.array(target.values)
    assert 0 < s[:4].mean() < 0.5
    assert np.mean(s[-100:]) == pytest.approx(1, abs=contrast)
    with pytest.raises(ValueError, match=r"has no error.*--range"):
        target_from_table(SHARED / name, Reading(columns=columns, quantity="F", composition=composition), **given)


@measured
def test_measured_curves_pass_as_they_are() -> None:
    given = {"observable": "rdf", **CONDITIONS}
    argon = SHARED / "argon_yarnell1973_gr_85K.csv"
    _, g = np.loadtxt(argon, delimiter=",", skiprows=1, encoding="utf-8-sig").T
    target = target_from_table(argon, Reading(error="0.02"), **given)
    np.testing.assert_allclose(target.values, g)
    water = SHARED / "water_O_O_RDF_difftre.csv"
    with pytest.raises(ValueError, match="where no two atoms are: distances in nm are said with --units r=nm"):
        target_from_table(water, Reading(error="0.01", grid=(0.1, 0.9, 80)), **given)
    target_from_table(water, Reading(error="0.01", units={"r": "nm"}, grid=(0.0, 9.0, 90)), **given)
    columns = {"q": "1", "S": "3"}
    skinner = SHARED / "water_skinner2013_295K_xray.tsv"
    factor = target_from_table(
        skinner,
        Reading(columns=columns, error="0.02", grid=(0.5, 20.0, 195)),
        observable="structure_factor",
        **CONDITIONS,
    )
    assert "rows of zeros at the end" in factor.source.processing  # type: ignore[union-attr]
