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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy import special

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.base_arrays import BaseArrays
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.results import PooledTrajectory
from aiida_difftre.engine.contract.settings import Machine, PoolSettings
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting import mbar
from aiida_difftre.engine.reweighting.reference import (
    Pooled,
    Reference,
    agree,
    check_potential,
    prepare_reference,
    relative_to_sampled,
    sampled_at,
    unchecked_reference,
)
from aiida_difftre.engine.reweighting.weights import boltzmann_weights, effective_size, reliable_size
from aiida_difftre.engine.snapshots.snapshots import Coordinates, Snapshots


@dataclass(frozen=True)
class EarlierTrajectory:
    """A trajectory, and what sampled it: another potential of the same form, maybe at another state point.

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
    """Trajectories that are taken together.

    Args:
        members: The trajectories, the newest first.
        trajectory: All their snapshots in this order, at the state point of the newest.
        records: What became of each earlier trajectory.
    """

    members: tuple[EarlierTrajectory, ...]
    trajectory: Trajectory
    records: tuple[PooledTrajectory, ...]

    @property
    def is_pooled(self) -> bool:
        """Whether any earlier trajectory was taken."""
        return len(self.members) > 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of snapshots of each trajectory."""
        return np.array([len(member.trajectory.energies) for member in self.members])


def pool(
    potential: Potential,
    parameters: Parameters,
    newest: EarlierTrajectory,
    earlier: Sequence[EarlierTrajectory],
    settings: PoolSettings,
    batch_size: int = 0,
) -> Pool:
    """Choose the trajectories that overlap with the ensemble of a potential.

    Args:
        potential: The form of all the potentials.
        parameters: Parameters of the potential that is asked for, at the state point of ``newest``.
        newest: The trajectory that is always taken, which these parameters need not have sampled.
        earlier: Others, the latest first.
        settings: Overlap that an earlier trajectory must have, and snapshots of the pool at most.
        batch_size: Snapshots evaluated at once; 0 for as many as memory allows.

    Returns:
        The pool; of ``newest`` alone where nothing overlaps.

    Raises:
        EngineError: With status INVALID_INPUT, for an earlier trajectory of another system, state point or potential.
    """
    if newest.parameters is not parameters:
        _Member(potential, newest, batch_size).check_sampled()
    members, records = [newest], []
    room = settings.max_snapshots - len(newest.trajectory.energies)
    for one in earlier:
        _check_fits(one, newest.trajectory)
        record = PooledTrajectory(label=one.label, snapshots=len(one.trajectory.energies), is_used=True)
        records.append(record)
        if record.snapshots > room:
            record.reason = f"the pool holds at most {settings.max_snapshots} snapshots"
            room = 0  # those before it are less like the newest one
        elif not (reason := _unlike(one.trajectory, newest.trajectory)):
            record.overlap = _Member(potential, one, batch_size).overlap(parameters)
            if record.overlap >= settings.overlap:
                members.append(one)
                room -= record.snapshots
            else:
                record.reason = f"less than {settings.overlap:g} of it overlaps"
        else:
            record.reason = reason
        record.is_used = not record.reason
    if len(members) > 1:
        members = [replace(one, trajectory=_whole_strides(one.trajectory)) for one in members]
    return Pool(tuple(members), _joined([member.trajectory for member in members]), tuple(records))


def prepare_pooled(
    potential: Potential,
    parameters: Parameters,
    pooled: Pool,
    requests: Sequence[ObservableRequest],
    machine: Machine,
    point: StatePoint | None = None,
) -> Reference:
    """Prepare a pool as the reference of a potential: a trajectory whose reference energies are those of the mixture.

    Args:
        potential: The form of all the potentials.
        parameters: Parameters of the potential for which the pool was made.
        pooled: The pool.
        requests: Observables.
        machine: Precision and batches.
        point: State point of the averages, that of the newest trajectory; None for that.

    Returns:
        The reference, exactly that of :func:`~aiida_difftre.engine.reweighting.reference.prepare_reference` for a
        trajectory alone that these parameters sampled.

    Raises:
        EngineError: As that does.

    References:
        M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129, 124105 (2008), eqs. 11 and 13.

    Example:
        Two trajectories of one potential are one of twice the length:

        >>> import jax, numpy as np
        >>> from aiida_difftre.engine.contract.trajectories import Trajectory
        >>> from aiida_difftre.engine.contract.settings import Machine, PoolSettings, PotentialSpec, TermSpec
        >>> from aiida_difftre.engine.potentials.potential import build
        >>> from aiida_difftre.engine.reweighting.pool import EarlierTrajectory, pool, prepare_pooled
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
        >>> newest, before = (EarlierTrajectory(label, sampled, parameters) for label in ("newest", "before"))
        >>> found = pool(potential, parameters, newest, [before], PoolSettings(overlap=0.1))
        >>> found.is_pooled, found.records[0].is_used
        (True, True)
        >>> round(prepare_pooled(potential, parameters, found, [], Machine()).whole_size, 6)
        6.0
        >>> context.__exit__(None, None, None)
    """
    newest = pooled.members[0]
    if not pooled.is_pooled and newest.parameters is parameters:
        return prepare_reference(potential, parameters, newest.trajectory, requests, machine, point)
    ref = unchecked_reference(potential, parameters, pooled.trajectory, requests, machine, point)
    if newest.trajectory.reference_energies is not None:  # known of its own snapshots, so that it is alone
        return relative_to_sampled(ref, newest.trajectory)
    terms, of_base, volumes = ref.energies, ref.base.get("energy", 0.0), pooled.trajectory.volumes
    if newest.parameters is parameters:
        check_potential(newest.trajectory, (terms + of_base)[: pooled.counts[0]])
    at = sampled_at(newest.trajectory)
    wanted = reduced_energies(terms + of_base, volumes, at)
    energies = {id(parameters): terms}
    for member in pooled.members:
        if id(member.parameters) not in energies:
            energies[id(member.parameters)] = ref.snapshots.energies(member.parameters)
    # From those for which snapshots are weighed: the differences have the digits that the energies lose.
    reduced = np.stack(
        [
            reduced_energies(energies[id(one.parameters)] + of_base, volumes, sampled_at(one.trajectory)) - wanted
            for one in pooled.members
        ]
    )
    try:
        mixture = mbar.log_mixture(reduced, pooled.counts, mbar.free_energies(reduced, pooled.counts))
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, f"{error} (a larger overlap in the settings of the pool)") from None
    mixture -= np.log(pooled.counts.sum())
    size = reliable_size(special.softmax(-reduced[0] - mixture))
    volume = float(special.softmax(-mixture) @ volumes)
    return replace(
        ref,
        energies=terms - units.BOLTZMANN * at.temperature * mixture,
        point=replace(ref.point, volume=volume),
        pooled=Pooled(np.repeat(np.arange(len(pooled.members), dtype=np.int32), pooled.counts), size),
    )


def newest_alone(
    ref: Reference, quantities: Mapping[str, NDArray[np.float64]]
) -> tuple[Reference, dict[str, NDArray[np.float64]]]:
    """The newest trajectory of a pool by itself, with quantities of the potential that sampled it.

    Args:
        ref: The reference of the pool.
        quantities: Quantities of all its snapshots at the parameters of that potential.

    Returns:
        A reference to average over, whose weights are uniform, and the quantities of its snapshots.
    """
    if ref.pooled is None:
        return ref, dict(quantities)
    count = int(np.sum(ref.pooled.origins == 0))
    rows = {label: -(-count // stride) for label, stride in ref.born_strides.items()}

    def first(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {key: array[: rows.get(key, count)] for key, array in arrays.items()}

    found = first(quantities)
    volumes = np.asarray(ref.volumes)[:count]
    alone = replace(
        ref,
        features=first(ref.features),
        energies=found["energy"],
        volumes=volumes,
        walkers=ref.walkers[:count],
        shift=ref.shift[:count],
        point=replace(ref.point, volume=float(volumes.mean())),
        base=first(ref.base),
        pooled=None,
    )
    return alone, found


def reduced_energies(
    energies: NDArray[np.float64], volumes: NDArray[np.float64], point: StatePoint
) -> NDArray[np.float64]:
    """Reduced energies (U + PV)/kT of snapshots, (snapshots,).

    Args:
        energies: Energies U, (snapshots,), eV.
        volumes: Volumes V, (snapshots,), Å³.
        point: State point; without a pressure, at constant volume.

    Returns:
        Reduced energies, (snapshots,), dimensionless.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.state_points import StatePoint
        >>> from aiida_difftre.engine.reweighting.pool import reduced_energies
        >>> reduced_energies(np.array([0.0, 0.02585]), np.ones(2), StatePoint(300.0, None)).round(3).tolist()
        [0.0, 1.0]
    """
    pressure = 0.0 if point.pressure is None else point.pressure / units.EV_PER_A3_IN_GPA
    reduced: NDArray[np.float64] = (energies + pressure * volumes) / (units.BOLTZMANN * point.temperature)
    return reduced


def _unlike(other: Trajectory, newest: Trajectory) -> str:
    """Why a trajectory cannot be pooled with the newest one, as those that were imported; empty where it can."""
    if other.reference_energies is not None or newest.reference_energies is not None:
        return "another program sampled it"
    if not np.allclose(other.cell, newest.cell, rtol=1e-9, atol=0):
        return "it has another cell"
    return ""


class _Member:
    """A trajectory, whose energies tell what is left of it for a potential.

    Args:
        potential: The form of the potentials.
        of: The trajectory.
        batch_size: Snapshots evaluated at once; 0 for as many as memory allows.
    """

    def __init__(self, potential: Potential, of: EarlierTrajectory, batch_size: int) -> None:
        self._of = of
        machine = Machine(precision="float64", batch_size=batch_size)
        self._snapshots = Snapshots(potential, Coordinates.of(of.trajectory), machine)

    def check_sampled(self) -> NDArray[np.float64]:
        """Energies of the terms of the potential that sampled; refuse another one."""
        energies, held = self._snapshots.energies(self._of.parameters), self._of.trajectory
        stored = held.energies if held.base is None else held.energies - held.base.energies
        if not agree(stored, energies):
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                f"the earlier trajectory {self._of.label!r} was not sampled with the potential that is given for it: "
                f"its stored energies deviate by {np.ptp(stored - energies):.3g} eV",
            )
        return energies

    def overlap(self, parameters: Parameters) -> float:
        """Fraction of the snapshots that is left effective for other parameters."""
        own, held = self.check_sampled(), self._of.trajectory
        new = self._snapshots.energies(parameters)
        weight = boltzmann_weights(jnp.asarray(new), jnp.asarray(own), held.temperature)
        return effective_size(np.asarray(weight)).smallest / len(own)


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
    if len(trajectories) == 1:
        return trajectories[0]
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
