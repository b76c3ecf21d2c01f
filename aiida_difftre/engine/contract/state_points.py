"""The thermodynamic state that is sampled, averaged over, or compared with experiment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StatePoint:
    """A thermodynamic state: temperature and pressure.

    Args:
        temperature: Temperature, K.
        pressure: Pressure, GPa; None for a fixed cell. It is held where the settings have a barostat.

    Example:
        >>> from aiida_difftre.engine.contract.state_points import StatePoint
        >>> print(StatePoint(temperature=298.15, pressure=0.1))
        298.15 K and 0.1 GPa
    """

    temperature: float
    pressure: float | None = None

    def __str__(self) -> str:
        return f"{self.temperature:g} K" + ("" if self.pressure is None else f" and {self.pressure:g} GPa")
