"""The integrators of molecular dynamics by name, each an (init, apply) pair for one walker that can be tested alone.

All have one interface, so that whoever steps needs not know which it is:

    init: (key, fractional positions, scale of the cell, *, mass, momenta=None, **arguments of the forces) -> state.
        Momenta are drawn from the Maxwell-Boltzmann distribution where there are none.
    apply: (state, **arguments of the forces) -> state, one time step later.

A state has ``position`` (fractional, unwrapped), ``momentum`` (sqrt(amu eV)), ``force`` (eV/Å) and ``mass`` (amu, one
column). In a fixed cell the integrators are jax-md's (BAOAB Langevin: Leimkuhler & Matthews, J. Chem. Phys. 138, 174102
(2013); Nose-Hoover chains: Martyna, Klein & Tuckerman, J. Chem. Phys. 97, 2635 (1992)); at constant pressure that of
:mod:`~aiida_difftre.engine.sampling.barostat`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.sampling_settings import LangevinSpec, NoseHooverSpec
from aiida_difftre.engine.sampling.barostat import ForcesAndVirial, Integrator, langevin_piston
from aiida_difftre.engine.sampling.jax_md_simulate import simulate
from aiida_difftre.engine.sampling.system import System

Builder = Callable[[System, ForcesAndVirial, jnp.dtype], Integrator]
"""(System, forces and virial, precision) -> the pair."""


def langevin(system: System, forces_and_virial: ForcesAndVirial, dtype: jnp.dtype) -> Integrator:
    """BAOAB Langevin dynamics in a fixed cell.

    Args:
        system: What is simulated, with a Langevin thermostat.
        forces_and_virial: (fractional positions, scale of the cell, ...) -> forces (eV/Å) and dU/dε (eV).
        dtype: Precision of all numbers.
    """
    thermostat = system.settings.thermostat
    if not isinstance(thermostat, LangevinSpec):
        raise TypeError(f"Langevin dynamics has a Langevin thermostat, not {thermostat!r}")
    friction = np.asarray(thermostat.friction_per_ps * 1e-3 * units.TIME_UNIT_IN_FS, dtype)
    force, shift, step, kT = _fixed_cell(system, forces_and_virial, dtype)
    return _of_any_scale(*simulate.nvt_langevin(force, shift, step, kT, friction))


def nose_hoover(system: System, forces_and_virial: ForcesAndVirial, dtype: jnp.dtype) -> Integrator:
    """Nose-Hoover chains in a fixed cell; the total momentum is zero.

    Args:
        system: What is simulated, with a Nose-Hoover thermostat.
        forces_and_virial: (fractional positions, scale of the cell, ...) -> forces (eV/Å) and dU/dε (eV).
        dtype: Precision of all numbers.
    """
    thermostat = system.settings.thermostat
    if not isinstance(thermostat, NoseHooverSpec):
        raise TypeError(f"Nose-Hoover dynamics has a Nose-Hoover thermostat, not {thermostat!r}")
    tau = np.asarray(thermostat.time_constant_fs / units.TIME_UNIT_IN_FS, dtype)
    force, shift, step, kT = _fixed_cell(system, forces_and_virial, dtype)
    init, apply = simulate.nvt_nose_hoover(force, shift, step, kT, chain_length=thermostat.chain_length, tau=tau)

    def init_at_rest(*args: Any, **kwargs: Any) -> Any:
        # The dynamics keeps the total momentum, so that the chain must not count its three degrees of freedom: jax-md
        # does, which would sample N/(N-1) times the temperature.
        state = init(*args, **kwargs)
        momentum = state.momentum - jnp.mean(state.momentum, 0, keepdims=True)
        kinetic = jnp.sum(momentum**2 / state.mass) / 2
        chain = state.chain.set(kinetic_energy=kinetic, degrees_of_freedom=system.degrees_of_freedom)
        return state.set(momentum=momentum, chain=chain)

    return _of_any_scale(init_at_rest if len(system.symbols) > 1 else init, apply)


INTEGRATORS: dict[str, Builder] = {
    "langevin": langevin,
    "nose_hoover": nose_hoover,
    "langevin_piston": langevin_piston,
}
"""By the name of the thermostat in a fixed cell, by that of the barostat at constant pressure."""


def name_of(system: System) -> str:
    """The name of the integrator that the settings of a system ask for."""
    return system.settings.thermostat.name if system.barostat is None else "langevin_piston"


def integrator(system: System, forces_and_virial: ForcesAndVirial, dtype: jnp.dtype) -> Integrator:
    """The (init, apply) pair that the settings of a system ask for, in Å, eV, amu.

    Args:
        system: What is simulated.
        forces_and_virial: (fractional positions, scale of the cell, ...) -> forces (eV/Å) and dU/dε (eV).
        dtype: Precision of all numbers.
    """
    return INTEGRATORS[name_of(system)](system, forces_and_virial, dtype)


def _fixed_cell(system: System, forces_and_virial: ForcesAndVirial, dtype: jnp.dtype) -> tuple[Any, Any, Any, Any]:
    """What jax-md wants in a fixed cell: force and shift of fractional positions, time step and thermal energy."""
    # jax-md's shift of a periodic cell inverts the cell in a program of its own, 0.15 CPU s at the start of each job.
    inverse = np.linalg.inv(system.cell).astype(dtype)
    scalar = functools.partial(np.asarray, dtype=dtype)

    def force(positions: Array, **arguments: Any) -> Array:
        return forces_and_virial(positions, jnp.ones((), dtype), **arguments)[0]

    def shift(positions: Array, displacement: Array, **_: Any) -> Array:
        return positions + displacement @ inverse

    step = scalar(system.settings.timestep_fs / units.TIME_UNIT_IN_FS)
    return force, shift, step, scalar(units.BOLTZMANN * system.temperature)


def _of_any_scale(init: Callable[..., Any], apply: Callable[..., Any]) -> Integrator:
    """Of a pair that knows no scale of the cell, which is one."""
    return Integrator(lambda key, positions, scale, **arguments: init(key, positions, **arguments), apply)
