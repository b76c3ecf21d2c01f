"""Density profiles along an axis of the cell: functions of positions alone, computed once per trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.observables import bins, histogram
from aiida_difftre.engine.observables.protocol import Macrostate


@dataclass(frozen=True)
class DensityProfile:
    r"""Probability density of the fractional coordinate along an axis, averaged over each bin.

    .. math:: p(s) = \frac{1}{N \Delta s} \sum_i [s_i \in \mathrm{bin}]

    Its integral over the cell is one. With a smearing each atom counts as a periodic Gaussian of that standard
    deviation, integrated over the bin.

    Args:
        atoms: that count.
        axis: lattice vector.
        edges: Edges of the bins, fractional.
        smearing: standard deviation, fractional; 0 for none.
    """

    atoms: NDArray[np.intp]
    axis: int
    edges: NDArray[np.float64]
    smearing: float

    quantities = ()
    static = True

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Options, grid and species were checked by the registry.

        Args:
            request: its grid holds the centres of equal bins between 0 and 1.
            species: chemical symbol of each atom.
            cell: not looked at.
        """
        wanted = request.options["species"]
        chosen = np.flatnonzero([wanted in (None, symbol) for symbol in species])
        edges = bins.fractional_edges(request.grid or [], request.name)
        return cls(chosen, int(request.options["axis"]), edges, float(request.options["smearing"]))

    def features(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " bins"]:
        """p of one snapshot.

        Args:
            positions: fractional.
            cell: not looked at.
        """
        coordinate = positions[self.atoms, self.axis]
        coordinate = coordinate - jnp.floor(coordinate)
        count = len(self.edges) - 1
        width = float(self.edges[-1] - self.edges[0]) / count
        if self.smearing:
            images = jnp.arange(-1.0, 2.0)
            below = ndtr((self.edges[:, None, None] - coordinate[:, None] - images) / self.smearing)
            counts = jnp.diff(jnp.sum(below, (1, 2)))
        else:
            scaled = (coordinate - float(self.edges[0])) / width
            empty = jnp.zeros(count + 1, positions.dtype)
            counts = histogram.deposit(empty, scaled, jnp.ones(scaled.shape, bool), shared=False)[:-1]
        return counts / (len(self.atoms) * width)

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " bins"]:
        """Weighted mean over the snapshots."""
        return weights @ inputs["features"]
