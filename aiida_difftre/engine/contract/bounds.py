"""The bounds of every number that is read, each with its reason, and the quantities that several models share.

A number is a number: neither ``true`` nor ``"300"`` is one. What lies outside of its bounds is a slip of the unit or of
the exponent, or would run for ever; it is refused where it enters, with the reason. What is stored has entered: bounds
that came later do not hide it. Free of JAX.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

NO_NUMBER = "no_number"
"""Type of the problem of a value that is no number."""


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


_entering: ContextVar[bool] = ContextVar("entering", default=True)


@contextmanager
def of_stored() -> Iterator[None]:
    """What is read inside is stored: it passed the checks of its time, and is read whatever those of today say."""
    token = _entering.set(False)
    try:
        yield
    finally:
        _entering.reset(token)


def is_entering() -> bool:
    """Whether what is read comes from outside, so that its values are checked; its form always is."""
    return _entering.get()


_KEYS = {"least": "minimum", "above": "exclusiveMinimum", "most": "maximum", "below": "exclusiveMaximum"}
"""Names of the bounds in a JSON schema."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of a number, as metadata of its annotation.

    Args:
        least: smallest value.
        above: the same, itself excluded.
        most: largest value.
        below: the same, itself excluded.
        unit: Unit of the bounds, for messages.
        reason: why, for messages: what a value outside would mean.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    unit: str = ""
    reason: str

    def check(self, value: float) -> None:
        """Refuse a value outside.

        Raises:
            ValueError: with the bounds and the reason; whoever calls names the value.
        """
        inside = (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )
        if is_entering() and not inside:
            raise ValueError(f"must be {self}: {self.reason}")

    def __str__(self) -> str:
        words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
        bounds = [f"{word} {_plain(getattr(self, name))}" for name, word in words.items() if _has(self, name)]
        return " and ".join(bounds) + (f" {self.unit}" if self.unit else "")

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """What pydantic makes of the annotation: a number, and nothing that could be taken for one, inside."""

        def checked(value: Any, number: core_schema.ValidatorFunctionWrapHandler) -> Any:
            if isinstance(value, bool | str | bytes):
                wanted = f"must be a number, in {self.unit}" if self.unit else "must be a number"
                raise PydanticCustomError(NO_NUMBER, "{wanted}", {"wanted": wanted})
            result = number(value)
            self.check(result)
            return result

        return core_schema.no_info_wrap_validator_function(checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The JSON schema, with the bounds."""
        bounds = {_KEYS[name]: getattr(self, name) for name in _KEYS if _has(self, name)}
        return {**handler(schema), **bounds}


def _has(limits: Limits, name: str) -> bool:
    return getattr(limits, name) is not None


def _plain(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def optional_zero(limits: Limits) -> Limits:
    """The same bounds, zero included."""
    return dataclasses.replace(limits, above=None, least=0)


MOST_ATOMS = 100_000
"""Of a cell. AiiDA keeps each site of a structure in the database; the engine was measured up to 32 000 atoms."""

MOST_REPEATS = 1000

LARGEST_NUMBER = 1e15
"""Magnitude of anything measured, in the unit of an observable; its square is still far from overflow in float32."""

_TIME = "a longer run of molecular dynamics is a slip of the unit: a microsecond is a thousand million steps"

Temperature = Annotated[
    float, Limits(above=0, most=1e5, unit="K", reason="at 100 000 K, 9 eV, matter is a plasma and no potential holds")
]
"""K."""

Pressure = Annotated[
    float,
    Limits(least=-1000, most=1e5, unit="GPa", reason="no solid bears more tension, and no experiment reached more"),
]
"""GPa."""

Density = Annotated[
    float, Limits(least=0.01, most=1e5, unit="kg/m³", reason="hydrogen gas has 0.09 kg/m³, osmium 22 600 kg/m³")
]
"""kg/m³."""

Length = Annotated[float, Limits(above=0, most=1e4, unit="Å", reason="a cell is no longer than a micrometre")]
"""Å."""

Component = Annotated[float, Limits(least=-1e4, most=1e4, unit="Å", reason="a cell is no longer than a micrometre")]
"""Of a lattice vector, Å."""

Spacing = Annotated[float, Limits(above=0, most=10, unit="Å", reason="atoms are a few Å apart")]
"""Å, between atoms."""

DURATION = Limits(above=0, most=1e9, unit="fs", reason=_TIME)
Duration = Annotated[float, DURATION]
"""fs."""

DurationOrZero = Annotated[float, optional_zero(DURATION)]
"""fs, or 0."""

Mass = Annotated[
    float, Limits(least=1e-3, most=1e6, unit="u", reason="atoms, isotopes or beads that stand for molecules")
]
"""u."""

Energy = Annotated[
    float, Limits(least=-1e7, most=1e7, unit="eV", reason="all electrons of the heaviest atom have less than 2 MeV")
]
"""eV."""

Measurement = Annotated[
    float, Limits(least=-LARGEST_NUMBER, most=LARGEST_NUMBER, reason="a larger one is a slip of the exponent")
]
"""In the unit of an observable."""

GridValue = Annotated[float, Limits(least=0, most=1e6, reason="distances, angles and wave numbers are not negative")]
"""In the unit of a grid."""

Repeat = tuple[
    Annotated[int, Limits(least=1, most=MOST_REPEATS, reason="a cell is repeated a few times, not thousands")],
    Annotated[int, Limits(least=1, most=MOST_REPEATS, reason="a cell is repeated a few times, not thousands")],
    Annotated[int, Limits(least=1, most=MOST_REPEATS, reason="a cell is repeated a few times, not thousands")],
]
"""Of a cell along its vectors."""

Weight = Annotated[
    float, Limits(least=0, most=1e9, reason="a factor in a loss; more would leave nothing of the others")
]
"""A factor in a loss."""

Iterations = Annotated[int, Limits(least=1, most=100_000, reason="each takes seconds to hours")]
"""Of a loop of jobs or optimizer steps."""

Chi2 = Annotated[float, Limits(least=0, most=1e12, reason="reduced chi² is of the order of one where a model agrees")]
"""Reduced chi²."""
