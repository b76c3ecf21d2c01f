"""What a sampler is: from a potential, a start and a state point to a trajectory; samplers are found by name.

Jobs know samplers through :func:`sample` alone. One of another package is a function with the signature of
:class:`Sampler`, registered under the entry-point group ``difftre.samplers``, and chosen by the setting ``sampler``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from aiida_difftre.engine.bases.base_pass import with_base
from aiida_difftre.engine.bases.loading import check_configuration
from aiida_difftre.engine.bases.protocol import BasePotential
from aiida_difftre.engine.bases.traced import TracedBase
from aiida_difftre.engine.contract import samplers
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.contract.settings import Machine
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop
from aiida_difftre.engine.sampling.starts import Start


@dataclass(frozen=True)
class Run:
    """What one run of a sampler has besides its physics.

    Args:
        machine: Precision, and size of batches.
        seed: Seed of all random numbers.
        progress: Takes reports of progress.
        stop: Asked between compiled calls whether the run must end; None for a run that nothing ends.
        folder: Folder of the checkpoints; None for none. A checkpoint found there is continued.
        base: Base potential to whose forces those of the potential are added at every step; None for none. Only a
            sampler whose attribute ``takes_base`` is true is given one. A base that is a function of JAX is a part of
            the potential instead.
        base_digest: Digest of that base.

    Example:
        >>> from aiida_difftre.engine.contract.settings import Machine
        >>> from aiida_difftre.engine.runtime.progress import Silent
        >>> from aiida_difftre.engine.sampling.protocol import Run
        >>> Run(machine=Machine(precision="float64"), seed=1, progress=Silent()).machine.precision
        'float64'
    """

    machine: Machine
    seed: int
    progress: Reporter
    stop: Stop | None = None
    folder: Path | None = None
    base: BasePotential | None = None
    base_digest: str | None = None


class Sampler(Protocol):
    """What a sampler is: a function that draws snapshots from the ensemble of a potential at a state point.

    A package registers its own under the entry-point group ``difftre.samplers``, and the setting ``sampler`` chooses
    it.

    Example:
        A sampler that moves nothing, which is right at a temperature of zero only:

        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.trajectories import Trajectory
        >>> from aiida_difftre.engine.contract.state_points import StatePoint
        >>> from aiida_difftre.engine.sampling.starts import Start
        >>> def frozen(potential, parameters, start, point, settings, run):
        ...     walkers = len(start.positions)
        ...     return Trajectory(
        ...         positions=start.positions.astype(np.float32), cell=start.cell, species=start.symbols,
        ...         energies=np.zeros(walkers), walkers=np.arange(walkers, dtype=np.int32), times=np.zeros(walkers),
        ...         temperatures=np.zeros(walkers), last_positions=start.positions,
        ...         last_velocities=np.zeros_like(start.positions), temperature=point.temperature,
        ...         scales=np.ones(walkers), last_scales=np.ones(walkers),
        ...     )
        >>> start = Start(np.zeros((4, 1, 3)), None, 4.0 * np.eye(3), ("Ar",))
        >>> len(frozen(None, None, start, StatePoint(90.0), None, None).energies)
        4
    """

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
            start: Structures from which the walkers start; their number is that of the walkers of the trajectory.
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
    """Find a sampler by its name.

    Args:
        name: Name under which it is registered; ``jax_md`` is that of this package.

    Returns:
        The sampler.

    Raises:
        EngineError: With status INVALID_INPUT, for a name that nobody registered, or an entry that cannot be called.

    Example:
        >>> from aiida_difftre.engine.sampling.protocol import load
        >>> load("no_such_sampler")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        aiida_difftre.engine.errors.EngineError: unknown sampler 'no_such_sampler'; registered: ...
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
    *,
    born_stride: int = 0,
) -> Trajectory:
    """Sample with the sampler that the settings name, and evaluate the base of the potential on the snapshots.

    Args:
        potential: The potential.
        parameters: Its parameters.
        start: Structures from which the walkers start.
        point: Temperature and pressure.
        settings: Times, strides and limits.
        run: Machine, seed, progress, what may end the run, and the base where the potential has one.
        born_stride: Every so many snapshots get a Born term of the base; 0 for none.

    Returns:
        The trajectory, with what the base gives on it.

    Raises:
        EngineError: As of :class:`Sampler`; with status INVALID_INPUT, for a sampler that takes no base, or a base that
            fails on the first configuration.
    """
    sampler, base = load(settings.sampler), run.base
    if potential.spec.base is None:
        return sampler(potential, parameters, start, point, settings, run)
    if base is None:
        raise EngineError(
            ExitStatus.INVALID_INPUT, f"the potential has the base {potential.spec.base.label!r}, which was not loaded"
        )
    digest = potential.spec.base.digest
    cell = start.cell * (1.0 if start.scales is None else start.scales[0])
    check_configuration(base, start.symbols, start.positions[0] @ cell, cell)
    if isinstance(base, TracedBase):
        whole, of_whole = base.joined(potential, parameters)
        trajectory = sampler(whole, of_whole, start, point, settings, replace(run, base=None))
    elif getattr(sampler, "takes_base", False):
        trajectory = sampler(potential, parameters, start, point, settings, replace(run, base_digest=digest))
    else:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"sampler {settings.sampler!r} takes no base potential, and this potential has one, "
            f"{potential.spec.base.label!r}; sample with {samplers.JAX_MD!r}",
        )
    return with_base(trajectory, base, digest, born_stride=born_stride, progress=run.progress, stop=run.stop)
