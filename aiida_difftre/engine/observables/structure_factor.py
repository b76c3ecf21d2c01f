"""Structure factor: from the wave vectors of the cell, or from radial distribution functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.geometry import lattice
from aiida_difftre.engine.observables import bins, scattering
from aiida_difftre.engine.observables.protocol import Macrostate
from aiida_difftre.engine.observables.structural import PairDistribution

WAVES_AT_ONCE = 200_000
"""Products of wave vectors and atoms of one snapshot that are in memory at once."""

KNOT_DISTANCE = 0.005
"""Of the table between whose points form factors are linear, 1/Å: their relative error is below 1e-6."""

CELLS_TRIED = 9
"""Sizes between the smallest and the largest cell at which bins must hold wave vectors."""

SEED = 0
"""Of the draw of wave vectors, which is thus the same everywhere."""


@dataclass(frozen=True)
class Direct:
    """S(q) of snapshots as a mean over the wave vectors in each bin.

    Wave vectors are those of a snapshot's own cell: where cells change their size, a vector moves from bin to bin.

    Args:
        vectors: integer indices of the wave vectors, (vectors, 3); one of each pair ±q.
        edges: Edges of the bins, 1/Å.
        knots: wave numbers at which the weights are tabulated, 1/Å.
        weighting: How the elements are added up, with rows of the knots.
        members: whether an atom is of an element, (atoms, elements).
    """

    vectors: NDArray[np.int32]
    edges: NDArray[np.float64]
    knots: NDArray[np.float64]
    weighting: scattering.Weighting
    members: NDArray[np.float64]

    @classmethod
    def from_request(
        cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64], largest: float
    ) -> Self:
        """Enumerate the wave vectors of the cells, and draw among those of a bin where there are many.

        Args:
            request: its grid holds the centres of equal bins, 1/Å.
            species: chemical symbol of each atom.
            cell: the smallest one, Å.
            largest: edges of the largest cell over those of the smallest.

        Raises:
            ValueError: for a bin without a wave vector.
        """
        options = request.options
        edges = bins.edges(request.grid or [], request.name, "1/Å")
        width = edges[1] - edges[0]
        # Larger cells bring vectors into the last bin that are beyond it in the smallest one.
        beyond = math.ceil((edges[-1] * (largest - 1)) / width * (1 - 1e-9))
        further = np.append(edges, edges[-1] + width * np.arange(1, beyond + 1))
        vectors = wave_vectors(cell, float(edges[0]), float(further[-1]))
        lengths = np.linalg.norm(vectors @ lattice.reciprocal(cell), axis=1)
        bin_of = np.clip(np.searchsorted(further, lengths, side="right") - 1, 0, len(further) - 2)
        chosen = _draw(bin_of, np.bincount(bin_of, minlength=len(further) - 1), options["vectors_per_bin"])
        _check_filled(request, edges, lengths, largest)
        knots = np.linspace(edges[0], edges[-1], math.ceil((edges[-1] - edges[0]) / KNOT_DISTANCE) + 1)
        elements, weighting = scattering.weighting(
            species, knots, options["radiation"], options["scattering_lengths"], partial=options["partial"]
        )
        members = np.array([[symbol == element for element in elements] for symbol in species], np.float64)
        return cls(vectors[chosen], edges, knots, weighting, members)

    def features(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " features"]:
        """Sum of S over the wave vectors in each bin, and their number."""
        atoms = len(self.members)
        dtype = positions.dtype
        members, shares = jnp.asarray(self.members, dtype), jnp.asarray(self.weighting.shares, dtype)
        vectors = jnp.asarray(self.vectors, dtype)
        lengths = 2 * math.pi * jnp.linalg.norm(vectors @ jnp.linalg.inv(cell).T.astype(dtype), axis=1)
        knots = jnp.asarray(self.knots, dtype)

        def at_lengths(table: NDArray[np.float64]) -> Array:
            """(vectors, elements) of a table with rows of the knots."""
            columns = jnp.asarray(table.T, dtype)
            return jnp.stack([jnp.interp(lengths, knots, column) for column in columns], -1)

        first, second = at_lengths(self.weighting.first), at_lengths(self.weighting.second)
        mean = jnp.interp(lengths, knots, jnp.asarray(self.weighting.mean, dtype))

        def intensity(wave: tuple[Array, Array, Array]) -> Array:
            vector, v, w = wave
            turns = positions @ vector
            phase = 2 * math.pi * (turns - jnp.round(turns))
            real, imaginary = (part @ members for part in (jnp.cos(phase), jnp.sin(phase)))
            return (v @ real) * (w @ real) + (v @ imaginary) * (w @ imaginary)

        batch = max(1, min(len(self.vectors), WAVES_AT_ONCE // atoms))
        found = jax.lax.map(intensity, (vectors, first, second), batch_size=batch) / atoms
        values = self.weighting.offset + (found - (first * second) @ shares) / mean**2
        edges, count = jnp.asarray(self.edges, dtype), len(self.edges) - 1
        bin_of = jnp.searchsorted(edges, lengths, side="right") - 1
        bin_of = jnp.where(bin_of < 0, count, bin_of)
        sums, numbers = (
            jnp.zeros(count, dtype).at[bin_of].add(x, mode="drop") for x in (values, jnp.ones_like(values))
        )
        return jnp.concatenate([sums, numbers])

    def combine(self, features: Float[Array, " features"]) -> Float[Array, " bins"]:
        """S from the average features."""
        sums, numbers = jnp.split(features, 2)
        return sums / numbers


@dataclass(frozen=True)
class Transform:
    """S(q) of one snapshot by sine transforms of its partial radial distribution functions.

    Args:
        partials: a radial distribution function for each pair of elements, each pair once.
        matrices: Matrices from g - 1 of each to its part of S at a density of one atom per Å³, (partials, q, r).
        offset: S at large q.
        atoms: number of atoms.
    """

    partials: tuple[PairDistribution, ...]
    matrices: NDArray[np.float64]
    offset: float
    atoms: int

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Radial distribution functions up to ``r_max``, by default half of the smallest height of the cell."""
        options, q = request.options, np.array(request.grid, np.float64)
        width, end = options["r_bin"], options["r_max"] or float(lattice.heights(cell).min()) / 2
        r = width * (np.arange(max(2, int(end / width * (1 + 1e-9)))) + 0.5)
        elements, weighting = scattering.weighting(
            species, q, options["radiation"], options["scattering_lengths"], partial=options["partial"]
        )
        first, second = (table * weighting.shares for table in (weighting.first, weighting.second))
        matrix = scattering.structure_factor_matrix(r, q, 1.0, options["window"])
        partials, matrices = [], []
        for a, b in combinations_with_replacement(range(len(elements)), 2):
            both = first[:, a] * second[:, b] + (0.0 if a == b else first[:, b] * second[:, a])
            if not both.any():
                continue
            one = ObservableRequest(
                observable="rdf", grid=r.tolist(), options={"pair": [elements[a], elements[b]]}, label=request.name
            )
            partials.append(PairDistribution.from_request(one, species, cell))
            matrices.append((both / weighting.mean**2)[:, None] * matrix)
        return cls(tuple(partials), np.stack(matrices), weighting.offset, len(species))

    def features(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " q"]:
        """S on the grid."""
        density = self.atoms / jnp.abs(jnp.linalg.det(cell))
        total = sum(
            jnp.asarray(matrix, positions.dtype) @ (partial.features(positions, cell) - 1)
            for partial, matrix in zip(self.partials, self.matrices, strict=True)
        )
        return self.offset + density * total

    def combine(self, features: Float[Array, " q"]) -> Float[Array, " q"]:
        """S, which is the average feature."""
        return features


@dataclass(frozen=True)
class StructureFactor:
    r"""Total structure factor, normalised to 1 at large q (Faber & Ziman, Philos. Mag. 11, 153 (1965)).

    .. math:: S(q) = 1 + \frac{\frac1N \big\langle \big| \sum_i b_i e^{i\mathbf{q}\cdot\mathbf{r}_i} \big|^2 \big\rangle
        - \overline{b^2}}{\bar b^{\,2}}
        = 1 + \sum_{ab} \frac{c_a c_b b_a b_b}{\bar b^{\,2}} \frac{4\pi\rho}{q} \int r [g_{ab}(r) - 1] W(r)
        \sin(qr)\, \mathrm dr

    with :math:`\bar b = \sum_a c_a b_a`, coherent scattering lengths for neutrons and :math:`b = f(q)` for X-rays. For
    one element it is the usual S(q). ``direct`` takes the mean over the wave vectors of the cell in bins around the
    grid, about ``vectors_per_bin`` of them, drawn once (null for all, which Bragg peaks
    need). At constant pressure they are the wave vectors of each snapshot's own cell. ``transform`` takes
    the integral, up to ``r_max`` (half the box by default) in bins of ``r_bin``, with Lorch's window or none; at small
    q it lacks the tail beyond. Isotopes are told by the masses of the atoms.
    ``scattering_lengths`` (fm, by species or isotope, such as ``D``) replace tabulated ones, for beads. ``isotopes``
    names those of a sample, ``{"H": "D"}`` or ``{"H": {"H": 0.36, "D": 0.64}}``, whatever the masses are: several S(q)
    of one liquid with different isotopes are targets of one state point. ``composition`` is the formula of the sample,
    which the structure must have.

    ``partial`` is a pair of species for the partial of Faber and Ziman, or ``NN``, ``NC`` or ``CC`` for those of Bhatia
    and Thornton, of two species in the order of their symbols; they need no radiation:

    .. math:: A_{ab}(q) = 1 + \frac{\frac1N \langle \mathrm{Re}\, \rho_a \rho_b^* \rangle - c_a \delta_{ab}}{c_a c_b},
        \qquad S_{NN} = \tfrac1N \langle |\rho|^2 \rangle, \quad S_{NC} = \tfrac1N \langle \mathrm{Re}\, \rho
        \rho_C^* \rangle, \quad S_{CC} = \tfrac1N \langle |\rho_C|^2 \rangle, \quad \rho_C = c_2 \rho_1 - c_1
        \rho_2
    """

    method: Direct | Transform

    quantities = ()
    static = True

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Prepare for one cell, see :meth:`spanning`."""
        return cls.spanning(request, species, cell, 1.0)

    @classmethod
    def spanning(
        cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64], largest: float
    ) -> Self:
        """Prepare for cells of several sizes.

        Args:
            request: its grid holds the centres of equal bins for the direct method, 1/Å.
            species: chemical symbol of each atom.
            cell: the smallest one; rows are the lattice vectors, Å.
            largest: edges of the largest cell over those of the smallest.

        Raises:
            ValueError: for a species without a weight, or a bin without a wave vector.
        """
        if request.options["method"] == "direct":
            return cls(Direct.from_request(request, species, cell, largest))
        return cls(Transform.from_request(request, species, cell))

    def features(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " features"]:
        """What S of one snapshot is made of.

        Args:
            positions: fractional.
            cell: rows are the lattice vectors, Å; not smaller than that of :meth:`from_request`.
        """
        return self.method.features(positions, cell)

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " q"]:
        """S(q) from the weighted mean over the snapshots; for the direct method that over all their wave vectors."""
        return self.method.combine(weights @ inputs["features"])


def _check_filled(
    request: ObservableRequest, edges: NDArray[np.float64], lengths: NDArray[np.float64], largest: float
) -> None:
    """Refuse bins that hold no wave vector in most cells."""
    counts = [np.histogram(lengths / scale, edges)[0] for scale in np.linspace(1.0, largest, CELLS_TRIED)]
    filled = np.mean(np.array(counts) > 0, axis=0)
    if filled.min() < 0.5:
        empty = int(np.argmin(filled))
        raise ValueError(
            f"no wave vector of the cell falls in the bin at {(request.grid or [])[empty]:g} 1/Å, from "
            f"{edges[empty]:.5g} to {edges[empty + 1]:.5g}: take wider bins, a larger cell, or method: transform"
        )


def wave_vectors(cell: NDArray[np.float64], start: float, end: float) -> NDArray[np.int32]:
    """Integer indices of the wave vectors with a length from ``start`` to ``end`` (1/Å), one of each pair ±q."""
    vectors = lattice.reciprocal(cell)
    limits = np.floor(end / lattice.heights(vectors)).astype(int)
    second, third = np.meshgrid(*(np.arange(-n, n + 1) for n in limits[1:]), indexing="ij")
    plane = np.stack([np.zeros_like(second), second, third], -1).reshape(-1, 3).astype(np.int32)
    later = (plane[:, 1] > 0) | ((plane[:, 1] == 0) & (plane[:, 2] > 0))
    found = []
    # Plane by plane: all indices of a large cell at once would not fit in memory.
    for first in range(limits[0] + 1):
        candidates = plane[later] if first == 0 else plane + np.array([first, 0, 0], np.int32)
        squared = np.sum((candidates @ vectors) ** 2, axis=1)
        found.append(candidates[(squared >= start**2) & (squared < end**2)])
    return np.concatenate(found)


def _draw(bin_of: NDArray[np.intp], counts: NDArray[np.intp], most: int | None) -> NDArray[np.intp]:
    """Draw at most ``most`` wave vectors of each bin, sorted by bin."""
    shuffled = np.random.default_rng(SEED).permutation(len(bin_of))
    ordered = shuffled[np.argsort(bin_of[shuffled], kind="stable")]
    if most is None:
        return ordered
    rank = np.arange(len(ordered)) - np.repeat(np.cumsum(counts) - counts, counts)
    return ordered[rank < most]
