r"""Energies, stresses and Born terms of many snapshots, and the one vector-Jacobian product that a gradient costs.

What a potential needs of a snapshot that does not depend on the parameters (``Potential.project``) and how that
changes with strain is computed once per trajectory. With P(η) the projection under a Lagrangian strain η,

    stress_k = dE/dη_k / V = ∇E(P)·∂P/∂η_k / V,
    Born term along d = d²E(P(s d))/ds² / V   at s = 0,

and neither touches a neighbour list again. Energies that enter weights are float64; the rest has the job's precision.
Everything runs in batches of snapshots spread over the devices. What is kept of all snapshots has a budget of memory:
projections where they fit, else neighbour lists (:mod:`~aiida_difftre.engine.snapshots.compact_lists`), else nothing;
the rest is computed anew with each batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.settings import Machine
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.geometry import neighbor_list
from aiida_difftre.engine.potentials.potential import Potential, species_of
from aiida_difftre.engine.potentials.term import Environment, Parameters, densities, species_index
from aiida_difftre.engine.snapshots.compact_lists import Compact, Lists, surroundings
from aiida_difftre.engine.snapshots.kernels import Batch, Kernels, Shared, kernels

ATOMS_PER_BATCH = 1024
"""Atoms in a batch on one device, where the job does not say how many snapshots."""


class Coordinates(NamedTuple):
    """Where the atoms of snapshots are.

    Args:
        positions: Fractional positions as stored, (snapshots, atoms, 3).
        cell: Lattice vectors in rows, (3, 3), Å.
        symbols: Element of each atom.
        scales: Factors on the cell, (snapshots,); None for ones.
    """

    positions: NDArray[Any]
    cell: NDArray[np.float64]
    symbols: Sequence[str]
    scales: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, trajectory: Trajectory) -> Coordinates:
        """Those of a trajectory.

        Args:
            trajectory: The trajectory.

        Returns:
            Its positions, cell, elements and scales.
        """
        return cls(trajectory.positions, trajectory.cell, trajectory.species, trajectory.scales)


class Directions(NamedTuple):
    """Strain directions of the Born terms.

    Args:
        stride: every ``stride``-th snapshot has Born terms, from the first on.
        vectors: (snapshots with Born terms, directions, 6), engineering strains.
    """

    stride: int
    vectors: NDArray[np.float64]


def environment(
    potential: Potential,
    positions: NDArray[Any],
    cell: NDArray[Any],
    symbols: Sequence[str],
    precision: str,
    lists: neighbor_list.NeighborList | None = None,
) -> Environment:
    """The environment of one configuration with fractional positions.

    Args:
        potential: the potential.
        positions: (atoms, 3), fractional.
        cell: (3, 3), Å.
        symbols: one per atom.
        precision: Precision of the environment.
        lists: Neighbour lists of several configurations, this one first; None for neighbours within the potential's
            cutoff.

    Returns:
        The neighbours of all atoms.
    """
    if lists is None:
        lists = neighbor_list.build_batch(np.asarray(positions, np.float64)[None], cell, potential.cutoff)
    species = species_index(tuple(symbols), potential.spec.species)
    dtype = jnp.dtype(precision)
    count = len(potential.spec.species)
    return _environment(np.asarray(positions, dtype), np.asarray(cell, dtype), species, lists, count=count)


@functools.partial(jax.jit, static_argnames="count")
def _environment(
    positions: Array, cell: Array, species: Array, lists: neighbor_list.NeighborList, *, count: int
) -> Environment:
    """One program, where each operation by itself would be traced, lowered and loaded as one of its own."""
    first = jax.tree.map(lambda x: x[0], lists)
    vectors = neighbor_list.displacements(positions, cell, first)
    around = densities(species, count, jnp.abs(jnp.linalg.det(cell)))
    return Environment(
        vectors, first.mask, species, species[first.index], positions, neighbors=first.index, densities=around
    )


@functools.partial(jax.jit, static_argnames="count")
def _first(positions: Array, scale: Array, shared: Shared, lists: Compact, *, count: int) -> Environment:
    """The environment of one snapshot, in double precision."""
    cell = scale * shared.cell
    near = surroundings(lists, positions, cell, shared.images)
    vectors = jnp.stack(near.components, -1)
    species = shared.species
    around = densities(species, count, jnp.abs(jnp.linalg.det(cell)))
    return Environment(
        vectors, near.mask, species, species[near.index], positions, neighbors=near.index, densities=around
    )


class Prepared:
    """Projections of snapshots, batch by batch: from memory where they are kept, else prepared anew each time.

    The last batch is filled up with copies of its first snapshot; the rows of a batch are only the real ones.

    Args:
        prepare: (snapshots, rows) -> projections of a batch.
        index: snapshots to prepare.
        batch: Number of snapshots that are prepared together.
    """

    def __init__(
        self,
        prepare: Callable[[NDArray[np.intp], NDArray[np.intp]], tuple[Any, ...]],
        index: NDArray[np.intp],
        batch: int,
    ) -> None:
        self._prepare, self._index, self._batch = prepare, index, batch
        self._starts = range(0, len(index), batch)
        self._kept = [self._made(0)]
        self.size = self.nbytes * len(self._starts)
        """Bytes of all, once they are kept."""

    def _made(self, start: int) -> tuple[NDArray[np.intp], tuple[Any, ...]]:
        rows = np.arange(start, min(start + self._batch, len(self._index)))
        filled = np.concatenate([rows, np.full(self._batch - len(rows), rows[0])])
        return rows, self._prepare(self._index[filled], filled)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return sum(leaf.nbytes for _, data in self._kept for leaf in jax.tree.leaves(data))

    def keep(self) -> None:
        """Keep all from now on."""
        self._kept = list(self)

    def __iter__(self) -> Iterator[tuple[NDArray[np.intp], tuple[Any, ...]]]:
        yield from self._kept
        for start in self._starts[len(self._kept) :]:
            yield self._made(start)


class _Source(NamedTuple):
    """What projections are prepared from; not :class:`Snapshots` itself, which would hold itself by them.

    Objects that do are freed by Python now and then alone, so that those of several trajectories add up.
    """

    positions: NDArray[Any]
    scales: NDArray[np.float64]
    lists: Lists
    kernels: Kernels
    shared: Shared
    stress: bool

    def take(self, index: NDArray[np.intp]) -> Batch:
        return Batch(self.positions[index], self.lists.take(index), self.scales[index])  # type: ignore[arg-type]  # NumPy

    def main(self, index: NDArray[np.intp], rows: NDArray[np.intp]) -> tuple[Any, ...]:
        batch = self.take(index)
        if self.stress:
            return tuple(self.kernels.slopes(batch, self.shared))
        return (self.kernels.project(batch, self.shared),)

    def curves(self, vectors: NDArray[np.float64], index: NDArray[np.intp], rows: NDArray[np.intp]) -> tuple[Any, ...]:
        return tuple(self.kernels.curves(self.take(index), self.shared, jnp.asarray(vectors[rows])))


class Snapshots:
    """All snapshots of a trajectory, ready for evaluation with any parameters of one potential.

    Args:
        potential: the potential.
        coordinates: Where the atoms are.
        machine: Precision of everything but the energies, snapshots per device and batch, and the budget of memory for
            what is kept of all snapshots.
        stress: True if stresses are wanted.
        directions: strain directions of Born terms, by label.
        once: True for a single evaluation, for which projections are prepared batch by batch and not kept.
    """

    def __init__(
        self,
        potential: Potential,
        coordinates: Coordinates,
        machine: Machine,
        *,
        stress: bool = False,
        directions: Mapping[str, Directions] | None = None,
        once: bool = False,
    ) -> None:
        positions, cell, symbols, scales = coordinates
        precision = machine.precision
        self.count, atoms, _ = positions.shape
        self._scales = np.ones(self.count) if scales is None else np.asarray(scales, np.float64)
        self.volumes = float(abs(np.linalg.det(cell))) * self._scales**3
        self._kernels = kernels(potential.spec.model_dump_json(), precision)
        self._stress = stress
        self._directions = dict(directions or {})
        per_device = machine.batch_size or max(1, ATOMS_PER_BATCH // atoms)
        devices = jax.device_count()
        self._batch = devices * max(1, min(per_device, -(-self.count // devices)))
        self._positions = np.asarray(positions)
        budget = int(machine.snapshot_cache_mib * (1 << 20))
        self._lists = Lists(
            self._positions, cell, potential.cutoff / self._scales,
            precision=precision, batch=self._batch, budget=budget,
        )  # fmt: skip
        # A whole batch, for which there is a program where lists are not kept.
        self._first = jax.tree.map(lambda array: array[0], self._lists.take(np.zeros(self._batch, int)))
        self._precision = np.dtype(precision)
        species = species_of(potential, symbols)
        self._species = len(potential.spec.species)
        self._shared = Shared(jnp.asarray(cell), jnp.asarray(self._lists.images, jnp.int32), jnp.asarray(species))
        source = _Source(self._positions, self._scales, self._lists, self._kernels, self._shared, stress)
        self._main = Prepared(source.main, np.arange(self.count), self._batch)
        self._curves = {
            label: Prepared(
                functools.partial(source.curves, wanted.vectors), np.arange(0, self.count, wanted.stride), self._batch
            )
            for label, wanted in self._directions.items()
        }
        if not once:
            self._keep(budget)

    def _keep(self, budget: int) -> None:
        """Keep what fits: all of a kind of projections or none of it, then lists for the others."""
        chosen, others = [], []
        for prepared in (self._main, *self._curves.values()):
            if prepared.size <= budget:
                chosen.append(prepared)
                budget -= prepared.size
            else:
                others.append(prepared)
        self._lists.limit(budget)
        for prepared in chosen:
            prepared.keep()
        if not others:
            self._lists.limit(0)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept of all snapshots besides their positions."""
        return self._lists.nbytes + sum(kept.nbytes for kept in (self._main, *self._curves.values()))

    @property
    def wanted(self) -> int:
        """Bytes of all projections, which evaluations are fastest with."""
        return sum(prepared.size for prepared in (self._main, *self._curves.values()))

    def environment(self) -> Environment:
        """The environment of the first snapshot, in double precision."""
        positions = self._positions[0].astype(self._precision).astype(float)  # as the images of the lists were counted
        found: Environment = _first(positions, self._scales[0], self._shared, self._first, count=self._species)
        return found

    def energies(self, parameters: Parameters) -> NDArray[np.float64]:
        """Potential energies without atomic reference energies, (snapshots,), eV, float64."""
        return _collect(self.count, ((rows, self._kernels.energy(parameters, data[0])) for rows, data in self._main))

    def energy_slopes(self, parameters: Parameters) -> Parameters:
        """Derivatives of the energy of each snapshot by the parameters, eV; leaves with a leading snapshot axis.

        Those of parameters that are not trainable are empty: they would take as much memory as the others.
        """
        parts = []
        for rows, data in self._main:
            found = self._kernels.energy_slopes(parameters, data[0])
            parts.append(jax.tree.map(functools.partial(_real, count=len(rows)), found))
        joined: Parameters = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        return joined

    def evaluate(self, parameters: Parameters) -> dict[str, NDArray[np.float64]]:
        """All quantities: ``energy`` (snapshots,) in eV, ``stress`` (snapshots, 6) and Born terms by label in GPa.

        The stress here is dU/dη/V, without the kinetic term. Born terms have a row for each ``stride``-th snapshot.
        """
        per_volume = units.EV_PER_A3_IN_GPA / self.volumes[:, None]
        result = {"energy": self.energies(parameters)}
        if self._stress:
            values = ((rows, self._kernels.stress(parameters, *data)) for rows, data in self._main)
            result["stress"] = per_volume * _collect(self.count, values)
        for label, batches in self._curves.items():
            wanted = self._directions[label]
            values = ((rows, self._kernels.born(parameters, *data)) for rows, data in batches)
            result[label] = per_volume[:: wanted.stride] * _collect(len(wanted.vectors), values)
        return result

    def pullback(self, parameters: Parameters, cotangents: Mapping[str, NDArray[np.float64]]) -> Parameters:
        """Gradient of Σ cotangent · quantity with respect to the parameters, batch by batch.

        Args:
            parameters: Parameters at which the gradient is taken.
            cotangents: derivative of the loss with respect to each quantity of :meth:`evaluate`.

        Returns:
            The gradient, in the shape of the parameters.
        """
        per_volume = units.EV_PER_A3_IN_GPA / self.volumes[:, None]
        gradient = jax.tree.map(lambda x: np.zeros(x.shape), parameters)

        def add(total: Parameters, parts: Parameters) -> Parameters:
            return jax.tree.map(lambda a, b: a + np.asarray(b, np.float64).sum(0), total, parts)

        for rows, data in self._main:
            energy = self._fill(cotangents["energy"], rows)
            if self._stress:
                stress = self._fill(per_volume * cotangents["stress"], rows)
                gradient = add(gradient, self._kernels.stress_vjp(parameters, data, (energy, stress)))
            else:
                gradient = add(gradient, self._kernels.energy_vjp(parameters, data[:1], energy))
        for label, batches in self._curves.items():
            slopes = per_volume[:: self._directions[label].stride] * cotangents[label]
            for rows, data in batches:
                born = self._fill(slopes, rows)
                gradient = add(gradient, self._kernels.born_vjp(parameters, data, born))
        return jax.tree.map(jnp.asarray, gradient)

    def _fill(self, values: NDArray[np.float64], rows: NDArray[np.intp]) -> Array:
        filled = np.zeros((self._batch, *values.shape[1:]))
        filled[: len(rows)] = values[rows]
        return jnp.asarray(filled)


def _real(values: Array, count: int) -> NDArray[np.float64]:
    """Rows of a batch, without those that filled it up."""
    return np.asarray(values, np.float64)[:count]


def _collect(count: int, batches: Iterator[tuple[NDArray[np.intp], Array]]) -> NDArray[np.float64]:
    parts = [np.asarray(values, np.float64)[: len(rows)] for rows, values in batches]
    result = np.concatenate(parts)
    if len(result) != count:
        raise RuntimeError(f"{len(result)} results for {count} snapshots")
    return result


def energies(
    potential: Potential,
    parameters: Parameters,
    positions: NDArray[Any],
    cell: NDArray[np.float64],
    symbols: Sequence[str],
    *,
    scales: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Compute potential energies of snapshots in double precision, as a trajectory holds them.

    Args:
        potential: The potential.
        parameters: Its parameters.
        positions: Fractional positions, (snapshots, atoms, 3).
        cell: Lattice vectors in rows, (3, 3), Å.
        symbols: Element of each atom.
        scales: Factors on the cell, (snapshots,); None for ones.

    Returns:
        Energies with the reference energies of the atoms, (snapshots,), eV.
    """
    return total_energies(potential, parameters, Coordinates(positions, cell, symbols, scales))


def total_energies(
    potential: Potential, parameters: Parameters, coordinates: Coordinates, batch_size: int = 0
) -> NDArray[np.float64]:
    """Compute what :func:`energies` does, in batches of a given size.

    Args:
        potential: The potential.
        parameters: Its parameters.
        coordinates: Where the atoms are.
        batch_size: Snapshots per device and batch; 0 to choose.

    Returns:
        Energies with the reference energies of the atoms, (snapshots,), eV.
    """
    species = species_index(tuple(coordinates.symbols), potential.spec.species)
    reference = np.asarray(parameters["atomic_energies"])[species].sum()
    snapshots = Snapshots(potential, coordinates, Machine(precision="float64", batch_size=batch_size), once=True)
    return snapshots.energies(parameters) + reference
