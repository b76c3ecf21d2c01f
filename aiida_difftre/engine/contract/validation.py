"""Plain data checked against a model of the contract, with messages that name each offending value. Free of JAX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import NO_NUMBER, Limits, of_stored
from aiida_difftre.engine.contract.numbers import point_remedy
from aiida_difftre.engine.errors import did_you_mean, one_line, shown

ModelT = TypeVar("ModelT", bound=Strict)

UNSTATED = re.compile(r"\[.*\]")
"""Of where a problem is: what pydantic adds, such as which of several kinds a value was taken for."""

MOST_KEYS = 12
"""Of a place that are listed."""

MOST_PROBLEMS = 5
"""Of an input that are named at once."""


def validate(model: type[ModelT], content: Any, at: str = "") -> ModelT:
    """Check plain data against a model, such as a target or a job, and make it.

    Args:
        model: The model, a class of pydantic.
        content: Mappings, lists, strings and numbers, as they come from YAML or JSON.
        at: Where the content stands in its document, such as ``refinement.settings``, for messages.

    Returns:
        The content as an object of the model.

    Raises:
        ValueError: Where the content does not fit; the message names each offending value.

    Example:
        >>> from aiida_difftre.engine.contract.validation import validate
        >>> from aiida_difftre.engine.contract.targets import Conditions
        >>> validate(Conditions, {"temperature": 300.0}).temperature
        300.0
        >>> validate(Conditions, {"temperature": -1.0})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: temperature: ...
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError(explain(error, model, at)) from None


def read_stored(model: type[ModelT], content: Any) -> ModelT:
    """What is stored, as ``model``, although its values may be outside of bounds that came later.

    Raises:
        ValueError: as :func:`validate`, for what has another form than the model.
    """
    with of_stored():
        return validate(model, content)


def explain(error: ValidationError, model: type[BaseModel] | None = None, at: str = "") -> str:
    """What is wrong, one phrase for each problem of a pydantic error: where, what, the offending value, what to write.

    Args:
        error: The error.
        model: What was validated, whose keys are proposed for those that nobody knows; None for no proposals.
        at: Where in its document it stands.
    """
    problems = error.errors(include_url=False)
    phrases = []
    for problem in problems[:MOST_PROBLEMS]:
        place = [part for part in problem["loc"] if not UNSTATED.fullmatch(str(part))]
        where = ".".join([*([at] if at else []), *map(str, place)])
        phrases.append(f"{one_line(where)}: {_what(problem, model)}" if where else _what(problem, model))
    if (more := len(problems) - MOST_PROBLEMS) > 0:
        phrases.append(f"and {more} more")
    return one_line("; ".join(phrases))


_MAPPING = "a mapping, of lines KEY: VALUE"
_KINDS: dict[str, str] = {
    "float_type": "a number", "float_parsing": "a number", "int_type": "a whole number",
    "int_parsing": "a whole number", "int_from_float": "a whole number", "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text", "path_type": "the path of a file", "list_type": "a list, such as [A, B]",
    "tuple_type": "a list, such as [A, B]", "dict_type": _MAPPING, "mapping_type": _MAPPING,
    "finite_number": "a finite number", "literal_error": "{expected}",
    "enum": "{expected}", "greater_than": "above {gt}", "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}", "less_than_equal": "at most {le}",
    "union_tag_not_found": "a mapping with the key {discriminator}",
    "string_pattern_mismatch": "text of the form {pattern}",
}  # fmt: skip
"""What has to stand in a place, by the type of pydantic's problem, with the names of its context."""

_LENGTHS = {
    f"{text}{wrong}": words
    for text in ("", "string_")
    for wrong, words in (("too_short", "{min_length} or more"), ("too_long", "at most {max_length}"))
}
_OF_NUMBERS = frozenset(("float_type", "float_parsing", "int_type", "int_parsing", NO_NUMBER))


def _what(problem: Any, model: type[BaseModel] | None) -> str:
    """A problem in words, without its place; the one place where what pydantic says is said again."""
    kind, given, context = problem["type"], problem["input"], problem.get("ctx", {})
    value = "" if isinstance(given, dict | list) else f" (got {shown(given)})"
    if kind == "missing":
        return _missing(model, problem["loc"])
    if kind == "extra_forbidden":
        known = [] if model is None else _fields_at(model, problem["loc"][:-1])
        near = did_you_mean(problem["loc"][-1], known)
        listed = f"; known here: {_listed(known)}" if known and not near else ""
        return f"unknown key{value}{near or listed}"
    if kind == "union_tag_invalid":
        return f"{context['discriminator']} must be one of {context['expected_tags']} (got {context['tag']!r})"
    if kind in _LENGTHS:
        of_what = "characters" if kind.startswith("string") else "entries"
        return f"must have {_LENGTHS[kind].format(**context)} {of_what}{value}"
    if kind in ("model_type", "model_attributes_type"):
        known = [] if model is None else _fields_at(model, problem["loc"])
        return f"must be {_MAPPING}{value}{f'; known here: {_listed(known)}' if known else ''}"
    if kind in _KINDS:
        message = f"must be {_KINDS[kind].format(**context)}"
    else:
        message = problem["msg"].removeprefix("Value error, ")
    return f"{message}{value}{point_remedy(given) if kind in _OF_NUMBERS else ''}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_KEYS]) + (", ..." if len(names) > MOST_KEYS else "")


def _missing(model: type[BaseModel] | None, place: tuple[Any, ...]) -> str:
    """That a key, or an entry of a list, is missing, and what it holds."""
    key = place[-1]
    if not isinstance(key, str):
        return "missing; the list is too short"
    fields = () if model is None else [one.model_fields.get(key) for one in _models_at(model, place[:-1])]
    field = next((field for field in fields if field is not None), None)
    if field is None or not (words := _words(field.annotation)):
        return f"missing; write `{key}:` and its value"
    units = [limits.unit for limits in field.metadata if isinstance(limits, Limits) and limits.unit]
    return f"missing; write `{key}:` and {words}" + "".join(f", in {unit}" for unit in units)


def _words(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(str, get_args(annotation)))}"
    origin = get_origin(annotation) or annotation
    if isinstance(origin, type) and issubclass(origin, BaseModel):
        keys = [name for name, field in origin.model_fields.items() if field.is_required()]
        return f"below it {' and '.join(f'`{key}:`' for key in keys)}" if keys else "keys below it"
    return {float: "a number", int: "a whole number", str: "text", list: "a list, such as [A, B]"}.get(origin, "")


def _fields_at(model: type[BaseModel], place: Iterable[Any]) -> list[str]:
    """The keys that are known at a place in a document: what is no key is an index, a label or the tag of a union."""
    return list(dict.fromkeys(name for one in _models_at(model, place) for name in one.model_fields))


def _models_at(model: type[BaseModel], place: Iterable[Any]) -> set[type[BaseModel]]:
    models = {model}
    for part in place:
        inner = [one.model_fields[part].annotation for one in models if part in one.model_fields]
        if inner:
            models = {found for annotation in inner for found in _models_in(annotation)}
    return models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
