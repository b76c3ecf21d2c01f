"""Molecular dynamics at constant temperature: many independent walkers in one compiled program.

The integrators are jax-md's (BAOAB Langevin: Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013); Nose-Hoover
chains: Martyna, Klein & Tuckerman, J. Chem. Phys. 97, 2635 (1992)). Walkers are spread over devices and batched on
each; the neighbour lists of a device are rebuilt when one of its atoms has moved half the skin.
"""

from __future__ import annotations

import functools
import math
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

from aiida_difftre.engine import device, space, units
from aiida_difftre.engine.jobs import LangevinSpec, SamplingSettings
from aiida_difftre.engine.md import simulate
from aiida_difftre.engine.md import space as md_space
from aiida_difftre.engine.potentials import Environment, Parameters, Potential, forces, masses

SNAPSHOTS_PER_CALL = 5
"""Snapshots between two looks at the guards, at most; what is lost when a run goes bad."""


class Walkers(NamedTuple):
    """The state of all walkers; every leaf has a leading walkers (or devices) axis.

    Args:
        md: jax-md's integrator state.
        lists: neighbour lists.
        built: fractional positions for which the lists were built.
        needed: what the fullest list of each device has needed so far: neighbours, and atoms in a bin.
    """

    md: Any
    lists: space.NeighborList
    built: Float[Array, "walkers atoms 3"]
    needed: Int[Array, "devices 2"]


class Snapshot(NamedTuple):
    """What is recorded of all walkers.

    Args:
        positions: fractional, unwrapped.
        temperature: instantaneous, K.
        min_distance: between two atoms, Å.
        finite: whether positions and forces are finite.
    """

    positions: Float[Array, "snapshots walkers atoms 3"]
    temperature: Float[Array, "snapshots walkers"]
    min_distance: Float[Array, "snapshots walkers"]
    finite: Array


@dataclass(frozen=True)
class System:
    """What the dynamics is of.

    Args:
        potential: the potential.
        symbols: chemical symbols, one per atom.
        cell: (3, 3), rows are lattice vectors, Å.
        temperature: K.
        settings: thermostat, times, skin.
        precision: ``float32`` or ``float64``.
    """

    potential: Potential
    symbols: tuple[str, ...]
    cell: NDArray[np.float64]
    temperature: float
    settings: SamplingSettings
    precision: str

    @property
    def list_cutoff(self) -> float:
        """Cutoff of the neighbour lists, Å."""
        return self.potential.cutoff + self.settings.skin

    @property
    def steps_per_snapshot(self) -> int:
        """Time steps between two snapshots."""
        return max(1, round(self.settings.stride_fs / self.settings.timestep_fs))

    @property
    def stride_fs(self) -> float:
        """Time between two snapshots, a multiple of the time step, fs."""
        return self.steps_per_snapshot * self.settings.timestep_fs

    @property
    def degrees_of_freedom(self) -> int:
        """Of the kinetic energy: Nose-Hoover keeps the total momentum, Langevin does not."""
        atoms = len(self.symbols)
        keeps_momentum = not isinstance(self.settings.thermostat, LangevinSpec) and atoms > 1
        return 3 * atoms - 3 * keeps_momentum

    def snapshots(self, duration_fs: float) -> int:
        """Snapshots of one walker in a duration."""
        return round(duration_fs / self.stride_fs)

    @property
    def snapshots_per_call(self) -> int:
        """A divisor of the snapshots of equilibration and production, so that one compiled program does both."""
        settings = self.settings
        common = math.gcd(self.snapshots(settings.equilibration_fs), max(1, self.snapshots(settings.production_fs)))
        return next(n for n in range(min(common, SNAPSHOTS_PER_CALL), 0, -1) if common % n == 0)


class Dynamics(NamedTuple):
    """Compiled dynamics for one capacity of the neighbour lists: an init/apply pair and what mends an overflow.

    Args:
        init: (key, positions, momenta or None, parameters) -> Walkers.
        apply: (Walkers, parameters) -> (Walkers, Snapshot), ``snapshots_per_call`` snapshots.
        relist: (Walkers of another capacity) -> Walkers; lists anew for the positions of the old ones.
        capacity: what the lists hold.
    """

    init: Callable[..., Walkers]
    apply: Callable[[Walkers, Parameters], tuple[Walkers, Snapshot]]
    relist: Callable[[Walkers], Walkers]
    capacity: space.Capacity


def integrator(
    system: System, force: Callable[..., Array], *, dtype: jnp.dtype
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """jax-md's (init, apply) pair for one walker, in Å, eV, amu, with fractional positions."""
    settings, thermostat = system.settings, system.settings.thermostat
    box = jnp.asarray(system.cell.T, dtype)
    _, shift = md_space.periodic_general(box, fractional_coordinates=True, wrapped=False)
    scalar = functools.partial(jnp.asarray, dtype=dtype)
    step = scalar(settings.timestep_fs / units.TIME_UNIT_IN_FS)
    kT = scalar(units.BOLTZMANN * system.temperature)
    if isinstance(thermostat, LangevinSpec):
        friction = thermostat.friction_per_ps * 1e-3 * units.TIME_UNIT_IN_FS
        return simulate.nvt_langevin(force, shift, step, kT, scalar(friction))
    tau = scalar(thermostat.time_constant_fs / units.TIME_UNIT_IN_FS)
    init, apply = simulate.nvt_nose_hoover(force, shift, step, kT, chain_length=thermostat.chain_length, tau=tau)

    def init_at_rest(*args: Any, **kwargs: Any) -> Any:
        # The dynamics keeps the total momentum, so that the chain must not count its three degrees of freedom: jax-md
        # does, which would sample N/(N-1) times the temperature.
        state = init(*args, **kwargs)
        momentum = state.momentum - jnp.mean(state.momentum, 0, keepdims=True)
        kinetic = jnp.sum(momentum**2 / state.mass) / 2
        chain = state.chain.set(kinetic_energy=kinetic, degrees_of_freedom=system.degrees_of_freedom)
        return state.set(momentum=momentum, chain=chain)

    return (init_at_rest if len(system.symbols) > 1 else init), apply


def dynamics(system: System, capacity: space.Capacity) -> Dynamics:
    """Build the dynamics of a system for a given capacity of its neighbour lists."""
    dtype = jnp.dtype(system.precision)
    cell = jnp.asarray(system.cell, dtype)
    species = jnp.asarray(space.species_index(system.symbols, system.potential.spec.species))
    mass = jnp.asarray(masses(system.symbols), dtype)
    search = space.search(system.cell, system.list_cutoff, len(system.symbols), capacity.room)
    mesh = device.mesh()
    sharding = NamedSharding(mesh, P("device"))

    def lists_of(positions: Array) -> space.NeighborList:
        return jax.vmap(lambda x: space.build(x, cell, system.list_cutoff, capacity.neighbors, search))(positions)

    def needed_by(lists: space.NeighborList) -> Array:
        return jnp.max(space.requirements(lists), 0, keepdims=True)

    def force(positions: Array, *, parameters: Parameters, lists: space.NeighborList) -> Array:
        vectors = space.displacements(positions, cell, lists)
        environment = Environment(vectors, lists.mask, species, species[lists.index], positions)
        _, gradient = system.potential.energy_and_gradient(parameters, environment)
        between = forces(gradient, lists.index)
        if not system.potential.has_external:
            return between
        return between + system.potential.external_forces(parameters, environment, cell)

    md_init, md_apply = integrator(system, force, dtype=dtype)

    def start(keys: Array, positions: Array, momenta: Array | None, parameters: Parameters) -> Walkers:
        lists = lists_of(positions)

        def one(key: Array, x: Array, neighbors: space.NeighborList, momentum: Array | None) -> Any:
            return md_init(key, x, mass=mass, momenta=momentum, parameters=parameters, lists=neighbors)

        md = jax.vmap(one, in_axes=(0, 0, 0, None if momenta is None else 0))(keys, positions, lists, momenta)
        return Walkers(md, lists, positions, needed_by(lists))

    def step(walkers: Walkers, parameters: Parameters) -> Walkers:
        moved = jnp.max(jnp.sum(((walkers.md.position - walkers.built) @ cell) ** 2, -1))

        def rebuild(_: None) -> tuple[space.NeighborList, Array]:
            return lists_of(walkers.md.position), walkers.md.position

        def keep(_: None) -> tuple[space.NeighborList, Array]:
            return walkers.lists, walkers.built

        # A list is still complete while no atom has moved half the skin; the next step moves none by more than a
        # fraction of the other tenth.
        lists, built = jax.lax.cond(moved > (0.45 * system.settings.skin) ** 2, rebuild, keep, None)
        md = jax.vmap(lambda state, x: md_apply(state, parameters=parameters, lists=x))(walkers.md, lists)
        return Walkers(md, lists, built, jnp.maximum(walkers.needed, needed_by(lists)))

    def observe(walkers: Walkers) -> Snapshot:
        def one(md: Any, lists: space.NeighborList) -> Snapshot:
            squared = jnp.sum(space.displacements(md.position, cell, lists) ** 2, -1)
            kinetic = jnp.sum(md.momentum**2 / md.mass) / 2
            return Snapshot(
                md.position,
                2 * kinetic / (system.degrees_of_freedom * units.BOLTZMANN),
                jnp.sqrt(jnp.min(jnp.where(lists.mask, squared, jnp.inf))),
                jnp.all(jnp.isfinite(md.position)) & jnp.all(jnp.isfinite(md.force)),
            )

        return jax.vmap(one)(walkers.md, walkers.lists)

    def block(walkers: Walkers, parameters: Parameters) -> tuple[Walkers, Snapshot]:
        walkers = jax.lax.fori_loop(0, system.steps_per_snapshot, lambda _, w: step(w, parameters), walkers)
        return walkers, observe(walkers)

    def run(walkers: Walkers, parameters: Parameters) -> tuple[Walkers, Snapshot]:
        return jax.lax.scan(lambda w, _: block(w, parameters), walkers, None, length=system.snapshots_per_call)

    spread = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)

    def init(key: Array, positions: Array, momenta: Array | None, parameters: Parameters) -> Walkers:
        keys = jax.vmap(jax.random.key_data)(jax.random.split(key, len(positions)))
        arguments = [jax.device_put(x, sharding) for x in (keys, jnp.asarray(positions, dtype))]
        if momenta is None:
            begin = spread(
                lambda k, x, p: start(k, x, None, p), in_specs=(P("device"), P("device"), P()), out_specs=P("device")
            )
        else:
            begin = spread(start, in_specs=(P("device"), P("device"), P("device"), P()), out_specs=P("device"))
            arguments.append(jax.device_put(jnp.asarray(momenta, dtype), sharding))
        return jax.jit(begin)(*arguments, parameters)

    def relist(walkers: Walkers) -> Walkers:
        make = jax.jit(spread(lists_of, in_specs=P("device"), out_specs=P("device")))
        lists = make(walkers.built)
        return walkers._replace(lists=lists, needed=jnp.broadcast_to(needed_by(lists), walkers.needed.shape))

    apply = jax.jit(spread(run, in_specs=(P("device"), P()), out_specs=(P("device"), P(None, "device"))))
    return Dynamics(init, apply, relist, capacity)
