"""A shell of neighbours: how many atoms are in it, and how far they are; computed once per trajectory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.geometry import lattice
from aiida_difftre.engine.observables import histogram
from aiida_difftre.engine.observables.protocol import Macrostate

WIDEST_BIN = 0.01
"""Å, between the points of the histogram of a shell."""

DEGREE = 3
"""Of the polynomial whose maximum is a peak: the shallower side of a peak has a share in it."""


@dataclass(frozen=True)
class Shell:
    """The distances of a pair of species within a range, as a histogram.

    Each distance is shared between the two nearest points in such a way that number and mean are exact.

    Args:
        name: the pair, for messages.
        rows: atoms of the first species.
        columns: atoms of the second species.
        shifts: lattice shifts besides the one to the nearest image.
        bins: first edge (Å), width (Å) and number of the bins of the histogram.
    """

    name: str
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    shifts: NDArray[np.int32]
    bins: tuple[float, float, int]

    @classmethod
    def from_options(cls, options: Mapping[str, Any], species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Options and species were checked by the registry."""
        low, high = map(float, options["r_range"])
        symbols, number = np.array(species), math.ceil((high - low) / WIDEST_BIN)
        rows, columns = (np.flatnonzero(symbols == symbol) for symbol in options["pair"])
        bins = (low, (high - low) / number, number)
        return cls("-".join(options["pair"]), rows, columns, lattice.images(cell, high), bins)

    @property
    def points(self) -> NDArray[np.float64]:
        """Where the histogram is, Å."""
        start, width, number = self.bins
        return np.asarray(start + width * np.arange(number + 1), np.float64)

    def counts(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " points"]:
        """Ordered pairs at each point."""
        return histogram.distances(positions, cell, (self.rows, self.columns), self.shifts, self.bins, shared=True)


@dataclass(frozen=True)
class CoordinationNumber:
    r"""Mean number of neighbours of species b that an atom of species a has between two distances.

    .. math:: n_{ab} = \frac{1}{N_a} \Big\langle \sum_{i \in a} \sum_{j \in b} [r_0 \le r_{ij} < r_1] \Big\rangle
        = 4 \pi \rho_b \int_{r_0}^{r_1} g_{ab}(r)\, r^2\, \mathrm{d}r

    Args:
        shell: the distances.
    """

    shell: Shell

    quantities = ()
    static = True

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Options and species were checked by the registry."""
        return cls(Shell.from_options(request.options, species, cell))

    def features(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " one"]:
        """Neighbours of an atom in one snapshot."""
        return jnp.sum(self.shell.counts(positions, cell), keepdims=True) / len(self.shell.rows)

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " one"]:
        """Weighted mean over the snapshots."""
        return weights @ inputs["features"]


@dataclass(frozen=True)
class NeighborDistance:
    r"""Distance of neighbours within a range: the mean of all, or where g(r) or :math:`4\pi r^2 \rho g(r)` is highest.

    .. math:: \bar r = \Big\langle \sum_{ij} r_{ij} \Big\rangle \Big/ \Big\langle \sum_{ij} 1 \Big\rangle,
        \qquad r_0 \le r_{ij} < r_1

    is what a Gaussian fitted to a narrow peak of T(r) tells. The peak of g(r), which is asymmetric in liquids, is the
    maximum of the polynomial of third degree that is fitted to g(r) in the range; a range of the upper half of a peak
    suits it. That of the radial distribution, which lies further out, is found in the same way.

    Args:
        shell: the distances.
        peak: Matrix from a histogram to the coefficients 1, 2 and 3 of the polynomial, (3, points), in a variable
            that goes from -1 to 1 in the range; None for the mean.
        curve: What has the peak, for messages.
    """

    shell: Shell
    peak: NDArray[np.float64] | None
    curve: str = ""

    quantities = ()
    static = True

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Options and species were checked by the registry."""
        shell = Shell.from_options(request.options, species, cell)
        if request.options["measure"] == "mean":
            return cls(shell, None)
        points = shell.points
        powers = np.vander(np.linspace(-1, 1, len(points)), DEGREE + 1, increasing=True)
        matrix = np.zeros((DEGREE, len(points)))
        # The two ends of the histogram have the share of one bin, the others that of two.
        matrix[:, 1:-1] = np.linalg.pinv(powers[1:-1])[1:]
        if request.options["measure"] == "distribution_peak":
            return cls(shell, matrix, "the radial distribution")
        matrix[:, 1:-1] /= points[1:-1] ** 2
        return cls(shell, matrix, "g(r)")

    def features(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " features"]:
        """Number and sum of the distances, or what the polynomial of g(r) follows from, and their number."""
        counts = self.shell.counts(positions, cell)
        if self.peak is None:
            return jnp.stack([jnp.asarray(self.shell.points, counts.dtype) @ counts, jnp.sum(counts)])
        volume = jnp.abs(jnp.linalg.det(cell))
        return jnp.append(volume * (jnp.asarray(self.peak, counts.dtype) @ counts), jnp.sum(counts))

    def enlarged(self, features: NDArray[np.float64]) -> None:
        """Refuse snapshots that do not have what is observed; no size depends on them.

        Raises:
            ValueError: where no pair is in the range, or g(r) has no maximum there.
        """
        start, width, number = self.shell.bins
        where = f"between {start:g} and {start + width * number:g} Å"
        if features[:, -1].max() == 0:
            raise ValueError(f"no snapshot has a pair {self.shell.name} {where}; give another r_range")
        if self.peak is None:
            return
        first, second, third = features.mean(0)[:3]
        root = second**2 - 3 * first * third
        if second >= 0 or root < 0 or abs(first) > math.sqrt(root) - second:
            raise ValueError(
                f"{self.curve} of {self.shell.name} has no maximum {where}; give an r_range around its peak"
            )

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " one"]:
        """The distance that follows from weighted means."""
        average = weights @ inputs["features"]
        if self.peak is None:
            return (average[0] / average[1])[None]
        first, second, third = average[0], average[1], average[2]
        # Where the derivative vanishes and falls; the form without a difference of nearly equal numbers.
        place = first / (jnp.sqrt(second**2 - 3 * first * third) - second)
        start, width, number = self.shell.bins
        return (start + width * number / 2 * (1 + place))[None]
