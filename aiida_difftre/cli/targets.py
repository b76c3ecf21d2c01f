"""Targets from files: YAML, or a table with the options that say what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_difftre.cli import completion
from aiida_difftre.cli.parameters import NUMBER
from aiida_difftre.engine.contract.numbers import read_number

if TYPE_CHECKING:
    from aiida_difftre.engine.contract.targets import Target
    from aiida_difftre.engine.tables.readings import Reading

YAML_SUFFIXES = (".yaml", ".yml", ".json")

UNITS = {"temperature": "K", "pressure": "GPa", "density": "kg/m3", "number_density": "1/A3"}
"""Of conditions that have none on the command line."""

_OPTIONS = (
    click.option(
        "--observable",
        shell_complete=completion.observables,
        help="What the table holds: the name of a registered observable.",
    ),
    click.option("--option", "options", multiple=True, help="NAME=VALUE of the observable, such as pair=[O,O]."),
    click.option(
        "--columns", help="Names or numbers: r=1,g=2,error=3 (so or q=,S= k=,chi=) of a curve, C11=2,C12=3 of a row."
    ),
    click.option("--row", "rows", multiple=True, help="COLUMN=VALUE of the rows to read, where not all are."),
    click.option("--units", help="Of the columns: r=nm,g=1,error=%; those of the observable otherwise."),
    click.option("--error", help="Assumed error of the target's values, such as 0.02, 2% or 2%+0.005."),
    click.option("--point-error", help="Assumed error of each point of the table, propagated like a column's."),
    click.option("--error-source", type=click.Choice(["measured", "assumed"]), help="Where the errors come from."),
    click.option(
        "--correlated",
        is_flag=True,
        help="The points within a bin of --grid have one and the same error, which its average keeps; between bins "
        "errors are independent without --correlation-length.",
    ),
    click.option(
        "--correlation-length",
        help="Distance over which errors are correlated, such as 0.15 (in the unit of the grid) or 15pm: averages and "
        "chi² count them so.",
    ),
    click.option("--grid", help="start:stop:n, n equal bins with the grid at their centres; else the table's points."),
    click.option(
        "--range", "between", help="low:high, the points of the table between them, where there is no --grid."
    ),
    click.option(
        "--interpolation", type=click.Choice(["monotone", "cubic"]), default="monotone", help="Between the points."
    ),
    click.option("--convert", is_flag=True, help="The table holds S(q) where g(r) is wanted, or g(r) where S(q) is."),
    click.option(
        "--quantity",
        help="What the values are where they are not the observable: G, g-1, R (4πr²ρg) or T (4πrρg) for g(r); F, S-1, "
        "Q(S-1) or DCS for S(q).",
    ),
    click.option("--number-density", help="Atoms per Å³, or with a unit, for --quantity and --convert."),
    click.option("--composition", help="Formula of the sample, such as D2O, for scattering lengths and densities."),
    click.option("--window", type=click.Choice(["lorch", "none"]), help="Of --convert; lorch by default."),
    click.option("--temperature", help="Of the measurement: 85, 85K or 22degC."),
    click.option("--pressure", help="Of the measurement, in GPa or with a unit: 1bar."),
    click.option("--density", help="Of the measurement, in kg/m³ or with a unit: 0.997g/cm3."),
    click.option("--citation", help="The publication."),
    click.option("--doi", help="Its digital object identifier."),
    click.option(
        "--role",
        type=click.Choice(["training", "selection", "test"]),
        help="In the loss (training), to choose the best iteration (selection), or for the validation alone (test).",
    ),
    click.option("--weight", type=NUMBER, help="Factor in the loss."),
)
"""Of ``target import``; they apply to tables alone."""


def table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what a table holds."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read(file: Path, label: str, options: dict[str, Any]) -> Target:
    """The target in a file.

    Args:
        file: YAML or a table.
        label: Label of the target; empty to leave it as it is.
        options: Options of :func:`table_options`.

    Raises:
        ValueError: naming what is missing or wrong.
    """
    if file.suffix.lower() in YAML_SUFFIXES:
        return _read_yaml(file, label, options)
    from aiida_difftre.engine.tables.target import target_from_table

    missing = [name for name in ("observable", "temperature", "citation") if not options[name]]
    if missing:
        raise ValueError(f"{file.name} is a table: give --{', --'.join(missing)} (a target as YAML ends in .yaml)")
    conditions = {name: _quantity(name, options) for name in ("temperature", "pressure") if options[name]}
    if options["density"]:
        conditions["density"] = _density(options)
    fields = {name: options[name] for name in ("observable", "error_source", "citation", "doi", "role", "weight")}
    chosen = {name: _value(text) for name, text in pairs("--option", options["options"]).items()}
    return target_from_table(
        file, _reading(options), conditions=conditions, options=chosen, label=label or None, **fields
    )


def _read_yaml(file: Path, label: str, options: dict[str, Any]) -> Target:
    from aiida_difftre.data.target import read_target
    from aiida_difftre.engine.contract.targets import Target
    from aiida_difftre.engine.contract.validation import validate

    defaults = {"interpolation": "monotone"}
    given = [name for name, value in options.items() if value and value != defaults.get(name)]
    if given:
        spelled = {"options": "option", "rows": "row", "between": "range"}
        wrong = spelled.get(given[0], given[0].replace("_", "-"))
        raise ValueError(f"--{wrong} is for tables; {file.name} is a target as YAML and says everything itself")
    found = read_target(file)
    return validate(Target, {**found.model_dump(), "label": label}) if label and found.label is None else found


_AS_THEY_ARE = (
    "error", "point_error", "correlated", "correlation_length", "interpolation", "convert", "quantity", "composition",
    "window",
)  # fmt: skip
"""Options that are fields of a reading."""


def _reading(options: dict[str, Any]) -> Reading:
    from aiida_difftre.engine.tables.readings import Reading

    density = _quantity("number_density", options) if options["number_density"] else None
    return Reading(
        columns=pairs("--columns", (options["columns"] or "").split(",")),
        rows=pairs("--row", options["rows"]),
        units=pairs("--units", (options["units"] or "").split(",")),
        number_density=density,
        grid=_grid(options["grid"]) if options["grid"] else None,
        between=_range(options["between"]) if options["between"] else None,
        **{name: options[name] for name in _AS_THEY_ARE},
    )


def pairs(option: str, parts: Iterable[str]) -> dict[str, str]:
    """Read NAME=VALUE of an option.

    Raises:
        ValueError: for what is none, or a name that stands twice.
    """
    found: dict[str, str] = {}
    for part in parts:
        if not part.strip():
            continue
        name, equals, value = (text.strip() for text in part.partition("="))
        if not (name and equals and value):
            raise ValueError(f"{option} has {part!r}; give NAME=VALUE")
        if name in found:
            raise ValueError(f"{option} gives {name!r} twice")
        found[name] = value
    return found


def _value(text: str) -> Any:
    from aiida_difftre.engine.contract.documents import parse_yaml
    from aiida_difftre.engine.errors import shown

    try:
        return parse_yaml(text)
    except ValueError:
        raise ValueError(
            f"--option has the value {shown(text)}; give a number, a word or a list such as [O,O]"
        ) from None


def _quantity(name: str, options: dict[str, Any]) -> float:
    from aiida_difftre.engine.tables.units import quantity

    try:
        return quantity(options[name], UNITS[name])
    except ValueError as error:
        raise ValueError(f"--{name.replace('_', '-')}: {error}") from None


def _density(options: dict[str, Any]) -> float:
    """The density in kg/m³; atoms per volume become one by the composition."""
    from aiida_difftre.engine.contract.isotopes import Composition
    from aiida_difftre.engine.tables.units import is_number_density, quantity

    if not (options["composition"] and is_number_density(options["density"])):
        return _quantity("density", options)
    return Composition.parse(options["composition"]).density(quantity(options["density"], "1/A3"))


def _grid(text: str) -> tuple[float, float, int]:
    parts = text.split(":")
    if len(parts) != 3 or not parts[2].isdecimal():
        raise ValueError(f"--grid is {text!r}; give start:stop:n, such as 0:10:300")
    start, stop = _numbers("--grid", parts[:2])
    return start, stop, int(parts[2])


def _range(text: str) -> tuple[float, float]:
    parts = text.split(":")
    low, high = _numbers("--range", parts) if len(parts) == 2 else (0.0, 0.0)
    if not low < high:
        raise ValueError(f"--range is {text!r}; give low:high, such as 3:12.5")
    return low, high


def _numbers(option: str, parts: Iterable[str]) -> Iterator[float]:
    for part in parts:
        try:
            yield read_number(part)
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from None


def catalogued(system: str | None, observable: str | None, paths: bool) -> list[str]:
    """The measurements of the catalogue as lines.

    Args:
        system: Formula; None for all.
        observable: Name of an observable; None for all.
        paths: True for the files too.

    Raises:
        ValueError: where there is nothing; naming what there is.
    """
    from aiida_difftre import catalogue
    from aiida_difftre.engine.errors import did_you_mean

    found = [(entry, entry.target()) for entry in catalogue.entries(system)]
    chosen = [(entry, target) for entry, target in found if observable in (None, target.observable)]
    if not chosen:
        there = sorted({target.observable for _, target in found})
        of_what = "" if system is None else f" of {system}"
        near = did_you_mean(observable, there)
        raise ValueError(f"no {observable!r}{of_what} in the catalogue{near}; there is {', '.join(there)}")
    lines = []
    for entry, target in chosen:
        lines.append(f"{catalogue.PREFIX}{entry.name}: {_measured(target)} at {target.conditions.temperature:g} K")
        lines.append(f"  {target.citation}" + (f", doi:{target.doi}" if target.doi else ""))
        if target.checked_against:
            lines.append(f"  checked against: {target.checked_against}")
        if paths:
            lines.append(f"  {entry.path}")
    return lines


def _measured(target: Target) -> str:
    if target.grid is not None:
        return f"{target.observable}, {len(target.grid)} points from {target.grid[0]:g} to {target.grid[-1]:g}"
    unit = "" if target.unit == "1" else f" {target.unit}"
    numbers = zip(target.component_labels(), target.values, target.total_errors(), strict=True)
    return ", ".join(f"{name} {value:g} ± {error:g}" for name, value, error in numbers) + unit


def summary(target: Target, correlated: bool = False) -> list[str]:
    """What was read, for a person to check; ``correlated`` says that averages kept the errors of points."""
    error = float(target.total_errors()[0])
    count = f"{len(target.values)} values" if len(target.values) > 1 else f"{target.values[0]:g} ± {error:g}"
    place = "" if target.grid is None else f" from {target.grid[0]:g} to {target.grid[-1]:g}"
    lines = [f"{target.name}: {count}{place} at {target.conditions.temperature:g} K, errors {target.error_source}"]
    if target.source is not None and target.source.processing:
        lines.append(target.source.processing)
    if correlated and target.correlation_length is None:
        lines.append(
            "--correlated: averages over bins keep the errors of their points; in chi² the bins are independent, "
            "unless --correlation-length says over which distance they share errors"
        )
    return lines


def write_target(target: Target, path: Path, force: bool) -> Path:
    """Write a target as YAML, as ``targets`` of an input read it.

    Raises:
        ValueError: for a file that exists, unless forced.
    """
    import yaml

    from aiida_difftre.engine.contract.observables import observable

    if path.exists() and not force:
        raise ValueError(f"{path} exists; give another name, or --force")
    content = target.model_dump(mode="json", exclude_none=True)
    defaults = observable(target.observable).options
    content["options"] = {
        name: value for name, value in content["options"].items() if name not in defaults or value != defaults[name]
    }
    standard = {"role": "training", "weight": 1.0, "options": {}}
    kept = {name: value for name, value in content.items() if name not in standard or value != standard[name]}
    numbers = {name: kept.pop(name) for name in ("grid", "values", "errors") if name in kept}
    text = [yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=116)]
    # Numbers last: a person reads what they are first.
    text += [
        yaml.safe_dump({name: value}, default_flow_style=None, sort_keys=False, width=116)
        for name, value in numbers.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(text), encoding="utf-8")
    return path
