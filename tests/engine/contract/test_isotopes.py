"""Isotopes: names, masses, scattering lengths, against published numbers."""

import pytest

from aiida_difftre.engine.contract import isotopes
from aiida_difftre.engine.contract.isotopes import Composition


@pytest.mark.parametrize(
    ("name", "canonical", "mass", "length"),
    [
        # Sears, Neutron News 3, 26 (1992).
        ("D", "D", 2.014102, 6.671), ("2H", "D", 2.014102, 6.671), ("H-2", "D", 2.014102, 6.671),
        ("T", "T", 3.016049, 4.792), ("H", "H", 1.008, -3.739), ("58Ni", "58Ni", 57.935342, 14.4),
        ("Ni-58", "58Ni", 57.935342, 14.4), ("Ni[62]", "62Ni", 61.928345, -8.7), ("Ar", "Ar", 39.948, 1.909),
        ("37Cl", "37Cl", 36.965903, 3.08),
    ],
)  # fmt: skip
def test_names(name: str, canonical: str, mass: float, length: float) -> None:
    assert isotopes.canonical(name) == canonical
    assert isotopes.mass(name) == pytest.approx(mass, abs=1e-5)
    assert isotopes.scattering_length(name) == pytest.approx(length, abs=0.005)


@pytest.mark.parametrize(
    ("name", "message"),
    [("Q", "'Q' is neither an element"), ("X", "'X' is neither"), ("99H", "H has no isotope with mass number 99")],
)
def test_what_is_no_isotope(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        isotopes.parse(name)


@pytest.mark.parametrize(
    ("symbol", "mass", "name"),
    [
        ("H", 1.008, "H"), ("H", 2.014, "D"), ("H", 2.0, "D"), ("H", 2.01355, "D"), ("C", 12.011, "C"),
        ("C", 12.0, "12C"), ("C", 13.00335, "13C"), ("O", 16.0, "O"), ("Ni", 57.935, "58Ni"), ("Na", 22.99, "Na"),
        ("Ar", 39.95, "Ar"), ("Cl", 35.45, "Cl"),
        ("Zn", 65.409, "Zn"), ("Ar", 39.9624, "40Ar"),
    ],
)  # fmt: skip
def test_isotopes_by_mass(symbol: str, mass: float, name: str) -> None:
    assert isotopes.name_of(symbol, mass) == name


def test_a_mass_of_nothing() -> None:
    message = r"the mass 18.0654 u of O is neither its standard atomic weight, 15.999 u, nor .* 18O with 17.9992 u"
    with pytest.raises(ValueError, match=message):
        isotopes.name_of("O", 18.0154 + 0.05)
    with pytest.raises(ValueError, match=r"give its length in scattering_lengths, as \{H: FM\}"):
        isotopes.seen_by_neutrons(("H",), (1.5,), None)


def test_what_neutrons_see() -> None:
    species, masses = ("O", "H", "H"), (15.999, 2.0141, 1.008)
    assert isotopes.seen_by_neutrons(species, masses, None) == ("O", "D", "H")
    assert isotopes.seen_by_neutrons(species, None, None) == species
    # A length given for the element is meant for all of its isotopes that have none of their own.
    assert isotopes.seen_by_neutrons(species, masses, {"H": 1.0}) == ("O", "H", "H")
    assert isotopes.seen_by_neutrons(species, masses, {"H": 1.0, "D": 2.0}) == ("O", "D", "H")
    assert isotopes.seen_by_neutrons(("O",), (18.5,), {"O": 1.0}) == ("O",)


def test_compositions() -> None:
    heavy = Composition.parse("D2O")
    assert heavy.counts == {"D": 2, "O": 1}
    assert heavy.mean_mass == pytest.approx((2 * 2.014102 + 15.999) / 3, abs=1e-4)
    # Heavy water at 25 °C has 1104.4 kg/m³, 0.0996 atoms per Å³.
    assert heavy.number_density(1104.4) == pytest.approx(0.0996, abs=1e-4)
    assert heavy.density(heavy.number_density(1104.4)) == pytest.approx(1104.4)
    mean, square = heavy.mean_lengths()
    assert (mean, square) == pytest.approx((0.4073, 0.4088), abs=5e-4)
    assert Composition.parse("Ni[58]O").counts == {"58Ni": 1, "O": 1}
    assert Composition.parse("H1.3D0.7O").elements == {"H", "O"}
    assert heavy.mean_lengths({"D": 0.0, "O": 3.0})[0] == pytest.approx(0.01)
