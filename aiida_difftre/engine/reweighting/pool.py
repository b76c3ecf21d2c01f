r"""Trajectories of earlier potentials at one state point, pooled with the newest one by MBAR.

The snapshots of all of them are drawn from a mixture of ensembles, which is the ensemble of a potential of its own:

.. math::
    U_\mathrm{mix}(x) = -kT \ln \sum_k \frac{N_k}{N}\, e^{f_k - U_k(x)/kT}, \qquad
    w_i \propto e^{-[U_\theta(x_i) - U_\mathrm{mix}(x_i)]/kT}

with N_k snapshots of the potential k and its free energy f_k. So a pool is a trajectory whose reference energies are
those of the mixture, and whatever reweights a trajectory reweights a pool. A pool of one trajectory has
U_mix = U_0 and its weights.

References:
    Shirts & Chodera, J. Chem. Phys. 129, 124105 (2008), eqs. 11 and 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.base_arrays import BaseArrays
from aiida_difftre.engine.contract.results import PooledTrajectory
from aiida_difftre.engine.contract.settings import Machine, PoolSettings
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting import mbar
from aiida_difftre.engine.reweighting.reference import agree
from aiida_difftre.engine.reweighting.weights import boltzmann_weights, effective_size, reliable_size
from aiida_difftre.engine.snapshots.snapshots import Coordinates, Snapshots


@dataclass(frozen=True)
class EarlierTrajectory:
    """A trajectory that another potential of the same form sampled at the same state point.

    Args:
        label: Name by which results tell of it.
        trajectory: The snapshots.
        parameters: Parameters of the potential that sampled them.
    """

    label: str
    trajectory: Trajectory
    parameters: Parameters


@dataclass(frozen=True)
class Pool:
    """Snapshots of several potentials as one trajectory.

    Args:
        trajectory: All snapshots, those of the newest trajectory first; its energies are those of the newest
            potential, its reference energies those of the mixture.
        origins: Number of the trajectory of each snapshot, (snapshots,); 0 for the newest.
        members: What became of each earlier trajectory.
    """

    trajectory: Trajectory
    origins: NDArray[np.int32]
    members: tuple[PooledTrajectory, ...]

    @property
    def size(self) -> float:
        """Effective snapshots of the pool for the potential that sampled the newest trajectory."""
        held = self.trajectory
        reference = held.energies if held.reference_energies is None else held.reference_energies
        weight = boltzmann_weights(jnp.asarray(held.energies), jnp.asarray(reference), held.temperature)
        return reliable_size(np.asarray(weight))

    @property
    def is_pooled(self) -> bool:
        """Whether any earlier trajectory was taken."""
        return any(member.is_used for member in self.members)


def pool(
    potential: Potential,
    parameters: Parameters,
    newest: Trajectory,
    earlier: Sequence[EarlierTrajectory],
    settings: PoolSettings,
    batch_size: int = 0,
) -> Pool:
    """Pool the trajectory of a potential with those of earlier ones that overlap with it.

    Args:
        potential: The form of all the potentials.
        parameters: Parameters of the potential that sampled ``newest``.
        newest: Its trajectory.
        earlier: Trajectories of other parameters, the latest first.
        settings: Overlap that an earlier trajectory must have, and snapshots of the pool at most.
        batch_size: Snapshots evaluated at once; 0 for as many as memory allows.

    Returns:
        The pool; of ``newest`` alone, with reference energies that are its energies, where nothing overlaps.

    Raises:
        EngineError: With status INVALID_INPUT, for an earlier trajectory of another system, state point or potential.

    References:
        M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129, 124105 (2008), eqs. 11 and 13.

    Example:
        Two trajectories of one potential are one of twice the length:

        >>> import jax, numpy as np
        >>> from aiida_difftre.engine.contract.trajectories import Trajectory
        >>> from aiida_difftre.engine.contract.settings import PoolSettings, PotentialSpec, TermSpec
        >>> from aiida_difftre.engine.potentials.potential import build
        >>> from aiida_difftre.engine.reweighting.pool import EarlierTrajectory, pool
        >>> from aiida_difftre.engine.snapshots.snapshots import energies
        >>> term = TermSpec(architecture="lennard_jones", cutoff=4.5, hyperparameters={"epsilon": 0.01, "sigma": 3.4})
        >>> potential = build(PotentialSpec(species=["Ar"], terms=[term]))
        >>> parameters, cell = potential.init(jax.random.key(0)), 10.0 * np.eye(3)
        >>> context = jax.enable_x64(True)  # as in all jobs
        >>> context.__enter__()
        >>> positions = np.array([[[0, 0, 0], [x, 0, 0]] for x in (0.36, 0.38, 0.4)], np.float32)
        >>> sampled = Trajectory.from_arrays(
        ...     {
        ...         "positions": positions, "cell": cell, "walkers": np.zeros(3, np.int32), "times": np.arange(3.0),
        ...         "energies": energies(potential, parameters, positions, cell, ("Ar", "Ar")),
        ...         "temperatures": np.full(3, 90.0), "last_positions": np.float64(positions[-1:]),
        ...         "last_velocities": np.zeros((1, 2, 3)),
        ...     },
        ...     species=("Ar", "Ar"), temperature=90.0, pressure=None,
        ... )
        >>> before = EarlierTrajectory("before", sampled, parameters)
        >>> found = pool(potential, parameters, sampled, [before], PoolSettings(overlap=0.1))
        >>> round(found.size, 6), found.members[0].is_used
        (6.0, True)
        >>> context.__exit__(None, None, None)
    """
    newest = _whole_strides(newest)
    first = _Member(potential, EarlierTrajectory("newest", newest, parameters), batch_size)
    used, records = [first], []
    room = settings.max_snapshots - len(newest.energies)
    for one in earlier:
        _check_fits(one, newest)
        one = replace(one, trajectory=_whole_strides(one.trajectory))
        record = PooledTrajectory(label=one.label, snapshots=len(one.trajectory.energies), is_used=True)
        records.append(record)
        if record.snapshots > room:
            record.reason = f"the pool holds at most {settings.max_snapshots} snapshots"
            room = 0  # those before it are less like the newest one
        elif not (reason := _unlike(one.trajectory, newest)):
            member = _Member(potential, one, batch_size)
            record.overlap = _overlap(member, first)
            if record.overlap >= settings.overlap:
                used.append(member)
                room -= record.snapshots
            else:
                record.reason = f"less than {settings.overlap:g} of it overlaps"
        else:
            record.reason = reason
        record.is_used = not record.reason
    origins = np.repeat(np.arange(len(used), dtype=np.int32), [member.size for member in used])
    return Pool(_mixture(used), origins, tuple(records))


def _mixture(used: Sequence[_Member]) -> Trajectory:
    """All snapshots with the energies of the newest potential and, as reference, those of the mixture."""
    newest = used[0].of
    counts = np.array([member.size for member in used])
    energies = np.concatenate([member.energies(newest) for member in used])
    # Relative to the newest potential: the differences have the digits that the energies lose.
    differences = [np.concatenate([member.energies(one.of) for member in used]) - energies for one in used]
    kT = units.BOLTZMANN * newest.trajectory.temperature
    reduced = np.stack(differences) / kT
    mixture = mbar.log_mixture(reduced, counts, mbar.free_energies(reduced, counts)) - np.log(counts.sum())
    joined = _joined([member.of.trajectory for member in used])
    whole = energies if joined.base is None else energies + joined.base.energies
    return replace(joined, energies=whole, reference_energies=whole - kT * mixture)


def _unlike(other: Trajectory, newest: Trajectory) -> str:
    """Why a trajectory cannot be pooled with the newest one, as those that were imported; empty where it can."""
    if other.reference_energies is not None or newest.reference_energies is not None:
        return "another program sampled it"
    if not np.allclose(other.cell, newest.cell, rtol=1e-9, atol=0):
        return "it has another cell"
    return ""


def _overlap(member: _Member, newest: _Member) -> float:
    """Fraction of the snapshots of a trajectory that is left effective for the potential of the newest one."""
    own, new = member.energies(member.of), member.energies(newest.of)
    _check_sampled_by(member.of, own)
    weight = np.asarray(boltzmann_weights(jnp.asarray(new), jnp.asarray(own), newest.of.trajectory.temperature))
    return effective_size(weight).smallest / len(weight)


class _Member:
    """A trajectory, and its energies at the parameters of others, each evaluated once."""

    def __init__(self, potential: Potential, of: EarlierTrajectory, batch_size: int) -> None:
        held = of.trajectory
        self.of = of
        self.size = len(held.energies)
        machine = Machine(precision="float64", batch_size=batch_size)
        self._snapshots = Snapshots(potential, Coordinates.of(held), machine)
        self._energies: dict[str, NDArray[np.float64]] = {}

    def energies(self, other: EarlierTrajectory) -> NDArray[np.float64]:
        """Energies of the terms at the parameters of another trajectory, (snapshots,), eV."""
        if other.label not in self._energies:
            self._energies[other.label] = self._snapshots.energies(other.parameters)
        return self._energies[other.label]


def _check_fits(one: EarlierTrajectory, newest: Trajectory) -> None:
    """Refuse a trajectory of other atoms, another state point or another base."""
    other = one.trajectory
    differs = [
        what
        for what, is_same in {
            "species": other.species == newest.species,
            "temperature": other.temperature == newest.temperature,
            "pressure": other.pressure == newest.pressure,
            "base": _of_base(other) == _of_base(newest),
        }.items()
        if not is_same
    ]
    if differs:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the earlier trajectory {one.label!r} has another {', '.join(differs)} than the newest one; give those "
            "of the same state point",
        )


def _of_base(trajectory: Trajectory) -> tuple[str, int] | None:
    return None if trajectory.base is None else (trajectory.base.digest, trajectory.base.born_stride)


def _check_sampled_by(one: EarlierTrajectory, energies: NDArray[np.float64]) -> None:
    held = one.trajectory
    stored = held.energies if held.base is None else held.energies - held.base.energies
    if not agree(stored, energies):
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the earlier trajectory {one.label!r} was not sampled with the potential that is given for it: its stored "
            f"energies deviate by {np.ptp(stored - energies):.3g} eV",
        )


def _whole_strides(trajectory: Trajectory) -> Trajectory:
    """Without the last snapshots, where their number is no multiple of the stride of Born terms of the base.

    One behind the other, every stride-th snapshot of such trajectories has a Born term.
    """
    base = trajectory.base
    if base is None or base.born is None:
        return trajectory
    count = len(trajectory.energies) // base.born_stride * base.born_stride
    per_snapshot = ("positions", "energies", "walkers", "times", "temperatures", "scales")
    shorter = replace(
        base,
        energies=base.energies[:count],
        stresses=base.stresses[:count],
        born=base.born[: count // base.born_stride],
    )
    return replace(trajectory, base=shorter, **{name: getattr(trajectory, name)[:count] for name in per_snapshot})


def _joined(trajectories: Sequence[Trajectory]) -> Trajectory:
    """All snapshots one after the other, with walkers of their own; the rest is that of the first."""
    offsets = np.cumsum([0, *(int(one.walkers.max()) + 1 for one in trajectories[:-1])])
    walkers = [one.walkers + offset for one, offset in zip(trajectories, offsets, strict=True)]
    bases = [one.base for one in trajectories if one.base is not None]
    return replace(
        trajectories[0],
        positions=np.concatenate([one.positions for one in trajectories]),
        energies=np.concatenate([one.energies for one in trajectories]),
        walkers=np.concatenate(walkers).astype(np.int32),
        times=np.concatenate([one.times for one in trajectories]),
        temperatures=np.concatenate([one.temperatures for one in trajectories]),
        scales=np.concatenate([one.scales for one in trajectories]),
        base=_joined_base(bases) if bases else None,
    )


def _joined_base(bases: Sequence[BaseArrays]) -> BaseArrays:
    born = [base.born for base in bases if base.born is not None]
    return replace(
        bases[0],
        energies=np.concatenate([base.energies for base in bases]),
        stresses=np.concatenate([base.stresses for base in bases]),
        born=np.concatenate(born) if len(born) == len(bases) else None,
    )
