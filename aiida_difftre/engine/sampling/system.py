"""What is simulated: potential, atoms, state point and settings, and the times and lengths that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.bases.callback import Callback
from aiida_difftre.engine.contract.sampling_settings import BarostatSpec, LangevinSpec, SamplingSettings
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import masses

SNAPSHOTS_PER_CALL = 5
"""Snapshots between two looks at the guards, at most; what is lost when a run goes bad."""

FAST = 5.0
"""Thermal velocities, along one axis, of an atom that is hardly ever outrun: one in 65 000 is faster."""


@dataclass(frozen=True)
class System:
    """The simulated system: atoms, potential, state point and settings.

    Args:
        potential: Potential of the atoms.
        symbols: Chemical symbols, one per atom.
        cell: Lattice vectors of the reference cell as rows, (3, 3), Å.
        temperature: Temperature, K.
        settings: Settings of sampling: thermostat, barostat, times, skin.
        precision: Precision of positions and forces, ``float32`` or ``float64``.
        pressure: Pressure, GPa; None, or settings without a barostat, for a fixed cell.
        widened: Factor on the skin, above one where atoms have outrun it.
        masses: Masses of the atoms, amu; None for the standard atomic weights.
        base: Base potential that is called at every step; None for none.
        base_digest: Digest of that base.
    """

    potential: Potential
    symbols: tuple[str, ...]
    cell: NDArray[np.float64]
    temperature: float
    settings: SamplingSettings
    precision: str
    pressure: float | None = None
    widened: float = 1.0
    masses: NDArray[np.float64] | None = None
    base: Callback | None = None
    base_digest: str | None = None

    @property
    def devices(self) -> int | None:
        """Devices over which walkers are spread; None for all. A base is called by one, for all walkers at once."""
        return None if self.base is None else 1

    @property
    def mass(self) -> NDArray[np.float64]:
        """Mass of each atom, amu."""
        return masses(self.symbols, self.masses)

    @property
    def barostat(self) -> BarostatSpec | None:
        """Settings of the barostat; None where the cell is fixed."""
        return self.settings.barostat if self.settings.ensemble(self.pressure) == "NPT" else None

    @property
    def smallest_scale(self) -> float:
        """Of the cell, for lists: below the bound that stops the run, which is asked after some steps only."""
        return 1.0 if self.barostat is None else 0.95 * self.barostat.max_volume_ratio ** (-1 / 3)

    @property
    def list_cutoff(self) -> float:
        """Cutoff of the neighbour lists, Å."""
        return self.potential.cutoff + self.skin

    @property
    def skin(self) -> float:
        """Of the neighbour lists, Å."""
        return self.widened * (self.settings.skin or skin_for(self))

    @property
    def fast_step(self) -> float:
        """What a fast atom of the lightest species moves in a step, Å."""
        velocity = FAST * math.sqrt(units.BOLTZMANN * self.temperature / float(self.mass.min()))
        return velocity * self.settings.timestep_fs / units.TIME_UNIT_IN_FS

    @property
    def steps_per_snapshot(self) -> int:
        """Time steps between two snapshots."""
        return self.settings.steps_per_snapshot

    @property
    def stride_fs(self) -> float:
        """Time between two snapshots, a multiple of the time step, fs."""
        return self.steps_per_snapshot * self.settings.timestep_fs

    @property
    def degrees_of_freedom(self) -> int:
        """Of the kinetic energy: Nose-Hoover keeps the total momentum, Langevin does not."""
        atoms = len(self.symbols)
        keeps_momentum = not isinstance(self.settings.thermostat, LangevinSpec) and atoms > 1
        return 3 * atoms - 3 * keeps_momentum

    def snapshots(self, duration_fs: float) -> int:
        """Snapshots of one walker in a duration."""
        return round(duration_fs / self.stride_fs)

    @property
    def snapshots_per_call(self) -> int:
        """A divisor of the snapshots of equilibration and production, so that one compiled program does both.

        With a base that is called, whose steps are slow, guards and signals are looked at after each snapshot.
        """
        if self.base is not None:
            return 1
        settings = self.settings
        common = math.gcd(self.snapshots(settings.equilibration_fs), max(1, self.snapshots(settings.production_fs)))
        return next(n for n in range(min(common, SNAPSHOTS_PER_CALL), 0, -1) if common % n == 0)


def worn_at(system: System, skin: Any) -> Any:
    """How far an atom may have moved before its list is built anew, Å: half the skin, less a step of a fast atom.

    A tenth less at least, for cells that shrink.
    """
    return np.maximum(np.minimum(skin / 2 - system.fast_step, 0.45 * skin), skin / 4)


def skin_for(system: System) -> float:
    """The skin s, Å, that should make a step cheapest: (1 + s/r_c)³ + R v Δt/(s/2 - v Δt).

    The first term is the work on listed pairs, the second that of building a list, R times a force evaluation, whenever
    a fast atom, v, has worn it (:func:`worn_at`).
    """
    rebuild, way = 5.0 if system.potential.is_pairwise else 0.5, system.fast_step
    widest = max(0.25, min(2.0, system.potential.cutoff / 2))
    skins = np.arange(min(max(0.2, 4 * way), widest), widest + 0.05, 0.1)
    costs = (1 + skins / system.potential.cutoff) ** 3 + rebuild * way / worn_at(system, skins)
    return float(round(skins[np.argmin(costs)], 2))
