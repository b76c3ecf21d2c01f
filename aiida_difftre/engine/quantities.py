r"""Energies, stresses and Born terms of many snapshots, and the one vector-Jacobian product that a gradient costs.

What a potential needs of a snapshot that does not depend on the parameters (``Potential.project``) and how that
changes with strain is computed once per trajectory. With P(η) the projection under a Lagrangian strain η,

    stress_k = dE/dη_k / V = ∇E(P)·∂P/∂η_k / V,
    Born term along d = d²E(P(s d))/ds² / V   at s = 0,

and neither touches a neighbour list again. Energies that enter weights are float64; the rest has the job's precision.
Everything runs in batches of snapshots spread over the devices; memory beyond a budget is not cached but recomputed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine import device, potentials, space, units
from aiida_difftre.engine.jobs import PotentialSpec
from aiida_difftre.engine.potentials import Environment, Parameters, Potential

CACHE_BYTES = 2 << 30
"""Projections of all snapshots are kept in memory up to this size."""

ATOMS_PER_BATCH = 1024
"""Atoms in a batch on one device, where the job does not say how many snapshots."""

Gradients = dict[str, Any]


class Batch(NamedTuple):
    """Snapshots that are evaluated together, their neighbour lists, and the scales of their cells."""

    positions: Float[Array, "snapshots atoms 3"]
    lists: space.NeighborList
    scales: Float[Array, " snapshots"]


class Directions(NamedTuple):
    """Strain directions of the Born terms.

    Args:
        stride: every ``stride``-th snapshot has Born terms, from the first on.
        vectors: (snapshots with Born terms, directions, 6), engineering strains.
    """

    stride: int
    vectors: NDArray[np.float64]


def environment(
    potential: Potential, positions: NDArray[Any], cell: NDArray[Any], symbols: Sequence[str], precision: str
) -> Environment:
    """The environment of one configuration with fractional positions, neighbours within the potential's cutoff."""
    lists = space.build_batch(np.asarray(positions, np.float64)[None], cell, potential.cutoff)
    species = space.species_index(tuple(symbols), potential.spec.species)
    dtype = jnp.dtype(precision)
    return _environment(np.asarray(positions, dtype), np.asarray(cell, dtype), species, lists)


@jax.jit
def _environment(positions: Array, cell: Array, species: Array, lists: space.NeighborList) -> Environment:
    """One program, where each operation by itself would be traced, lowered and loaded as one of its own."""
    first = jax.tree.map(lambda x: x[0], lists)
    vectors = space.displacements(positions, cell, first)
    return Environment(vectors, first.mask, species, species[first.index], positions)


def _split(tree: Any) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    """Floating-point leaves of a tree, and how to put others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    floating = [number for number, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def merge(values: list[Array]) -> Any:
        merged = list(leaves)
        for number, value in zip(floating, values, strict=True):
            merged[number] = value
        return jax.tree.unflatten(structure, merged)

    return [leaves[number] for number in floating], merge


def _dot(a: list[Array], b: list[Array]) -> Array:
    return sum((jnp.vdot(x, y) for x, y in zip(a, b, strict=True)), start=jnp.zeros((), a[0].dtype))


@dataclass(frozen=True)
class Kernels:
    """Compiled functions of one potential; each maps over a batch of snapshots spread over the devices.

    Args:
        project: (batch, cell, species) -> projection.
        slopes: (batch, cell, species) -> projection and its six strain derivatives.
        curves: (batch, cell, species, directions) -> projection, first and second derivatives along the directions.
        energy: (parameters, projection) -> (snapshots,), float64, without atomic reference energies.
        stress: (parameters, slopes) -> (snapshots, 6), dE/dη in eV.
        born: (parameters, curves) -> (snapshots, directions), eV.
        energy_slopes: (parameters, projection) -> derivatives of each energy, with a leading snapshot axis.
        energy_vjp: (parameters, arguments, cotangent) -> gradients with a leading device axis; likewise
        ``stress_vjp`` (of
            energy and stress at once) and ``born_vjp``.
    """

    project: Callable[..., Any]
    slopes: Callable[..., Any]
    curves: Callable[..., Any]
    energy: Callable[..., Array]
    stress: Callable[..., Array]
    born: Callable[..., Array]
    energy_slopes: Callable[..., Parameters]
    energy_vjp: Callable[..., Parameters]
    stress_vjp: Callable[..., Parameters]
    born_vjp: Callable[..., Parameters]


@functools.cache
def kernels(spec_json: str, precision: str) -> Kernels:
    """Compile (lazily) the functions of a potential; one set per process, potential and precision."""
    potential = potentials.build(PotentialSpec.model_validate_json(spec_json))
    dtype = jnp.dtype(precision)
    mesh = device.mesh()

    def strained(cell: Array, species: Array, x: Array, lists: space.NeighborList, scale: Array) -> tuple[Any, Any]:
        fractional = x.astype(dtype)
        vectors = space.displacements(fractional, (scale * cell).astype(dtype), lists)

        def projection(strain: Array) -> Any:
            moved = vectors @ space.deformation(strain)
            return potential.project(Environment(moved, lists.mask, species, species[lists.index], fractional))

        reference = projection(jnp.zeros(6, dtype))
        return reference, lambda strain: _split(projection(strain))[0]

    def project(batch: Batch, cell: Array, species: Array) -> Any:
        return jax.vmap(lambda *snapshot: strained(cell, species, *snapshot)[0])(*batch)

    def slopes(batch: Batch, cell: Array, species: Array) -> tuple[Any, list[Array]]:
        def one(*snapshot: Any) -> tuple[Any, list[Array]]:
            reference, floating = strained(cell, species, *snapshot)
            first = jax.vmap(lambda e: jax.jvp(floating, (jnp.zeros(6, dtype),), (e,))[1])(jnp.eye(6, dtype=dtype))
            return reference, first

        return jax.vmap(one)(*batch)

    def curves(batch: Batch, cell: Array, species: Array, vectors: Array) -> tuple[Any, list[Array], list[Array]]:
        def one(directions: Array, *snapshot: Any) -> tuple[Any, list[Array], list[Array]]:
            reference, floating = strained(cell, species, *snapshot)

            def along(d: Array) -> tuple[list[Array], list[Array]]:
                def slope(s: Array) -> list[Array]:
                    return jax.jvp(lambda t: floating(t * d), (s,), (jnp.ones((), dtype),))[1]

                return jax.jvp(slope, (jnp.zeros((), dtype),), (jnp.ones((), dtype),))

            return (reference, *jax.vmap(along)(directions.astype(dtype)))

        return jax.vmap(one)(vectors, *batch)

    def free(parameters: Parameters) -> Parameters:
        # The reference energies are constant at fixed composition: they cancel in the weights and only cost digits.
        return {**parameters, "atomic_energies": jnp.zeros_like(parameters["atomic_energies"])}

    def total(parameters: Parameters, projection: Any) -> Array:
        return jnp.sum(potential.energy(parameters, projection))

    def one_energy(parameters: Parameters, projection: Any) -> Array:
        floating, merge = _split(projection)
        return total(parameters, merge([x.astype(jnp.float64) for x in floating]))

    def one_stress(parameters: Parameters, projection: Any, first: list[Array]) -> tuple[Array, Array]:
        floating, merge = _split(projection)
        value, gradient = jax.value_and_grad(lambda p: total(parameters, merge(p)))(floating)
        return value, jax.vmap(lambda direction: _dot(direction, gradient))(first)

    def one_born(parameters: Parameters, projection: Any, first: list[Array], second: list[Array]) -> Array:
        floating, merge = _split(projection)

        def along(p1: list[Array], p2: list[Array]) -> Array:
            def value(s: Array) -> Array:
                return total(
                    parameters, merge([a + s * (b + s * c / 2) for a, b, c in zip(floating, p1, p2, strict=True)])
                )

            one = jnp.ones((), dtype)
            return jax.jvp(lambda s: jax.jvp(value, (s,), (one,))[1], (jnp.zeros((), dtype),), (one,))[1]

        return jax.vmap(along)(first, second)

    def energy(parameters: Parameters, projection: Any) -> Array:
        return jax.vmap(lambda p: one_energy(free(parameters), p))(projection)

    def stress(parameters: Parameters, projection: Any, first: list[Array]) -> tuple[Array, Array]:
        return jax.vmap(lambda p, f: one_stress(free(parameters), p, f))(projection, first)

    def born(parameters: Parameters, projection: Any, first: list[Array], second: list[Array]) -> Array:
        return jax.vmap(lambda p, f, s: one_born(free(parameters), p, f, s))(projection, first, second)

    def energy_of_precision(parameters: Parameters, projection: Any) -> Array:
        return jax.vmap(lambda p: total(free(parameters), p))(projection)

    def energy_slopes(parameters: Parameters, projection: Any) -> Parameters:
        return jax.vmap(lambda p: jax.grad(lambda q: total(free(q), p))(parameters))(projection)

    def transpose(function: Callable[..., Any]) -> Callable[..., Parameters]:
        def vjp(parameters: Parameters, arguments: tuple[Any, ...], cotangent: Any) -> Parameters:
            value, pull = jax.vjp(lambda p: function(p, *arguments), parameters)
            cotangent = jax.tree.map(lambda c, v: c.astype(v.dtype), cotangent, value)
            return jax.tree.map(lambda g: g[None], pull(cotangent)[0])

        # Each device returns its share and the caller adds them: collectives between CPU devices of one process can
        # dead-lock when the machine is busy.
        specs = (P(), P("device"), P("device"))
        return jax.jit(jax.shard_map(vjp, mesh=mesh, in_specs=specs, out_specs=P("device"), check_vma=False))

    def spread(function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
        return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P("device"), check_vma=False))

    each = P("device")
    return Kernels(
        project=spread(project, each, P(), P()),
        slopes=spread(slopes, each, P(), P()),
        curves=spread(curves, each, P(), P(), each),
        energy=spread(energy, P(), each),
        stress=spread(lambda p, projection, first: stress(p, projection, first)[1], P(), each, each),
        born=spread(born, P(), each, each, each),
        energy_slopes=spread(energy_slopes, P(), each),
        energy_vjp=transpose(energy_of_precision),
        stress_vjp=transpose(stress),
        born_vjp=transpose(born),
    )


class Snapshots:
    """All snapshots of a trajectory, ready for evaluation with any parameters of one potential.

    Args:
        potential: the potential.
        positions: (snapshots, atoms, 3), fractional, as stored.
        cell: (3, 3), Å.
        symbols: one per atom.
        precision: of everything but the energies.
        scales: (snapshots,), of the cells; None for ones.
        stress: whether stresses are wanted.
        directions: strain directions of Born terms, by label.
        batch_size: snapshots per device and batch; 0 to choose.
    """

    def __init__(
        self,
        potential: Potential,
        positions: NDArray[Any],
        cell: NDArray[np.float64],
        symbols: Sequence[str],
        *,
        precision: str,
        scales: NDArray[np.float64] | None = None,
        stress: bool = False,
        directions: Mapping[str, Directions] | None = None,
        batch_size: int = 0,
    ) -> None:
        self.count, atoms, _ = positions.shape
        scales = np.ones(self.count) if scales is None else np.asarray(scales, np.float64)
        self.volumes = float(abs(np.linalg.det(cell))) * scales**3
        self._kernels = kernels(potential.spec.model_dump_json(), precision)
        self._cell = jnp.asarray(cell)
        self._species = jnp.asarray(space.species_index(tuple(symbols), potential.spec.species))
        self._stress = stress
        self._directions = dict(directions or {})
        per_device = batch_size or max(1, ATOMS_PER_BATCH // atoms)
        devices = jax.device_count()
        self._batch = devices * max(1, min(per_device, -(-self.count // devices)))
        self._data = (np.asarray(positions), space.build_on_host(positions, cell, potential.cutoff / scales), scales)
        self._main = self._cached(self._prepare_main, np.arange(self.count))
        self._curves = {
            label: self._cached(
                functools.partial(self._prepare_curves, wanted), np.arange(0, self.count, wanted.stride)
            )
            for label, wanted in self._directions.items()
        }

    def _take(self, index: NDArray[np.intp]) -> Batch:
        return Batch(*jax.tree.map(lambda x: x[index], self._data))

    def _prepare_main(self, index: NDArray[np.intp], rows: NDArray[np.intp]) -> tuple[Any, ...]:
        batch = self._take(index)
        if self._stress:
            return tuple(self._kernels.slopes(batch, self._cell, self._species))
        return (self._kernels.project(batch, self._cell, self._species),)

    def _prepare_curves(self, wanted: Directions, index: NDArray[np.intp], rows: NDArray[np.intp]) -> tuple[Any, ...]:
        return tuple(
            self._kernels.curves(self._take(index), self._cell, self._species, jnp.asarray(wanted.vectors[rows]))
        )

    def _cached(
        self, prepare: Callable[..., tuple[Any, ...]], index: NDArray[np.intp]
    ) -> Callable[[], Iterator[tuple[NDArray[np.intp], tuple[Any, ...]]]]:
        """An iterator over (rows, prepared batch): from memory if all fits, else prepared anew each time.

        The last batch is filled up with copies of its first snapshot; ``rows`` has only the real ones.
        """
        starts = range(0, len(index), self._batch)

        def batch_of(start: int) -> tuple[NDArray[np.intp], tuple[Any, ...]]:
            rows = np.arange(start, min(start + self._batch, len(index)))
            filled = np.concatenate([rows, np.full(self._batch - len(rows), rows[0])])
            return rows, prepare(index[filled], filled)

        first = batch_of(0)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(first[1]))
        if size * len(starts) <= CACHE_BYTES:
            cache = [first, *(batch_of(start) for start in starts[1:])]
            return lambda: iter(cache)
        return lambda: (batch_of(start) for start in starts)

    def energies(self, parameters: Parameters) -> NDArray[np.float64]:
        """Potential energies without atomic reference energies, (snapshots,), eV, float64."""
        return _collect(self.count, ((rows, self._kernels.energy(parameters, data[0])) for rows, data in self._main()))

    def energy_slopes(self, parameters: Parameters) -> Parameters:
        """Derivatives of the energy of each snapshot by the parameters, eV; leaves with a leading snapshot axis."""
        parts = []
        for rows, data in self._main():
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
            values = ((rows, self._kernels.stress(parameters, *data)) for rows, data in self._main())
            result["stress"] = per_volume * _collect(self.count, values)
        for label, batches in self._curves.items():
            wanted = self._directions[label]
            values = ((rows, self._kernels.born(parameters, *data)) for rows, data in batches())
            result[label] = per_volume[:: wanted.stride] * _collect(len(wanted.vectors), values)
        return result

    def pullback(self, parameters: Parameters, cotangents: Mapping[str, NDArray[np.float64]]) -> Parameters:
        """Gradient of Σ cotangent · quantity with respect to the parameters, batch by batch.

        Args:
            parameters: where.
            cotangents: derivative of the loss with respect to each quantity of :meth:`evaluate`.
        """
        per_volume = units.EV_PER_A3_IN_GPA / self.volumes[:, None]
        gradient = jax.tree.map(lambda x: np.zeros(x.shape), parameters)

        def add(total: Parameters, parts: Parameters) -> Parameters:
            return jax.tree.map(lambda a, b: a + np.asarray(b, np.float64).sum(0), total, parts)

        for rows, data in self._main():
            energy = self._fill(cotangents["energy"], rows)
            if self._stress:
                stress = self._fill(per_volume * cotangents["stress"], rows)
                gradient = add(gradient, self._kernels.stress_vjp(parameters, data, (energy, stress)))
            else:
                gradient = add(gradient, self._kernels.energy_vjp(parameters, data[:1], energy))
        for label, batches in self._curves.items():
            slopes = per_volume[:: self._directions[label].stride] * cotangents[label]
            for rows, data in batches():
                born = self._fill(slopes, rows)
                gradient = add(gradient, self._kernels.born_vjp(parameters, data, born))
        return jax.tree.map(jnp.asarray, gradient)

    def _fill(self, values: NDArray[np.float64], rows: NDArray[np.intp]) -> Array:
        filled = np.zeros((self._batch, *values.shape[1:]))
        filled[: len(rows)] = values[rows]
        return jnp.asarray(filled)


def _real(values: Array, count: int) -> NDArray[np.float64]:
    """Of a batch, without what filled it up."""
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
    batch_size: int = 0,
    *,
    scales: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Potential energies of snapshots in double precision, atomic reference energies included, (snapshots,), eV."""
    reference = np.asarray(parameters["atomic_energies"])[
        space.species_index(tuple(symbols), potential.spec.species)
    ].sum()
    snapshots = Snapshots(
        potential, positions, cell, symbols, precision="float64", scales=scales, batch_size=batch_size
    )
    return snapshots.energies(parameters) + reference
