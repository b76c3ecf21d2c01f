"""How quantities and units are written for people: axes of figures, rows of a report."""

from __future__ import annotations

import re

from aiida_difftre.engine.contract.observables import observable

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")

UNITS = {"1": "", "degree": "°", "kg/m3": "kg/m³", "J/mol/K": "J/(mol K)", "cell": "cell length"}
"""Units that are not written by rule."""

SYMBOLS = {"chi²": "χ²", "alpha": "α", "kappa": "κ", "density": "ρ", "C_P": "Cₚ", "C_V": "Cᵥ"}
"""Components of observables that have a symbol of their own."""

LENGTH = "angstrom"


def unit(name: str) -> str:
    """A unit as it is printed.

    Args:
        name: As a target states it, such as ``1/angstrom^2``.

    Returns:
        Its symbol, such as ``Å⁻²``; nothing where there is none.
    """
    if name in UNITS:
        return UNITS[name]
    text = name.replace(LENGTH, "Å")
    if text.startswith("1/") and text.count("/") == 1:
        base, _, power = text[2:].partition("^")
        return base + f"-{power or 1}".translate(SUPERSCRIPTS)
    return re.sub(r"\^(-?\d+)", lambda found: found[1].translate(SUPERSCRIPTS), text)


def symbol(name: str) -> str:
    """A component as it is printed: indices of elastic constants become subscripts.

    Args:
        name: Label of a value, such as ``C11``, with anything behind it.

    Returns:
        The symbol, such as ``C₁₁``.
    """
    first, separator, rest = name.partition(" ")
    shown = SYMBOLS.get(first) or re.sub(r"^C(\d\d)$", lambda found: "C" + found[1].translate(SUBSCRIPTS), first)
    return shown + separator + rest


def axis(quantity: str, its_unit: str) -> str:
    """The label of an axis: a quantity over its unit.

    Args:
        quantity: Symbol or name.
        its_unit: Unit, as :func:`unit` writes it; empty for none.

    Returns:
        Such as ``r / Å``.
    """
    if " " in its_unit or "/" in its_unit:
        its_unit = f"({its_unit})"
    return " / ".join(part for part in (quantity, its_unit) if part)


def curve_axes(name: str, its_unit: str) -> tuple[str, str]:
    """The labels of both axes of a curve.

    Args:
        name: Name of the observable.
        its_unit: Unit of the values, as a target states it.

    Returns:
        Labels of abscissa and ordinate, such as ``r / Å`` and ``g(r)``.
    """
    spec = observable(name)
    abscissa = spec.grid_symbol or ""
    power = spec.grid_powers.get(its_unit, 0)
    factor = abscissa * (power > 0) + (str(power).translate(SUPERSCRIPTS) if power > 1 else "")
    return axis(abscissa, unit(spec.grid_unit or "1")), axis(factor + (spec.symbol or spec.name), unit(its_unit))


def number(value: float, digits: int = 3) -> str:
    """A number without an exponent where it needs none.

    Args:
        value: The number.
        digits: Significant digits.

    Returns:
        Such as ``6700`` or ``0.0191``.
    """
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+0" in text and abs(value) < 1e6 else text


STATES = {"waiting": "running"}
"""States of a process by another name: AiiDA says of a chain that it waits while what it called runs."""


def state(name: str) -> str:
    """The state of a run as a person calls it.

    Args:
        name: State of the process, as AiiDA calls it.

    Returns:
        Such as ``running``.
    """
    return STATES.get(name, name)
