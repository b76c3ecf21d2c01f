"""The base of everything that is read from a file: what nobody knows is refused."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from aiida_difftre.engine.contract.bounds import Limits, is_entering

SEEDS = 2**62
"""Seeds lie below: those of the parts of a job follow by addition, and JAX takes integers of 64 bits."""

Seed = Annotated[int, Limits(least=0, below=SEEDS, reason="JAX takes integers of 64 bits")]
"""Of pseudo-random numbers."""


def derived_seed(seed: int, *names: object) -> int:
    """A seed for one part of a run: deterministic, and different for different names."""
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1


LONGEST_LABEL = 100
"""Characters; labels name links and columns of tables, and a link has room for 255 with those around it."""


def _on_one_line(text: str) -> str:
    if is_entering() and (len(text) > LONGEST_LABEL or text != " ".join(text.split())):
        raise ValueError(f"a label is at most {LONGEST_LABEL} characters on one line, without spaces around it")
    return text


Name = Annotated[str, AfterValidator(_on_one_line)]
"""What results, nodes and plots are called."""


def _plain_file_name(name: str) -> str:
    if PurePath(name).name != name or name in {"", ".", ".."} or "\\" in name or not name.isprintable():
        raise ValueError(f"{name!r} is not a plain file name; files lie beside the job file")
    return name


FileName = Annotated[str, AfterValidator(_plain_file_name)]
"""Of a file beside the job file."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""Digest of a file."""


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal would obey, but for tabs and ends of lines; marks that turn the order of letters; halves of pairs."""


class Strict(BaseModel):
    """A model that refuses unknown keys, numbers that are not finite, and control characters in text."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="after")
    def _plain(self) -> Self:
        for name, value in self:
            _check_plain(value, name)
        return self


def _check_plain(value: Any, where: str) -> None:
    """Check text, and numbers that no model describes, also within mappings and lists; models check their own.

    Raises:
        ValueError: Naming the place and what is wrong there.
    """
    if isinstance(value, str):
        if (found := _CONTROL.search(value)) is not None:
            raise ValueError(f"{where} holds the control character {found.group()!r}; remove it")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} = {value} must be a finite number")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            _check_plain(inner, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_plain(inner, f"{where}.{number}")
