"""X-ray absorption fine structure of a trajectory: a function of interatomic distances and a table of paths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.linalg import solve_triangular

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.geometry import lattice
from aiida_difftre.engine.observables import histogram
from aiida_difftre.engine.observables.protocol import Macrostate
from aiida_difftre.engine.observables.specs.absorption import (
    SQUARED_K_PER_EV,
    limits,
    path_table,
    wave_numbers,
    window_filter,
)

Floats = NDArray[np.float64]

PHASE_PER_BIN = 0.12
"""2 k times the width of a bin of distances, at the largest k: the error of χ(k) is some 1e-3 of a single pair's."""

K_STEP = 0.025
"""Of the grid between whose points χ(k) is interpolated, 1/Å: 2 R times it is 0.4 for R = 8 Å."""

E0_STEP = 0.5
"""Largest step of ΔE0 in the search for the best one, before Newton steps, eV."""

NEWTON_STEPS = 6

INNERMOST = 0.5
"""Of the distance of the nearest shell: no atom is nearer than this."""


@dataclass(frozen=True)
class Fit:
    r"""Fits S0² and ΔE0 to a measured k^n χ(k).

    .. math:: y(k) = S_0^2\, F k^n\, \chi\big(\sqrt{k^2 - 2m\,\Delta E_0/\hbar^2}\big)

    with F the Fourier filter, through which what was measured has gone as well. Both are those of the least

    .. math:: (y - y_m)^\mathsf{T} C^{-1} (y - y_m)

    with the covariance C of the errors of the measurement, as in χ². At each ΔE0 the best S0² follows in closed form,
    :math:`s^\mathsf{T} C^{-1} y_m / s^\mathsf{T} C^{-1} s` with the shape s that S0² = 1 gives. The best ΔE0 is found
    on a grid and by Newton steps.

    Args:
        k: Wave numbers of the measurement, 1/Å.
        power: Power of k.
        filter: matrix on the values at k; None for none.
        nodes: first wave number of the computed χ, 1/Å; their spacing is K_STEP.
        slopes: derivatives of the cubic spline through values at the nodes, (nodes, nodes).
        s02: range.
        e0_shift: range, eV.
        values: measured.
        root: Matrix R with :math:`R^\mathsf{T} R \propto C^{-1}`, (points, points), such that |R values| = 1.
    """

    k: Floats
    power: int
    filter: Floats | None
    nodes: float
    slopes: Floats
    s02: tuple[float, float]
    e0_shift: tuple[float, float]
    values: Floats
    root: Floats

    def __call__(self, chi: Float[Array, " nodes"]) -> tuple[Float[Array, " points"], Array, Array]:
        """The fitted y(k), S0² and ΔE0 (eV), differentiable in χ at the nodes.

        The derivative of the best ΔE0 is that of one Newton step at the minimum, which is exact there.
        """
        low, high = self.e0_shift
        slopes = jnp.asarray(self.slopes) @ chi
        fixed = (jax.lax.stop_gradient(chi), jax.lax.stop_gradient(slopes))
        first = jax.grad(self._misfit)
        second = jax.grad(first)
        if low < high:
            points = max(3, math.ceil((high - low) / E0_STEP) + 1)
            trials = jnp.linspace(low, high, points)
            start = trials[jnp.argmin(jax.vmap(lambda e: self._misfit(e, *fixed))(trials))]
            step = (high - low) / (points - 1)
            lower, upper = jnp.maximum(start - step, low), jnp.minimum(start + step, high)

            def newton(_: Array, e0: Array) -> Array:
                curvature = second(e0, *fixed)
                move = jnp.where(curvature > 0, -first(e0, *fixed) / curvature, 0.0)
                return jnp.clip(e0 + move, lower, upper)

            e0 = jax.lax.stop_gradient(jax.lax.fori_loop(0, NEWTON_STEPS, newton, start))
            curvature = jax.lax.stop_gradient(second(e0, *fixed))
            is_free = (e0 > low) & (e0 < high) & (curvature > 0)
            e0 = e0 - jnp.where(is_free, first(e0, chi, slopes) / jnp.where(is_free, curvature, 1.0), 0.0)
        else:
            e0 = jnp.asarray(low, chi.dtype)
        shape = self._shape(e0, chi, slopes)
        s02 = self._best_s02(shape)
        return s02 * shape, s02, e0

    def _shape(self, e0: Array, chi: Array, slopes: Array) -> Array:
        """Filtered k^n χ with S0² = 1, by cubic Hermite interpolation."""
        k = jnp.asarray(self.k)
        coordinate = (jnp.sqrt(k**2 - SQUARED_K_PER_EV * e0) - self.nodes) / K_STEP
        left = jnp.clip(jnp.floor(coordinate).astype(int), 0, len(self.slopes) - 2)
        t = coordinate - left
        values = (
            (1 + 2 * t) * (1 - t) ** 2 * chi[left]
            + t**2 * (3 - 2 * t) * chi[left + 1]
            + K_STEP * t * (1 - t) * ((1 - t) * slopes[left] - t * slopes[left + 1])
        )
        weighted = k**self.power * values
        return weighted if self.filter is None else jnp.asarray(self.filter) @ weighted

    def _best_s02(self, shape: Array) -> Array:
        low, high = self.s02
        if low == high:
            return jnp.asarray(low, shape.dtype)
        root = jnp.asarray(self.root)
        own = root @ shape
        return jnp.clip(own @ (root @ self.values) / (own @ own), low, high)

    def _misfit(self, e0: Array, chi: Array, slopes: Array) -> Array:
        shape = self._shape(e0, chi, slopes)
        return jnp.sum((jnp.asarray(self.root) @ (self._best_s02(shape) * shape - self.values)) ** 2)


@dataclass(frozen=True)
class Exafs:
    r"""EXAFS, the fine structure :math:`k^n \chi(k)` of an X-ray absorption edge.

    .. math:: \chi(k) = S_0^2 \Big\langle \frac{1}{N_a} \sum_{i \in a} \sum_{j \neq i}
        \frac{F(k, R_{ij})}{k R_{ij}^2}\, \sin\big(2 k R_{ij} + \phi(k, R_{ij})\big)\, e^{-2 R_{ij}/\lambda(k)}
        \Big\rangle

    with the amplitudes, phases and mean free paths that FEFF computes for the single-scattering paths of the crystal
    (option ``paths``, see ``difftre.feff``), interpolated between its shells. The sum runs over all neighbours of all
    absorbing atoms within the cutoff of the table. Disorder is in the snapshots, not in a Debye-Waller factor.

    Values are :math:`k^n \chi(k)` with n the option ``k_weight``, in :math:`\mathrm{Å}^{-n}`. The amplitude factor
    :math:`S_0^2` and the shift :math:`\Delta E_0` (eV) of the origin of the energy,
    :math:`k \to \sqrt{k^2 - 2m\Delta E_0/\hbar^2}`, belong to the measurement. They are fitted to the target, with its
    errors, whenever averages are compared, within the ranges ``s02`` and ``e0_shift``. A number in place of a range
    fixes one, which a prediction without a target needs.

    Where single scattering does not describe the whole of χ(k), ``r_range`` (Å) restricts the comparison to what comes
    from near atoms. The values are then those of :math:`k^n \chi(k)` after a Fourier filter over the grid, with
    Hanning windows whose tapers are ``k_taper`` (1/Å, at the ends of the grid) and ``r_taper`` (Å, around the ends of
    ``r_range``). Targets hold filtered values; ``aiida-difftre target import`` makes them.

    Distances are counted in fine bins, each shared between the two nearest points.

    Args:
        rows: absorbing atoms.
        columns: neighbours by species.
        shifts: lattice shifts besides the one to the nearest image.
        bins: first edge (Å), width (Å) and number of the bins of distance, whose edges are the points of the waves.
        waves: Waves by species, (nodes, points): what a neighbour at each distance adds to χ.
        fit: Fit of the parameters of the measurement.

    References:
        Sayers, Stern & Lytle, Phys. Rev. Lett. 27, 1204 (1971); Rehr & Albers, Rev. Mod. Phys. 72, 621 (2000).
    """

    rows: NDArray[np.intp]
    columns: tuple[NDArray[np.intp], ...]
    shifts: NDArray[np.int32]
    bins: tuple[float, float, int]
    waves: tuple[Floats, ...]
    fit: Fit

    quantities = ()
    static = True

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Options, grid and species were checked by the registry.

        Args:
            request: Request with a path table among its options.
            species: chemical symbol of each atom.
            cell: rows are the lattice vectors, Å.

        Raises:
            ValueError: where there is no table.
        """
        options = request.options
        table = path_table(options)
        present = tuple(sorted(set(species)))
        s02, e0_shift = limits(options["s02"]), limits(options["e0_shift"])
        k = np.array(request.grid)
        values, root = np.ones_like(k), np.eye(len(k))
        if request.measured is not None:
            values, lower = np.array(request.measured.values), np.linalg.cholesky(request.measured.matrix())
            root = solve_triangular(lower, root, lower=True)
        scale = float(np.linalg.norm(root @ values)) or 1.0
        filtering = window_filter(options, request.grid or [])

        ends = wave_numbers(k[[0, -1]], e0_shift[1])[0], wave_numbers(k[[0, -1]], e0_shift[0])[1]
        nodes = ends[0] + K_STEP * np.arange(max(4, math.ceil((ends[1] - ends[0]) / K_STEP) + 1))
        width = PHASE_PER_BIN / (2 * nodes[-1])
        start = INNERMOST * min(shell.distance for shell in table.shells)
        distances = start + width * np.arange(math.floor((table.cutoff - start) / width) + 1)
        # The last node may lie beyond the table by less than a step.
        inside = np.minimum(nodes, table.k[-1])
        # A distance shared between two points loses this much of its amplitude, on average over its place.
        shared = 1 - (2 * inside[:, None] * width) ** 2 / 12
        symbols = np.array(species)
        return cls(
            rows=np.flatnonzero(symbols == table.absorber),
            columns=tuple(np.flatnonzero(symbols == symbol) for symbol in present),
            shifts=lattice.images(cell, table.cutoff),
            bins=(start, width, len(distances) - 1),
            waves=tuple(table.contribution(symbol, inside, distances) / shared for symbol in present),
            fit=Fit(
                k=k,
                power=options["k_weight"],
                filter=None if filtering is None else filtering.matrix,
                nodes=float(nodes[0]),
                slopes=CubicSpline(nodes, np.eye(len(nodes)))(nodes, 1),
                s02=s02,
                e0_shift=e0_shift,
                values=values,
                root=root / scale,
            ),
        )

    def features(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " nodes"]:
        """χ of one snapshot with S0² = 1 and ΔE0 = 0, at the nodes.

        Args:
            positions: fractional.
            cell: rows are the lattice vectors, Å; not smaller than that of :meth:`from_request`.
        """
        total = jnp.zeros(len(self.fit.slopes), positions.dtype)
        for columns, waves in zip(self.columns, self.waves, strict=True):
            counts = histogram.distances(positions, cell, (self.rows, columns), self.shifts, self.bins, shared=True)
            total += jnp.asarray(waves, positions.dtype) @ counts
        return total / len(self.rows)

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " points"]:
        """Weighted mean over the snapshots, fitted to the measurement."""
        return self.fit(weights @ inputs["features"])[0]

    def fitted(self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"]) -> dict[str, Array]:
        """S0² and ΔE0 (eV)."""
        _, s02, e0_shift = self.fit(weights @ inputs["features"])
        return {"s02": s02, "e0_shift": e0_shift}
