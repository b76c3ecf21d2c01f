r"""Thermodynamic observables: energy, volume, and what their fluctuations give.

With U the potential energy, H = U + PV, N atoms and covariances of the configurations (kinetic terms are exact):

    C_V = (var(U)/kT² + 3/2 N k)/N         at constant volume,
    C_P = (var(H)/kT² + 3/2 N k)/N         at constant pressure,
    α = cov(V, H)/(kT² <V>),  κ = var(V)/(kT <V>)

(Allen & Tildesley, Computer Simulation of Liquids, 2nd ed. 2017, section 2.5). Covariances of weighted samples carry
the factor 1/(1 - Σ w²).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.observables.protocol import Macrostate


def covariance(a: Float[Array, " S"], b: Float[Array, " S"], weights: Float[Array, " S"]) -> Float[Array, ""]:
    """Estimate the covariance of weighted samples without bias.

    Args:
        a: A quantity of each snapshot, (snapshots,).
        b: Another one, (snapshots,).
        weights: Weights of the snapshots, (snapshots,), with the sum 1.

    Returns:
        The covariance, in the product of the units.
    """
    product = (a - weights @ a) * (b - weights @ b)
    return weights @ product / (1 - jnp.sum(weights**2))


def enthalpy(inputs: Mapping[str, Array], point: Macrostate) -> Float[Array, " S"]:
    """Compute the enthalpy U + PV of each snapshot; the energy U at constant volume.

    Args:
        inputs: ``energy``, (snapshots,), eV, and ``volume``, (snapshots,), Å³.
        point: Thermodynamic state, with its pressure in GPa.

    Returns:
        Enthalpies, (snapshots,), eV.
    """
    pressure = (point.pressure or 0.0) / units.EV_PER_A3_IN_GPA
    return inputs["energy"] + pressure * inputs["volume"]


class _OfEnergy:
    """What observables of energy and volume share: no other quantity, and nothing that depends on the system."""

    quantities: tuple[str, ...] = ()
    static = False

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Nothing to check: the registry checks options and ensemble."""
        return cls()


class PotentialEnergy(_OfEnergy):
    """Mean potential energy per atom, <U>/N in eV/atom, without atomic reference energies."""

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " values"]:
        """Σ w U / N."""
        return jnp.sum(weights * inputs["energy"], keepdims=True) / point.atoms


class HeatCapacity(_OfEnergy):
    """C_V or C_P, as the ensemble is, in J/mol/K per mole of atoms."""

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " values"]:
        """Compute (var(H)/kT² + 3/2 N k)/N; H = U at constant volume."""
        energy = enthalpy(inputs, point)
        variance = covariance(energy, energy, weights) / (point.thermal_energy * point.temperature)
        return units.JOULE_PER_MOL * (variance[None] / point.atoms + 1.5 * units.BOLTZMANN)


class Volume(_OfEnergy):
    """<V>/N, Å³ per atom."""

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " values"]:
        """Σ w V / N."""
        return jnp.sum(weights * inputs["volume"], keepdims=True) / point.atoms


class Density(_OfEnergy):
    """M/<V>, kg/m³."""

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " values"]:
        """The mass over the mean volume, which is what a volume that is measured tells."""
        return units.AMU_PER_A3_IN_KG_PER_M3 * point.mass / jnp.sum(weights * inputs["volume"], keepdims=True)


class ThermalExpansion(_OfEnergy):
    """α = (d<V>/dT)_P/<V>, volumetric, 1/K; a third of it is linear."""

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " values"]:
        """cov(V, U + PV)/(kT² <V>)."""
        volume = inputs["volume"]
        together = covariance(volume, enthalpy(inputs, point), weights)
        return (together / (point.thermal_energy * point.temperature * (weights @ volume)))[None]


class Compressibility(_OfEnergy):
    """κ = -(d<V>/dP)_T/<V>, isothermal, 1/GPa."""

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " values"]:
        """var(V)/(kT <V>)."""
        volume = inputs["volume"]
        per_pressure = covariance(volume, volume, weights) / (point.thermal_energy * (weights @ volume))
        return per_pressure[None] / units.EV_PER_A3_IN_GPA
