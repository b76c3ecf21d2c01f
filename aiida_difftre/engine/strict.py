"""The base of everything that is read from a file: what nobody knows is refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SEEDS = 2**62
"""Seeds lie below: those of the parts of a job follow by addition, and JAX takes integers of 64 bits."""

Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
"""Of pseudo-random numbers."""


class Strict(BaseModel):
    """A model that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)
