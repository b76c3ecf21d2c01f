"""Molecular dynamics at constant temperature, and pressure: many independent walkers in one compiled program.

The integrators are jax-md's (BAOAB Langevin: Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013); Nose-Hoover
chains: Martyna, Klein & Tuckerman, J. Chem. Phys. 97, 2635 (1992)); at constant pressure that of
:mod:`~aiida_difftre.engine.barostat`. Walkers are spread over devices and batched on each; the neighbour lists of a
device are rebuilt when one of its atoms has moved half the skin, or its cell has shrunk by as much.

A cell that changes its size is a scale s times the reference cell; lists are built in the latter with the cutoff r/s.
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

from aiida_difftre.engine import barostat, device, space, units
from aiida_difftre.engine.jobs import BarostatSpec, LangevinSpec, SamplingSettings
from aiida_difftre.engine.md import simulate
from aiida_difftre.engine.md import space as md_space
from aiida_difftre.engine.potentials import Environment, Parameters, Potential, forces, masses, virial

SNAPSHOTS_PER_CALL = 5
"""Snapshots between two looks at the guards, at most; what is lost when a run goes bad."""


class Walkers(NamedTuple):
    """The state of all walkers; every leaf has a leading walkers (or devices) axis.

    Args:
        md: jax-md's integrator state, or that of the barostat.
        lists: neighbour lists.
        built: fractional positions for which the lists were built.
        built_scale: scales of the cell for which they were built.
        needed: what the fullest list of each device has needed so far: neighbours, and atoms in a bin.
    """

    md: Any
    lists: space.NeighborList
    built: Float[Array, "walkers atoms 3"]
    built_scale: Float[Array, " walkers"]
    needed: Int[Array, "devices 2"]


class Snapshot(NamedTuple):
    """What is recorded of all walkers.

    Args:
        positions: fractional, unwrapped.
        temperature: instantaneous, K.
        min_distance: between two atoms, Å.
        finite: whether positions and forces are finite.
        scale: of the cell.
    """

    positions: Float[Array, "snapshots walkers atoms 3"]
    temperature: Float[Array, "snapshots walkers"]
    min_distance: Float[Array, "snapshots walkers"]
    finite: Array
    scale: Float[Array, "snapshots walkers"]


@dataclass(frozen=True)
class System:
    """What the dynamics is of.

    Args:
        potential: the potential.
        symbols: chemical symbols, one per atom.
        cell: (3, 3), rows are lattice vectors, Å.
        temperature: K.
        settings: thermostat, barostat, times, skin.
        precision: ``float32`` or ``float64``.
        pressure: GPa; None, or settings without a barostat, for a fixed cell.
    """

    potential: Potential
    symbols: tuple[str, ...]
    cell: NDArray[np.float64]
    temperature: float
    settings: SamplingSettings
    precision: str
    pressure: float | None = None

    @property
    def barostat(self) -> BarostatSpec | None:
        """None where the cell is fixed."""
        return self.settings.barostat if self.settings.ensemble(self.pressure) == "NPT" else None

    @property
    def smallest_scale(self) -> float:
        """Of the cell, for lists: below the bound that stops the run, which is asked after some steps only."""
        return 1.0 if self.barostat is None else 0.95 * self.barostat.max_volume_ratio ** (-1 / 3)

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
        init: (key, positions, scales, momenta or None, parameters) -> Walkers.
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
    """jax-md's (init, apply) pair for one walker in a fixed cell, in Å, eV, amu, with fractional positions."""
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


def scale_of(md: Any) -> Float[Array, " walkers"]:
    """Edges of the cells of walkers over those of the reference cell."""
    if isinstance(md, barostat.State):
        return jnp.exp(md.strain)
    return jnp.ones(md.position.shape[:-2], md.position.dtype)


def dynamics(system: System, capacity: space.Capacity) -> Dynamics:
    """Build the dynamics of a system for a given capacity of its neighbour lists."""
    dtype = jnp.dtype(system.precision)
    cell = jnp.asarray(system.cell, dtype)
    species = jnp.asarray(space.species_index(system.symbols, system.potential.spec.species))
    mass = jnp.asarray(masses(system.symbols), dtype)
    longest = system.list_cutoff / system.smallest_scale
    search = space.search(system.cell, longest, len(system.symbols), capacity.room)
    mesh = device.mesh()
    sharding = NamedSharding(mesh, P("device"))

    def needed_by(lists: space.NeighborList) -> Array:
        return jnp.max(space.requirements(lists), 0, keepdims=True)

    def lists_of(positions: Array, scales: Array) -> space.NeighborList:
        def one(x: Array, scale: Array) -> space.NeighborList:
            return space.build(x, cell, system.list_cutoff / scale, capacity.neighbors, search)

        return jax.vmap(one)(positions, scales)

    def forces_and_virial(
        positions: Array, scale: Array, *, parameters: Parameters, lists: space.NeighborList
    ) -> tuple[Array, Array]:
        vectors = space.displacements(positions, cell * scale, lists)
        environment = Environment(vectors, lists.mask, species, species[lists.index], positions)
        _, gradient = system.potential.energy_and_gradient(parameters, environment)
        between, work = forces(gradient, lists.index), jnp.trace(virial(gradient, vectors))
        if not system.potential.has_external:
            return between, work
        return between + system.potential.external_forces(parameters, environment, cell), work

    def force(positions: Array, **arguments: Any) -> Array:
        return forces_and_virial(positions, jnp.ones((), dtype), **arguments)[0]

    if system.barostat is None or system.pressure is None:
        md_init, md_apply = integrator(system, force, dtype=dtype)
    else:
        piston_init, md_apply = barostat.langevin_piston(
            forces_and_virial, system.cell, atoms=len(system.symbols), freedom=system.degrees_of_freedom,
            temperature=system.temperature, pressure=system.pressure, timestep_fs=system.settings.timestep_fs,
            thermostat=system.settings.thermostat, barostat=system.barostat, dtype=dtype,
        )  # fmt: skip

    def start(keys: Array, positions: Array, scales: Array, momenta: Array | None, parameters: Parameters) -> Walkers:
        lists = lists_of(positions, scales)

        def one(key: Array, x: Array, scale: Array, neighbors: space.NeighborList, momentum: Array | None) -> Any:
            arguments = {"mass": mass, "momenta": momentum, "parameters": parameters, "lists": neighbors}
            if system.barostat is None:
                return md_init(key, x, **arguments)
            return piston_init(key, x, scale, **arguments)

        axes = (0, 0, 0, 0, None if momenta is None else 0)
        md = jax.vmap(one, in_axes=axes)(keys, positions, scales, lists, momenta)
        return Walkers(md, lists, positions, scales, needed_by(lists))

    def step(walkers: Walkers, parameters: Parameters) -> Walkers:
        scale = scale_of(walkers.md)
        moved = jnp.sqrt(jnp.max(jnp.sum(((walkers.md.position - walkers.built) @ cell) ** 2, -1), -1))
        # Two atoms that were at least the list's cutoff apart are nearer by at most this.
        nearer = 2 * scale * moved + system.list_cutoff * (1 - scale / walkers.built_scale)

        def rebuild(_: None) -> tuple[space.NeighborList, Array, Array]:
            return lists_of(walkers.md.position, scale), walkers.md.position, scale

        def keep(_: None) -> tuple[space.NeighborList, Array, Array]:
            return walkers.lists, walkers.built, walkers.built_scale

        # A list is still complete while no two atoms are nearer by the skin; the next step brings none nearer by more
        # than a fraction of the other tenth.
        worn = jnp.max(nearer) > 0.9 * system.settings.skin
        lists, built, built_scale = jax.lax.cond(worn, rebuild, keep, None)
        md = jax.vmap(lambda state, x: md_apply(state, parameters=parameters, lists=x))(walkers.md, lists)
        return Walkers(md, lists, built, built_scale, jnp.maximum(walkers.needed, needed_by(lists)))

    def observe(walkers: Walkers) -> Snapshot:
        def one(md: Any, lists: space.NeighborList, scale: Array) -> Snapshot:
            squared = jnp.sum(space.displacements(md.position, cell * scale, lists) ** 2, -1)
            kinetic = jnp.sum(md.momentum**2 / md.mass) / 2
            return Snapshot(
                md.position,
                2 * kinetic / (system.degrees_of_freedom * units.BOLTZMANN),
                jnp.sqrt(jnp.min(jnp.where(lists.mask, squared, jnp.inf))),
                jnp.all(jnp.isfinite(md.position)) & jnp.all(jnp.isfinite(md.force)),
                scale,
            )

        return jax.vmap(one)(walkers.md, walkers.lists, scale_of(walkers.md))

    def block(walkers: Walkers, parameters: Parameters) -> tuple[Walkers, Snapshot]:
        walkers = jax.lax.fori_loop(0, system.steps_per_snapshot, lambda _, w: step(w, parameters), walkers)
        return walkers, observe(walkers)

    def run(walkers: Walkers, parameters: Parameters) -> tuple[Walkers, Snapshot]:
        return jax.lax.scan(lambda w, _: block(w, parameters), walkers, None, length=system.snapshots_per_call)

    spread = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)

    def init(key: Array, positions: Array, scales: Array, momenta: Array | None, parameters: Parameters) -> Walkers:
        keys = jax.vmap(jax.random.key_data)(jax.random.split(key, len(positions)))
        given = (keys, jnp.asarray(positions, dtype), jnp.asarray(scales, dtype))
        arguments = [jax.device_put(x, sharding) for x in given]
        each = P("device")
        if momenta is None:
            begin = spread(lambda k, x, s, p: start(k, x, s, None, p), in_specs=(each, each, each, P()), out_specs=each)
        else:
            begin = spread(start, in_specs=(each, each, each, each, P()), out_specs=each)
            arguments.append(jax.device_put(jnp.asarray(momenta, dtype), sharding))
        return jax.jit(begin)(*arguments, parameters)

    def relist(walkers: Walkers) -> Walkers:
        make = jax.jit(spread(lists_of, in_specs=P("device"), out_specs=P("device")))
        lists = make(walkers.built, walkers.built_scale)
        return walkers._replace(lists=lists, needed=jnp.broadcast_to(needed_by(lists), walkers.needed.shape))

    apply = jax.jit(spread(run, in_specs=(P("device"), P()), out_specs=(P("device"), P(None, "device"))))
    return Dynamics(init, apply, relist, capacity)
