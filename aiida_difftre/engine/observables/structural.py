"""Structural observables: functions of positions alone, computed once per trajectory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.geometry import lattice
from aiida_difftre.engine.observables import bins, histogram, scattering
from aiida_difftre.engine.observables.protocol import Macrostate


@dataclass(frozen=True)
class PairDistribution:
    r"""Radial distribution function of one kind of pair, averaged over each bin.

    .. math:: g_{ab}(r) = \frac{V}{N_a N_b V_\mathrm{bin}} \sum_{i \in a} \sum_{j \in b} [r_{ij} \in \mathrm{bin}]

    with the volume of the spherical shell of the bin; pairs are ordered and include periodic images, an atom's own too.
    With a smearing each distance counts as a Gaussian of that standard deviation, integrated over the bin.

    Args:
        ordered: number of ordered pairs by which counts are normalised.
        rows: atoms of the first species.
        columns: atoms of the second species.
        edges: Edges of the bins, Å.
        shifts: lattice shifts besides the one to the nearest image.
        histogram: first edge (Å), width (Å) and number of the bins of the histogram.
        smearing: (bins, edges of the histogram), share of each edge in each bin; None where its bins are the bins.
    """

    ordered: float
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    edges: NDArray[np.float64]
    shifts: NDArray[np.int32]
    histogram: tuple[float, float, int]
    smearing: NDArray[np.float64] | None

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
        distinct = not request.options["self_pairs"] and (not pair or pair[0] == pair[1])
        ordered = float(len(rows) * (len(columns) - 1 if distinct else len(columns)))
        return cls(ordered, rows, columns, edges, lattice.images(cell, end), fine, matrix)

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
        return counts * volume / jnp.asarray(self.ordered * shells, positions.dtype)


@dataclass(frozen=True)
class RadialDistribution:
    r"""Radial distribution function: of one pair of species, of all atoms alike, or as radiation weighs the pairs.

    .. math:: g_{ab}(r) = \frac{V}{N_a N_b V_\mathrm{bin}} \sum_{i \in a} \sum_{j \in b} [r_{ij} \in \mathrm{bin}],
        \qquad g(r) = \sum_{ab} \frac{c_a c_b b_a b_b}{\bar b^{\,2}} g_{ab}(r)

    averaged over each bin, with the volume of its spherical shell; pairs include periodic images, an atom's own too. A
    total counts all atoms alike, or as ``radiation`` (``neutron`` or ``xray``) weighs them, with scattering lengths or
    numbers of electrons b, by the ``isotopes``, ``scattering_lengths`` and ``composition`` that ``structure_factor``
    has. G(r) = 4πρr [g(r) - 1] and T(r) are read as tables and converted.

    N atoms of a species count as N² pairs, and an ideal gas of a fixed number of atoms has 1 - 1/N. Elsewhere N(N - 1)
    are counted, ``self_pairs: false``, and it has 1. The two differ for like pairs alone, by 0.9 % for 108 atoms;
    choose as the measured curve was normalised, which for an experiment is N².

    With a ``smearing`` each distance counts as a Gaussian of that standard deviation, integrated over the bin.

    Args:
        parts: a radial distribution function for each pair that counts.
        shares: Weight of each.
    """

    parts: tuple[PairDistribution, ...]
    shares: tuple[float, ...]

    quantities = ()
    static = True

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Options, grid and species were checked by the registry.

        Args:
            request: its grid holds the centres of equal bins, Å.
            species: chemical symbol of each atom, or its isotope where neutrons see it.
            cell: rows are the lattice vectors, Å.
        """
        options = request.options
        if options["radiation"] is None:
            return cls((PairDistribution.from_request(request, species, cell),), (1.0,))
        elements, weighting = scattering.weighting(species, [0.0], options["radiation"], options["scattering_lengths"])
        weighted = weighting.first[0] * weighting.shares
        weighted = weighted / weighted.sum()
        parts, shares = [], []
        for a, b in combinations_with_replacement(range(len(elements)), 2):
            one = {"pair": [elements[a], elements[b]], "smearing": options["smearing"]}
            part = ObservableRequest(
                observable="rdf", grid=request.grid, label=request.name,
                options={**one, "self_pairs": options["self_pairs"]},
            )  # fmt: skip
            parts.append(PairDistribution.from_request(part, species, cell))
            shares.append(float((1 if a == b else 2) * weighted[a] * weighted[b]))
        return cls(tuple(parts), tuple(shares))

    def features(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " bins"]:
        """g of one snapshot.

        Args:
            positions: fractional.
            cell: rows are the lattice vectors, Å; not smaller than that of :meth:`from_request`.
        """
        total = self.shares[0] * self.parts[0].features(positions, cell)
        for part, share in zip(self.parts[1:], self.shares[1:], strict=True):
            total = total + share * part.features(positions, cell)
        return total

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
