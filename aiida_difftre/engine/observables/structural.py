"""Structural observables: functions of positions alone, computed once per trajectory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.geometry import lattice
from aiida_difftre.engine.observables import bins, histogram
from aiida_difftre.engine.observables.protocol import Macrostate


@dataclass(frozen=True)
class RadialDistribution:
    r"""Radial distribution function, averaged over each bin.

    .. math:: g_{ab}(r) = \frac{V}{N_a N_b V_\mathrm{bin}} \sum_{i \in a} \sum_{j \in b} [r_{ij} \in \mathrm{bin}]

    with the volume of the spherical shell of the bin; pairs are ordered and include periodic images, an atom's own too.
    With a smearing each distance counts as a Gaussian of that standard deviation, integrated over the bin.

    Args:
        rows: atoms of the first species.
        columns: atoms of the second species.
        edges: Edges of the bins, Å.
        shifts: lattice shifts besides the one to the nearest image.
        histogram: first edge (Å), width (Å) and number of the bins of the histogram.
        smearing: (bins, edges of the histogram), share of each edge in each bin; None where its bins are the bins.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    edges: NDArray[np.float64]
    shifts: NDArray[np.int32]
    histogram: tuple[float, float, int]
    smearing: NDArray[np.float64] | None

    quantities = ()
    static = True

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Options, grid and species were checked by the registry.

        Args:
            request: its grid holds the centres of equal bins, Å.
            species: chemical symbol of each atom.
            cell: rows are the lattice vectors, Å.
        """
        edges = bins.edges(request.grid or [], request.name)
        pair = request.options["pair"]
        symbols = np.array(species)
        everything = np.arange(len(species))
        rows, columns = (np.flatnonzero(symbols == symbol) for symbol in pair) if pair else (everything, everything)

        deviation = request.options["smearing"] or 0.0
        fine, matrix = _fine_bins(edges, deviation)
        end = fine[0] + fine[1] * fine[2]
        return cls(rows, columns, edges, lattice.images(cell, end), fine, matrix)

    def features(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " bins"]:
        """g of one snapshot.

        Args:
            positions: fractional.
            cell: rows are the lattice vectors, Å; not smaller than that of :meth:`from_request`.
        """
        pairs, shared = (self.rows, self.columns), self.smearing is not None
        counts = histogram.distances(positions, cell, pairs, self.shifts, self.histogram, shared=shared)
        counts = counts[:-1] if self.smearing is None else jnp.asarray(self.smearing, positions.dtype) @ counts
        shells = 4 / 3 * math.pi * np.diff(self.edges**3)
        volume = jnp.abs(jnp.linalg.det(cell))
        return counts * volume / jnp.asarray(len(self.rows) * len(self.columns) * shells, positions.dtype)

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " bins"]:
        """Weighted mean over the snapshots."""
        return weights @ inputs["features"]


def _fine_bins(
    edges: NDArray[np.float64], deviation: float
) -> tuple[tuple[float, float, int], NDArray[np.float64] | None]:
    """First edge, width and number of the histogram's bins, and the share of their edges in each bin of the grid."""
    count = len(edges) - 1
    width = float(edges[-1] - edges[0]) / count
    if deviation == 0.0:
        return (float(edges[0]), width, count), None
    fine = bins.fine_width(width, deviation)
    start = max(0.0, float(edges[0]) - bins.SMEARING_REACH * deviation)
    count = math.ceil((edges[-1] + bins.SMEARING_REACH * deviation - start) / fine)
    points = start + fine * np.arange(count + 1)
    return (start, fine, count), bins.shares(edges, points, deviation, fine)
