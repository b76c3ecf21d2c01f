"""Which trajectories may serve another state point: those of the same atoms, ensemble and cell. Free of JAX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.observables import Ensemble
from aiida_difftre.engine.contract.settings import PotentialSpec


def is_alike(cell: NDArray[np.float64], other: NDArray[np.float64], ensemble: Ensemble) -> bool:
    """Find out whether snapshots of two trajectories are of one ensemble, but for temperature, pressure and potential.

    Args:
        cell: Cell of the one, lattice vectors in rows, (3, 3), Å.
        other: Cell of the other.
        ensemble: Ensemble of both.

    Returns:
        True for equal cells at constant volume, and for cells of one shape at constant pressure.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.neighbours import is_alike
        >>> [is_alike(np.eye(3), 1.1 * np.eye(3), ensemble) for ensemble in ("NVT", "NPT")]
        [False, True]
    """
    factor = 1.0 if ensemble == "NVT" else float(np.cbrt(np.linalg.det(cell) / np.linalg.det(other)))
    return bool(np.allclose(cell, factor * other, rtol=1e-7, atol=1e-7 * float(np.abs(cell).max())))


class OfSystem(Protocol):
    """What tells of which system and ensemble snapshots are."""

    @property
    def cell(self) -> NDArray[np.float64]:
        """Lattice vectors in rows, (3, 3), Å."""

    @property
    def symbols(self) -> Sequence[str]:
        """Chemical symbol of each atom."""

    @property
    def ensemble(self) -> Ensemble:
        """``NPT`` or ``NVT``."""


def is_neighbour(one: OfSystem, other: OfSystem) -> bool:
    """Find out whether two state points are of one system, so that trajectories of one may serve the other.

    Args:
        one: Trajectory at the one.
        other: Trajectory at the other.

    Returns:
        True for the same atoms, the same ensemble and cells that are alike (:func:`is_alike`).
    """
    is_same = list(one.symbols) == list(other.symbols) and one.ensemble == other.ensemble
    return is_same and is_alike(one.cell, other.cell, one.ensemble)


def is_same_model(spec: PotentialSpec, other: PotentialSpec) -> bool:
    """Find out whether what one potential sampled may be weighed for another.

    Args:
        spec: The one.
        other: The other.

    Returns:
        True for the same species and base; terms may differ, whose energies each of the potentials gives itself.
    """
    return set(spec.species) == set(other.species) and spec.base == other.base


def neighbour_name(label: str, name: str) -> str:
    """The name of a trajectory at another state point among the earlier ones, behind which it comes in their order.

    Args:
        label: Label of the other state point.
        name: Name of the trajectory there.

    Returns:
        The name.
    """
    return f"neighbour_{label.strip('_')}_{name}"
