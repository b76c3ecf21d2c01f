"""A base potential within compiled dynamics: called back at every step, once for all walkers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.bases.protocol import BasePotential, Quantity, explained
from aiida_difftre.engine.errors import EngineError


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
                self.failure = error
            else:
                forces = np.asarray(found.forces, dtype).reshape(places.shape)
                traces = np.zeros(len(cells))
                if found.stresses is not None:
                    traces = np.abs(np.linalg.det(cells)) * np.trace(found.stresses, axis1=1, axis2=2)
                return forces, traces.astype(dtype).reshape(batch)
        return np.full(places.shape, np.nan, dtype), np.full(batch, np.nan, dtype)
