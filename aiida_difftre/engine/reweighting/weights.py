r"""Weights of snapshots at parameters or at a state point that did not sample them, and how many samples are left.

    w_i = softmax_i( -[U_θ(x_i) - U_ref(x_i)]/kT )            (Thaler & Zavadlav, Nat. Commun. 12, 6884 (2021), eq. 3)
    <O> = Σ_i w_i O(x_i)

Towards another temperature T' or pressure P' the exponent is -([U_θ + P'V]/kT' - [U_ref + PV]/kT) (the one-reference
case of Shirts & Chodera, J. Chem. Phys. 129, 124105 (2008)).

Both energies are evaluated in float64 on the snapshot as stored, in the same arithmetic, so that the weights are
exactly uniform at θ = θ_ref.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.files import Trajectory
from aiida_difftre.engine.reweighting import extrapolation


@jax.jit
def boltzmann_weights(
    energies: Float[Array, " S"],
    reference: Float[Array, " S"],
    temperature: float | Float[Array, ""],
    shift: Float[Array, " S"] | float = 0.0,
) -> Float[Array, " S"]:
    """Normalised weights of snapshots; invariant under a constant added to either energy. Energies in eV, float64.

    Args:
        energies: U_θ.
        reference: U_ref.
        temperature: for which to weigh, K.
        shift: (1/kT' - 1/kT) U_ref + (P'/kT' - P/kT) V, where it is not the state point that was sampled
            (:func:`state_shift`).
    """
    return jax.nn.softmax(-(energies - reference) / (units.BOLTZMANN * temperature) - shift)


def state_shift(
    energies: NDArray[np.float64], trajectory: Trajectory, temperature: float, pressure: float | None
) -> NDArray[np.float64]:
    """What a temperature (K) and pressure (GPa) take off the exponent of the weights; zeros for those sampled."""
    inverse, sampled = (1 / (units.BOLTZMANN * t) for t in (temperature, trajectory.temperature))
    work = 0.0
    if pressure is not None and trajectory.pressure is not None:
        work = (inverse * pressure - sampled * trajectory.pressure) / units.EV_PER_A3_IN_GPA
    return (inverse - sampled) * energies + work * trajectory.volumes


class EffectiveSize(NamedTuple):
    """Effective sample sizes: exp(-Σ w ln w), as in the paper, and Kish's 1/Σ w²."""

    entropy: float
    kish: float

    @property
    def smallest(self) -> float:
        """The smaller of the two; the gate uses it."""
        return min(self.entropy, self.kish)


def effective_size(weight: NDArray[np.float64]) -> EffectiveSize:
    """Effective sample sizes of normalised weights."""
    positive = weight[weight > 0]
    return EffectiveSize(float(np.exp(-np.sum(positive * np.log(positive)))), float(1 / np.sum(weight**2)))


def reliable_size(weight: NDArray[np.float64]) -> float:
    """The smallest of all effective sample sizes of normalised weights: for errors, and for what is refused."""
    return min(effective_size(weight).smallest, extrapolation.normal_size(weight))
