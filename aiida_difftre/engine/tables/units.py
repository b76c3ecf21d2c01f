"""Units in which people publish, and their conversion to those of the observables. Free of JAX."""

from __future__ import annotations

import math
import re
from typing import Final

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.numbers import point_remedy
from aiida_difftre.engine.errors import shown

CELSIUS_OFFSET: Final = 273.15
"""K; exact."""

LARGEST: Final = 1e30
"""Of a number with a unit; atoms per cm³ are below it, and its square is still a number."""

BOHR: Final = 0.529177210903
"""Å; CODATA 2018."""

AVOGADRO: Final = 6.02214076e23
"""1/mol; exact."""

_KJ_PER_MOL = 1e3 / AVOGADRO / units.ELEMENTARY_CHARGE
_GAS_CONSTANT = units.BOLTZMANN * units.ELEMENTARY_CHARGE * AVOGADRO

KINDS: Final[dict[str, dict[str, float]]] = {
    "length": {"angstrom": 1.0, "A": 1.0, "nm": 10.0, "pm": 0.01, "bohr": BOHR},
    "inverse length": {"1/angstrom": 1.0, "1/A": 1.0, "1/nm": 0.1, "1/pm": 100.0, "1/bohr": 1 / BOHR},
    "angle": {"rad": 1.0, "radian": 1.0, "deg": math.pi / 180, "degree": math.pi / 180},
    "inverse angle": {
        "1/rad": 1.0, "1/radian": 1.0, "1/deg": 180 / math.pi, "1/degree": 180 / math.pi,
    },
    "inverse area": {"1/angstrom2": 1.0, "1/A2": 1.0, "1/nm2": 0.01},
    "number density": {
        "1/angstrom3": 1.0, "1/A3": 1.0, "atoms/A3": 1.0, "atoms/angstrom3": 1.0, "1/nm3": 1e-3, "atoms/nm3": 1e-3,
        "1/cm3": 1e-24, "atoms/cm3": 1e-24,
    },
    "cross-section": {
        "barn": 1.0, "barn/sr": 1.0, "barn/sr/atom": 1.0, "barn/atom/sr": 1.0, "barn/atom": 1.0, "b": 1.0, "b/sr": 1.0,
        "b/sr/atom": 1.0, "mbarn": 1e-3, "fm2": 0.01,
    },
    "density": {"kg/m3": 1.0, "g/cm3": 1e3, "g/cc": 1e3, "g/ml": 1e3, "g/l": 1.0},
    "pressure": {
        "GPa": 1.0, "MPa": 1e-3, "kPa": 1e-6, "Pa": 1e-9, "kbar": 0.1, "bar": 1e-4, "atm": 1.01325e-4,
        "dyn/cm2": 1e-10, "eV/A3": units.EV_PER_A3_IN_GPA, "eV/angstrom3": units.EV_PER_A3_IN_GPA,
    },
    "compressibility": {"1/GPa": 1.0, "1/MPa": 1e3, "1/Pa": 1e9, "1/bar": 1e4, "1/kbar": 10.0},
    "diffusion coefficient": {
        "1e-9m2/s": 1.0, "m2/s": 1e9, "cm2/s": 1e5, "1e-5cm2/s": 1.0, "mm2/s": 1e3, "A2/ps": 10.0, "angstrom2/ps": 10.0,
        "nm2/ns": 1.0, "nm2/ps": 1e3, "um2/s": 1e-3,
    },
    "temperature": {"K": 1.0},
    "inverse temperature": {"1/K": 1.0, "1e-6/K": 1e-6, "ppm/K": 1e-6, "1/degC": 1.0},
    "energy": {
        "eV/atom": 1.0, "eV": 1.0, "meV/atom": 1e-3, "meV": 1e-3,
        "kJ/mol": _KJ_PER_MOL, "kcal/mol": 4.184 * _KJ_PER_MOL,
    },
    "heat capacity": {
        "J/mol/K": 1.0, "J/(molK)": 1.0, "J/(mol*K)": 1.0, "cal/mol/K": 4.184,
        "kB/atom": _GAS_CONSTANT, "kB": _GAS_CONSTANT,
    },
    "frequency": {"THz": 1.0, "1/ps": 1.0, "1/cm": 0.0299792458, "meV": 0.2417989242},
    "inverse frequency": {"1/THz": 1.0, "ps": 1.0, "cm": 1 / 0.0299792458, "1/meV": 1 / 0.2417989242},
    "number": {"1": 1.0, "%": 0.01},
}  # fmt: skip
"""By kind: what one of each unit is, in the first unit of its kind."""

REMEDIES: Final[dict[tuple[str, str], str]] = {
    ("number", "cross-section"): "a cross-section is converted with --quantity F or DCS and --composition",
    ("number", "inverse area"): "G(r) and T(r) are converted with --quantity G or T and --number-density",
    ("number", "inverse length"): "Q(S - 1) and 4πr²ρg are converted with --quantity 'Q(S-1)' or R",
    ("density", "number density"): "atoms per volume become kg/m³ where --composition says which, such as D2O",
    ("number density", "density"): "give --density and --composition, or atoms per Å³",
    ("inverse length", "energy"): "χ(k) over the energy is no target; save it over k (Athena, Larch)",
    ("length", "inverse length"): "a table over q where r is wanted is read with --convert",
    ("inverse length", "length"): "a table over r where q is wanted is read with --convert",
}
"""What to do where a unit is of another kind: by the kind that is wanted and the one that is given."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _spelling(unit: str) -> str:
    """One spelling for the many of a unit: ``Å⁻¹``, ``1/Å``, ``A^-1`` and ``inv. A`` are ``1/A``."""
    text = unit.strip().replace("Å", "A").replace("Å", "A").replace("°", "deg").replace("µ", "u")
    for raised, plain in (("⁻", "-"), ("¹", "1"), ("²", "2"), ("³", "3"), ("·", "*"), ("**", ""), ("^", "")):
        text = text.replace(raised, plain)
    text = re.sub(r"[{}$\\]", "", text).replace("Angstrom", "angstrom").replace("angstroms", "angstrom")
    # A product with an inverse, such as g cm-3, is a quotient.
    text = re.sub(r"(?<=[A-Za-z0-9])[ *]+([A-Za-z]+)-([123])", lambda m: f"/{m[1]}{'' if m[2] == '1' else m[2]}", text)
    text = re.sub(r"^atoms?/", "atoms/", text.replace(" ", ""))
    inverse = re.fullmatch(r"([A-Za-z]+)-([123])", text)
    if inverse is not None:
        power = "" if inverse[2] == "1" else inverse[2]
        text = f"1/{inverse[1]}{power}"
    return text


def _kind(unit: str) -> str | None:
    return next((kind for kind, known in KINDS.items() if _spelling(unit) in known), None)


def converts(given: str, wanted: str) -> bool:
    """Tell whether two units are of the same kind.

    Args:
        given: One unit, in any common spelling.
        wanted: The other.

    Returns:
        Whether one converts to the other.

    Example:
        >>> from aiida_difftre.engine.tables.units import converts
        >>> converts("bar", "GPa"), converts("bar", "K")
        (True, False)
    """
    return _spelling(given) == _spelling(wanted) or (_kind(given) is not None and _kind(given) == _kind(wanted))


def factor(given: str, wanted: str) -> float:
    """Tell what one of a unit is in another unit of the same kind.

    Args:
        given: The unit that is given, in any common spelling.
        wanted: The unit that is wanted.

    Returns:
        The factor.

    Raises:
        ValueError: For a unit that is not known, or of another kind; the message lists those that there are.

    Example:
        >>> from aiida_difftre.engine.tables.units import factor
        >>> factor("g/cm3", "kg/m3"), factor("Å⁻¹", "1/angstrom")
        (1000.0, 1.0)
    """
    if _spelling(given) == _spelling(wanted):
        return 1.0
    kind = _kind(wanted)
    known = KINDS[kind] if kind is not None else {}
    if _spelling(given) not in known:
        choices = ", ".join([wanted, *(name for name in known if name != wanted)])
        remedy = REMEDIES.get((kind or "", _kind(given) or ""))
        raise ValueError(
            f"unit {given!r} does not convert to {wanted!r}; known units: {choices}" + (f"; {remedy}" if remedy else "")
        )
    return known[_spelling(given)] / known[_spelling(wanted)]


def is_number_density(text: str) -> bool:
    """Whether a quantity has a unit of atoms per volume."""
    found = _NUMBER.match(text.strip())
    return found is not None and _kind(text.strip()[found.end() :]) == "number density"


def quantity(text: str, wanted: str) -> float:
    """Read a number with or without a unit, such as ``22degC``, ``1.2 bar`` or ``85``.

    Args:
        text: The number, and its unit where that is not the wanted one.
        wanted: The unit that is wanted.

    Returns:
        The number in that unit.

    Raises:
        ValueError: For what is no number, or has another kind of unit.

    Example:
        >>> from aiida_difftre.engine.tables.units import quantity
        >>> quantity("22degC", "K"), quantity("10 kbar", "GPa"), quantity("85", "K")
        (295.15, 1.0, 85.0)
    """
    stripped = text.strip()
    found = _NUMBER.match(stripped)
    if remedy := point_remedy(text):
        raise ValueError(f"{shown(text)} is no quantity{remedy}")
    if found is None:
        raise ValueError(f"{shown(text)} is no quantity; give a number, with a unit where it is not in {wanted}")
    number, unit = float(found[0]), stripped[found.end() :].strip()
    if not abs(number) <= LARGEST:
        raise ValueError(f"{shown(text)} is beyond {LARGEST:g}, which is a slip of the exponent")
    if not unit:
        return number
    if wanted == "K" and _spelling(unit) in {"degC", "C"}:
        return number + CELSIUS_OFFSET
    return number * factor(unit, wanted)
