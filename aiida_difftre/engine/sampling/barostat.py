r"""Constant pressure: isotropic molecular dynamics with a Langevin piston, as an init/apply pair for one walker.

With fractional positions s, the edge L = L_0 exp(ε) of the cell and the momenta π = L p that go with s, the dynamics
is that of

.. math:: H = \sum_i \frac{\pi_i^2}{2 m_i L^2} + \frac{p_\varepsilon^2}{2W} + U(L s) + P V
        - (3N - f + 3)\, kT \varepsilon

with f the degrees of freedom of the momenta (3N, or 3N - 3 where the total momentum is kept at zero). Integrated over
all momenta, exp(-H/kT) leaves V^N exp(-[U + PV]/kT) dV ds, the isothermal-isobaric ensemble, whatever the mass W of the
piston. The integrator splits H into parts that are solved exactly, in the order of BAOAB: kicks, drift, friction and
noise, drift, kicks; without friction it is symplectic. Noise acts on the piston, and on the atoms with a Langevin
thermostat; else a Nose-Hoover chain (jax-md's) acts on the atoms.

References:
    Andersen, J. Chem. Phys. 72, 2384 (1980) (the piston); Feller et al., J. Chem. Phys. 103, 4613 (1995) (its noise);
    Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013) (BAOAB); Martyna et al., Mol. Phys. 87, 1117 (1996) (the
    mass of the piston).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.sampling_settings import LangevinSpec, NoseHooverSpec
from aiida_difftre.engine.sampling.jax_md_simulate import simulate
from aiida_difftre.engine.sampling.system import System

PISTON_FRICTION = 2.0
"""Friction of the piston times its relaxation time: fluctuations of an underdamped volume then decay within that."""

ForcesAndVirial = Callable[..., tuple[Array, Array]]
"""(Fractional positions, scale of the cell, other arguments) -> forces, eV/Å, and dU/dε, eV."""


class Integrator(NamedTuple):
    """The (init, apply) pair of one walker; :mod:`~aiida_difftre.engine.sampling.integrators` says of what.

    Args:
        init: (key, positions, scale, *, mass, momenta, **arguments of the forces) -> state.
        apply: (state, **arguments of the forces) -> state, one time step later.
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]


class State(NamedTuple):
    """Atoms and piston of one walker.

    Args:
        position: Fractional positions, unwrapped.
        momentum: Momenta, sqrt(amu eV).
        force: Forces, eV/Å.
        mass: Masses, amu.
        rng: Key of the noise.
        strain: ε, logarithm of the edge of the cell over that of the reference cell.
        strain_momentum: Momentum of the piston, conjugate to ε, eV times the unit of time, Å sqrt(amu/eV).
        virial: dU/dε, eV.
        chain: State of the chain of a Nose-Hoover thermostat; None for another thermostat.
    """

    position: Float[Array, "atoms 3"]
    momentum: Float[Array, "atoms 3"]
    force: Float[Array, "atoms 3"]
    mass: Float[Array, "atoms 1"]
    rng: Array
    strain: Float[Array, ""]
    strain_momentum: Float[Array, ""]
    virial: Float[Array, ""]
    chain: Any


@dataclass(frozen=True)
class Piston:
    """Atoms and piston: the constants of the equations of motion, and the parts into which a step is split.

    Args:
        step: Time step, Å sqrt(amu/eV).
        thermal_energy: kT, eV.
        relaxation_time: τ of the piston, Å sqrt(amu/eV).
        mass: W, eV times the square of the unit of time.
        work: 3 P V_0, eV.
        measure: (3N - f + 3) kT, eV.
        inverse: Inverse of the reference cell, (3, 3), 1/Å.
        friction: Friction of the atoms, over the unit of time; None where a chain acts on them.
        chain: Nose-Hoover chain of jax-md; None where friction acts on the atoms.
        freedom: Degrees of freedom of the kinetic energy.
        dtype: Precision of all numbers.
    """

    step: float
    thermal_energy: float
    relaxation_time: float
    mass: float
    work: float
    measure: float
    inverse: Array
    friction: float | None
    chain: Any
    freedom: int
    dtype: Any

    @classmethod
    def of(cls, system: System, dtype: Any) -> Piston:
        """The constants for a system at constant pressure.

        Raises:
            TypeError: For a system in a fixed cell.
        """
        if system.barostat is None or system.pressure is None:
            raise TypeError("a Langevin piston needs a barostat and a pressure")
        atoms, freedom, thermostat = len(system.symbols), system.degrees_of_freedom, system.settings.thermostat
        step = system.settings.timestep_fs / units.TIME_UNIT_IN_FS
        kT = units.BOLTZMANN * system.temperature
        tau = system.barostat.relaxation_time_fs / units.TIME_UNIT_IN_FS
        chain, friction = None, None
        if isinstance(thermostat, NoseHooverSpec):
            time_constant = jnp.asarray(thermostat.time_constant_fs / units.TIME_UNIT_IN_FS, dtype)
            options = simulate.default_nhc_kwargs(time_constant, {"chain_length": thermostat.chain_length})
            chain = simulate.nose_hoover_chain(jnp.asarray(step, dtype), **options)
        elif isinstance(thermostat, LangevinSpec):
            friction = thermostat.friction_per_ps * 1e-3 * units.TIME_UNIT_IN_FS
        return cls(
            step=step,
            thermal_energy=kT,
            relaxation_time=tau,
            mass=3 * (atoms + 1) * kT * tau**2,
            work=3 * system.pressure / units.EV_PER_A3_IN_GPA * float(abs(np.linalg.det(system.cell))),
            measure=(3 * atoms - freedom + 3) * kT,
            inverse=jnp.asarray(np.linalg.inv(system.cell), dtype),
            friction=friction,
            chain=chain,
            freedom=freedom,
            dtype=dtype,
        )

    def begin(self, key: Array, positions: Array, scale: Array, mass: Array, momenta: Array | None) -> State:
        """The state at the start but for its forces; momenta are drawn where there are none."""
        rng, of_atoms, of_piston = jax.random.split(key, 3)
        mass = jnp.reshape(mass, (-1, 1))
        momentum = momenta
        if momentum is None:
            momentum = self.ornstein_uhlenbeck(of_atoms, 0 * positions, self.thermal_energy * mass, np.inf)
        if self.friction is None and len(positions) > 1:
            momentum = momentum - jnp.mean(momentum, 0, keepdims=True)
        piston = self.ornstein_uhlenbeck(of_piston, 0 * scale, self.thermal_energy * self.mass, np.inf)
        state = State(positions, momentum, 0 * positions, mass, rng, jnp.log(scale), piston, 0 * scale, None)
        if self.chain is None:
            return state
        kinetic = jnp.sum(momentum**2 / mass) / 2
        return state._replace(chain=self.chain.initialize(self.freedom, kinetic, self._thermal_energy))

    @property
    def _thermal_energy(self) -> Array:
        """Thermal energy as jax-md's chain takes it, eV."""
        return jnp.asarray(self.thermal_energy, self.dtype)

    def ornstein_uhlenbeck(self, key: Array, momentum: Array, variance: Array | float, friction: float) -> Array:
        """Take a step of friction and noise: the exact solution of an Ornstein-Uhlenbeck process.

        Args:
            key: Random key of JAX.
            momentum: Momenta, of any shape, in units of jax-md.
            variance: Variance of the momenta in equilibrium: mass times kT.
            friction: Friction, the inverse of the unit of time.

        Returns:
            Momenta after the step.
        """
        kept = float(np.exp(-friction * self.step))
        noise = jax.random.normal(key, momentum.shape, self.dtype)
        return kept * momentum + jnp.sqrt(jnp.asarray((1 - kept**2) * variance, self.dtype)) * noise

    def kick(self, state: State) -> State:
        """Half a step of the momenta under the forces."""
        piston_force = -state.virial - self.work * jnp.exp(3 * state.strain) + self.measure
        return state._replace(
            momentum=state.momentum + self.step / 2 * state.force,
            strain_momentum=state.strain_momentum + self.step / 2 * piston_force,
        )

    def drift(self, state: State) -> State:
        """A quarter step of the atoms, a half step of the piston, another quarter of the atoms."""
        return self.move(self.dilate(self.move(state)))

    def move(self, state: State) -> State:
        """A quarter step of the positions; the kinetic energy pushes the piston."""
        moved = self.step / 4 * (state.momentum / state.mass) @ self.inverse * jnp.exp(-state.strain)
        kinetic = jnp.sum(state.momentum**2 / state.mass)
        return state._replace(
            position=state.position + moved, strain_momentum=state.strain_momentum + self.step / 4 * kinetic
        )

    def dilate(self, state: State) -> State:
        """Half a step of the cell; momenta scale with it."""
        change = self.step / 2 * state.strain_momentum / self.mass
        return state._replace(strain=state.strain + change, momentum=state.momentum * jnp.exp(-change))

    def thermalise(self, state: State) -> State:
        """A step of friction and noise, of the piston and of atoms without a chain."""
        rng, of_atoms, of_piston = jax.random.split(state.rng, 3)
        momentum = state.momentum
        if self.friction is not None:
            momentum = self.ornstein_uhlenbeck(of_atoms, momentum, self.thermal_energy * state.mass, self.friction)
        piston = self.ornstein_uhlenbeck(
            of_piston, state.strain_momentum, self.thermal_energy * self.mass, PISTON_FRICTION / self.relaxation_time
        )
        return state._replace(momentum=momentum, strain_momentum=piston, rng=rng)

    def half_step_of_chain(self, state: State) -> State:
        """Half a step of the Nose-Hoover chain, if there is one."""
        if self.chain is None:
            return state
        kinetic = jnp.sum(state.momentum**2 / state.mass) / 2
        chain = state.chain.set(kinetic_energy=kinetic)
        momentum, chain = self.chain.half_step(state.momentum, chain, self._thermal_energy)
        return state._replace(momentum=momentum, chain=chain)


def langevin_piston(system: System, forces_and_virial: ForcesAndVirial, dtype: jnp.dtype) -> Integrator:
    """The (init, apply) pair of one walker at constant pressure, in Å, eV, amu.

    Args:
        system: What is simulated, with a barostat and a pressure.
        forces_and_virial: (fractional positions, scale of the cell, ...) -> forces (eV/Å) and dU/dε (eV).
        dtype: Precision of all numbers.

    Returns:
        init: (key, positions, scale, *, mass, momenta or None, **arguments of the forces) -> State.
        apply: (State, **arguments of the forces) -> State, one time step later.
    """
    piston = Piston.of(system, dtype)

    def init(
        key: Array, positions: Array, scale: Array, *, mass: Array, momenta: Array | None = None, **arguments: Any
    ) -> State:
        state = piston.begin(key, positions, scale, mass, momenta)
        force, virial = forces_and_virial(positions, scale, **arguments)
        return state._replace(force=force, virial=virial)

    def apply(state: State, **arguments: Any) -> State:
        state = piston.drift(piston.thermalise(piston.drift(piston.kick(piston.half_step_of_chain(state)))))
        force, virial = forces_and_virial(state.position, jnp.exp(state.strain), **arguments)
        return piston.half_step_of_chain(piston.kick(state._replace(force=force, virial=virial)))

    return Integrator(init, apply)
