"""Molecular dynamics at constant temperature, and pressure: many independent walkers in one compiled program.

Walkers are spread over devices and batched on each. A block of steps between two snapshots goes on as long as the
neighbour lists allow, then builds the worn ones anew (:mod:`~aiida_difftre.engine.sampling.walker_lists`); how one step
is taken is up to the integrator (:mod:`~aiida_difftre.engine.sampling.integrators`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.geometry import neighbor_list
from aiida_difftre.engine.potentials.term import Environment, Parameters, species_index
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.sampling.barostat import Integrator
from aiida_difftre.engine.sampling.integrators import integrator
from aiida_difftre.engine.sampling.system import System
from aiida_difftre.engine.sampling.walker_lists import Listing, built_of, listing, lists_of, nearer, renewed
from aiida_difftre.engine.sampling.walkers import Snapshot, Walkers, each_walker, scale_of


class Dynamics(NamedTuple):
    """Compiled dynamics for one capacity of the neighbour lists: an init/apply pair and what mends an overflow.

    Args:
        init: (seed, positions, scales, momenta or None, parameters, lists of the walkers) -> Walkers.
        apply: (Walkers, parameters) -> (Walkers, Snapshot), ``snapshots_per_call`` snapshots.
        relist: (Walkers of another capacity) -> Walkers; lists anew for the positions of the old ones.
        capacity: what the lists hold.
    """

    init: Callable[..., Walkers]
    apply: Callable[[Walkers, Parameters], tuple[Walkers, Snapshot]]
    relist: Callable[[Walkers], Walkers]
    capacity: neighbor_list.Capacity


class Arrays(NamedTuple):
    """What a system has on the device.

    Args:
        cell: (3, 3), of the reference cell, Å.
        species: index of each atom's species.
        mass: of each atom, amu.
    """

    cell: Float[Array, "3 3"]
    species: Int[Array, " atoms"]
    mass: Float[Array, " atoms"]


class Seeds(NamedTuple):
    """With what walkers begin; every leaf has a leading walkers axis.

    Args:
        keys: of their noise, as plain numbers.
        positions: fractional.
        scales: of their cells.
        momenta: sqrt(amu eV); None to draw them.
    """

    keys: Array
    positions: Float[Array, "walkers atoms 3"]
    scales: Float[Array, " walkers"]
    momenta: Float[Array, "walkers atoms 3"] | None


@dataclass(frozen=True)
class Stepper:
    """All that the steps of a system are made of; the functions below take it first.

    Args:
        system: what is simulated.
        arrays: the same on the device.
        listing: how its lists are built.
        integrator: how a step is taken.
    """

    system: System
    arrays: Arrays
    listing: Listing
    integrator: Integrator

    @classmethod
    def of(cls, system: System, capacity: neighbor_list.Capacity) -> Stepper:
        """For a capacity of the neighbour lists."""
        dtype = jnp.dtype(system.precision)
        # Converted on the host: each operation outside of a compiled function is a program of its own.
        host = (
            np.asarray(system.cell, dtype),
            species_index(system.symbols, system.potential.spec.species),
            np.asarray(system.mass, dtype),
        )
        arrays = Arrays(*(jax.device_put(array) for array in host))
        force = functools.partial(forces_and_virial, system, arrays)
        return cls(system, arrays, listing(system, capacity, arrays.cell), integrator(system, force, dtype))


def forces_and_virial(
    system: System,
    arrays: Arrays,
    positions: Float[Array, "atoms 3"],
    scale: Float[Array, ""],
    *,
    parameters: Parameters,
    lists: neighbor_list.Neighbors,
) -> tuple[Float[Array, "atoms 3"], Float[Array, ""]]:
    """Forces of one walker, eV/Å, and the trace of its virial, eV.

    Args:
        system: what is simulated.
        arrays: the same on the device.
        positions: fractional.
        scale: of the cell.
        parameters: of the potential.
        lists: neighbours.
    """
    vectors = [scale * part for part in neighbor_list.components(positions, arrays.cell, lists)]
    species = arrays.species
    environment = Environment(jnp.stack(vectors, -1), lists.mask, species, species[lists.index], positions)
    between, work = system.potential.forces_and_virial(parameters, vectors, environment, lists.index)
    if not system.potential.has_external:
        return between, work
    return between + system.potential.external_forces(parameters, environment, arrays.cell), work


def begin(stepper: Stepper, seeds: Seeds, parameters: Parameters, found: neighbor_list.NeighborList) -> Walkers:
    """Walkers at rest in their lists, with the momenta that they are given or draw.

    Args:
        stepper: what steps are made of.
        seeds: with what walkers begin.
        parameters: of the potential.
        found: neighbours at the start.
    """
    lists = jax.vmap(lambda one: neighbor_list.neighbors(one, stepper.arrays.cell))(found)
    needed = jnp.max(neighbor_list.requirements(found), 0, keepdims=True)

    def one(seed: Seeds, neighbors: neighbor_list.Neighbors) -> Any:
        return stepper.integrator.init(
            seed.keys, seed.positions, seed.scales,
            mass=stepper.arrays.mass, momenta=seed.momenta, parameters=parameters, lists=neighbors,
        )  # fmt: skip

    md = jax.vmap(one)(seeds, lists)
    farthest = jnp.zeros(len(seeds.positions), seeds.positions.dtype)
    return Walkers(md, lists, seeds.positions, seeds.scales, needed, farthest)


def step(stepper: Stepper, parameters: Parameters, walkers: Walkers, md: Any) -> tuple[Any, Array]:
    """One time step of all walkers in the lists that they have.

    Args:
        stepper: what steps are made of.
        parameters: of the potential.
        walkers: whose lists these are.
        md: states of the integrator.

    Returns:
        The states after the step, and by how much the lists are worn (:func:`nearer`).
    """
    apply = stepper.integrator.apply
    md = each_walker(lambda one, lists: apply(one, parameters=parameters, lists=lists), md, walkers.lists)
    return md, nearer(stepper.listing, md.position, scale_of(md), built_of(walkers))


def steps_until_worn(
    stepper: Stepper, parameters: Parameters, taken: Array, walkers: Walkers
) -> tuple[Array, Walkers, Array]:
    """As many steps of a block as the lists allow: a loop in which lists do not change does not copy them.

    Args:
        stepper: what steps are made of.
        parameters: of the potential.
        taken: steps of the block so far.
        walkers: all of a device.

    Returns:
        Steps so far, the walkers, and whose list is worn.
    """

    def one(state: tuple[Array, Any, Array, Array]) -> tuple[Array, Any, Array, Array]:
        taken, md, _, farthest = state
        md, wear = step(stepper, parameters, walkers, md)
        return taken + 1, md, wear > stepper.listing.worn_beyond, jnp.maximum(farthest, wear)

    fresh = jnp.zeros(len(walkers.built), bool)
    taken, md, worn, farthest = jax.lax.while_loop(
        lambda state: (state[0] < stepper.system.steps_per_snapshot) & ~jnp.any(state[2]),
        one,
        (taken, walkers.md, fresh, walkers.farthest),
    )
    return taken, walkers._replace(md=md, farthest=farthest), worn


def observe(stepper: Stepper, walkers: Walkers) -> Snapshot:
    """What is recorded of walkers, where they are."""
    system = stepper.system

    def one(md: Any, lists: neighbor_list.Neighbors, scale: Array) -> Snapshot:
        squared = sum((scale * part) ** 2 for part in neighbor_list.components(md.position, stepper.arrays.cell, lists))
        kinetic = jnp.sum(md.momentum**2 / md.mass) / 2
        return Snapshot(
            md.position,
            2 * kinetic / (system.degrees_of_freedom * units.BOLTZMANN),
            jnp.sqrt(jnp.min(jnp.where(lists.mask, squared, jnp.inf))),
            jnp.all(jnp.isfinite(md.position)) & jnp.all(jnp.isfinite(md.force)),
            scale,
        )

    return each_walker(one, walkers.md, walkers.lists, scale_of(walkers.md))


def block(stepper: Stepper, parameters: Parameters, walkers: Walkers) -> tuple[Walkers, Snapshot]:
    """The steps from one snapshot to the next, and that snapshot."""

    def further(state: tuple[Array, Walkers]) -> tuple[Array, Walkers]:
        taken, walkers, worn = steps_until_worn(stepper, parameters, *state)
        return taken, renewed(stepper.listing, walkers, worn)

    _, walkers = jax.lax.while_loop(
        lambda state: state[0] < stepper.system.steps_per_snapshot, further, (jnp.zeros((), jnp.int32), walkers)
    )
    return walkers, observe(stepper, walkers)


def dynamics(system: System, capacity: neighbor_list.Capacity) -> Dynamics:
    """Build the dynamics of a system for a given capacity of its neighbour lists."""
    stepper = Stepper.of(system, capacity)
    mesh = device.mesh()
    each, sharding = P("device"), NamedSharding(mesh, P("device"))
    spread = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)

    def init(
        seed: int,
        positions: NDArray[np.float64],
        scales: NDArray[np.float64],
        momenta: NDArray[np.float64] | None,
        parameters: Parameters,
        lists: neighbor_list.NeighborList,
    ) -> Walkers:
        given = [None if x is None else np.asarray(x, system.precision) for x in (positions, scales, momenta)]
        listed = neighbor_list.enlarged(lists, capacity.neighbors)
        spread_begin = spread(functools.partial(begin, stepper), in_specs=(each, P(), each), out_specs=each)

        @jax.jit
        def seeded(seed: Array, given: list[Any], parameters: Parameters, lists: neighbor_list.NeighborList) -> Walkers:
            keys = jax.vmap(jax.random.key_data)(jax.random.split(jax.random.key(seed), len(positions)))
            walkers: Walkers = spread_begin(Seeds(keys, *given), parameters, lists)
            return walkers

        arguments = (jax.device_put(given, sharding), parameters, jax.device_put(listed, sharding))
        walkers: Walkers = seeded(np.int64(seed), *arguments)
        return walkers

    def run(walkers: Walkers, parameters: Parameters) -> tuple[Walkers, Snapshot]:
        return jax.lax.scan(
            lambda state, _: block(stepper, parameters, state), walkers, None, length=system.snapshots_per_call
        )

    def relist(walkers: Walkers) -> Walkers:
        make = jax.jit(spread(functools.partial(lists_of, stepper.listing), in_specs=each, out_specs=each))
        lists, needed = make(walkers.built, walkers.built_scale)
        return walkers._replace(lists=lists, needed=needed)

    apply = jax.jit(spread(run, in_specs=(each, P()), out_specs=(each, P(None, "device"))))
    return Dynamics(init, apply, relist, capacity)
