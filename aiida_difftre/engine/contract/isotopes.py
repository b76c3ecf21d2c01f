"""Isotopes by name or by mass, their neutron scattering lengths, and compositions made of them. Free of JAX.

An isotope is called by its symbol of its own (``D``, ``T``) or by mass number and symbol (``58Ni``); ``2H``, ``H-2``
and ``H[2]`` are other spellings of ``D``. A bare symbol is the element in its natural abundance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ase.data import atomic_masses, atomic_numbers

from aiida_difftre.engine.units import AMU_PER_A3_IN_KG_PER_M3

HYDROGEN = {"D": 2, "T": 3}
"""Mass numbers of the isotopes that have symbols of their own."""

SAME_MASS = 0.005
"""u; by which masses of one thing differ between tables."""

OTHER_TABLE = 5e-4
"""Relative, by which the standard atomic weight of an element has changed over the years (zinc: 65.409 and 65.38)."""

NEAR_MASS = 0.02
"""u; by which a rounded mass may miss that of an isotope."""

FM2_PER_BARN = 100.0

_SPELLINGS = (
    re.compile(r"(?P<number>\d+)(?P<symbol>[A-Z][a-z]?)"),
    re.compile(r"(?P<symbol>[A-Z][a-z]?)-(?P<number>\d+)"),
    re.compile(r"(?P<symbol>[A-Z][a-z]?)\[(?P<number>\d+)\]"),
)


def parse(name: str) -> tuple[str, int | None]:
    """The chemical symbol and the mass number behind a name; None for natural abundance.

    Raises:
        ValueError: for what is neither an element nor an isotope of one.
    """
    if name in HYDROGEN:
        return "H", HYDROGEN[name]
    if name in atomic_numbers and name != "X":
        return name, None
    found = next((match for spelling in _SPELLINGS if (match := spelling.fullmatch(name))), None)
    if found is None or found["symbol"] not in atomic_numbers:
        raise ValueError(
            f"{name!r} is neither an element nor an isotope; isotopes are written D, 58Ni, Ni-58 or Ni[58]"
        )
    symbol, number = found["symbol"], int(found["number"])
    if number not in _element(symbol).isotopes:
        raise ValueError(f"{name!r}: {symbol} has no isotope with mass number {number}")
    return symbol, number


def canonical(name: str) -> str:
    """The one spelling of a name that results use.

    Example:
        >>> canonical("H-2"), canonical("Ni[58]"), canonical("Ar")
        ('D', '58Ni', 'Ar')
    """
    symbol, number = parse(name)
    if number is None:
        return symbol
    return next((own for own, known in HYDROGEN.items() if symbol == "H" and known == number), f"{number}{symbol}")


def mass(name: str) -> float:
    """Mass of an isotope, or the standard atomic weight of an element, u."""
    symbol, number = parse(name)
    return float(atomic_masses[atomic_numbers[symbol]] if number is None else _element(symbol)[number].mass)


def name_of(symbol: str, mass: float) -> str:
    """The isotope that an atom of a given mass is, or the bare symbol for the standard atomic weight.

    Args:
        symbol: chemical symbol.
        mass: u.

    Returns:
        The name, such as ``D``, ``58Ni`` or ``Ni``.

    Raises:
        ValueError: for a mass that is none of them.
    """
    standard = float(atomic_masses[atomic_numbers[symbol]])
    from_standard = abs(mass - standard)
    if from_standard <= SAME_MASS:
        return symbol
    isotopes = {number: float(_element(symbol)[number].mass) for number in _element(symbol).isotopes}
    number = min(isotopes, key=lambda known: abs(isotopes[known] - mass))
    from_isotope = abs(isotopes[number] - mass)
    if from_isotope <= SAME_MASS or from_isotope <= min(NEAR_MASS, from_standard):
        return canonical(f"{number}{symbol}")
    if from_standard <= OTHER_TABLE * standard:
        return symbol
    raise ValueError(
        f"the mass {mass:g} u of {symbol} is neither its standard atomic weight, {standard:g} u, nor that of an "
        f"isotope (the nearest is {canonical(f'{number}{symbol}')} with {isotopes[number]:.4f} u)"
    )


def scattering_length(name: str) -> float | None:
    """Bound coherent scattering length for neutrons, fm; None where there is none in the table.

    References:
        Sears, Neutron News 3, 26 (1992), from ``periodictable``.
    """
    try:
        symbol, number = parse(name)
        element = _element(symbol)
        length = (element if number is None else element[number]).neutron.b_c
    except (KeyError, ValueError):
        return None
    return None if length is None else float(length)


def seen_by_neutrons(
    species: Sequence[str], masses: Sequence[float] | None, lengths: Mapping[str, float] | None
) -> tuple[str, ...]:
    """What each atom is to neutrons: an isotope by its mass, unless the length of its element is given.

    Args:
        species: chemical symbol of each atom.
        masses: Masses of the atoms, u; None for the standard atomic weights.
        lengths: that are given by name.

    Returns:
        A name for each atom.

    Raises:
        ValueError: for a mass that is no isotope's, where no length is given.
    """
    given = set(lengths or {})
    if masses is None:
        return tuple(species)
    names: dict[tuple[str, float], str] = {}
    for symbol, atom_mass in {(symbol, float(atom_mass)) for symbol, atom_mass in zip(species, masses, strict=True)}:
        try:
            name = name_of(symbol, atom_mass)
        except ValueError as error:
            if symbol not in given:
                raise ValueError(f"{error}; give its length in scattering_lengths, as {{{symbol}: FM}}") from None
            name = symbol
        names[symbol, atom_mass] = symbol if symbol in given and name not in given else name
    return tuple(names[symbol, float(atom_mass)] for symbol, atom_mass in zip(species, masses, strict=True))


@dataclass(frozen=True)
class Composition:
    """What a sample is made of.

    Args:
        formula: Formula as it was given.
        counts: Amounts of each isotope or element by its name, relative to each other.
    """

    formula: str
    counts: dict[str, float]

    @classmethod
    def parse(cls, formula: str) -> Composition:
        """Read a formula such as ``SiO2``, ``D2O``, ``H1.3D0.7O`` or ``Ni[58]O``.

        Raises:
            ValueError: for anything else.
        """
        from periodictable import formula as read

        if not formula[:1].isalpha():
            raise ValueError(f"composition {formula!r} is no formula; give one such as SiO2, D2O or Ni[58]O")
        try:
            atoms = dict(read(formula).atoms)
        except ValueError as error:
            raise ValueError(f"composition {formula!r} is no formula: {error}") from None
        counts: dict[str, float] = {}
        for atom, count in atoms.items():
            number = getattr(atom, "isotope", None)
            symbol = "H" if atom.symbol in HYDROGEN else atom.symbol
            name = canonical(symbol if number is None else f"{symbol}-{number}")
            counts[name] = counts.get(name, 0.0) + float(count)
        if not counts or not all(math.isfinite(count) and count > 0 for count in counts.values()):
            raise ValueError(f"composition {formula!r} has no atoms")
        return cls(formula, counts)

    @property
    def elements(self) -> set[str]:
        """Chemical symbols."""
        return {parse(name)[0] for name in self.counts}

    @property
    def mean_mass(self) -> float:
        """Mass per atom, u."""
        return sum(count * mass(name) for name, count in self.counts.items()) / sum(self.counts.values())

    def number_density(self, density: float) -> float:
        """Atoms per Å³ at a density in kg/m³."""
        return density / AMU_PER_A3_IN_KG_PER_M3 / self.mean_mass

    def density(self, number_density: float) -> float:
        """Density in kg/m³ at a number of atoms per Å³."""
        return number_density * self.mean_mass * AMU_PER_A3_IN_KG_PER_M3

    def mean_lengths(self, lengths: Mapping[str, float] | None = None) -> tuple[float, float]:
        """<b>² and <b²> of the scattering lengths for neutrons, barn.

        Args:
            lengths: Scattering lengths to use instead of the tabulated ones, fm, by name.

        Returns:
            <b>² and <b²>, barn.

        Raises:
            ValueError: for an isotope without a length, lengths of one that is not there, or a mean that vanishes.
        """
        given = {canonical(name): float(length) for name, length in (lengths or {}).items()}
        if unknown := sorted(set(given) - set(self.counts)):
            raise ValueError(f"scattering_lengths names {unknown[0]!r}; {self.formula} has {', '.join(self.counts)}")
        mean = square = 0.0
        for name, count in self.counts.items():
            length = given.get(name, scattering_length(name))
            if length is None:
                raise ValueError(f"{name} has no scattering length in the table; give one in scattering_lengths")
            share = count / sum(self.counts.values())
            mean, square = mean + share * length, square + share * length**2
        if mean**2 <= 1e-4 * square:
            raise ValueError(
                f"the mean scattering length of {self.formula} vanishes ({mean:.3g} fm): F(q) cannot be "
                "normalised to S(q)"
            )
        return mean**2 / FM2_PER_BARN, square / FM2_PER_BARN


def _element(symbol: str):  # type: ignore[no-untyped-def]  # periodictable has no types
    # Reading the tables takes a while, and few processes need them.
    from periodictable import elements

    return elements.symbol(symbol)
