r"""Compiled functions of one potential over batches of snapshots: projections, energies, stresses, Born terms.

With P(η) what a potential needs of a snapshot under a Lagrangian strain η (``Potential.project``),

    stress_k = dE/dη_k / V = ∇E(P)·∂P/∂η_k / V,
    Born term along d = d²E(P(s d))/ds² / V   at s = 0.

Energies that enter weights are float64; the rest has the job's precision.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from aiida_difftre.engine.contract.jobs import PotentialSpec
from aiida_difftre.engine.geometry.strain import deformation
from aiida_difftre.engine.potentials.potential import Potential, build
from aiida_difftre.engine.potentials.term import Environment, Parameters, densities
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.snapshots.compact_lists import Compact, surroundings


class Batch(NamedTuple):
    """Snapshots that are evaluated together, their neighbour lists, and the scales of their cells."""

    positions: Float[Array, "snapshots atoms 3"]
    lists: Compact
    scales: Float[Array, " snapshots"]


class Shared(NamedTuple):
    """What all snapshots have in common.

    Args:
        cell: rows are lattice vectors, Å.
        images: lattice shifts that ``lists`` count.
        species: Species of each atom.
    """

    cell: Float[Array, "3 3"]
    images: Int[Array, "images 3"]
    species: Int[Array, " atoms"]


Strained: TypeAlias = Callable[[Array], list[Array]]
"""Floating-point leaves of a projection under a strain."""


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
        project: (batch, shared) -> projection.
        slopes: (batch, shared) -> projection and its six strain derivatives.
        curves: (batch, shared, directions) -> projection, first and second derivatives along the directions.
        energy: (parameters, projection) -> (snapshots,), float64, without atomic reference energies.
        stress: (parameters, slopes) -> (snapshots, 6), dE/dη in eV.
        born: (parameters, curves) -> (snapshots, directions), eV.
        energy_slopes: (parameters, projection) -> derivatives of each energy, with a leading snapshot axis.
        energy_vjp: (parameters, arguments, cotangent) -> gradients with a leading device axis; likewise
            ``stress_vjp`` (of energy and stress at once) and ``born_vjp``.
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


@dataclass(frozen=True)
class _Functions:
    """What :class:`Kernels` compiles, of one potential in one precision.

    Args:
        potential: the potential.
        dtype: precision of everything but the energies.
    """

    potential: Potential
    dtype: Any

    def strained(self, shared: Shared, x: Array, listed: Compact, scale: Array) -> tuple[Any, Strained]:
        """The projection of one snapshot, and the floating-point part of that under a strain."""
        fractional, species = x.astype(self.dtype), shared.species
        near = surroundings(listed, fractional, (scale * shared.cell).astype(self.dtype), shared.images)

        def projection(strain: Array) -> Any:
            # Axis by axis, and not as a product of matrices: fused with what is projected.
            f = deformation(strain)
            a, b, c = near.components
            x, y, z = (a * f[0, axis] + b * f[1, axis] + c * f[2, axis] for axis in range(3))
            vectors = jnp.stack([x, y, z], -1)
            volume = jnp.linalg.det(f) * scale**3 * jnp.abs(jnp.linalg.det(shared.cell))
            environment = Environment(
                vectors, near.mask, species, species[near.index], fractional,
                components=(x, y, z), neighbors=near.index,
                densities=densities(species, len(self.potential.spec.species), volume),
            )  # fmt: skip
            return self.potential.project(environment)

        reference = projection(jnp.zeros(6, self.dtype))
        return reference, lambda strain: _split(projection(strain))[0]

    def project(self, batch: Batch, shared: Shared) -> Any:
        """Projections."""
        return jax.vmap(lambda *snapshot: self.strained(shared, *snapshot)[0])(*batch)

    def slopes(self, batch: Batch, shared: Shared) -> tuple[Any, list[Array]]:
        """Projections and their six strain derivatives."""

        def one(*snapshot: Any) -> tuple[Any, list[Array]]:
            reference, floating = self.strained(shared, *snapshot)
            rest = jnp.zeros(6, self.dtype)
            first = jax.vmap(lambda e: jax.jvp(floating, (rest,), (e,))[1])(jnp.eye(6, dtype=self.dtype))
            return reference, first

        return jax.vmap(one)(*batch)

    def curves(self, batch: Batch, shared: Shared, vectors: Array) -> tuple[Any, list[Array], list[Array]]:
        """Projections, and their first and second derivatives along strain directions."""
        rest, unit = jnp.zeros((), self.dtype), jnp.ones((), self.dtype)

        def one(directions: Array, *snapshot: Any) -> tuple[Any, list[Array], list[Array]]:
            reference, floating = self.strained(shared, *snapshot)

            def along(d: Array) -> tuple[list[Array], list[Array]]:
                def slope(s: Array) -> list[Array]:
                    return jax.jvp(lambda t: floating(t * d), (s,), (unit,))[1]

                return jax.jvp(slope, (rest,), (unit,))

            return (reference, *jax.vmap(along)(directions.astype(self.dtype)))

        return jax.vmap(one)(vectors, *batch)

    def total(self, parameters: Parameters, projection: Any) -> Array:
        """Energy of one snapshot without the reference energies: constant, they only cost digits."""
        free = {**parameters, "atomic_energies": jnp.zeros_like(parameters["atomic_energies"])}
        return jnp.sum(self.potential.energy(free, projection))

    def energy(self, parameters: Parameters, projection: Any) -> Array:
        """Energies in double precision."""

        def one(projection: Any) -> Array:
            floating, merge = _split(projection)
            return self.total(parameters, merge([x.astype(jnp.float64) for x in floating]))

        return jax.vmap(one)(projection)

    def energy_of_precision(self, parameters: Parameters, projection: Any) -> Array:
        """Energies in the precision of the projections."""
        return jax.vmap(lambda p: self.total(parameters, p))(projection)

    def energy_slopes(self, parameters: Parameters, projection: Any) -> Parameters:
        """Derivatives of each energy by the free parameters; those of the others, which nobody asks for, are empty."""
        leaves, structure = jax.tree.flatten(parameters)
        free = jax.tree.leaves(self.potential.trainable(parameters))

        def total(moving: list[Array], projection: Any) -> Array:
            values = iter(moving)
            merged = [next(values) if moves else leaf for leaf, moves in zip(leaves, free, strict=True)]
            return self.total(jax.tree.unflatten(structure, merged), projection)

        moving = [leaf for leaf, moves in zip(leaves, free, strict=True) if moves]
        slopes = iter(jax.vmap(lambda p: jax.grad(total)(moving, p))(projection))
        nothing = jnp.zeros((jax.tree.leaves(projection)[0].shape[0], 0))
        result: Parameters = jax.tree.unflatten(structure, [next(slopes) if moves else nothing for moves in free])
        return result

    def stress(self, parameters: Parameters, projection: Any, first: list[Array]) -> tuple[Array, Array]:
        """Energies and their six strain derivatives."""

        def one(projection: Any, first: list[Array]) -> tuple[Array, Array]:
            floating, merge = _split(projection)
            value, gradient = jax.value_and_grad(lambda p: self.total(parameters, merge(p)))(floating)
            return value, jax.vmap(lambda direction: _dot(direction, gradient))(first)

        return jax.vmap(one)(projection, first)

    def born(self, parameters: Parameters, projection: Any, first: list[Array], second: list[Array]) -> Array:
        """Second derivatives of the energies along strain directions."""
        rest, unit = jnp.zeros((), self.dtype), jnp.ones((), self.dtype)

        def one(projection: Any, first: list[Array], second: list[Array]) -> Array:
            floating, merge = _split(projection)

            def along(p1: list[Array], p2: list[Array]) -> Array:
                def value(s: Array) -> Array:
                    moved = [a + s * (b + s * c / 2) for a, b, c in zip(floating, p1, p2, strict=True)]
                    return self.total(parameters, merge(moved))

                return jax.jvp(lambda s: jax.jvp(value, (s,), (unit,))[1], (rest,), (unit,))[1]

            return jax.vmap(along)(first, second)

        return jax.vmap(one)(projection, first, second)


def _transposed(function: Callable[..., Any]) -> Callable[..., Parameters]:
    """Function (parameters, arguments, cotangent): vector-Jacobian product of one of (parameters, *arguments)."""

    def vjp(parameters: Parameters, arguments: tuple[Any, ...], cotangent: Any) -> Parameters:
        value, pull = jax.vjp(lambda p: function(p, *arguments), parameters)
        cotangent = jax.tree.map(lambda c, v: c.astype(v.dtype), cotangent, value)
        return jax.tree.map(lambda g: g[None], pull(cotangent)[0])

    return vjp


@functools.cache
def kernels(spec_json: str, precision: str) -> Kernels:
    """Compile (lazily) the functions of a potential; one set per process, potential and precision."""
    of = _Functions(build(PotentialSpec.model_validate_json(spec_json)), jnp.dtype(precision))
    mesh, each = device.mesh(), P("device")

    def spread(function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
        # Each device returns its share of a gradient and the caller adds them: collectives between CPU devices of one
        # process can dead-lock when the machine is busy.
        return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=each, check_vma=False))

    return Kernels(
        project=spread(of.project, each, P()),
        slopes=spread(of.slopes, each, P()),
        curves=spread(of.curves, each, P(), each),
        energy=spread(of.energy, P(), each),
        stress=spread(lambda p, projection, first: of.stress(p, projection, first)[1], P(), each, each),
        born=spread(of.born, P(), each, each, each),
        energy_slopes=spread(of.energy_slopes, P(), each),
        energy_vjp=spread(_transposed(of.energy_of_precision), P(), each, each),
        stress_vjp=spread(_transposed(of.stress), P(), each, each),
        born_vjp=spread(_transposed(of.born), P(), each, each),
    )
