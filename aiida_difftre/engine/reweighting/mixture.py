r"""A pool of trajectories as the reference of a potential: one trajectory of the mixture of their ensembles.

Snapshots that were drawn from several ensembles were drawn from their mixture, the ensemble of

.. math::
    U_\mathrm{mix}(x) = -kT \ln \sum_k \frac{n_k}{n}\, e^{f_k - u_k(x)} - P V, \qquad
    u_k = \frac{U_k + P_k V}{k T_k}, \qquad
    w_i \propto \frac{1}{g_{k(i)}}\, e^{-[U_\theta(x_i) - U_\mathrm{mix}(x_i)]/kT}

with N_k snapshots of the potential k at the temperature T_k (and, in NPT, the pressure P_k), and its free energy f_k.
Of these :math:`n_k = N_k/g_k` are independent; the statistical inefficiency g_k is that of energy and volume, the
slower one. So a pool is a trajectory whose reference energies are those of the mixture, with kT ln g_k added, and
whatever reweights a trajectory reweights a pool. A pool of one trajectory has U_mix = U_0 and its weights.

References:
    Shirts & Chodera, J. Chem. Phys. 129, 124105 (2008), eqs. 11 and 13.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.settings import Machine
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting import mbar
from aiida_difftre.engine.reweighting.pool import EarlierTrajectory, Pool
from aiida_difftre.engine.reweighting.reference import (
    Pooled,
    Reference,
    check_potential,
    prepare_reference,
    relative_to_sampled,
    sampled_at,
    unchecked_reference,
)
from aiida_difftre.engine.reweighting.statistics import statistical_inefficiency
from aiida_difftre.engine.reweighting.weights import reduced_energies, reliable_size
from aiida_difftre.engine.snapshots.snapshots import Coordinates, Snapshots


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
        potential: The form of the potential for which the pool was made.
        parameters: Its parameters.
        pooled: The pool.
        requests: Observables.
        machine: Precision and batches.
        point: State point of the averages, that of the newest trajectory; None for that.

    Returns:
        The reference, exactly that of ``prepare_reference`` for a
        trajectory alone that these parameters sampled.

    Raises:
        EngineError: As that does.

    References:
        M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129, 124105 (2008), eqs. 11 and 13.

    Example:
        Two trajectories of one potential are one of twice the length:

        >>> import jax, numpy as np
        >>> from aiida_difftre.engine.contract.trajectories import Trajectory
        >>> from aiida_difftre.engine.contract.settings import Machine, PotentialSpec, TermSpec
        >>> from aiida_difftre.engine.contract.update_settings import PoolSettings
        >>> from aiida_difftre.engine.potentials.potential import build
        >>> from aiida_difftre.engine.reweighting.pool import EarlierTrajectory, pool
        >>> from aiida_difftre.engine.reweighting.mixture import prepare_pooled
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
            energies[id(member.parameters)] = _energies(potential, member, pooled.trajectory, ref, machine)
    # From those for which snapshots are weighed: the differences have the digits that the energies lose.
    reduced = np.stack(
        [
            reduced_energies(energies[id(one.parameters)] + of_base, volumes, sampled_at(one.trajectory)) - wanted
            for one in pooled.members
        ]
    )
    thermal = np.stack([terms + of_base, volumes], 1)
    g = _inefficiencies(thermal, pooled)
    try:
        mixture = mbar.log_mixture(reduced, pooled.counts, mbar.free_energies(reduced, pooled.counts, g), g)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, f"{error} (a larger overlap in the settings of the pool)") from None
    mixture -= np.log(pooled.counts.sum())
    shares = np.repeat(1 / g, pooled.counts)
    shares /= shares.mean()
    size = reliable_size(special.softmax(-reduced[0] - mixture), shares)
    volume = float(special.softmax(-mixture) @ volumes)
    return replace(
        ref,
        energies=terms - units.BOLTZMANN * at.temperature * mixture,
        point=replace(ref.point, volume=volume),
        pooled=Pooled(np.repeat(np.arange(len(pooled.members), dtype=np.int32), pooled.counts), size, shares),
    )


def _inefficiencies(columns: NDArray[np.float64], pooled: Pool) -> NDArray[np.float64]:
    """Statistical inefficiency of each trajectory, that of the slowest of some columns, (snapshots, columns)."""
    parts = np.split(np.arange(len(columns)), np.cumsum(pooled.counts)[:-1])
    walkers = pooled.trajectory.walkers
    return np.array([np.max(statistical_inefficiency(columns[part], walkers[part])) for part in parts])


def _energies(
    potential: Potential, member: EarlierTrajectory, pooled: Trajectory, ref: Reference, machine: Machine
) -> NDArray[np.float64]:
    """Energies of all snapshots with the potential that sampled one of the trajectories, (snapshots,), eV."""
    other = member.of_other_form(potential)
    if other is None:
        return ref.snapshots.energies(member.parameters)
    double = machine.model_copy(update={"precision": "float64"})
    return Snapshots(other, Coordinates.of(pooled), double, once=True).energies(member.parameters)


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
