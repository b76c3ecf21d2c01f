"""Which trajectories an update takes together: those of earlier potentials and of other state points that overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from aiida_difftre.engine.contract.base_arrays import BaseArrays
from aiida_difftre.engine.contract.neighbours import is_alike, is_neighbour, neighbour_name
from aiida_difftre.engine.contract.results import PooledTrajectory
from aiida_difftre.engine.contract.settings import Machine
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.contract.update_settings import PoolSettings
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting.reference import agree, sampled_at
from aiida_difftre.engine.reweighting.weights import effective_size, reduced_energies
from aiida_difftre.engine.snapshots.snapshots import Coordinates, Snapshots


@dataclass(frozen=True)
class EarlierTrajectory:
    """A trajectory, and what sampled it: a potential of the same species and base, maybe at another state point.

    Args:
        label: Name by which results tell of it.
        trajectory: The snapshots.
        parameters: Parameters of the potential that sampled them.
        potential: That potential, where it may be of another form than that of the update; None for the same form.
    """

    label: str
    trajectory: Trajectory
    parameters: Parameters
    potential: Potential | None = None

    def of_other_form(self, potential: Potential) -> Potential | None:
        """The potential that sampled, where it is of another form than a given one; None where it is not."""
        other = self.potential
        return None if other is None or other.spec == potential.spec else other


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


def neighbours(pools: Mapping[str, Sequence[EarlierTrajectory]], label: str) -> list[EarlierTrajectory]:
    """Trajectories of other state points that those of one can be pooled with.

    Args:
        pools: Trajectories of all state points, the latest first.
        label: Label of the one.

    Returns:
        Those of the same atoms, ensemble and cell, with names that tell where they are from.
    """
    newest = pools[label][0].trajectory
    return [
        replace(one, label=neighbour_name(other, one.label))
        for other, held in sorted(pools.items())
        for one in held
        if other != label and is_neighbour(one.trajectory, newest)
    ]


def pool(
    potential: Potential,
    parameters: Parameters,
    newest: EarlierTrajectory,
    earlier: Sequence[EarlierTrajectory],
    settings: PoolSettings,
    machine: Machine | None = None,
) -> Pool:
    """Choose the trajectories that overlap with the ensemble of a potential.

    Args:
        potential: The form of the potential that is asked for.
        parameters: Its parameters, at the state point of ``newest``.
        newest: The trajectory that is always taken, which these parameters need not have sampled.
        earlier: Others, the latest first.
        settings: Overlap that an earlier trajectory must have, and snapshots of the pool at most.
        machine: Batches, and memory for what is kept of one trajectory at a time; None for the defaults.

    Returns:
        The pool; of ``newest`` alone where nothing overlaps.

    Raises:
        EngineError: With status INVALID_INPUT, for an earlier trajectory of another system or potential.

    Example:
        Two trajectories of one potential are one of twice the length:

        >>> import jax, numpy as np
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec, TermSpec
        >>> from aiida_difftre.engine.contract.update_settings import PoolSettings
        >>> from aiida_difftre.engine.contract.trajectories import Trajectory
        >>> from aiida_difftre.engine.potentials.potential import build
        >>> from aiida_difftre.engine.reweighting.pool import EarlierTrajectory, pool
        >>> from aiida_difftre.engine.snapshots.snapshots import energies
        >>> term = TermSpec(architecture="lennard_jones", cutoff=4.5, hyperparameters={"epsilon": 0.01, "sigma": 3.4})
        >>> potential = build(PotentialSpec(species=["Ar"], terms=[term]))
        >>> parameters, cell = potential.init(jax.random.key(0)), 10.0 * np.eye(3)
        >>> context = jax.enable_x64(True)  # as in all jobs
        >>> context.__enter__()
        >>> def sampled(*distances):
        ...     positions = np.array([[[0, 0, 0], [x, 0, 0]] for x in distances], np.float32)
        ...     return Trajectory.from_arrays(
        ...         {
        ...             "positions": positions, "cell": cell, "walkers": np.zeros(3, np.int32), "times": np.arange(3.0),
        ...             "energies": energies(potential, parameters, positions, cell, ("Ar", "Ar")),
        ...             "temperatures": np.full(3, 90.0), "last_positions": np.float64(positions[-1:]),
        ...             "last_velocities": np.zeros((1, 2, 3)),
        ...         },
        ...         species=("Ar", "Ar"), temperature=90.0, pressure=None,
        ...     )
        >>> newest = EarlierTrajectory("newest", sampled(0.36, 0.38, 0.4), parameters)
        >>> before = EarlierTrajectory("before", sampled(0.37, 0.39, 0.4), parameters)
        >>> found = pool(potential, parameters, newest, [before], PoolSettings(overlap=0.1))
        >>> len(found.trajectory.energies), found.records[0].is_used
        (6, True)
        >>> context.__exit__(None, None, None)
    """
    machine = Machine() if machine is None else machine
    if newest.parameters is not parameters:
        _Member(potential, newest, machine).check_sampled()
    members, records = [newest], []
    room = settings.max_snapshots - len(newest.trajectory.energies)
    for one in earlier:
        _check_fits(one, newest.trajectory)
        record = PooledTrajectory(label=one.label, snapshots=len(one.trajectory.energies), is_used=True)
        records.append(record)
        if record.snapshots > room:
            record.reason = f"the pool holds at most {settings.max_snapshots} snapshots"
            room = 0  # those before it are less like the newest one
        elif not (reason := _unlike(one.trajectory, newest.trajectory) or _known(one, members)):
            record.overlap = _Member(potential, one, machine).overlap(parameters, sampled_at(newest.trajectory))
            if record.overlap >= settings.overlap:
                members.append(one)
                room -= record.snapshots
            else:
                record.reason = f"less than {settings.overlap:g} of it overlaps"
        else:
            record.reason = reason
        record.is_used = not record.reason
    if len(members) > 1:
        cell = newest.trajectory.cell
        members = [replace(one, trajectory=_whole_strides(_in_cell(one.trajectory, cell))) for one in members]
        members = [replace(one, trajectory=_with_born_of(newest.trajectory, one.trajectory)) for one in members]
    return Pool(tuple(members), _joined([member.trajectory for member in members]), tuple(records))


def _unlike(other: Trajectory, newest: Trajectory) -> str:
    """Why a trajectory cannot be pooled with the newest one, as those that were imported; empty where it can."""
    if other.reference_energies is not None or newest.reference_energies is not None:
        return "another program sampled it"
    if other.ensemble != newest.ensemble:
        return f"its ensemble is {other.ensemble}, and that of the newest {newest.ensemble}"
    if not is_alike(other.cell, newest.cell, newest.ensemble):
        return "it has another cell"
    wanted, held = (0 if one.base is None else one.base.born_stride for one in (newest, other))
    if wanted and held != wanted:
        born = f"one for every {held} snapshots" if held else "none"
        return f"of Born terms of the base it has {born}, and the newest one for every {wanted}"
    return ""


def _known(one: EarlierTrajectory, members: Sequence[EarlierTrajectory]) -> str:
    """Which of some trajectories one repeats, whose snapshots would count twice; empty where it repeats none.

    So does the same run under two names, a copy of it, and one with the same seeds and for a longer time.
    """
    for member in members:
        if _runs_along(one.trajectory, member.trajectory) or _runs_along(member.trajectory, one.trajectory):
            return f"it is {member.label!r} once more, or a part of it"
    return ""


def _runs_along(one: Trajectory, other: Trajectory) -> bool:
    """Whether a walker of one trajectory starts within that of another one, and goes the same way to the end."""
    first, second = (held.positions[held.walkers == held.walkers[0]] for held in (one, other))
    least = min(2, len(first), len(second))
    for start in np.flatnonzero((second == first[0]).all(axis=(1, 2))):
        common = min(len(first), len(second) - int(start))
        if common >= least and np.array_equal(first[:common], second[start : start + common]):
            return True
    return False


def _in_cell(trajectory: Trajectory, cell: NDArray[np.float64]) -> Trajectory:
    """The same snapshots as multiples of another cell of the same shape."""
    factor = float(np.cbrt(np.linalg.det(trajectory.cell) / np.linalg.det(cell)))
    return replace(trajectory, cell=cell, scales=factor * trajectory.scales)


class _Member:
    """A trajectory, whose energies tell what is left of it for a potential.

    Args:
        potential: The form of the potential that is asked for.
        of: The trajectory.
        machine: Batches, and memory for what is kept of the snapshots.
    """

    def __init__(self, potential: Potential, of: EarlierTrajectory, machine: Machine) -> None:
        self._of = of
        double = machine.model_copy(update={"precision": "float64"})
        other, coordinates = of.of_other_form(potential), Coordinates.of(of.trajectory)
        # Each of two forms evaluates the snapshots once.
        self._snapshots = Snapshots(potential, coordinates, double, once=other is not None)
        self._own = self._snapshots if other is None else Snapshots(other, coordinates, double, once=True)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept of the snapshots."""
        return max(self._snapshots.nbytes, self._own.nbytes)

    def check_sampled(self) -> NDArray[np.float64]:
        """Energies of the terms of the potential that sampled; refuse another one."""
        energies, held = self._own.energies(self._of.parameters), self._of.trajectory
        stored = held.energies if held.base is None else held.energies - held.base.energies
        if not agree(stored, energies):
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                f"the earlier trajectory {self._of.label!r} was not sampled with the potential that is given for it: "
                f"its stored energies deviate by {np.ptp(stored - energies):.3g} eV",
            )
        return energies

    def overlap(self, parameters: Parameters, point: StatePoint) -> float:
        """Fraction of the snapshots that is left effective for other parameters and another state point."""
        own, held = self.check_sampled(), self._of.trajectory
        of_base = 0.0 if held.base is None else held.base.energies
        new = self._snapshots.energies(parameters)
        wanted = reduced_energies(new + of_base, held.volumes, point)
        sampled = reduced_energies(own + of_base, held.volumes, sampled_at(held))
        return effective_size(special.softmax(sampled - wanted)).smallest / len(own)


def _check_fits(one: EarlierTrajectory, newest: Trajectory) -> None:
    """Refuse a trajectory of other atoms or another base."""
    other = one.trajectory
    differs = [
        what
        for what, is_same in {
            "species": other.species == newest.species,
            "base": _of_base(other) == _of_base(newest),
        }.items()
        if not is_same
    ]
    if differs:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the earlier trajectory {one.label!r} has another {', '.join(differs)} than the newest one; give those "
            "of the same system",
        )


def _of_base(trajectory: Trajectory) -> str | None:
    return None if trajectory.base is None else trajectory.base.digest


def _with_born_of(newest: Trajectory, trajectory: Trajectory) -> Trajectory:
    """Without the Born terms of the base, where the newest trajectory has none."""
    base = trajectory.base
    if base is None or newest.base is None or newest.base.born is not None:
        return trajectory
    return replace(trajectory, base=replace(base, born=None, born_stride=0))


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
