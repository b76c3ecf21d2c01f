"""What a sampler is: from a potential, a start and a state point to a trajectory; samplers are found by name.

Jobs know samplers through :func:`sample` alone. One of another package is a function with the signature of
:class:`Sampler`, registered under the entry-point group ``difftre.samplers``, and chosen by the setting ``sampler``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aiida_difftre.engine.contract import samplers
from aiida_difftre.engine.contract.files import Trajectory
from aiida_difftre.engine.contract.settings import Machine, SamplingSettings
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop
from aiida_difftre.engine.sampling.starts import Start


@dataclass(frozen=True)
class StatePoint:
    """The thermodynamic state that is sampled.

    Args:
        temperature: K.
        pressure: GPa; None for a fixed cell. It is held where the settings have a barostat.
    """

    temperature: float
    pressure: float | None = None


@dataclass(frozen=True)
class Run:
    """What one run of a sampler has besides its physics.

    Args:
        machine: Precision, size of batches.
        seed: Seed of all random numbers.
        progress: Takes reports.
        stop: Asked between compiled calls whether the run must end; None for a run that nothing ends.
        folder: Where checkpoints lie; None for none. A checkpoint found there is continued.
    """

    machine: Machine
    seed: int
    progress: Reporter
    stop: Stop | None = None
    folder: Path | None = None


class Sampler(Protocol):
    """Draws snapshots from the canonical ensemble of a potential, or from the isothermal-isobaric one."""

    def __call__(
        self,
        potential: Potential,
        parameters: Parameters,
        start: Start,
        point: StatePoint,
        settings: SamplingSettings,
        run: Run,
    ) -> Trajectory:
        """Sample.

        Args:
            potential: The potential.
            parameters: Its parameters.
            start: Where walkers start; their number is that of the walkers of the trajectory.
            point: Temperature and pressure.
            settings: Times, strides and limits; a sampler refuses those that it does not know.
            run: Machine, seed, progress, and what may end the run.

        Returns:
            The trajectory, walker by walker and each in the order of time, with energies of the stored positions in
            double precision.

        Raises:
            EngineError: When the run goes bad or must stop.
        """


def load(name: str) -> Sampler:
    """The sampler of a name.

    Raises:
        EngineError: With status INVALID_INPUT, for a name that nobody registered, or an entry that cannot be called.
    """
    try:
        entry = samplers.registry()[samplers.check(name)]
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None
    loaded: Sampler = entry.load()
    if not callable(loaded):
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"sampler {name!r}: {entry.value} is no function; register one with the arguments of {Sampler.__module__}"
            ".Sampler",
        )
    return loaded


def sample(
    potential: Potential,
    parameters: Parameters,
    start: Start,
    point: StatePoint,
    settings: SamplingSettings,
    run: Run,
) -> Trajectory:
    """Sample with the sampler that the settings name; arguments as of :class:`Sampler`."""
    return load(settings.sampler)(potential, parameters, start, point, settings, run)
