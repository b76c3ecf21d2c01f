"""A base potential within compiled dynamics: called back at every step, once for all walkers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.bases.protocol import BasePotential, Quantity, explained
from aiida_difftre.engine.errors import EngineError, ExitStatus


class Callback:
    """Forces and the trace of the virial of a base, for compiled programs.

    A failure of the base cannot leave a compiled program: forces that are not finite are returned, and ``failure``
    says why.

    Args:
        base: The base.
        symbols: Chemical symbol of each atom.
        cell: Lattice vectors of the reference cell in rows, (3, 3), Å.
        needs_virial: Whether the cell changes, so that the virial is needed.
    """

    def __init__(
        self, base: BasePotential, symbols: Sequence[str], cell: NDArray[np.float64], *, needs_virial: bool
    ) -> None:
        self._base, self._symbols, self._cell = base, tuple(symbols), np.asarray(cell, np.float64)
        self._what: tuple[Quantity, ...] = ("forces", "stress") if needs_virial else ("forces",)
        self.failure: EngineError | None = None
        self._failed_at: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def __call__(
        self, positions: Float[Array, "atoms 3"], scale: Float[Array, ""]
    ) -> tuple[Float[Array, "atoms 3"], Float[Array, ""]]:
        """Forces (eV/Å) and the trace of the virial (eV) of one walker; traceable, and batched in one call.

        Args:
            positions: Fractional positions.
            scale: Scale of the cell.
        """
        dtype = positions.dtype
        shapes = (jax.ShapeDtypeStruct(positions.shape, dtype), jax.ShapeDtypeStruct((), dtype))
        found: tuple[Array, Array] = jax.pure_callback(
            self._evaluate, shapes, positions, jnp.asarray(scale, dtype), vmap_method="broadcast_all"
        )
        return found

    def failure_within(self, min_distance: float) -> EngineError | None:
        """Why the base failed, which is the fault of the dynamics where it brought two atoms too close.

        Args:
            min_distance: Distance that no two atoms of a sane run reach, Å.

        Returns:
            The failure; with status ATOMS_TOO_CLOSE, where they had. None where the base has not failed.
        """
        if self.failure is None or self._failed_at is None:
            return self.failure
        walkers = zip(*self._failed_at, strict=True)
        frames = [Atoms(self._symbols, positions, cell=cell, pbc=True) for positions, cell in walkers]
        closest = min(neighbor_list("d", frame, min_distance).min(initial=np.inf) for frame in frames)
        if closest >= min_distance:
            return self.failure
        return EngineError(
            ExitStatus.ATOMS_TOO_CLOSE,
            f"two atoms came as close as {closest:.3f} Å (limit {min_distance} Å), where {self.failure.message}",
            {"min_distance": float(closest)},
        )

    def _evaluate(self, positions: Any, scale: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        places, scales = np.asarray(positions), np.asarray(scale)
        dtype, batch = places.dtype, places.shape[:-2]
        cells = scales.reshape(-1, 1, 1).astype(np.float64) * self._cell
        cartesian = places.reshape(-1, *places.shape[-2:]).astype(np.float64) @ cells
        # Before anything else: a model may well crash where a walker has gone.
        if self.failure is None and np.isfinite(cartesian).all():
            try:
                with explained():
                    found = self._base.evaluate(self._symbols, cartesian, cells, self._what)
            except EngineError as error:
                self.failure, self._failed_at = error, (cartesian, cells)
            else:
                forces = np.asarray(found.forces, dtype).reshape(places.shape)
                traces = np.zeros(len(cells))
                if found.stresses is not None:
                    traces = np.abs(np.linalg.det(cells)) * np.trace(found.stresses, axis1=1, axis2=2)
                return forces, traces.astype(dtype).reshape(batch)
        return np.full(places.shape, np.nan, dtype), np.full(batch, np.nan, dtype)
