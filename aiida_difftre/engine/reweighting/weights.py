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
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.reweighting import extrapolation


@jax.jit
def boltzmann_weights(
    energies: Float[Array, " S"],
    reference: Float[Array, " S"],
    temperature: float | Float[Array, ""],
    shift: Float[Array, " S"] | float = 0.0,
) -> Float[Array, " S"]:
    r"""Weigh snapshots for a potential or a state point that did not sample them.

    .. math:: w_i = \frac{e^{-\beta [U_\theta(x_i) - U_\mathrm{ref}(x_i)] - a_i}}
        {\sum_j e^{-\beta [U_\theta(x_j) - U_\mathrm{ref}(x_j)] - a_j}}

    A constant added to either energy changes nothing.

    Args:
        energies: Energies U_θ of the snapshots, (snapshots,), eV, float64.
        reference: Energies U_ref with the potential that sampled, (snapshots,), eV, float64.
        temperature: Temperature for which to weigh, K.
        shift: The exponent a = (1/kT' - 1/kT) U_ref + (P'/kT' - P/kT) V, (snapshots,), from :func:`state_shift`; 0 for
            the state point that was sampled.

    Returns:
        Weights, (snapshots,), which add up to one.

    References:
        S. Thaler and J. Zavadlav, Nat. Commun. 12, 6884 (2021), eq. 3.

    Example:
        A snapshot whose energy rises by kT ln 3 counts a third:

        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.reweighting.weights import boltzmann_weights
        >>> rise = 8.617333262e-5 * 300.0 * 1.0986123
        >>> weights = boltzmann_weights(jnp.array([-1.0, -1.0 + rise]), jnp.array([-1.0, -1.0]), 300.0)
        >>> [round(weight, 3) for weight in weights.tolist()]
        [0.75, 0.25]
    """
    return jax.nn.softmax(-(energies - reference) / (units.BOLTZMANN * temperature) - shift)


def state_shift(
    energies: NDArray[np.float64], trajectory: Trajectory, temperature: float, pressure: float | None
) -> NDArray[np.float64]:
    r"""Compute what another temperature or pressure takes off the exponent of the weights; zeros for those sampled.

    .. math:: a = \left(\frac{1}{kT'} - \frac{1}{kT}\right) U_\mathrm{ref}
        + \left(\frac{P'}{kT'} - \frac{P}{kT}\right) V

    Args:
        energies: Energies U_ref with the potential that sampled, (snapshots,), eV.
        trajectory: The snapshots, with the temperature T and the pressure P at which they were sampled.
        temperature: The temperature T' that is asked for, K.
        pressure: The pressure P' that is asked for, GPa; None at constant volume.

    Returns:
        The exponent a, (snapshots,), dimensionless.

    References:
        M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129, 124105 (2008), with one reference.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.trajectories import Trajectory
        >>> from aiida_difftre.engine.reweighting.weights import state_shift
        >>> arrays = {
        ...     "positions": np.zeros((2, 1, 3), np.float32), "cell": 4.0 * np.eye(3), "energies": np.array([0.0, 0.1]),
        ...     "walkers": np.zeros(2, np.int32), "times": np.array([0.0, 50.0]), "temperatures": np.full(2, 100.0),
        ...     "last_positions": np.zeros((1, 1, 3)), "last_velocities": np.zeros((1, 1, 3)),
        ... }
        >>> argon = Trajectory.from_arrays(arrays, species=("Ar",), temperature=100.0, pressure=None)
        >>> state_shift(argon.energies, argon, 110.0, None).round(3).tolist()
        [0.0, -1.055]
    """
    inverse, sampled = (1 / (units.BOLTZMANN * t) for t in (temperature, trajectory.temperature))
    work = 0.0
    if pressure is not None and trajectory.pressure is not None:
        work = (inverse * pressure - sampled * trajectory.pressure) / units.EV_PER_A3_IN_GPA
    return (inverse - sampled) * energies + work * trajectory.volumes


def reduced_energies(
    energies: NDArray[np.float64], volumes: NDArray[np.float64], point: StatePoint
) -> NDArray[np.float64]:
    """Reduced energies (U + PV)/kT of snapshots, (snapshots,).

    Args:
        energies: Energies U, (snapshots,), eV.
        volumes: Volumes V, (snapshots,), Å³.
        point: State point; without a pressure, at constant volume.

    Returns:
        Reduced energies, (snapshots,), dimensionless.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.state_points import StatePoint
        >>> from aiida_difftre.engine.reweighting.weights import reduced_energies
        >>> reduced_energies(np.array([0.0, 0.02585]), np.ones(2), StatePoint(300.0, None)).round(3).tolist()
        [0.0, 1.0]
    """
    pressure = 0.0 if point.pressure is None else point.pressure / units.EV_PER_A3_IN_GPA
    reduced: NDArray[np.float64] = (energies + pressure * volumes) / (units.BOLTZMANN * point.temperature)
    return reduced


class EffectiveSize(NamedTuple):
    """Effective sample sizes of weights: how many snapshots of equal weight would tell as much.

    Args:
        entropy: exp(-Σ w ln w), by the entropy of the weights.
        kish: 1/Σ w², after Kish.

    References:
        S. Thaler and J. Zavadlav, Nat. Commun. 12, 6884 (2021), eq. 5; L. Kish, Survey Sampling (Wiley, 1965).

    Example:
        >>> from aiida_difftre.engine.reweighting.weights import EffectiveSize
        >>> EffectiveSize(entropy=42.0, kish=35.0).smallest
        35.0
    """

    entropy: float
    kish: float

    @property
    def smallest(self) -> float:
        """The smaller of the two, which decides whether a step is taken."""
        return min(self.entropy, self.kish)


def effective_size(weight: NDArray[np.float64], shares: NDArray[np.float64] | None = None) -> EffectiveSize:
    r"""Compute the effective sample sizes of weights.

    .. math:: \exp\left(-\sum_i w_i \ln \frac{w_i}{c_i}\right), \qquad \left(\sum_i \frac{w_i^2}{c_i}\right)^{-1}

    with the shares c, by which weights differ from the first where some trajectories repeat themselves more than others
    do: with weights in proportion all snapshots are effective.

    Args:
        weight: Weights, (snapshots,), which add up to one.
        shares: What each snapshot counts, (snapshots,), one on average; None where all are alike.

    Returns:
        Both sizes, between 1 and the number of snapshots.

    Example:
        Of four snapshots, two of which count:

        >>> import numpy as np
        >>> from aiida_difftre.engine.reweighting.weights import effective_size
        >>> size = effective_size(np.array([0.5, 0.5, 0.0, 0.0]))
        >>> round(size.entropy, 6), size.kish
        (2.0, 2.0)
    """
    ratio = weight if shares is None else weight / shares
    held = weight > 0
    return EffectiveSize(float(np.exp(-np.sum(weight[held] * np.log(ratio[held])))), float(1 / np.sum(weight * ratio)))


def reliable_size(weight: NDArray[np.float64], shares: NDArray[np.float64] | None = None) -> float:
    """Compute the smallest effective sample size of weights, which decides about errors and about what is refused.

    Besides the sizes of :func:`effective_size` it is bounded by what would be left if the logarithms of all weights
    were as wide as their upper half.

    Args:
        weight: Weights, (snapshots,), which add up to one.
        shares: As there.

    Returns:
        The size, at most the number of snapshots.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.reweighting.weights import reliable_size
        >>> round(reliable_size(np.full(10, 0.1)), 6)
        10.0
    """
    return min(effective_size(weight, shares).smallest, extrapolation.normal_size(weight, shares))
