"""Thermodynamic observables: the mean potential energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.observables import StatePoint
from aiida_difftre.engine.targets import ObservableRequest


class PotentialEnergy:
    """Mean potential energy per atom, <U>/N in eV/atom, without atomic reference energies."""

    quantities: tuple[str, ...] = ()
    static = False

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Nothing to check."""
        return cls()

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: StatePoint
    ) -> Float[Array, " values"]:
        """Σ w U / N."""
        return jnp.sum(weights * inputs["energy"], keepdims=True) / point.atoms
