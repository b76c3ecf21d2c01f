r"""What a base gives on the stored snapshots of a trajectory, once: energies, stresses and, if wanted, Born terms.

Born terms of a base that is called are central differences of stresses. With the deformation F = sqrt(1 + 2η) of a
Lagrangian strain η along one Voigt component, atoms moved affinely, the second Piola-Kirchhoff stress

.. math:: S = \frac{1}{V_0} \frac{\partial U}{\partial \eta} = \frac{V}{V_0} F^{-1} \sigma F^{-\mathsf{T}}

follows from the stress σ = dU/dε/V in the strained cell, and

.. math:: \frac{1}{V_0} \frac{\partial^2 U}{\partial \eta_k \partial \eta_l}
    \approx \frac{S_k(+h e_l) - S_k(-h e_l)}{2h}.

No correction by stress terms is left to be made. A base that is a function of JAX is differentiated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.bases.protocol import BasePotential, explained
from aiida_difftre.engine.bases.traced import TracedBase
from aiida_difftre.engine.contract.base_arrays import BaseArrays
from aiida_difftre.engine.contract.settings import Machine
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import voigt
from aiida_difftre.engine.potentials.term import species_index
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop
from aiida_difftre.engine.snapshots.snapshots import Coordinates, Directions, Snapshots

STRAIN = 0.005
"""h of the central differences."""

ATOMS_AT_ONCE = 4096
"""In one call of a base, at most, unless one snapshot has more."""


def with_base(
    trajectory: Trajectory,
    base: BasePotential,
    digest: str,
    *,
    born_stride: int,
    progress: Reporter,
    stop: Stop | None = None,
) -> Trajectory:
    """A trajectory with what the base of its potential gives on its snapshots.

    Args:
        trajectory: The snapshots. Their energies are those of the whole potential where the base is a function of
            JAX, else those of the terms alone.
        base: The base.
        digest: Its digest.
        born_stride: Every so many snapshots get a Born term; 0 for none.
        progress: Takes reports.
        stop: Asked between calls whether the job must end; None for one that nothing ends.

    Returns:
        The trajectory with energies of the whole potential, and the arrays of the base.

    Raises:
        EngineError: Where the base fails or gives numbers that are not finite, or when the job must stop.
    """
    arrays = arrays_of(trajectory, base, digest, born_stride=born_stride, progress=progress, stop=stop)
    if isinstance(base, TracedBase):
        return replace(trajectory, base=arrays)
    return replace(trajectory, base=arrays, energies=trajectory.energies + arrays.energies)


def arrays_of(
    trajectory: Trajectory,
    base: BasePotential,
    digest: str,
    *,
    born_stride: int,
    progress: Reporter,
    stop: Stop | None = None,
) -> BaseArrays:
    """Evaluate a base on the snapshots of a trajectory.

    Args:
        trajectory: The trajectory.
        base: The base.
        digest: SHA-256 of the spec of the base.
        born_stride: Every so many snapshots get a Born term; 0 for none.
        progress: Takes a report of each batch.
        stop: What may end the run; None for nothing.

    Returns:
        Energies (eV), stresses (GPa) and Born terms (GPa).

    Raises:
        EngineError: As :func:`with_base`.
    """
    if isinstance(base, TracedBase):
        return _of_traced(trajectory, base, digest, born_stride)
    return _of_called(_Caller(trajectory, base, progress, stop), digest, born_stride)


def _of_traced(trajectory: Trajectory, base: TracedBase, digest: str, born_stride: int) -> BaseArrays:
    count = len(trajectory.positions)
    directions = {}
    if born_stride:
        unit = np.eye(6)
        pairs = [unit[a] + unit[b] for a, b in zip(*np.triu_indices(6, 1), strict=True)]
        vectors = np.tile(np.array([*unit, *pairs]), (-(-count // born_stride), 1, 1))
        directions["born"] = Directions(born_stride, vectors)
    snapshots = Snapshots(
        base.potential, Coordinates.of(trajectory), Machine(precision="float64"), stress=True, directions=directions
    )
    found = snapshots.evaluate(base.parameters)
    references = np.asarray(base.parameters["atomic_energies"])
    energies = found["energy"] + references[species_index(trajectory.species, base.potential.spec.species)].sum()
    born = _matrices(found["born"]) if born_stride else None
    return BaseArrays(digest, energies, found["stress"], born, born_stride)


def _matrices(along: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric matrices from second derivatives along the six unit strains and the fifteen sums of two."""
    row, column = np.triu_indices(6, 1)
    matrices = np.zeros((len(along), 6, 6))
    matrices[:, range(6), range(6)] = along[:, :6]
    matrices[:, row, column] = matrices[:, column, row] = (along[:, 6:] - along[:, row] - along[:, column]) / 2
    return matrices


class _Caller:
    """Calls a base for snapshots of a trajectory, some at once."""

    def __init__(self, trajectory: Trajectory, base: BasePotential, progress: Reporter, stop: Stop | None) -> None:
        self._trajectory, self._base, self._progress, self._stop = trajectory, base, progress, stop
        self._at_once = max(1, ATOMS_AT_ONCE // len(trajectory.species))
        self.count = len(trajectory.positions)
        self.done, self.total = 0, self.count

    def blocks(self, rows: NDArray[np.intp]) -> Iterable[NDArray[np.intp]]:
        """Snapshots that are evaluated together."""
        for start in range(0, len(rows), self._at_once):
            yield rows[start : start + self._at_once]

    def stresses(
        self, rows: NDArray[np.intp], deformation: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Energies (eV) and stresses (3, 3) (eV/Å³) of some snapshots in deformed cells.

        Raises:
            EngineError: Where they are not finite, or the job must stop.
        """
        if self._stop is not None and (reason := self._stop.requested()) is not None:
            raise reason
        trajectory = self._trajectory
        cells = trajectory.scales[rows, None, None] * trajectory.cell @ deformation
        with explained():
            found = self._base.evaluate(
                trajectory.species, trajectory.positions[rows].astype(np.float64) @ cells, cells, ("energy", "stress")
            )
        for name, array in (("energy", found.energies), ("stress", found.stresses)):
            if array is None or not np.isfinite(array).all():
                raise EngineError(
                    ExitStatus.NOT_FINITE,
                    f"the {name} that the base gives of the snapshots {rows[0]} to {rows[-1]} is not finite",
                )
        self.done += len(rows)
        self._progress.report("base", self.done, self.total)
        return np.asarray(found.energies, np.float64), np.asarray(found.stresses, np.float64)


def _of_called(caller: _Caller, digest: str, born_stride: int) -> BaseArrays:
    every = np.arange(caller.count)
    strained = every[::born_stride] if born_stride else every[:0]
    caller.total = len(every) + 12 * len(strained)
    parts = [caller.stresses(rows, np.eye(3)) for rows in caller.blocks(every)]
    energies = np.concatenate([part[0] for part in parts])
    stresses = np.concatenate([_voigt(part[1]) for part in parts])
    born = None
    if born_stride:
        born = np.concatenate([_born(caller, rows) for rows in caller.blocks(strained)]) * units.EV_PER_A3_IN_GPA
    return BaseArrays(digest, energies, stresses * units.EV_PER_A3_IN_GPA, born, born_stride)


def _born(caller: _Caller, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Second derivatives of the energy by the Lagrangian strain over the volume, (rows, 6, 6), eV/Å³."""
    matrices = np.empty((len(rows), 6, 6))
    for component in range(6):
        stretched, compressed = (_piola(caller, rows, component, sign * STRAIN) for sign in (1, -1))
        matrices[:, :, component] = (stretched - compressed) / (2 * STRAIN)
    return (matrices + matrices.swapaxes(1, 2)) / 2


def _piola(caller: _Caller, rows: NDArray[np.intp], component: int, strain: float) -> NDArray[np.float64]:
    """Second Piola-Kirchhoff stresses under one component of engineering strain, (rows, 6), eV/Å³."""
    deformation = deformation_of(component, strain)
    _, stress = caller.stresses(rows, deformation)
    inverse = np.linalg.inv(deformation)
    return _voigt(np.linalg.det(deformation) * inverse @ stress @ inverse.T)


def deformation_of(component: int, strain: float) -> NDArray[np.float64]:
    """F = sqrt(1 + 2η), symmetric, for one Voigt component of engineering strain, (3, 3)."""
    i, j = voigt.COMPONENTS[component]
    eta = np.zeros((3, 3))
    eta[i, j] = eta[j, i] = strain if i == j else strain / 2
    values, vectors = np.linalg.eigh(np.eye(3) + 2 * eta)
    return (vectors * np.sqrt(values)) @ vectors.T


def _voigt(tensors: NDArray[np.float64]) -> NDArray[np.float64]:
    i, j = np.transpose(voigt.COMPONENTS)
    return (tensors[:, i, j] + tensors[:, j, i]) / 2


def stride_of(strides: Sequence[int]) -> int:
    """The stride of Born terms that serves several; 0 where there is none."""
    return int(np.gcd.reduce(np.array(strides, int))) if strides else 0
