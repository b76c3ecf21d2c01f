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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.settings import BarostatSpec, LangevinSpec, NoseHooverSpec
from aiida_difftre.engine.sampling.jax_md_simulate import simulate

PISTON_FRICTION = 2.0
"""Friction of the piston times its relaxation time: fluctuations of an underdamped volume then decay within that."""

ForcesAndVirial = Callable[..., tuple[Array, Array]]


class State(NamedTuple):
    """Atoms and piston of one walker.

    Args:
        position: fractional, unwrapped.
        momentum: sqrt(amu eV).
        force: eV/Å.
        mass: amu.
        rng: key of the noise.
        strain: ε, logarithm of the edge of the cell over that of the reference cell.
        strain_momentum: of the piston.
        virial: dU/dε, eV.
        chain: of a Nose-Hoover thermostat, else None.
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


def langevin_piston(
    forces_and_virial: ForcesAndVirial,
    cell: NDArray[np.float64],
    *,
    atoms: int,
    freedom: int,
    temperature: float,
    pressure: float,
    timestep_fs: float,
    thermostat: LangevinSpec | NoseHooverSpec,
    barostat: BarostatSpec,
    dtype: Any,
) -> tuple[Callable[..., State], Callable[..., State]]:
    """The (init, apply) pair of one walker, in Å, eV, amu.

    Args:
        forces_and_virial: (fractional positions, scale of the cell, ...) -> forces (eV/Å) and dU/dε (eV).
        cell: reference cell, (3, 3), Å.
        atoms: their number.
        freedom: degrees of freedom of the kinetic energy.
        temperature: K.
        pressure: GPa.
        timestep_fs: fs.
        thermostat: of the atoms.
        barostat: relaxation time.
        dtype: of everything.

    Returns:
        init: (key, positions, scale, mass, momenta or None, **arguments of the forces) -> State.
        apply: (State, **arguments of the forces) -> State, one time step later.
    """
    dt = timestep_fs / units.TIME_UNIT_IN_FS
    kT = units.BOLTZMANN * temperature
    tau = barostat.relaxation_time_fs / units.TIME_UNIT_IN_FS
    piston_mass = 3 * (atoms + 1) * kT * tau**2
    work = 3 * pressure / units.EV_PER_A3_IN_GPA * float(abs(np.linalg.det(cell)))
    measure = (3 * atoms - freedom + 3) * kT
    inverse = jnp.asarray(np.linalg.inv(cell), dtype)
    thermal_energy = jnp.asarray(kT, dtype)
    is_langevin = isinstance(thermostat, LangevinSpec)
    chain = None
    if isinstance(thermostat, NoseHooverSpec):
        time_constant = jnp.asarray(thermostat.time_constant_fs / units.TIME_UNIT_IN_FS, dtype)
        options = simulate.default_nhc_kwargs(time_constant, {"chain_length": thermostat.chain_length})
        chain = simulate.nose_hoover_chain(jnp.asarray(dt, dtype), **options)

    def thermalised(key: Array, momentum: Array, variance: Array | float, friction_per_time: float) -> Array:
        kept = float(np.exp(-friction_per_time * dt))
        noise = jax.random.normal(key, momentum.shape, dtype)
        return kept * momentum + jnp.sqrt(jnp.asarray((1 - kept**2) * variance, dtype)) * noise

    def kick(state: State) -> State:
        piston_force = -state.virial - work * jnp.exp(3 * state.strain) + measure
        return state._replace(
            momentum=state.momentum + dt / 2 * state.force,
            strain_momentum=state.strain_momentum + dt / 2 * piston_force,
        )

    def drift(state: State) -> State:
        """A quarter step of the atoms, a half step of the piston, another quarter of the atoms."""
        return move(dilate(move(state)))

    def move(state: State) -> State:
        moved = dt / 4 * (state.momentum / state.mass) @ inverse * jnp.exp(-state.strain)
        kinetic = jnp.sum(state.momentum**2 / state.mass)
        return state._replace(position=state.position + moved, strain_momentum=state.strain_momentum + dt / 4 * kinetic)

    def dilate(state: State) -> State:
        change = dt / 2 * state.strain_momentum / piston_mass
        return state._replace(strain=state.strain + change, momentum=state.momentum * jnp.exp(-change))

    def friction(state: State) -> State:
        rng, of_atoms, of_piston = jax.random.split(state.rng, 3)
        momentum = state.momentum
        if isinstance(thermostat, LangevinSpec):
            per_time = thermostat.friction_per_ps * 1e-3 * units.TIME_UNIT_IN_FS
            momentum = thermalised(of_atoms, momentum, kT * state.mass, per_time)
        piston = thermalised(of_piston, state.strain_momentum, kT * piston_mass, PISTON_FRICTION / tau)
        return state._replace(momentum=momentum, strain_momentum=piston, rng=rng)

    def half_step_of_chain(state: State) -> State:
        if chain is None:
            return state
        kinetic = jnp.sum(state.momentum**2 / state.mass) / 2
        momentum, moved = chain.half_step(state.momentum, state.chain.set(kinetic_energy=kinetic), thermal_energy)
        return state._replace(momentum=momentum, chain=moved)

    def init(
        key: Array, positions: Array, scale: Array, *, mass: Array, momenta: Array | None = None, **arguments: Any
    ) -> State:
        rng, of_atoms, of_piston = jax.random.split(key, 3)
        mass = jnp.reshape(mass, (-1, 1))
        momentum = thermalised(of_atoms, 0 * positions, kT * mass, np.inf) if momenta is None else momenta
        if not is_langevin and atoms > 1:
            momentum = momentum - jnp.mean(momentum, 0, keepdims=True)
        piston = thermalised(of_piston, 0 * scale, kT * piston_mass, np.inf)
        force, virial = forces_and_virial(positions, scale, **arguments)
        state = State(positions, momentum, force, mass, rng, jnp.log(scale), piston, virial, None)
        if chain is None:
            return state
        kinetic = jnp.sum(momentum**2 / mass) / 2
        return state._replace(chain=chain.initialize(freedom, kinetic, thermal_energy))

    def apply(state: State, **arguments: Any) -> State:
        state = drift(friction(drift(kick(half_step_of_chain(state)))))
        force, virial = forces_and_virial(state.position, jnp.exp(state.strain), **arguments)
        return half_step_of_chain(kick(state._replace(force=force, virial=virial)))

    return init, apply
