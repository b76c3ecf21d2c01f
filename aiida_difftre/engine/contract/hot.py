"""Hot runs: short dynamics above the temperature of a state point, which a potential should survive. Free of JAX."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Duration, Limits, is_entering
from aiida_difftre.engine.contract.records import Record

BLOWN_UP = "blown_up.extxyz"
"""File of the structures on the way to where a walker blew up; there is none where none did."""

Factor = Annotated[float, Limits(above=1, most=100, reason="it multiplies the temperature of the state point")]


class HotSettings(Strict):
    """How hot, and for how long.

    Args:
        factors: Temperatures over that of the state point, one run for each.
        walkers: Independent walkers of each run.
        time_fs: Time of each walker, fs.
        rattle: Standard deviation of the displacements with which they start, from the last snapshots of the run, Å.
    """

    factors: list[Factor] = Field(default_factory=lambda: [1.5, 2.0], min_length=1, max_length=10)
    walkers: Annotated[int, Limits(least=1, most=4096, reason="a few find out")] = 4
    time_fs: Duration = 1000.0
    rattle: Annotated[
        float, Limits(least=0, most=1, unit="Å", reason="atoms are displaced by less than their distance")
    ] = 0.05

    @field_validator("factors")
    @classmethod
    def _once(cls, factors: list[float]) -> list[float]:
        if is_entering() and (twice := [factor for factor in factors if factors.count(factor) > 1]):
            raise ValueError(f"{twice[0]:g} stands twice, and the same run would be made twice; give each factor once")
        return factors


class BlowUp(Record):
    """A walker that blew up.

    Args:
        walker: Its number.
        time_fs: Time of the first snapshot in which something was wrong, fs.
        reason: What was wrong with it.
        closest: Distance of its closest atoms there, Å; None where nothing was finite.
        temperature: Its temperature there, K; likewise.
    """

    walker: int
    time_fs: float
    reason: str
    closest: float | None = None
    temperature: float | None = None


class HotRun(Record):
    """What became of the walkers of one hot run.

    Args:
        factor: Temperature over that of the state point.
        temperature: Temperature, K.
        time_fs: Time of each walker, fs.
        walkers: Number of walkers.
        closest: Closest approach of two atoms in all snapshots of walkers that held, Å; None where none did, or where
            atoms have no neighbours.
        hottest: Highest temperature of a walker that held, K.
        drift: Mean energy of the last quarter of these walkers less that of the quarter before, eV/atom; None with a
            base that is called.
        blown_up: The walkers that blew up.
        skipped: Why there was no run, or not all of it; None where there was.
    """

    factor: float
    temperature: float
    time_fs: float
    walkers: int
    closest: float | None = None
    hottest: float | None = None
    drift: float | None = None
    blown_up: list[BlowUp] = Field(default_factory=list)
    skipped: str | None = None
