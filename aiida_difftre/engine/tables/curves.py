"""Curves from tables, in steps: read, brought into the observable's normalisation, resampled, filtered. Free of JAX."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.isotopes import Composition
from aiida_difftre.engine.contract.observables import ObservableSpec, observable
from aiida_difftre.engine.observables.scattering import rdf_matrix, structure_factor_matrix
from aiida_difftre.engine.tables.normalizations import Normalization, quantity
from aiida_difftre.engine.tables.readings import (
    ALIASES,
    ERROR,
    GRID,
    VALUE,
    Reading,
    Values,
    assumed_errors,
    check_label,
    check_units,
    checked_errors,
    columns_by_name,
    error_factor,
    role_of,
)
from aiida_difftre.engine.tables.resampling import MINIMUM_POINTS, Curve, check_curve, equal_bins, resample
from aiida_difftre.engine.tables.table import Table
from aiida_difftre.engine.tables.units import converts, factor
from aiida_difftre.engine.tables.units import quantity as with_unit

HELD = {"rdf": "structure_factor", "structure_factor": "rdf"}
"""What a table that is transformed holds, by the observable that is wanted."""

SAME_DENSITY = 0.02
"""Relative difference of two statements of one density."""

MOST_DENSE = 5.0
"""Atoms per Å³; compressed matter in experiments has some."""

SUBDIVISIONS = 8
"""Points in a bin over which a transform is averaged."""


def curve(
    table: Table, reading: Reading, spec: ObservableSpec, options: dict[str, Any], density: float | None
) -> Values:
    """The values of a curve: read, brought into the observable's normalisation, resampled and filtered.

    Args:
        table: the table.
        reading: how to read it.
        spec: Spec of the observable, for the options.
        options: complete.
        density: Density that the conditions state, kg/m³.

    Returns:
        Grid, values, errors, and what was done.
    """
    _check_given(reading, spec)
    held, held_options = _held(spec, options) if reading.convert else (spec, options)
    composition = None if reading.composition is None else Composition.parse(reading.composition)
    number_density = _number_density(reading, composition, density)
    scaling = _scaling(reading, held, held_options, composition, number_density)
    _check_single_element(spec, options, composition)
    whole = _normalised(_read(table, reading, held, scaling), scaling, held, held_options)
    if reading.between is None:
        _check_table(whole, held, held_options)
    length = _correlation_length(reading, spec)
    found = _selected(whole, reading, held)
    if reading.convert:
        found = _transformed(found, reading, spec, held, number_density)
    elif reading.grid is not None:
        found = _averaged(found, reading, spec, length)
    found = _filtered(found, reading, spec, options)
    if reading.correlated and reading.grid is None:
        raise ValueError(
            "errors are correlated in averages over the bins of a grid, and there is none; give --correlation-length, "
            "which the target keeps, or --grid"
        )
    return replace(found, correlation_length=length)


def _correlation_length(reading: Reading, spec: ObservableSpec) -> float | None:
    """Distance over which errors are correlated, in the unit of the grid."""
    if reading.correlation_length is None:
        return None
    if spec.grid_unit is None:
        raise ValueError("a curve needs a grid")
    length = with_unit(reading.correlation_length, spec.grid_unit)
    if not length > 0:
        raise ValueError(f"a correlation length of {length:g} is none; give a distance above 0, or leave it out")
    if reading.grid is not None:
        edges = equal_bins(*reading.grid)
        if (width := edges[1] - edges[0]) > length * (1 + 1e-9):
            least = math.ceil((edges[-1] - edges[0]) / length)
            raise ValueError(
                f"bins of {width:.4g} {spec.grid_unit} are wider than the correlation length of {length:g}, so that "
                f"their averages are not correlated in this way; give at least {least} bins, or leave the length out"
            )
    return length


def _check_given(reading: Reading, spec: ObservableSpec) -> None:
    """Refuse options that would be ignored, and those that contradict each other."""
    if reading.window is not None and not reading.convert:
        raise ValueError("a window is for the transform between g(r) and S(q); give --convert too, or leave it out")
    if reading.interpolation != "monotone" and (reading.grid is None or reading.convert):
        raise ValueError("an interpolation is for the bins of a grid; give --grid without --convert, or leave it out")
    if reading.grid is not None and reading.between is not None:
        raise ValueError("give either a grid of bins or the range of the table's points to take")
    if reading.point_error is not None and any(role_of(name) == ERROR for name in reading.columns):
        (column,) = (column for name, column in reading.columns.items() if role_of(name) == ERROR)
        raise ValueError(f"an error of each point is assumed, and column {column!r} has them too; give one of both")


def _held(spec: ObservableSpec, options: dict[str, Any]) -> tuple[ObservableSpec, dict[str, Any]]:
    """What a table that is transformed holds, with its options where both observables have them."""
    if spec.name not in HELD:
        known = " and ".join(HELD)
        raise ValueError(f"observable {spec.name!r} has no conversion; {known} convert to each other")
    held = observable(HELD[spec.name])
    return held, held.complete_options({})


def _number_density(reading: Reading, composition: Composition | None, density: float | None) -> float | None:
    """Atoms per Å³: as stated, or of the conditions' density and the composition."""
    derived = None if composition is None or density is None else composition.number_density(density)
    stated = reading.number_density
    if stated is not None and not 0 < stated <= MOST_DENSE:
        raise ValueError(
            f"a number density of {stated:g} atoms per Å³ is none; it is above 0 and at most {MOST_DENSE:g}: "
            "diamond has 0.176"
        )
    if stated is None or derived is None:
        return stated if derived is None else derived
    if abs(stated - derived) > SAME_DENSITY * derived:
        raise ValueError(
            f"number density {stated:g} 1/Å³ contradicts {density:g} kg/m³ of {reading.composition}, which is "
            f"{derived:.4g} 1/Å³; leave one of them out"
        )
    return stated


def _check_single_element(spec: ObservableSpec, options: dict[str, Any], composition: Composition | None) -> None:
    """A total of several elements weighs pairs by how they scatter, and g(r) of a simulation counts them alike."""
    is_total = spec.name == "rdf" and options["pair"] is None and options["radiation"] is None
    if is_total and composition is not None and len(composition.elements) > 1:
        raise ValueError(
            f"a total g(r) of {composition.formula} weighs pairs by scattering lengths or numbers of electrons, and "
            "observable 'rdf' counts all alike unless told so: give --option radiation=neutron or xray, or a partial "
            "with --option pair=[A,B], or take S(q) as structure_factor"
        )


@dataclass(frozen=True)
class _Scaling:
    """y = offset + value factor x^power, with the unit of the table's values."""

    unit: str
    offset: float = 0.0
    factor: float = 1.0
    power: int = 0
    note: str = ""
    normalization: Normalization | None = None


def _scaling(
    reading: Reading,
    spec: ObservableSpec,
    options: dict[str, Any],
    composition: Composition | None,
    number_density: float | None,
) -> _Scaling:
    """How the table's values become those of the observable."""
    units = {role_of(name): unit for name, unit in reading.units.items()}
    if reading.quantity is None:
        unused = reading.number_density is not None and not reading.convert
        if unused:
            raise ValueError("a number density is for --quantity and --convert; give one of them, or leave it out")
        unit, power = _weighting(spec, units.get(VALUE))
        return _Scaling(unit, power=power, note=f"multiplied by the power {power} of the grid" if power else "")
    constants = Normalization.of(
        quantity(reading.quantity, spec.name),
        number_density=number_density,
        composition=composition,
        radiation=options.get("radiation") or "neutron",
        lengths=options.get("scattering_lengths"),
    )
    note = "" if constants.is_identity else f"{constants.quantity.formula}{constants.description}"
    return _Scaling(
        constants.quantity.unit, constants.offset, 1 / constants.factor, -constants.quantity.power, note, constants
    )  # fmt: skip


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


def _read(table: Table, reading: Reading, spec: ObservableSpec, scaling: _Scaling) -> Values:
    """The columns of a table, in the unit of the observable's grid and in that of the table's quantity."""
    columns = {GRID: "1", VALUE: "2"} | {role_of(name): column for name, column in reading.columns.items()}
    units = {role_of(name): unit for name, unit in reading.units.items()}
    named: dict[str, str] = {}
    if ERROR not in columns and reading.point_error is None and reading.error is None:
        named = columns_by_name(table, {ERROR: ALIASES[ERROR]})
        columns |= named
    check_units(units, columns)
    grid_unit = spec.grid_unit or "1"
    if GRID not in units:
        check_label(table, columns[GRID], grid_unit, GRID)
    numbers = table.numbers(columns)
    count, lines = len(numbers[GRID]), table.lines
    while count > 1 and numbers[GRID][count - 1] == 0 == numbers[VALUE][count - 1]:
        count -= 1
    done = [f"left out {len(numbers[GRID]) - count} rows of zeros at the end"] if count < len(numbers[GRID]) else []
    numbers = {role: column[:count] for role, column in numbers.items()}
    check_curve(numbers[GRID], lines, GRID)
    if numbers[GRID][0] < 0:
        raise ValueError(f"line {lines[0]}: grid {numbers[GRID][0]:g} is negative")
    given = {GRID: units.get(GRID, grid_unit), VALUE: units.get(VALUE, scaling.unit)}
    x = numbers[GRID] * factor(given[GRID], grid_unit)
    y = numbers[VALUE] * factor(given[VALUE], scaling.unit)
    errors = None if reading.point_error is None else assumed_errors(y, reading.point_error, scaling.unit)
    if ERROR in columns:
        scale = error_factor(units.get(ERROR, given[VALUE]), scaling.unit, y)
        errors = checked_errors(numbers[ERROR] * scale, table)
    changed = [
        f"{unit} to {own}" for unit, own in ((given[GRID], grid_unit), (given[VALUE], scaling.unit)) if unit != own
    ]
    done += [f"converted from {', '.join(changed)}"] if changed else []
    done += [f"errors from the column {column}" for column in named.values()]
    return Values(x, y, errors, done)


def _normalised(found: Values, scaling: _Scaling, spec: ObservableSpec, options: dict[str, Any]) -> Values:
    """The observable itself; what a table must tend to is looked at here, where all of it is at hand."""
    x, y, errors, done = _grid(found), found.values, found.errors, list(found.processing)
    if scaling.normalization is not None:
        scaling.normalization.check(x, y)
    if scaling.power < 0 and x[0] == 0:
        x, y, errors = x[1:], y[1:], None if errors is None else errors[1:]
        done.append("left out the point at 0, which says nothing of the observable")
    slope = scaling.factor * x**scaling.power
    y, errors = scaling.offset + slope * y, None if errors is None else slope * errors
    if scaling.note:
        done.append(scaling.note)
    return Values(x, y, errors, done)


def _selected(found: Values, reading: Reading, spec: ObservableSpec) -> Values:
    """The points to take."""
    x = _grid(found)
    inside, done = _inside(x, reading), list(found.processing)
    if inside.sum() < MINIMUM_POINTS:
        raise ValueError(f"it has {inside.sum()} points where at least {MINIMUM_POINTS} are needed")
    x, y = x[inside], found.values[inside]
    if reading.between is not None:
        done.append(f"{len(x)} points from {x[0]:g} to {x[-1]:g} {spec.grid_unit}")
    return Values(x, y, None if found.errors is None else found.errors[inside], done)


def _inside(x: NDArray[np.float64], reading: Reading) -> NDArray[np.bool_]:
    """Which points of the table to take."""
    if reading.between is None:
        return np.ones(len(x), bool)
    low, high = reading.between
    slack = 1e-6 * (x[-1] - x[0])
    if low < x[0] - slack or high > x[-1] + slack:
        raise ValueError(
            f"points from {low:g} to {high:g} are asked for; the data go from {x[0]:g} to {x[-1]:g}, so that "
            f"{max(low, x[0]):g}:{min(high, x[-1]):g} is what there is"
        )
    return np.asarray((x >= low - slack) & (x <= high + slack))


def _grid(found: Values) -> NDArray[np.float64]:
    if found.grid is None:
        raise ValueError("a curve needs a grid")
    return found.grid


def _check_table(found: Values, spec: ObservableSpec, options: dict[str, Any]) -> None:
    """Hold the part of a table that carries numbers to what the observable tends to."""
    if spec.check_tail is None or not found.values.any():
        return
    last = int(np.flatnonzero(found.values)[-1]) + 1
    spec.check_tail(options, _grid(found)[:last], found.values[:last])


def _averaged(found: Values, reading: Reading, spec: ObservableSpec, length: float | None) -> Values:
    """Averages over the bins of the grid."""
    if reading.grid is None:
        return found
    edges, done = equal_bins(*reading.grid), list(found.processing)
    # S(q) is no distribution, and not zero below its first point.
    is_distribution = spec.bins is not None and spec.name != "structure_factor"
    result = resample(
        Curve(_grid(found), found.values, found.errors), edges, shells=spec.bins == "shells",
        correlated=reading.correlated, length=length, interpolation=reading.interpolation, zero_below=is_distribution,
    )  # fmt: skip
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
    return Values((edges[1:] + edges[:-1]) / 2, result.values, result.errors, done)


def _transformed(
    found: Values, reading: Reading, spec: ObservableSpec, held: ObservableSpec, number_density: float | None
) -> Values:
    """The sine transform, averaged over bins; independent errors of the table go through it as they are."""
    if reading.grid is None:
        raise ValueError("a conversion needs a grid, start:stop:n")
    if number_density is None:
        raise ValueError("a conversion needs the number density, in atoms per Å³, or --density and --composition")
    if reading.correlated or reading.correlation_length:
        raise ValueError("the errors of a table that is converted must be independent")
    x, edges, window = _grid(found), equal_bins(*reading.grid), reading.window or "lorch"
    width = edges[1] - edges[0]
    inside = edges[:-1, None] + width * (np.arange(SUBDIVISIONS) + 0.5) / SUBDIVISIONS
    make = rdf_matrix if held.name == "structure_factor" else structure_factor_matrix
    whole = make(x, inside.ravel(), number_density, window)
    weights = inside**2 if spec.bins == "shells" else np.ones_like(inside)
    weights = weights / weights.sum(1, keepdims=True)
    matrix = np.einsum("bs,bsx->bx", weights, whole.reshape(*inside.shape, len(x)))
    description = (
        f"converted from {held.name} up to {x[-1]:.4g} {held.grid_unit} at {number_density:g} atoms per Å³, "
        f"window {window}, averaged over {len(edges) - 1} bins"
    )
    propagated = None if found.errors is None else np.sqrt(matrix**2 @ found.errors**2)
    centres = (edges[1:] + edges[:-1]) / 2
    return Values(centres, 1 + matrix @ (found.values - 1), propagated, [*found.processing, description])


def _filtered(found: Values, reading: Reading, spec: ObservableSpec, options: dict[str, Any]) -> Values:
    """The values as the observable filters them; errors of the points are independent, and those of the result not."""
    filtering = None if spec.filter_of is None else spec.filter_of(options, _grid(found).tolist())
    if filtering is None:
        return found
    if reading.correlated or reading.correlation_length:
        raise ValueError("the errors of a table that is filtered must be independent")
    matrix = filtering.matrix
    errors = None if found.errors is None else np.sqrt(matrix**2 @ found.errors**2)
    return Values(found.grid, matrix @ found.values, errors, [*found.processing, filtering.description])
