"""Targets from measured tables: a curve, or the row of an observable without a grid; errors, source. Free of JAX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.observables import ObservableSpec, observable
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.tables.curves import curve
from aiida_difftre.engine.tables.readings import (
    ALIASES,
    ERROR,
    VALUE,
    Reading,
    Values,
    assumed_errors,
    check_label,
    check_units,
    checked_errors,
    columns_by_name,
    error_factor,
)
from aiida_difftre.engine.tables.table import Table, read_table
from aiida_difftre.engine.tables.units import factor


def target_from_table(path: str | Path, reading: Reading, **fields: Any) -> Target:
    r"""Make a target from a table of measured values: a curve, or the row of an observable without a grid.

    Args:
        path: The table.
        reading: How to read it: columns, units, errors, grid.
        **fields: Fields of the target, but for those that the table gives: ``observable``, ``conditions``, ``citation``
            and the like.

    Returns:
        The target, with a record of where it comes from and what was done to it.

    Raises:
        ValueError: With the file and the offending line or value.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from aiida_difftre.engine.tables.readings import Reading
        >>> from aiida_difftre.engine.tables.target import target_from_table
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "diamond.csv")
        ...     _ = path.write_text("T,C11,C12,C44\n300,1079,124,578\n500,1070,125,573\n", encoding="utf-8")
        ...     reading = Reading(columns={"C11": "C11", "C12": "C12", "C44": "C44"}, rows={"T": "300"}, error="1%")
        ...     target = target_from_table(
        ...         path, reading, observable="stiffness", conditions={"temperature": 300.0}, citation="a paper"
        ...     )
        >>> target.values, target.errors
        ([1079.0, 124.0, 578.0], [10.79, 1.24, 5.78])
    """
    name = str(fields.get("observable"))
    spec = observable(name)
    options = spec.complete_options(dict(fields.get("options") or {}))
    spec = replace(spec, unit=spec.unit_for(options), bins=spec.bins_for(options))
    table = read_table(path).where(reading.rows)
    conditions = fields.get("conditions") or {}
    if spec.grid_unit is None:
        found = _labelled(table, reading, spec, options)
    else:
        try:
            found = curve(table, reading, spec, options, conditions.get("density"))
        except ValueError as error:
            raise ValueError(str(error) if str(error).startswith(table.name) else f"{table.name}: {error}") from None
    errors = _total_error(found, reading, spec.unit, table.name)
    processing = list(table.notes)
    processing += [f"rows with {', '.join(f'{k} = {v}' for k, v in reading.rows.items())}"] if reading.rows else []
    processing += found.processing
    if reading.point_error is not None:
        processing.append(f"error of each point {reading.point_error}")
    if reading.error is not None:
        processing.append(f"error {reading.error}" + (" added in quadrature" if found.errors is not None else ""))
    if found.correlation_length is not None:
        processing.append(f"errors correlated over {found.correlation_length:g} {spec.grid_unit}")
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
    if found.correlation_length is not None:
        content["correlation_length"] = found.correlation_length
    try:
        return validate(Target, content)
    except ValueError as error:
        raise ValueError(f"{table.name}: {error}") from None


def _rounded(numbers: NDArray[np.float64], digits: int) -> list[float]:
    return [float(f"{number:.{digits}g}") for number in numbers]


def _labelled(table: Table, reading: Reading, spec: ObservableSpec, options: dict[str, Any]) -> Values:
    """The values of one row."""
    labels = spec.labels(options) if spec.labels is not None else ()
    asked = {
        "grid": reading.grid or reading.between, "conversion": reading.convert, "window": reading.window,
        "quantity": reading.quantity, "number density": reading.number_density,
        "correlated errors": reading.correlated or reading.correlation_length,
        "interpolation": reading.interpolation != "monotone",
        "error of points: give it as --error": reading.point_error,
    }  # fmt: skip
    for what, value in asked.items():
        if value:
            raise ValueError(f"observable {spec.name!r} has values {', '.join(labels)}: it knows no {what}")
    errors = {f"{label}_error": label for label in labels}
    columns = {(f"{labels[0]}_error" if name == ERROR and len(labels) == 1 else name): column
               for name, column in reading.columns.items()}  # fmt: skip
    named = _columns_by_name(table, reading, spec, labels) if not set(labels) & set(columns) else {}
    columns |= named
    for name in columns:
        if name not in labels and name not in errors:
            raise ValueError(f"column {name!r} is none of {', '.join([*labels, *errors])} of {spec.name!r}")
    if missing := [label for label in labels if label not in columns]:
        raise ValueError(
            f"no column is given for {', '.join(missing)} of {spec.name!r}; name it as in --columns {missing[0]}=COLUMN"
        )
    if len(table.rows) != 1:
        column = table.header[0] if table.header else "1"
        raise ValueError(
            f"{table.name} has {len(table.rows)} rows; choose one by what stands in a column, as in --row "
            f"{column}={table.rows[0][0]}"
        )
    numbers = table.numbers(columns)
    units = {name: reading.units.get(name, reading.units.get(VALUE, spec.unit)) for name in columns}
    check_units(reading.units, [*columns, VALUE])
    for name, column in columns.items():
        if name not in reading.units and VALUE not in reading.units:
            check_label(table, column, spec.unit, name)
    values = np.array([numbers[label][0] * factor(units[label], spec.unit) for label in labels])
    given = [name for name in errors if name in columns]
    if given and len(given) < len(labels):
        raise ValueError(f"columns of errors are given for {', '.join(given)} alone; give all or none")
    found = None
    if given:
        read = np.array([numbers[name][0] for name in errors])
        scales = [error_factor(units[name], spec.unit, value) for name, value in zip(errors, values, strict=True)]
        found = checked_errors(read * np.array(scales), table)
    done = [f"columns by their names: {', '.join(f'{name}={column}' for name, column in named.items())}"]
    return Values(None, values, found, done if named else [])


def _columns_by_name(table: Table, reading: Reading, spec: ObservableSpec, labels: Sequence[str]) -> dict[str, str]:
    """The columns of the values, and of their errors where none are assumed, where their names tell all of them."""
    alone = (spec.name, *ALIASES[VALUE]) if len(labels) == 1 else ()
    values = columns_by_name(table, {label: (label, *alone) for label in labels})
    if set(values) != set(labels) or reading.error is not None:
        return values if set(values) == set(labels) else {}
    of_errors = {
        f"{label}_error": [name for part in (label, *alone[:1]) for name in _called_errors(part)]
        + list(ALIASES[ERROR] if alone else ())
        for label in labels
    }
    errors = columns_by_name(table, of_errors)
    return values | (errors if len(errors) == len(labels) else {})


def _called_errors(label: str) -> list[str]:
    """What the column of the errors of a value may be called: C11_error, C11 err, sigma_C11, dC11."""
    words = ("error", "err", "sigma", "uncertainty", "esd", "std")
    parts = [pair for word in words for pair in ((label, word), (word, label))]
    return [f"d{label}", f"Δ{label}", *(between.join(pair) for pair in parts for between in ("_", " ", ""))]


def _total_error(found: Values, reading: Reading, unit: str, name: str) -> NDArray[np.float64]:
    """The errors of the table, with the assumed ones of the target in quadrature."""
    if found.errors is None and reading.error is None:
        raise ValueError(
            f"{name}: no errors; name their column, as in --columns error=3, or assume one: --error 0.02 or 2%"
        )
    total = np.zeros_like(found.values) if found.errors is None else found.errors
    if reading.error is not None:
        total = np.hypot(total, assumed_errors(found.values, reading.error, unit))
    if not (total > 0).all():
        index = int(np.argmin(total > 0))
        where = "" if found.grid is None else f" ({found.grid[index]:g})"
        others = f", nor have {missing - 1} others" if (missing := int((total == 0).sum())) > 1 else ""
        raise ValueError(
            f"{name}: value {found.values[index]:g} at index {index}{where} has no error{others}; assume an absolute "
            "one too, as in --error 0.005 (added in quadrature) or 2%+0.005, or leave these points out with --range or "
            "--grid"
        )
    return total
