"""What must hold at every door: a mutated input succeeds and is within its bounds, or is refused in one short line."""

from __future__ import annotations

import json
import os
import signal
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from click import ClickException
from pydantic import BaseModel

from aiida_difftre.engine.contract.bounds import Limits, is_number
from aiida_difftre.engine.errors import EngineError, one_line

EXAMPLES = int(os.environ.get("DIFFTRE_FUZZ", "100"))
"""Mutations of each kind; a CPU minute in all. By hand: ``DIFFTRE_FUZZ=20000 DIFFTRE_FUZZ_REPORT=fuzz.json``."""

REPORT = os.environ.get("DIFFTRE_FUZZ_REPORT")
"""Where to write how many inputs of each kind were tried, accepted and refused."""

LONGEST_S = 20
"""CPU seconds after which an input counts as one that hangs."""

LONGEST_MESSAGE = 1000

tried: Counter[tuple[str, str]] = Counter()


class HangError(Exception):
    """An input that takes more CPU time than any should."""


@contextmanager
def limited() -> Iterator[None]:
    """End what takes too much CPU time."""

    def stop(*_: Any) -> None:
        raise HangError(f"more than {LONGEST_S} CPU s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def enter(kind: str, door: Callable[[], Any]) -> Any:
    """Try an input at a door: what it gives, or None where it is refused as it should be.

    Anything but a refusal of ours, with one short line without control characters, is raised.
    """
    found, refusal = None, None
    try:
        with limited():
            found = door()
    except (ValueError, EngineError, ClickException) as error:
        refusal = error
    if refusal is None:
        tried[kind, "accepted"] += 1
        return found
    # What the command lines show of a ValueError.
    message = one_line(refusal.message if isinstance(refusal, ClickException) else str(refusal))
    assert message, f"{kind}: {type(refusal).__name__} without a message"
    assert len(message) <= LONGEST_MESSAGE
    assert message.isprintable()
    tried[kind, "refused"] += 1
    return None


def check_bounds(model: BaseModel) -> None:
    """Every number of an accepted model is finite and within its limits, and no text holds control characters."""
    hints = typing.get_type_hints(type(model), include_extras=True)
    for name, value in model:
        _check(value, hints[name], f"{type(model).__name__}.{name}")


def _check(value: Any, annotation: Any, where: str) -> None:
    limits = [one for one in typing.get_args(annotation)[1:] if isinstance(one, Limits)]
    if typing.get_origin(annotation) is Annotated:
        for one in limits if value is not None and not isinstance(value, str) else ():
            assert is_number(value), f"{where} = {value!r} is no number"
            one.check(value)
        annotation = typing.get_args(annotation)[0]
    if isinstance(value, BaseModel):
        check_bounds(value)
    elif isinstance(value, str):
        assert not any(ord(one) < 32 and one not in "\t\n" for one in value), f"{where} = {value!r}"
    elif isinstance(value, float):
        assert is_number(value), f"{where} = {value!r}"
    elif isinstance(value, dict):
        arguments = _of(annotation, dict)
        for key, item in value.items():
            if arguments:
                _check(item, arguments[1], f"{where}.{key}")
    elif isinstance(value, list | tuple):
        arguments = _of(annotation, list) or _of(annotation, tuple)
        for item in value:
            if arguments:
                _check(item, arguments[0], where)
    elif value is not None:
        for part in typing.get_args(annotation):
            if typing.get_origin(part) is Annotated:
                _check(value, part, where)


def _of(annotation: Any, kind: type) -> tuple[Any, ...]:
    """The arguments of a container in an annotation, which may be one of several or None."""
    for part in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(part) is kind:
            return typing.get_args(part)
    return ()


def report() -> dict[str, dict[str, int]]:
    """By kind: how many inputs were tried, accepted and refused."""
    kinds = sorted({kind for kind, _ in tried})
    return {
        kind: {"tried": sum(n for (one, _), n in tried.items() if one == kind),
               "accepted": tried[kind, "accepted"], "refused": tried[kind, "refused"]}
        for kind in kinds
    }  # fmt: skip


def write_report() -> None:
    """Write the report where one is asked for, adding to that of earlier runs."""
    if REPORT is None:
        return
    path = Path(REPORT)
    total = json.loads(path.read_text()) if path.is_file() else {}
    for kind, numbers in report().items():
        for name, number in numbers.items():
            total.setdefault(kind, {}).setdefault(name, 0)
            total[kind][name] += number
    path.write_text(json.dumps(total, indent=1) + "\n")
