import ase.units
import pytest
import scipy.constants

from aiida_difftre.engine.tables.units import factor, quantity


@pytest.mark.parametrize(
    ("given", "wanted", "expected"),
    [
        ("nm", "angstrom", ase.units.nm),
        ("bohr", "Å", ase.units.Bohr),
        ("1/nm", "1/angstrom", 1 / ase.units.nm),
        ("Å⁻¹", "1/angstrom", 1.0),
        ("nm^-1", "1/A", 0.1),
        ("g/cm³", "kg/m3", 1000.0),
        ("kg/m³", "g/cm3", 1e-3),
        ("nm^-3", "1/A3", 1e-3),
        ("kbar", "GPa", 1e3 * scipy.constants.bar / 1e9),
        ("atm", "GPa", scipy.constants.atm / 1e9),
        ("eV/Å³", "GPa", 1 / ase.units.GPa),
        ("kJ/mol", "eV/atom", ase.units.kJ / ase.units.mol),
        ("kcal/mol", "eV", ase.units.kcal / ase.units.mol),
        ("kB", "J/mol/K", scipy.constants.R),
        ("degree", "rad", scipy.constants.degree),
        ("1/degree", "1/rad", 1 / scipy.constants.degree),
        ("ppm/K", "1/K", 1e-6),
        ("1/kbar", "1/GPa", 10.0),
        ("furlong", "furlong", 1.0),
    ],
)
def test_factor(given: str, wanted: str, expected: float) -> None:
    assert factor(given, wanted) == pytest.approx(expected, rel=1e-6)


def test_unit_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unit 'GPa' does not convert to 'angstrom'; known units: angstrom, A, nm"):
        factor("GPa", "angstrom")
    with pytest.raises(ValueError, match=r"unit 'furlong' does not convert"):
        factor("furlong", "GPa")


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [("85", "K", 85.0), ("22degC", "K", 295.15), ("-10 °C", "K", 263.15), ("1.2 bar", "GPa", 1.2e-4),
     ("0.997g/cm3", "kg/m3", 997.0), ("2.125e-2", "1/A3", 0.02125), ("21.25 nm^-3", "1/A3", 0.02125)],
)  # fmt: skip
def test_quantity(text: str, wanted: str, expected: float) -> None:
    assert quantity(text, wanted) == pytest.approx(expected)


def test_words_are_no_quantity() -> None:
    with pytest.raises(ValueError, match="'room' is no quantity; give a number, with a unit where it is not in K"):
        quantity("room", "K")
