"""How a table is to be read, and the values that come of it, with their units and errors. Free of JAX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.observables.scattering import Window
from aiida_difftre.engine.tables.resampling import Interpolation
from aiida_difftre.engine.tables.table import LABEL_UNIT, Table
from aiida_difftre.engine.tables.units import converts, factor, quantity

GRID, VALUE, ERROR = "grid", "value", "error"
ALIASES = {
    GRID: ("grid", "x", "r", "q", "k", "theta", "angle"),
    VALUE: ("value", "y", "g", "s", "chi", "p", "f"),
    ERROR: ("error", "e", "sigma", "err", "errors", "uncertainty", "esd", "std"),
}
"""What a person may call the columns of a curve; capitals do not matter."""

PERCENT = "%"


@dataclass(frozen=True)
class Reading:
    """How a table of measured values is to be read.

    Args:
        columns: Name or number of a column, by what it holds: ``grid``, ``value`` and ``error`` (or ``r``, ``g``,
            ``q``, ``S``, ``k``, ``chi``) of a curve; the labels of an observable without a grid, and ``LABEL_error``.
            Columns that are called so need not be named.
        rows: Wanted cell by column, where not all rows are.
        units: Units of the columns, by the same names; those of the observable otherwise. ``%`` for a relative error.
        point_error: Assumed error of each point of the table, where no column gives it, such as ``0.02``, ``2%`` or
            ``2%+0.005``; averages, transforms and filters propagate it like a column's.
        error: Assumed error of the target's values, in the same form; added in quadrature to what the table gives.
        correlated: Whether the points within a bin have one and the same error, which averages keep.
        correlation_length: Distance over which the errors of the points are correlated, with or without a unit, that of
            the grid otherwise: as exp(-abs(x - x')/length) in averages and in the target. None for independent points.
        grid: Start and stop of the bins, and their number; None for the points of the table.
        between: First and last point of the table to take, in the observable's grid unit; None for all.
        interpolation: How to go on between the points, ``monotone`` or ``cubic``.
        convert: Whether the table holds S(q) where g(r) is wanted, or g(r) where S(q) is.
        quantity: Normalisation in which the table holds the curve, such as ``G`` or ``Q(S-1)``; None for the observable
            itself.
        number_density: Atoms per Å³, for conversions; None for that of the conditions and the composition.
        composition: Formula of the sample, for scattering lengths and densities; None where it is not needed.
        window: Window of ``convert``; None for Lorch's.

    Example:
        >>> from aiida_difftre.engine.tables.readings import Reading
        >>> reading = Reading(columns={"r": "1", "g": "2"}, units={"r": "nm"}, error="2%", grid=(2.0, 8.0, 60))
        >>> reading.interpolation
        'monotone'
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    point_error: str | None = None
    error: str | None = None
    correlated: bool = False
    correlation_length: str | None = None
    grid: tuple[float, float, int] | None = None
    between: tuple[float, float] | None = None
    interpolation: Interpolation = "monotone"
    convert: bool = False
    quantity: str | None = None
    number_density: float | None = None
    composition: str | None = None
    window: Window | None = None


@dataclass(frozen=True)
class Values:
    """What was read so far.

    Args:
        grid: Grid of a curve; None for the components of a row.
        values: Values of each point or component.
        errors: their standard errors; None where the table has none.
        processing: what was done, in words.
        correlation_length: Distance over which the errors of a curve are correlated; None for independent points.
    """

    grid: NDArray[np.float64] | None
    values: NDArray[np.float64]
    errors: NDArray[np.float64] | None
    processing: list[str]
    correlation_length: float | None = None


def role_of(name: str) -> str:
    """``grid``, ``value`` or ``error`` behind what a person calls a column of a curve."""
    for role, names in ALIASES.items():
        if name.lower() in names:
            return role
    raise ValueError(f"column {name!r} of a curve is unknown; choose grid, value and error (or r, g, q, S, k, chi)")


def columns_by_name(table: Table, names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The columns of a table whose names tell what they hold: each is called as one thing, and no other is.

    Args:
        table: The table.
        names: What a column may be called, without its unit, by what it holds; capitals do not matter where they do not
            tell columns apart.

    Returns:
        Names of columns by what they hold, of those that there are.
    """
    plain = {column: LABEL_UNIT.sub("", column).strip() for column in table.header if table.header.count(column) == 1}
    found = {}
    for held, called in names.items():
        wanted = list(called)
        exact = [column for column, name in plain.items() if name in wanted]
        lower = [name.lower() for name in wanted]
        columns = exact or [column for column, name in plain.items() if name.lower() in lower]
        if len(columns) == 1:
            found[held] = columns[0]
    return found


def check_label(table: Table, column: str, wanted: str, name: str) -> None:
    """Refuse a column whose name states another unit of the same kind, where nobody said which it is."""
    unit = table.label_unit(column)
    if unit is not None and converts(unit, wanted) and factor(unit, wanted) != 1:
        raise ValueError(
            f"the name of column {column!r} says {unit}; say --units {name}={unit.replace(' ', '')}, or {name}={wanted}"
        )


def check_units(units: Mapping[str, str], columns: Iterable[str]) -> None:
    """Refuse the unit of a column that is not there."""
    for name in units:
        if name not in columns:
            raise ValueError(f"a unit is given for {name!r}, which is no column; columns: {', '.join(columns)}")


def error_factor(unit: str, wanted: str, values: Any) -> Any:
    """What one unit of an error is in the unit of the values, of which it may be a percentage."""
    return np.abs(values) / 100 if unit == PERCENT and wanted != PERCENT else factor(unit, wanted)


def checked_errors(errors: NDArray[np.float64], table: Table) -> NDArray[np.float64]:
    """The errors of a table, none of them negative."""
    for index in np.flatnonzero(errors < 0):
        raise ValueError(f"{table.name}, line {table.lines[index]}: error {errors[index]:g} is negative")
    return errors


def assumed_errors(values: NDArray[np.float64], text: str, unit: str) -> NDArray[np.float64]:
    """Make errors from a text such as ``2%+0.005``, whose parts are added in quadrature.

    Args:
        values: Values, (points,).
        text: Absolute and relative parts, with or without a unit.
        unit: Unit of the values.

    Returns:
        Standard errors, (points,), in the unit of the values.

    Raises:
        ValueError: For a part that is negative, or in a unit of another kind.
    """
    variance = np.zeros_like(values)
    # A sign within an exponent does not separate parts.
    for part in re.split(r"(?<![eE])\+", text):
        relative = part.strip().endswith(PERCENT)
        size = quantity(part.strip().rstrip(PERCENT), "1" if relative else unit)
        if size < 0:
            raise ValueError(f"assumed error {text!r} is negative; give a standard error")
        variance += (size * np.abs(values) / 100 if relative else size) ** 2
    return np.sqrt(variance)
