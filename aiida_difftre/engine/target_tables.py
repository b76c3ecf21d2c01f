"""Targets from measured tables: columns, units, conversion between g(r) and S(q), errors, grid. Free of JAX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.conversions import converts, factor, quantity
from aiida_difftre.engine.jobs import validate
from aiida_difftre.engine.observable_specs import ObservableSpec, observable
from aiida_difftre.engine.resampling import MINIMUM_POINTS, Interpolation, check_curve, equal_bins, resample
from aiida_difftre.engine.scattering import Window, rdf_matrix, structure_factor_matrix
from aiida_difftre.engine.tables import Table, read_table
from aiida_difftre.engine.targets import Target

GRID, VALUE, ERROR = "grid", "value", "error"
ALIASES = {
    GRID: ("grid", "x", "r", "q", "k", "theta", "angle"),
    VALUE: ("value", "y", "g", "s", "chi", "p"),
    ERROR: ("error", "e", "sigma"),
}
"""What a person may call the columns of a curve; capitals do not matter."""

HELD = {"rdf": ("structure_factor", "1/angstrom"), "structure_factor": ("rdf", "angstrom")}
"""What a table that is converted holds, and the unit of its grid, by the observable that is wanted."""

SUBDIVISIONS = 8
"""Points in a bin over which a transform is averaged."""

PERCENT = "%"


@dataclass(frozen=True)
class Reading:
    """How a table is to be read.

    Args:
        columns: name or number of a column, by what it holds: ``grid``, ``value`` and ``error`` (or ``r``, ``g``,
            ``q``, ``S``, ``k``, ``chi``) of a curve; the labels of an observable without a grid, and ``LABEL_error``.
        rows: wanted cell by column, where not all rows are.
        units: of the columns, by the same names; those of the observable otherwise. ``%`` for a relative error.
        point_error: assumed error of each point of the table, where no column gives it, such as ``0.02``, ``2%`` or
            ``2%+0.005``; averages, transforms and filters propagate it like a column's.
        error: assumed error of the target's values, in the same form; added in quadrature to what the table gives.
        correlated: whether neighbouring points share their errors, as after a Fourier transform.
        grid: start and stop of the bins, and their number; None for the points of the table.
        between: first and last point of the table to take, in the observable's grid unit; None for all.
        interpolation: between the points.
        convert: whether the table holds S(q) where g(r) is wanted, or g(r) where S(q) is.
        number_density: atoms per Å³, for the conversion.
        window: of the conversion.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    point_error: str | None = None
    error: str | None = None
    correlated: bool = False
    grid: tuple[float, float, int] | None = None
    between: tuple[float, float] | None = None
    interpolation: Interpolation = "monotone"
    convert: bool = False
    number_density: float | None = None
    window: Window = "lorch"


@dataclass(frozen=True)
class _Values:
    grid: NDArray[np.float64] | None
    values: NDArray[np.float64]
    errors: NDArray[np.float64] | None
    processing: list[str]


def target_from_table(path: str | Path, reading: Reading, **fields: Any) -> Target:
    """Make a target from a table.

    Args:
        path: of the table.
        reading: how to read it.
        **fields: of the target, but for those that the table gives: ``observable``, ``conditions``, ``citation``, ...

    Raises:
        ValueError: naming the file and the offending line or value.
    """
    name = str(fields.get("observable"))
    spec = observable(name)
    options = spec.complete_options(dict(fields.get("options") or {}))
    spec = replace(spec, unit=spec.unit_for(options), bins=spec.bins_for(options))
    table = read_table(path).where(reading.rows)
    if spec.grid_unit is None:
        found = _labelled(table, reading, spec, options)
    else:
        found = _filtered(_curve(table, reading, spec), reading, spec, options, table.name)
    errors = _total_error(found, reading, spec.unit, table.name)
    processing = [f"rows with {', '.join(f'{k} = {v}' for k, v in reading.rows.items())}"] if reading.rows else []
    processing += found.processing
    if reading.point_error is not None:
        processing.append(f"error of each point {reading.point_error}")
    if reading.error is not None:
        processing.append(f"error {reading.error}" + (" added in quadrature" if found.errors is not None else ""))
    assumed = reading.error is not None or reading.point_error is not None
    measured: Literal["measured", "assumed"] = "assumed" if assumed else "measured"
    content = {
        "error_source": measured,
        **{key: value for key, value in fields.items() if value is not None},
        "options": options,
        "unit": spec.unit,
        "values": _rounded(found.values, 6),
        "errors": _rounded(errors, 4),
        "source": {"file": table.name, "sha256": table.digest, "processing": "; ".join(processing)},
    }
    if found.grid is not None:
        content["grid"] = _rounded(found.grid, 9)
    try:
        return validate(Target, content)
    except ValueError as error:
        raise ValueError(f"{table.name}: {error}") from None


def _rounded(numbers: NDArray[np.float64], digits: int) -> list[float]:
    return [float(f"{number:.{digits}g}") for number in numbers]


def _role(name: str) -> str:
    """``grid``, ``value`` or ``error`` behind what a person calls a column of a curve."""
    for role, names in ALIASES.items():
        if name.lower() in names:
            return role
    raise ValueError(f"column {name!r} of a curve is unknown; choose grid, value and error (or r, g, q, S, k, chi)")


def _labelled(table: Table, reading: Reading, spec: ObservableSpec, options: dict[str, Any]) -> _Values:
    """The values of one row."""
    labels = spec.labels(options) if spec.labels is not None else ()
    has_grid = reading.grid is not None or reading.between is not None
    for what, asked in (("grid", has_grid), ("conversion", reading.convert)):
        if asked:
            raise ValueError(f"observable {spec.name!r} has values {', '.join(labels)}: it knows no {what}")
    errors = {f"{label}_error": label for label in labels}
    columns = {(f"{labels[0]}_error" if name == ERROR and len(labels) == 1 else name): column
               for name, column in reading.columns.items()}  # fmt: skip
    for name in columns:
        if name not in labels and name not in errors:
            raise ValueError(f"column {name!r} is none of {', '.join([*labels, *errors])} of {spec.name!r}")
    if missing := [label for label in labels if label not in columns]:
        raise ValueError(
            f"no column is given for {', '.join(missing)} of {spec.name!r}; name it as {missing[0]}=COLUMN"
        )
    if len(table.rows) != 1:
        raise ValueError(f"{table.name} has {len(table.rows)} rows; choose one by what stands in a column")
    numbers = table.numbers(columns)
    units = {name: reading.units.get(name, reading.units.get(VALUE, spec.unit)) for name in columns}
    _check_units(reading.units, [*columns, VALUE])
    values = np.array([numbers[label][0] * factor(units[label], spec.unit) for label in labels])
    given = [name for name in errors if name in columns]
    if given and len(given) < len(labels):
        raise ValueError(f"columns of errors are given for {', '.join(given)} alone; give all or none")
    found = None
    if given:
        read = np.array([numbers[name][0] for name in errors])
        scales = [_error_factor(units[name], spec.unit, value) for name, value in zip(errors, values, strict=True)]
        found = _checked_errors(read * np.array(scales), table)
    return _Values(None, values, found, [])


def _curve(table: Table, reading: Reading, spec: ObservableSpec) -> _Values:
    """The values of a curve, on the wanted grid."""
    columns = {GRID: "1", VALUE: "2"} | {_role(name): column for name, column in reading.columns.items()}
    units = {_role(name): unit for name, unit in reading.units.items()}
    _check_units(units, columns)
    held_grid_unit = _held(spec)[1] if reading.convert else spec.grid_unit or "1"
    numbers = table.numbers(columns)
    grid_unit, value_unit = units.get(GRID, held_grid_unit), units.get(VALUE, spec.unit)
    x = numbers[GRID] * factor(grid_unit, held_grid_unit)
    try:
        plain_unit, power = _weighting(spec, units.get(VALUE))
        check_curve(numbers[GRID], table.lines, GRID)
        if x[0] < 0:
            raise ValueError(f"line {table.lines[0]}: grid {numbers[GRID][0]:g} is negative")
        inside = _inside(x, reading)
        x, numbers = x[inside], {role: column[inside] for role, column in numbers.items()}
        if len(x) < MINIMUM_POINTS:
            raise ValueError(f"it has {len(x)} points where at least {MINIMUM_POINTS} are needed")
        if power < 0 and x[0] == 0:
            raise ValueError(f"values in {value_unit} say nothing of {spec.unit} at 0; leave that point out")
    except ValueError as error:
        raise ValueError(f"{table.name}: {error}") from None
    y, weights = numbers[VALUE] * factor(value_unit, plain_unit), x**power
    errors = None if reading.point_error is None else _assumed(y, reading.point_error, plain_unit) * weights
    if ERROR in columns:
        if errors is not None:
            raise ValueError(
                f"{table.name}: an error of each point is assumed, and column {columns[ERROR]!r} has them too"
            )
        scale = _error_factor(units.get(ERROR, value_unit), plain_unit, y)
        errors = _checked_errors(numbers[ERROR] * scale, table) * weights
    y = y * weights
    changed = [
        f"{unit} to {own}" for unit, own in ((grid_unit, held_grid_unit), (value_unit, plain_unit)) if unit != own
    ]
    done = [f"converted from {', '.join(changed)}"] if changed else []
    if power:
        done.append(f"multiplied by the power {power} of the grid")
    if reading.between is not None:
        done.append(f"{len(x)} points from {x[0]:g} to {x[-1]:g} {held_grid_unit}")
    edges = None if reading.grid is None else equal_bins(*reading.grid)
    if reading.convert:
        return _converted(x, y, errors, edges, reading, spec, done, table.name)
    if edges is None:
        return _Values(x, y, errors, done)
    # S(q) is no distribution, and not zero below its first point.
    is_distribution = spec.bins is not None and spec.name != "structure_factor"
    try:
        result = resample(
            x, y, errors, edges, shells=spec.bins == "shells", correlated=reading.correlated,
            interpolation=reading.interpolation, zero_below=is_distribution,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{table.name}: {error}") from None
    done.append(
        f"averaged over {len(edges) - 1} bins of {edges[1] - edges[0]:.4g} {spec.grid_unit} with "
        f"{result.points_per_bin:.2g} points in each"
    )
    if result.narrow:
        done.append(
            f"{result.narrow} bins narrower than the distance of the points: {reading.interpolation} interpolation"
        )
    if not is_distribution:
        done.append(f"averaging moved a value by {np.abs(result.smoothing).max():.2g} at most")
    return _Values((edges[1:] + edges[:-1]) / 2, result.values, result.errors, done)


def _weighting(spec: ObservableSpec, unit: str | None) -> tuple[str, int]:
    """The unit of a table's values among those that the observable knows, and the power of the grid that they lack."""
    if not spec.grid_powers:
        return spec.unit, 0
    wanted = spec.grid_powers[spec.unit]
    if unit is None and wanted:
        raise ValueError(
            f"say what the values are, with value=UNIT among the units: 1 where they still have to be multiplied by "
            f"the power {wanted} of the grid, {spec.unit} where they have been"
        )
    for known, power in spec.grid_powers.items():
        if converts(unit or spec.unit, known):
            return known, wanted - power
    raise ValueError(f"unit {unit!r} of the values is none of {', '.join(spec.grid_powers)}")


def _inside(x: NDArray[np.float64], reading: Reading) -> NDArray[np.bool_]:
    """Which points of the table to take."""
    if reading.between is None:
        return np.ones(len(x), bool)
    if reading.grid is not None:
        raise ValueError("give either a grid of bins or the range of the table's points to take")
    low, high = reading.between
    slack = 1e-6 * (x[-1] - x[0])
    if low < x[0] - slack or high > x[-1] + slack:
        raise ValueError(f"points from {low:g} to {high:g} are asked for; the data go from {x[0]:g} to {x[-1]:g}")
    return (x >= low - slack) & (x <= high + slack)


def _filtered(found: _Values, reading: Reading, spec: ObservableSpec, options: dict[str, Any], name: str) -> _Values:
    """The values as the observable filters them; errors of the points are independent, and those of the result not."""
    if spec.filter_of is None or found.grid is None:
        return found
    try:
        filtering = spec.filter_of(options, found.grid.tolist())
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if filtering is None:
        return found
    if reading.correlated:
        raise ValueError(f"{name}: the errors of a table that is filtered must be independent")
    matrix = filtering.matrix
    errors = None if found.errors is None else np.sqrt(matrix**2 @ found.errors**2)
    return _Values(found.grid, matrix @ found.values, errors, [*found.processing, filtering.description])


def _held(spec: ObservableSpec) -> tuple[str, str]:
    """What a table that is converted holds, and the unit of its grid."""
    if spec.name not in HELD:
        known = " and ".join(HELD)
        raise ValueError(f"observable {spec.name!r} has no conversion; {known} convert to each other")
    return HELD[spec.name]


def _converted(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    errors: NDArray[np.float64] | None,
    edges: NDArray[np.float64] | None,
    reading: Reading,
    spec: ObservableSpec,
    done: list[str],
    name: str,
) -> _Values:
    """The sine transform, averaged over bins; independent errors of the table go through it as they are."""
    held, unit = _held(spec)
    if edges is None:
        raise ValueError(f"{name}: a conversion needs a grid, start:stop:n")
    if reading.number_density is None:
        raise ValueError(f"{name}: a conversion needs the number density, in atoms per Å³")
    if reading.correlated:
        raise ValueError(f"{name}: the errors of a table that is converted must be independent")
    width = edges[1] - edges[0]
    inside = edges[:-1, None] + width * (np.arange(SUBDIVISIONS) + 0.5) / SUBDIVISIONS
    make = rdf_matrix if held == "structure_factor" else structure_factor_matrix
    whole = make(x, inside.ravel(), reading.number_density, reading.window)
    weights = inside**2 if spec.bins == "shells" else np.ones_like(inside)
    weights = weights / weights.sum(1, keepdims=True)
    matrix = np.einsum("bs,bsx->bx", weights, whole.reshape(*inside.shape, len(x)))
    done.append(
        f"converted from {held} up to {x[-1]:.4g} {unit} at {reading.number_density:g} atoms per Å³, "
        f"window {reading.window}, averaged over {len(edges) - 1} bins"
    )
    propagated = None if errors is None else np.sqrt(matrix**2 @ errors**2)
    return _Values((edges[1:] + edges[:-1]) / 2, 1 + matrix @ (y - 1), propagated, done)


def _check_units(units: Mapping[str, str], columns: Any) -> None:
    for name in units:
        if name not in columns:
            raise ValueError(f"a unit is given for {name!r}, which is no column; columns: {', '.join(columns)}")


def _error_factor(unit: str, wanted: str, values: Any) -> Any:
    return np.abs(values) / 100 if unit == PERCENT and wanted != PERCENT else factor(unit, wanted)


def _checked_errors(errors: NDArray[np.float64], table: Table) -> NDArray[np.float64]:
    for index in np.flatnonzero(errors < 0):
        raise ValueError(f"{table.name}, line {table.lines[index]}: error {errors[index]:g} is negative")
    return errors


def _assumed(values: NDArray[np.float64], text: str, unit: str) -> NDArray[np.float64]:
    """Errors such as ``2%+0.005``: the parts are added in quadrature."""
    variance = np.zeros_like(values)
    # A sign within an exponent does not separate parts.
    for part in re.split(r"(?<![eE])\+", text):
        relative = part.strip().endswith(PERCENT)
        size = quantity(part.strip().rstrip(PERCENT), "1" if relative else unit)
        if size < 0:
            raise ValueError(f"assumed error {text!r} is negative; give a standard error")
        variance += (size * np.abs(values) / 100 if relative else size) ** 2
    return np.sqrt(variance)


def _total_error(found: _Values, reading: Reading, unit: str, name: str) -> NDArray[np.float64]:
    """The errors of the table, with the assumed ones of the target in quadrature."""
    if found.errors is None and reading.error is None:
        raise ValueError(f"{name}: no errors; name their column, or assume an error such as 0.02 or 2%")
    total = np.zeros_like(found.values) if found.errors is None else found.errors
    if reading.error is not None:
        total = np.hypot(total, _assumed(found.values, reading.error, unit))
    if not (total > 0).all():
        index = int(np.argmin(total > 0))
        raise ValueError(
            f"{name}: value {found.values[index]:g} at index {index} has no error; assume an absolute one too, as in "
            "2%+0.005"
        )
    return total
