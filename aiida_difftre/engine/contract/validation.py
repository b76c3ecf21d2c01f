"""Plain data checked against a model of the contract, with messages that name each offending value. Free of JAX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import of_stored
from aiida_difftre.engine.errors import did_you_mean, one_line, shown

ModelT = TypeVar("ModelT", bound=Strict)

UNSTATED = re.compile(r"\[.*\]")
"""Of where a problem is: what pydantic adds, such as which of several kinds a value was taken for."""

MOST_PROBLEMS = 5
"""Of an input that are named at once."""


def validate(model: type[ModelT], content: Any) -> ModelT:
    """Check plain data against a model, such as a target or a job, and make it.

    Args:
        model: The model, a class of pydantic.
        content: Mappings, lists, strings and numbers, as they come from YAML or JSON.

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
        raise ValueError(explain(error, model)) from None


def read_stored(model: type[ModelT], content: Any) -> ModelT:
    """What is stored, as ``model``, although its values may be outside of bounds that came later.

    Raises:
        ValueError: as :func:`validate`, for what has another form than the model.
    """
    with of_stored():
        return validate(model, content)


def explain(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """What is wrong, one phrase for each problem of a pydantic error: where, what, and the offending value.

    Args:
        error: The error.
        model: What was validated, whose keys are proposed for those that nobody knows; None for no proposals.
    """
    problems = error.errors(include_url=False)
    phrases = []
    for problem in problems[:MOST_PROBLEMS]:
        where = ".".join(str(part) for part in problem["loc"] if not UNSTATED.fullmatch(str(part))) or "input"
        unknown = problem["type"] == "extra_forbidden"
        message = "unknown key" if unknown else problem["msg"].removeprefix("Value error, ")
        value = "" if isinstance(problem["input"], dict | list) else f" (got {shown(problem['input'])})"
        place = problem["loc"]
        near = did_you_mean(place[-1], _fields_at(model, place[:-1])) if unknown and model is not None else ""
        phrases.append(f"{one_line(where)}: {message}{value}{near}")
    if (more := len(problems) - MOST_PROBLEMS) > 0:
        phrases.append(f"and {more} more")
    return one_line("; ".join(phrases))


def _fields_at(model: type[BaseModel], place: Iterable[Any]) -> set[str]:
    """The keys that are known at a place in a document: what is no key is an index, a label or the tag of a union."""
    models = {model}
    for part in place:
        inner = [one.model_fields[part].annotation for one in models if part in one.model_fields]
        if inner:
            models = {found for annotation in inner for found in _models_in(annotation)}
    return {name for one in models for name in one.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
