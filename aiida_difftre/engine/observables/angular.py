"""Angular distribution: the angles of triplets, counted once per trajectory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.geometry import lattice, neighbor_list
from aiida_difftre.engine.observables import bins, histogram
from aiida_difftre.engine.observables.protocol import Macrostate

ANGLES_AT_ONCE = 100_000
"""Angles of one snapshot that are in memory at once."""


@dataclass(frozen=True)
class AngularDistribution:
    r"""Probability density of the angles j-i-k between two neighbours of an atom.

    .. math:: P(\theta) = \frac{1}{\Delta\theta} \Big\langle \sum_i \sum_{j < k}
        [\theta_{jik} \in \mathrm{bin}] \Big\rangle \Big/ \Big\langle \sum_i \sum_{j < k} 1 \Big\rangle,
        \qquad r_{ij}, r_{ik} < r_c

    with :math:`\Delta\theta` in radians, so that the integral over all angles in radians is 1; the grid is in degrees.
    There is no division by :math:`\sin\theta`: where directions are random, :math:`P = \tfrac12 \sin\theta`.
    Neighbours include periodic images. A ``triplet`` names the species, the centre in the middle. With a smearing each
    angle counts as a Gaussian of that standard deviation in degrees, reflected at 0 and 180.

    Args:
        cutoff: Å.
        centres: atoms in the middle.
        ends: Whether each atom may be the first and whether it may be the other neighbour, (2, atoms).
        capacity: neighbours of an atom that can be held.
        shifts: lattice shifts of neighbours, from :func:`aiida_difftre.engine.geometry.lattice.images`.
        width: Width of the bins, degrees.
        histogram: first edge, width (degrees) and number of the bins of the histogram.
        smearing: (bins, edges of the histogram), share of each edge in each bin; None where its bins are the bins.
    """

    cutoff: float
    centres: NDArray[np.intp]
    ends: NDArray[np.bool_]
    capacity: int
    shifts: NDArray[np.int32]
    width: float
    histogram: tuple[float, float, int]
    smearing: NDArray[np.float64] | None

    quantities = ()
    static = True

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Options and grid were checked by the registry.

        Args:
            request: its grid holds the centres of equal bins, degrees.
            species: chemical symbol of each atom.
            cell: rows are the lattice vectors, Å.
        """
        edges = bins.edges(request.grid or [], request.name, "degrees")
        width = float(edges[-1] - edges[0]) / (len(edges) - 1)
        cutoff = float(request.options["cutoff"])
        symbols = np.array(species)
        first, centre, last = request.options["triplet"] or (None, None, None)
        first, centre, last = (symbols == s if s else np.ones(len(symbols), bool) for s in (first, centre, last))
        fine, smearing = _fine_bins(edges, width, request.options["smearing"] or 0.0)
        return cls(
            cutoff=cutoff,
            centres=np.flatnonzero(centre),
            ends=np.stack([first, last]),
            capacity=neighbor_list.capacity_for(len(species), cell, cutoff),
            shifts=lattice.images(cell, cutoff),
            width=width,
            histogram=fine,
            smearing=smearing,
        )

    def features(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " features"]:
        """Triplets in each bin, all triplets, and the capacity that the snapshot needs.

        Args:
            positions: fractional.
            cell: rows are the lattice vectors, Å; not smaller than that of :meth:`from_request`.
        """
        lists = neighbor_list.build(positions, cell, self.cutoff, self.capacity, self.shifts)
        vectors = neighbor_list.displacements(positions, cell, lists)[self.centres]
        mask, index = lists.mask[self.centres], lists.index[self.centres]
        first, last = (jnp.asarray(end)[index] & mask for end in self.ends)
        start, width, count = self.histogram
        j, k = np.triu_indices(self.capacity, 1)

        def of_centre(centre: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            neighbours, first, last = centre
            length = jnp.linalg.norm(neighbours, axis=-1)
            directions = neighbours / jnp.where(length > 0, length, 1.0)[:, None]
            wanted = (first[j] & last[k]) | (last[j] & first[k])
            cosine = jnp.clip(jnp.sum(directions[j] * directions[k], -1), -1.0, 1.0)
            coordinate = (jnp.degrees(jnp.arccos(cosine)) - start) / width
            # The last edge belongs to the last bin, so that straight angles count.
            below = jnp.nextafter(jnp.asarray(count, coordinate.dtype), 0)
            coordinate = jnp.where(jnp.abs(coordinate - count) < 1e-6, below, coordinate)
            counts = jnp.zeros(count + 1, positions.dtype)
            return histogram.deposit(counts, coordinate, wanted, shared=self.smearing is not None), jnp.sum(wanted)

        batch = max(1, min(len(self.centres), ANGLES_AT_ONCE // max(1, len(j))))
        counts, triplets = jax.lax.map(of_centre, (vectors, first, last), batch_size=batch)
        summed = jnp.sum(counts, 0)
        summed = summed[:-1] if self.smearing is None else jnp.asarray(self.smearing, positions.dtype) @ summed
        rest = jnp.stack([jnp.sum(triplets), lists.needed]).astype(positions.dtype)
        return jnp.concatenate([summed, rest])

    def enlarged(self, features: NDArray[np.float64]) -> Self | None:
        """The same with room for all neighbours, where these features of all snapshots did not have it.

        Raises:
            ValueError: where no snapshot has a triplet.
        """
        needed = int(features[:, -1].max())
        if needed > self.capacity:
            return replace(self, capacity=needed)
        if features[:, -2].max() == 0:
            raise ValueError(f"no snapshot has a triplet within the cutoff of {self.cutoff:g} Å; take a larger one")
        return None

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " bins"]:
        """Mean number of triplets in each bin over the mean of all, per radian."""
        average = weights @ inputs["features"]
        return average[:-2] / (average[-2] * math.radians(self.width))


def _fine_bins(
    edges: NDArray[np.float64], width: float, deviation: float
) -> tuple[tuple[float, float, int], NDArray[np.float64] | None]:
    """First edge, width and number of the histogram's bins, and the share of their edges in each bin of the grid."""
    if deviation == 0.0:
        return (float(edges[0]), width, len(edges) - 1), None
    count = math.ceil(180.0 / bins.fine_width(width, deviation))
    fine = 180.0 / count
    points = fine * np.arange(count + 1)
    images = (points, -points, 360.0 - points)
    reflected = [bins.shares(edges, image, deviation, fine) for image in images]
    return (0.0, fine, count), np.sum(reflected, axis=0)
