"""Molecular dynamics at constant temperature, and pressure: many independent walkers in one compiled program.

The integrators are jax-md's (BAOAB Langevin: Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013); Nose-Hoover
chains: Martyna, Klein & Tuckerman, J. Chem. Phys. 97, 2635 (1992)); at constant pressure that of
:mod:`~aiida_difftre.engine.sampling.barostat`. Walkers are spread over devices and batched on each; the neighbour lists
of a walker are rebuilt when one of its atoms has moved nearly half the skin, or its cell has shrunk by as much.

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

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.jobs import BarostatSpec, LangevinSpec, SamplingSettings
from aiida_difftre.engine.geometry import neighbor_list as space
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Environment, Parameters, masses, species_index
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.sampling import barostat
from aiida_difftre.engine.sampling.jax_md_simulate import simulate

SNAPSHOTS_PER_CALL = 5
"""Snapshots between two looks at the guards, at most; what is lost when a run goes bad."""


FAST = 5.0
"""Thermal velocities, along one axis, of an atom that is hardly ever outrun: one in 65 000 is faster."""


class Walkers(NamedTuple):
    """The state of all walkers; every leaf has a leading walkers (or devices) axis.

    Args:
        md: jax-md's integrator state, or that of the barostat.
        lists: neighbour lists.
        built: fractional positions for which the lists were built.
        built_scale: scales of the cell for which they were built.
        needed: what the fullest list of each device has needed so far: neighbours, and atoms in a bin.
        farthest: the longest way of an atom since its list was built, at any step so far, Å; half of what a cell that
            shrinks brings two atoms nearer is added. Beyond half the skin neighbours may have been missed.
    """

    md: Any
    lists: space.Neighbors
    built: Float[Array, "walkers atoms 3"]
    built_scale: Float[Array, " walkers"]
    needed: Int[Array, "devices 2"]
    farthest: Float[Array, " walkers"]


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
        widened: factor of the skin, above one where atoms have outrun it.
        masses: of the atoms, amu; None for the standard atomic weights.
    """

    potential: Potential
    symbols: tuple[str, ...]
    cell: NDArray[np.float64]
    temperature: float
    settings: SamplingSettings
    precision: str
    pressure: float | None = None
    widened: float = 1.0
    masses: NDArray[np.float64] | None = None

    @property
    def mass(self) -> NDArray[np.float64]:
        """Of each atom, amu."""
        return masses(self.symbols) if self.masses is None else self.masses

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
        return self.potential.cutoff + self.skin

    @property
    def skin(self) -> float:
        """Of the neighbour lists, Å."""
        return self.widened * (self.settings.skin or skin_for(self))

    @property
    def fast_step(self) -> float:
        """What a fast atom of the lightest species moves in a step, Å."""
        velocity = FAST * math.sqrt(units.BOLTZMANN * self.temperature / float(self.mass.min()))
        return velocity * self.settings.timestep_fs / units.TIME_UNIT_IN_FS

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
        init: (seed, positions, scales, momenta or None, parameters, lists of the walkers) -> Walkers.
        apply: (Walkers, parameters) -> (Walkers, Snapshot), ``snapshots_per_call`` snapshots.
        relist: (Walkers of another capacity) -> Walkers; lists anew for the positions of the old ones.
        capacity: what the lists hold.
    """

    init: Callable[..., Walkers]
    apply: Callable[[Walkers, Parameters], tuple[Walkers, Snapshot]]
    relist: Callable[[Walkers], Walkers]
    capacity: space.Capacity


def worn_at(system: System, skin: Any) -> Any:
    """How far an atom may have moved before its list is built anew, Å: half the skin, less a step of a fast atom.

    A tenth less at least, for cells that shrink.
    """
    return np.maximum(np.minimum(skin / 2 - system.fast_step, 0.45 * skin), skin / 4)


def skin_for(system: System) -> float:
    """The skin s, Å, that should make a step cheapest: (1 + s/r_c)³ + R v Δt/(s/2 - v Δt).

    The first term is the work on listed pairs, the second that of building a list, R times a force evaluation, whenever
    a fast atom, v, has worn it (:func:`worn_at`).
    """
    rebuild, way = 5.0 if system.potential.is_pairwise else 0.5, system.fast_step
    widest = max(0.25, min(2.0, system.potential.cutoff / 2))
    skins = np.arange(min(max(0.2, 4 * way), widest), widest + 0.05, 0.1)
    costs = (1 + skins / system.potential.cutoff) ** 3 + rebuild * way / worn_at(system, skins)
    return float(round(skins[np.argmin(costs)], 2))


def integrator(
    system: System, force: Callable[..., Array], *, dtype: jnp.dtype
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """jax-md's (init, apply) pair for one walker in a fixed cell, in Å, eV, amu, with fractional positions."""
    settings, thermostat = system.settings, system.settings.thermostat
    # jax-md's shift of a periodic cell inverts the cell in a program of its own, 0.15 CPU s at the start of each job.
    inverse = np.linalg.inv(system.cell).astype(dtype)
    scalar = functools.partial(np.asarray, dtype=dtype)
    step = scalar(settings.timestep_fs / units.TIME_UNIT_IN_FS)
    kT = scalar(units.BOLTZMANN * system.temperature)

    def shift(positions: Array, displacement: Array, **_: Any) -> Array:
        return positions + displacement @ inverse

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


def each_walker(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function makes of each walker; a single one is not batched, since batched look-ups are slower on CPUs."""
    if len(jax.tree.leaves(arguments)[0]) > 1:
        return jax.vmap(function)(*arguments)
    found = function(*jax.tree.map(lambda array: array[0], arguments))
    return jax.tree.map(lambda array: array[None], found)


def scale_of(md: Any) -> Float[Array, " walkers"]:
    """Edges of the cells of walkers over those of the reference cell."""
    if isinstance(md, barostat.State):
        return jnp.exp(md.strain)
    return jnp.ones(md.position.shape[:-2], md.position.dtype)


def dynamics(system: System, capacity: space.Capacity) -> Dynamics:
    """Build the dynamics of a system for a given capacity of its neighbour lists."""
    dtype = jnp.dtype(system.precision)
    # Converted on the host: each operation outside of a compiled function is a program of its own.
    cell = jax.device_put(np.asarray(system.cell, dtype))
    species = jax.device_put(species_index(system.symbols, system.potential.spec.species))
    mass = jax.device_put(np.asarray(system.mass, dtype))
    longest = system.list_cutoff / system.smallest_scale
    search = space.search(system.cell, longest, len(system.symbols), capacity.room)
    worn_beyond = float(worn_at(system, system.skin))
    mesh = device.mesh()
    sharding = NamedSharding(mesh, P("device"))

    def one_list(positions: Array, scale: Array) -> tuple[space.Neighbors, Array]:
        return space.build_ready(positions, cell, system.list_cutoff / scale, capacity.neighbors, search)

    def lists_of(positions: Array, scales: Array) -> tuple[space.Neighbors, Array]:
        lists, needed = each_walker(one_list, positions, scales)
        return lists, jnp.max(needed, 0, keepdims=True)

    def forces_and_virial(
        positions: Array, scale: Array, *, parameters: Parameters, lists: space.Neighbors
    ) -> tuple[Array, Array]:
        vectors = [scale * part for part in space.components(positions, cell, lists)]
        environment = Environment(jnp.stack(vectors, -1), lists.mask, species, species[lists.index], positions)
        between, work = system.potential.forces_and_virial(parameters, vectors, environment, lists.index)
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

    def start(
        keys: Array, positions: Array, scales: Array, momenta: Array | None, parameters: Parameters,
        found: space.NeighborList,
    ) -> Walkers:  # fmt: skip
        lists = jax.vmap(lambda one: space.neighbors(one, cell))(found)
        needed = jnp.max(space.requirements(found), 0, keepdims=True)

        def one(key: Array, x: Array, scale: Array, neighbors: space.Neighbors, momentum: Array | None) -> Any:
            arguments = {"mass": mass, "momenta": momentum, "parameters": parameters, "lists": neighbors}
            if system.barostat is None:
                return md_init(key, x, **arguments)
            return piston_init(key, x, scale, **arguments)

        axes = (0, 0, 0, 0, None if momenta is None else 0)
        md = jax.vmap(one, in_axes=axes)(keys, positions, scales, lists, momenta)
        return Walkers(md, lists, positions, scales, needed, jnp.zeros(len(positions), dtype))

    def steps(taken: Array, walkers: Walkers, parameters: Parameters) -> tuple[Array, Walkers]:
        # As many as these lists allow: a loop in which lists do not change does not copy them.
        def step(state: tuple[Array, Any, Array, Array]) -> tuple[Array, Any, Array, Array]:
            taken, md, _, farthest = state
            md = each_walker(lambda one, x: md_apply(one, parameters=parameters, lists=x), md, walkers.lists)
            scale = scale_of(md)
            moved = jnp.sqrt(jnp.max(jnp.sum(((md.position - walkers.built) @ cell) ** 2, -1), -1))
            # Two atoms that were at least the list's cutoff apart are nearer by at most twice this.
            nearer = scale * moved + system.list_cutoff * (1 - scale / walkers.built_scale) / 2
            return taken + 1, md, nearer > worn_beyond, jnp.maximum(farthest, nearer)

        fresh = jnp.zeros(len(walkers.built), bool)
        taken, md, worn, farthest = jax.lax.while_loop(
            lambda state: (state[0] < system.steps_per_snapshot) & ~jnp.any(state[2]),
            step,
            (taken, walkers.md, fresh, walkers.farthest),
        )
        listed = (walkers.lists, walkers.built, walkers.built_scale, walkers.needed)
        lists, built, built_scale, needed = rebuild(worn, md.position, scale_of(md), listed)
        return taken, Walkers(md, lists, built, built_scale, needed, farthest)

    def rebuild(worn: Array, positions: Array, scales: Array, listed: tuple[Any, ...]) -> tuple[Any, ...]:
        if jax.default_backend() != "cpu":

            def anew(_: None) -> tuple[Any, ...]:
                lists, needed = lists_of(positions, scales)
                return lists, positions, scales, jnp.maximum(listed[-1], needed)

            return jax.lax.cond(jnp.any(worn), anew, lambda _: listed, None)

        # On a CPU lists of several walkers cost as much together as one by one: only worn ones are built.
        def next_one(state: tuple[Any, ...]) -> tuple[Any, ...]:
            worn, lists, built, built_scale, needed = state
            walker = jnp.argmax(worn)
            one, requirement = one_list(positions[walker], scales[walker])
            lists = jax.tree.map(lambda every, new: every.at[walker].set(new), lists, one)
            built = built.at[walker].set(positions[walker])
            built_scale = built_scale.at[walker].set(scales[walker])
            return worn.at[walker].set(False), lists, built, built_scale, jnp.maximum(needed, requirement)

        state: tuple[Any, ...] = jax.lax.while_loop(lambda state: jnp.any(state[0]), next_one, (worn, *listed))
        return state[1:]

    def observe(walkers: Walkers) -> Snapshot:
        def one(md: Any, lists: space.Neighbors, scale: Array) -> Snapshot:
            squared = sum((scale * part) ** 2 for part in space.components(md.position, cell, lists))
            kinetic = jnp.sum(md.momentum**2 / md.mass) / 2
            return Snapshot(
                md.position,
                2 * kinetic / (system.degrees_of_freedom * units.BOLTZMANN),
                jnp.sqrt(jnp.min(jnp.where(lists.mask, squared, jnp.inf))),
                jnp.all(jnp.isfinite(md.position)) & jnp.all(jnp.isfinite(md.force)),
                scale,
            )

        return each_walker(one, walkers.md, walkers.lists, scale_of(walkers.md))

    def block(walkers: Walkers, parameters: Parameters) -> tuple[Walkers, Snapshot]:
        _, walkers = jax.lax.while_loop(
            lambda state: state[0] < system.steps_per_snapshot,
            lambda state: steps(*state, parameters),
            (jnp.zeros((), jnp.int32), walkers),
        )
        return walkers, observe(walkers)

    def run(walkers: Walkers, parameters: Parameters) -> tuple[Walkers, Snapshot]:
        return jax.lax.scan(lambda w, _: block(w, parameters), walkers, None, length=system.snapshots_per_call)

    spread = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)

    def init(
        seed: int,
        positions: NDArray[np.float64],
        scales: NDArray[np.float64],
        momenta: NDArray[np.float64] | None,
        parameters: Parameters,
        lists: space.NeighborList,
    ) -> Walkers:
        given = [None if x is None else np.asarray(x, dtype) for x in (positions, scales, momenta)]
        listed = space.enlarged(lists, capacity.neighbors)
        each = P("device")
        begin = spread(start, in_specs=(each, each, each, each, P(), each), out_specs=each)

        @jax.jit
        def seeded(seed: Array, *arguments: Any) -> Walkers:
            keys = jax.vmap(jax.random.key_data)(jax.random.split(jax.random.key(seed), len(positions)))
            walkers: Walkers = begin(keys, *arguments)
            return walkers

        arguments = (*jax.device_put(given, sharding), parameters, jax.device_put(listed, sharding))
        walkers: Walkers = seeded(np.int64(seed), *arguments)
        return walkers

    def relist(walkers: Walkers) -> Walkers:
        make = jax.jit(spread(lists_of, in_specs=P("device"), out_specs=P("device")))
        lists, needed = make(walkers.built, walkers.built_scale)
        return walkers._replace(lists=lists, needed=needed)

    apply = jax.jit(spread(run, in_specs=(P("device"), P()), out_specs=(P("device"), P(None, "device"))))
    return Dynamics(init, apply, relist, capacity)
