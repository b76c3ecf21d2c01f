"""Numbers that people write as text, with a decimal point. Free of JAX."""

from __future__ import annotations

import re

from aiida_difftre.engine.errors import shown

DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eEdD][+-]?\d+)?")
"""A number with a decimal comma."""


def point_remedy(text: object) -> str:
    """The end of a message about what is no number: how to write one that has a decimal comma; empty for all else."""
    found = DECIMAL_COMMA.match(text.strip()) if isinstance(text, str) else None
    return "" if found is None else f"; write it with a decimal point: {found.group().replace(',', '.')}"


def read_number(text: str) -> float:
    """Read a number from text.

    Raises:
        ValueError: naming what is none; of a decimal comma also how to write it.
    """
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is no number{point_remedy(text)}") from None
