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
from aiida_difftre.engine.potentials.term import Environment, Parameters, densities, species_index
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
        capacity: Numbers of neighbours and of atoms in a bin that the lists hold.
    """

    init: Callable[..., Walkers]
    apply: Callable[[Walkers, Parameters], tuple[Walkers, Snapshot]]
    relist: Callable[[Walkers], Walkers]
    capacity: neighbor_list.Capacity


class Arrays(NamedTuple):
    """Arrays of a system on the device.

    Args:
        cell: Lattice vectors of the reference cell as rows, (3, 3), Å.
        species: Index of each atom's species.
        mass: Mass of each atom, amu.
    """

    cell: Float[Array, "3 3"]
    species: Int[Array, " atoms"]
    mass: Float[Array, " atoms"]


class Seeds(NamedTuple):
    """Initial values of walkers; every leaf has a leading walkers axis.

    Args:
        keys: Keys of the walkers' noise, as plain numbers.
        positions: Fractional positions.
        scales: Scales of the walkers' cells.
        momenta: Momenta, sqrt(amu eV); None to draw them.
    """

    keys: Array
    positions: Float[Array, "walkers atoms 3"]
    scales: Float[Array, " walkers"]
    momenta: Float[Array, "walkers atoms 3"] | None


@dataclass(frozen=True)
class Stepper:
    """Everything that a time step of a system needs besides the state; the functions below take it first.

    Args:
        system: The simulated system.
        arrays: Arrays of the system on the device.
        listing: Rule by which its neighbour lists are built.
        integrator: The (init, apply) pair that takes a step of one walker.
    """

    system: System
    arrays: Arrays
    listing: Listing
    integrator: Integrator

    @classmethod
    def of(cls, system: System, capacity: neighbor_list.Capacity) -> Stepper:
        """Put a system on the device.

        Args:
            system: The simulated system.
            capacity: Numbers of neighbours and of atoms in a bin that the lists hold.

        Returns:
            What its time steps need.
        """
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
        system: The simulated system.
        arrays: Arrays of the system on the device.
        positions: Fractional positions of the walker's atoms.
        scale: Scale of the walker's cell.
        parameters: Parameters of the potential.
        lists: Neighbours of each atom.

    Returns:
        Forces, (atoms, 3), eV/Å, and the trace of the virial, eV.
    """
    vectors = [scale * part for part in neighbor_list.components(positions, arrays.cell, lists)]
    species = arrays.species
    environment = Environment(
        jnp.stack(vectors, -1), lists.mask, species, species[lists.index], positions, neighbors=lists.index,
        densities=densities(
            species, len(system.potential.spec.species), scale**3 * jnp.abs(jnp.linalg.det(arrays.cell))
        ),
    )  # fmt: skip
    between, work = system.potential.forces_and_virial(parameters, vectors, environment, lists.index)
    if system.base is not None:
        of_base, work_of_base = system.base(positions, scale)
        between, work = between + of_base, work + work_of_base
    if not system.potential.has_external:
        return between, work
    return between + system.potential.external_forces(parameters, environment, arrays.cell), work


def begin(stepper: Stepper, seeds: Seeds, parameters: Parameters, found: neighbor_list.NeighborList) -> Walkers:
    """Begin the dynamics of walkers, with the momenta that they are given or draw.

    Args:
        stepper: What a time step needs.
        seeds: Initial values of the walkers.
        parameters: Parameters of the potential.
        found: Neighbour lists of the walkers at the start.

    Returns:
        The state of the walkers before their first step.
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
        stepper: What a time step needs.
        parameters: Parameters of the potential.
        walkers: The walkers, with their lists.
        md: States of the integrator.

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
        stepper: What a time step needs.
        parameters: Parameters of the potential.
        taken: Number of steps of the block so far.
        walkers: All walkers of a device.

    Returns:
        The number of steps of the block so far, the walkers after them, and a boolean for each walker: true if its
        list is worn.
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
    """Record the present positions, temperatures and distances of walkers.

    Args:
        stepper: What a time step needs.
        walkers: All walkers of a device.

    Returns:
        What is recorded of one moment, without the snapshots axis.
    """
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
    """Take the steps from one snapshot to the next.

    Args:
        stepper: What a time step needs.
        parameters: Parameters of the potential.
        walkers: All walkers of a device.

    Returns:
        The walkers after the steps, and the snapshot there.
    """

    def further(state: tuple[Array, Walkers]) -> tuple[Array, Walkers]:
        taken, walkers, worn = steps_until_worn(stepper, parameters, *state)
        return taken, renewed(stepper.listing, walkers, worn)

    _, walkers = jax.lax.while_loop(
        lambda state: state[0] < stepper.system.steps_per_snapshot, further, (jnp.zeros((), jnp.int32), walkers)
    )
    return walkers, observe(stepper, walkers)


def dynamics(system: System, capacity: neighbor_list.Capacity) -> Dynamics:
    """Build the dynamics of a system for a given capacity of its neighbour lists.

    Args:
        system: The simulated system.
        capacity: Numbers of neighbours and of atoms in a bin that the lists hold.

    Returns:
        Functions that begin, continue and relist; each compiles when it is first called.
    """
    stepper = Stepper.of(system, capacity)
    mesh = device.mesh(system.devices)
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
