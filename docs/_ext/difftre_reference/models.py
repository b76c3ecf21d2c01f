"""Reference of the files that people and jobs write, from the pydantic models: JSON schema to tables."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from aiida_difftre.data.structures import Generation
from aiida_difftre.engine.contract.kinds import JOBS, RESULTS_OF
from aiida_difftre.engine.contract.records import ErrorReport, ProgressLine
from aiida_difftre.workchains.input_models import RunInput
from aiida_difftre.workchains.refine_settings import RefineSettings
from aiida_difftre.workchains.validate_checks import ValidateSettings
from difftre_reference.text import arguments, body, cell, meanings, table

CONSTRAINTS = {
    "exclusiveMinimum": "> {}", "minimum": "≥ {}", "exclusiveMaximum": "< {}", "maximum": "≤ {}",
    "minLength": "at least {} characters", "minItems": "at least {}", "minProperties": "at least {}",
}  # fmt: skip


def input_page() -> str:
    """The YAML file of a run, and the settings that it passes on."""
    return _sections(RunInput, Generation, RefineSettings, ValidateSettings)


def jobs_page() -> str:
    """The job files of the engine."""
    return _sections(*JOBS.values())


def results_page() -> str:
    """What the jobs of the engine write."""
    return _sections(*RESULTS_OF.values(), ErrorReport, ProgressLine)


def _sections(*models: type[BaseModel]) -> str:
    return "\n".join(section(model) for model in _with_parts(*models))


def section(model: type[BaseModel] | type[Enum]) -> str:
    """One model, or the values that a field may have."""
    if issubclass(model, Enum):
        told = meanings(model)
        return f"## {model.__name__}\n\n{body(model)}\n" + table(
            ("value", ""), ((f"`{json.dumps(one.value)}`", cell(told[one.name])) for one in model)
        )
    fields = rows(model)
    return f"## {model.__name__}\n\n{body(model)}\n" + table(("field", "type", "default", ""), fields)


def rows(model: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    """Rows: name, type, default, description."""
    schema = model.model_json_schema()
    told = descriptions(model)
    for name, description in schema["properties"].items():
        yield f"`{name}`", cell(kind(description)), _default(model, name), cell(told[name])


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Field descriptions from the docstrings of a model and of those that it extends."""
    told: dict[str, str] = {}
    for base in reversed(model.__mro__):
        own = [name for name in inspect.get_annotations(base) if name in model.model_fields]
        told |= _own_descriptions(base, own)
    return told


def _own_descriptions(model: type[BaseModel], names: list[str]) -> dict[str, str]:
    fixed = {name: "Fixed." for name in names if _is_fixed(model.model_fields[name].annotation)}
    free = [name for name in names if name not in fixed]
    # A model whose docstring is one line says in it what its fields are.
    return fixed | (arguments(model, free) if "Args:" in (model.__doc__ or "") else dict.fromkeys(free, ""))


def _is_fixed(annotation: Any) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def _default(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        changed = value.model_dump(mode="json", exclude_defaults=True)
        return f"`{json.dumps(changed)}`" if changed else "its defaults"
    return f"`{json.dumps(value)}`"


def kind(schema: dict[str, Any]) -> str:
    """The type of a field in words, with its limits."""
    if "$ref" in schema:
        name = schema["$ref"].split("/")[-1]
        return "anything" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(kind(option) for option in schema[key] if option.get("type") != "null")
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    named = schema.get("type", "anything")
    if named == "array":
        inner = [kind(item) for item in schema["prefixItems"]] if "prefixItems" in schema else None
        named = f"list of {len(inner)}: {inner[0]}" if inner else f"list of {kind(schema.get('items', {}))}"
    elif named == "object":
        values = schema.get("additionalProperties")
        named = f"mapping to {kind(values)}" if isinstance(values, dict) and values else "mapping"
    elif schema.get("format") == "path":
        named = "path"
    limits = (
        []
        if "prefixItems" in schema
        else [text.format(_plain(schema[key])) for key, text in CONSTRAINTS.items() if key in schema]
    )
    return ", ".join([named, *limits])


def _plain(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def _with_parts(*models: type[BaseModel]) -> list[type[BaseModel] | type[Enum]]:
    """Models and, after each, the models and lists of values that its fields are made of; every one once."""
    found: list[type[BaseModel] | type[Enum]] = []

    def add(model: type[BaseModel] | type[Enum]) -> None:
        if model in found:
            return
        found.append(model)
        if issubclass(model, Enum):
            return
        for field in model.model_fields.values():
            for part in _models_in(field.annotation):
                add(part)

    for model in models:
        add(model)
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel] | type[Enum]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel | Enum):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
