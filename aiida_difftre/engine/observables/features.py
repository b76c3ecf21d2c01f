"""Features of all snapshots of a trajectory that depend on positions only, batch by batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.observables import protocol
from aiida_difftre.engine.observables.histogram import PAIRS_AT_ONCE
from aiida_difftre.engine.observables.protocol import Observable
from aiida_difftre.engine.snapshots.snapshots import ATOMS_PER_BATCH

SNAPSHOTS_AT_ONCE = 8
"""Snapshots of a middling size whose static features are computed together."""


def static_features(
    implementation: Observable, trajectory: Trajectory, name: str, batch_size: int = 0
) -> NDArray[np.float64]:
    """Features of all snapshots that depend on positions only, batch by batch.

    Args:
        implementation: Implementation of the observable.
        trajectory: its snapshots.
        name: Name of the observable, in messages.
        batch_size: snapshots per batch; 0 to choose.

    Returns:
        Features, (snapshots, features).

    Raises:
        EngineError: with status INVALID_INPUT, where the snapshots do not have what is observed.
    """
    cell = jnp.asarray(trajectory.cell)
    batch = batch_size or snapshots_at_once(len(trajectory.species))
    compute = jax.jit(
        lambda *snapshots: jax.lax.map(
            lambda x: implementation.features(x[0].astype(jnp.float64), x[1] * cell),
            snapshots,
            batch_size=batch,
        )
    )
    features = np.asarray(compute(jnp.asarray(trajectory.positions), jnp.asarray(trajectory.scales)))
    if not isinstance(implementation, protocol.Adaptive):
        return features
    try:
        larger = implementation.enlarged(features)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, f"observable {name!r}: {error}") from None
    return features if larger is None else static_features(larger, trajectory, name, batch_size)


def snapshots_at_once(atoms: int) -> int:
    """Snapshots whose static features are computed together, where the job does not say: these may look at all pairs.

    Args:
        atoms: Number of atoms in a snapshot.

    Returns:
        Number of snapshots.
    """
    pairs = atoms**2
    return min(max(SNAPSHOTS_AT_ONCE, ATOMS_PER_BATCH // pairs), max(1, PAIRS_AT_ONCE // pairs))
