"""Pair terms as functions of the distance: energies and forces of each pair of species, on a grid or anywhere."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Environment, Kind, Parameters

CHUNK = 2048
"""Distances that are evaluated together, so that one compiled program does for tables of all lengths."""

HARDEST = 100.0
"""eV/Å: of larger forces no table has to be precise."""

FEWEST, MOST = 2500, 40_000
"""Points of a table whose number nobody gave."""

PRECISE = 2e-10
"""eV/Å, by which a force from a table may be wrong before the table gets more points."""

HIGHEST = 1000.0
"""eV: below the distance at which all pairs reach this, tables have nothing to say."""

SMALLEST = 0.3
"""Å, at which a table begins where a potential is soft."""


Triple: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Energies u, eV; forces -du/dr, eV/Å, positive where atoms repel each other; derivatives of the forces, eV/Å²."""


@dataclass(frozen=True)
class PairFunction:
    """Energy and force of one pair of species as functions of the distance, of all pair terms together.

    Args:
        label: The two species, such as ``C-O``.
        pair: Indices of the two species.
        compiled: Compiled function of ``CHUNK`` distances and the two indices.
    """

    label: str
    pair: tuple[int, int]
    compiled: Callable[..., tuple[Array, Array, Array]]

    def __call__(self, distances: Float[np.ndarray, " points"]) -> Triple:
        """Evaluate the function.

        Args:
            distances: Distances, Å.

        Returns:
            Energies, forces, and derivatives of the forces.
        """
        count = len(distances)
        padded = np.resize(np.asarray(distances, float), -(-count // CHUNK) * CHUNK)
        with jax.enable_x64(True):
            parts = [self.compiled(chunk, *self.pair) for chunk in padded.reshape(-1, CHUNK)]
        energy, force, change = (np.concatenate([np.asarray(part[n]) for part in parts])[:count] for n in range(3))
        return energy, force, change


@dataclass(frozen=True)
class Table:
    """One pair function at points that are equally spaced in the squared distance, as LAMMPS takes them.

    Args:
        label: The two species, such as ``C-O``.
        distances: Distances, (points,), Å, from the shortest to the cutoff.
        energies: Energies, (points,), eV.
        forces: Forces, (points,), eV/Å.
        ends: Derivatives of the force at both ends, eV/Å².
        energy_error: Largest difference of a cubic spline through the points from the function, halfway between them
            and where forces are below ``HARDEST``, eV.
        force_error: The same of forces, eV/Å.
    """

    label: str
    distances: NDArray[np.float64]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    ends: tuple[float, float]
    energy_error: float
    force_error: float


def functions(potential: Potential, parameters: Parameters) -> list[PairFunction]:
    """The functions of all pairs of species, as parameters of pair terms are ordered.

    Args:
        potential: The potential; only its terms of the kind ``PAIRWISE`` count.
        parameters: Its parameters, float64.

    Returns:
        One function for each pair of species.
    """

    def energies(distances: Array, first: Array, second: Array) -> Array:
        """Of pairs of atoms that see each other alone: twice what one of them has of it, and not of itself."""
        column = distances[:, None]
        nothing = jnp.zeros_like(column)
        environment = Environment(
            jnp.stack([column, nothing, nothing], -1),
            jnp.ones_like(column, bool),
            jnp.full(len(distances), first),
            jnp.full(column.shape, second),
        )
        alone = environment._replace(mask=jnp.zeros_like(environment.mask))
        total = jnp.zeros_like(distances)
        for name, term in zip(potential.names(), potential.terms, strict=True):
            if term.kind is Kind.PAIRWISE:
                of = functools.partial(term.energy, parameters["terms"][name])
                total = total + 2 * (of(term.project(environment)) - of(term.project(alone)))
        return total

    def force(distances: Array, first: Array, second: Array) -> Array:
        return -jax.grad(lambda r: jnp.sum(energies(r, first, second)))(distances)

    def all_three(distances: Array, first: Array, second: Array) -> tuple[Array, Array, Array]:
        change = jax.grad(lambda r: jnp.sum(force(r, first, second)))(distances)
        return energies(distances, first, second), force(distances, first, second), change

    species, compiled = potential.spec.species, jax.jit(all_three)
    pairs = itertools.combinations_with_replacement(range(len(species)), 2)
    return [PairFunction(f"{species[a]}-{species[b]}", (a, b), compiled) for a, b in pairs]


def energies_alone(potential: Potential, parameters: Parameters) -> NDArray[np.float64]:
    """Energies of atoms that see no others: the reference energy, and what a term has of the atom itself.

    Args:
        potential: The potential, of terms that are no external fields.
        parameters: Its parameters, float64.

    Returns:
        Energies, (species,), eV.
    """
    with jax.enable_x64(True):
        species = jnp.arange(len(potential.spec.species))
        nobody = jnp.zeros((len(species), 1), bool)
        far = jnp.zeros((len(species), 1, 3))
        return np.asarray(potential.energies(parameters, Environment(far, nobody, species, species[:, None])))


def pair_cutoff(potential: Potential) -> float:
    """The largest cutoff of the pair terms, Å; 0 where there are none."""
    cutoffs = [term.cutoff for term in potential.terms if term.kind is Kind.PAIRWISE]
    return max(cutoffs, default=0.0)


def shortest(chosen: Sequence[PairFunction], cutoff: float) -> float:
    """The distance at which tables of some functions begin: where the energy of a pair has risen to ``HIGHEST``.

    Args:
        chosen: The functions.
        cutoff: Their cutoff, Å.

    Returns:
        The shortest of these distances of all pairs, Å, with two digits; ``SMALLEST`` where a pair is softer.
    """
    grid = np.arange(SMALLEST, cutoff, 0.01)
    beginnings = []
    for function in chosen:
        energies = function(grid)[0]
        too_high = np.flatnonzero(~(np.abs(energies) < HIGHEST))
        beginnings.append(grid[too_high[-1]] if len(too_high) else SMALLEST)
    return round(float(min(beginnings, default=SMALLEST)), 2)


def tabulate(function: PairFunction, inner: float, cutoff: float, points: int | None = None) -> Table:
    """Tabulate a pair function, and say how far a spline through the table is from it.

    Args:
        function: The function.
        inner: Shortest distance, Å.
        cutoff: Longest distance, Å, where the function is zero.
        points: Number of points; None for as many as make forces right to ``PRECISE``, ``MOST`` at most.

    Returns:
        The table.
    """
    count = points or FEWEST
    while True:
        table = _table(function, inner, cutoff, count)
        if points or table.force_error <= PRECISE or 2 * count > MOST:
            return table
        count *= 2


def _table(function: PairFunction, inner: float, cutoff: float, points: int) -> Table:
    squares = np.linspace(inner**2, cutoff**2, points)
    distances = np.sqrt(squares)
    energies, forces, changes = function(distances)
    middle = (squares[1:] + squares[:-1]) / 2
    exact_energies, exact_forces, _ = function(np.sqrt(middle))
    soft = np.abs(exact_forces) < HARDEST
    # As LAMMPS keeps them: the energy, and the force over the distance, by the squared distance.
    energy_error = CubicSpline(squares, energies)(middle) - exact_energies
    force_error = CubicSpline(squares, forces / distances)(middle) * np.sqrt(middle) - exact_forces
    return Table(
        function.label,
        distances,
        energies,
        forces,
        (float(changes[0]), float(changes[-1])),
        float(np.max(np.abs(energy_error[soft]), initial=0.0)),
        float(np.max(np.abs(force_error[soft]), initial=0.0)),
    )
