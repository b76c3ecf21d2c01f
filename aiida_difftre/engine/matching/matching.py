"""The loss of a potential that is matched to labels, and its errors against them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract.jobs import DatasetWeights
from aiida_difftre.engine.matching.configurations import Configurations, Labels
from aiida_difftre.engine.matching.prediction import Predicted
from aiida_difftre.engine.units import EV_PER_A3_IN_GPA


def reference_energies(composition: NDArray[np.float64], atomic_energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add up the atomic reference energies of each configuration.

    Args:
        composition: Atoms of each species in each configuration, (configurations, species).
        atomic_energies: Reference energy of each species, (species,), eV.

    Returns:
        The sums, (configurations,), eV.
    """
    return composition @ np.asarray(atomic_energies, np.float64)


def compositions(configurations: Configurations, n_species: int) -> NDArray[np.float64]:
    """Count the atoms of each species in each configuration.

    Args:
        configurations: The configurations, padded to the same number of atoms.
        n_species: Number of species of the potential.

    Returns:
        Numbers of atoms, (configurations, species).
    """
    kinds = np.asarray(configurations.environment.species)
    return np.stack([np.sum((kinds == kind) * configurations.real, axis=1) for kind in range(n_species)], axis=1)


def loss(
    predicted: Predicted,
    labels: Labels,
    real: Float[Array | np.ndarray, "configurations atoms"],
    weights: DatasetWeights,
) -> Float[Array, ""]:
    r"""Compute the matching loss of a batch.

    .. math:: w_E \langle(\Delta E/N)^2\rangle + w_F \langle\Delta F^2\rangle + w_\sigma \langle\Delta\sigma^2\rangle

    with means over the configurations, force components and stress components that have labels, weighted ones where
    labels have weights.

    Args:
        predicted: What the potential gives.
        labels: What was computed otherwise, without the reference energies of the atoms.
        real: 1 for atoms, 0 for padding, (configurations, atoms).
        weights: Weights w, per eV², (eV/Å)² and (eV/Å³)².

    Returns:
        The loss, dimensionless.

    Example:
        Two atoms whose energy is off by 0.2 eV, 0.1 eV per atom:

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.update_settings import DatasetWeights
        >>> from aiida_difftre.engine.matching.configurations import Labels
        >>> from aiida_difftre.engine.matching.matching import loss
        >>> from aiida_difftre.engine.matching.prediction import Predicted
        >>> predicted = Predicted(jnp.array([-5.0]), jnp.zeros((1, 2, 3)), jnp.zeros((1, 6)))
        >>> one, none = np.ones(1), np.zeros(1)
        >>> labels = Labels(np.array([-5.2]), np.zeros((1, 2, 3)), np.zeros((1, 6)), one, none, none)
        >>> round(float(loss(predicted, labels, jnp.ones((1, 2)), DatasetWeights(energy=100.0))), 3)
        1.0
    """
    energies, forces, stresses = labels.counts()
    energy = energies * ((predicted.energy - labels.energy) / jnp.sum(real, 1)) ** 2
    force = real * forces[:, None] * jnp.sum((predicted.forces - labels.forces) ** 2, -1) / 3
    stress = stresses * jnp.mean((predicted.stress - labels.stress) ** 2, -1)
    return (
        weights.energy * jnp.sum(energy) / jnp.maximum(jnp.sum(labels.has_energy), 1)
        + weights.force * jnp.sum(force) / jnp.maximum(jnp.sum(real * labels.has_forces[:, None]), 1)
        + weights.stress * jnp.sum(stress) / jnp.maximum(jnp.sum(labels.has_stress), 1)
    )


def errors(predicted: Predicted, labels: Labels, real: NDArray[Any]) -> dict[str, float]:
    """Compute root-mean-square and mean absolute errors of predictions; a quantity without labels is left out.

    Args:
        predicted: What the potential gives.
        labels: What was computed otherwise, without the reference energies of the atoms.
        real: 1 for atoms, 0 for padding, (configurations, atoms).

    Returns:
        ``energy_rmse``, ``energy_mae`` and, with the mean energy error removed, ``energy_shifted_rmse``,
        ``energy_shifted_mae`` (meV/atom); ``force_rmse``, ``force_mae`` (meV/Å, per component); ``stress_rmse``,
        ``stress_mae`` (GPa, per component).

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from aiida_difftre.engine.matching.configurations import Labels
        >>> from aiida_difftre.engine.matching.matching import errors
        >>> from aiida_difftre.engine.matching.prediction import Predicted
        >>> predicted = Predicted(jnp.array([-5.0]), jnp.zeros((1, 2, 3)), jnp.zeros((1, 6)))
        >>> one, none = np.ones(1), np.zeros(1)
        >>> labels = Labels(np.array([-5.2]), np.zeros((1, 2, 3)), np.zeros((1, 6)), one, none, none)
        >>> round(errors(predicted, labels, np.ones((1, 2)))["energy_rmse"], 2)  # meV/atom
        100.0
    """
    result: dict[str, float] = {}

    def add(name: str, differences: NDArray[Any]) -> None:
        if differences.size:
            result[f"{name}_rmse"] = float(np.sqrt(np.mean(differences**2)))
            result[f"{name}_mae"] = float(np.mean(np.abs(differences)))

    energy, force, stress = (np.asarray(part, np.float64) for part in predicted)
    real = np.asarray(real)
    per_atom = 1e3 * ((energy - np.asarray(labels.energy)) / real.sum(1))[np.asarray(labels.has_energy) > 0]
    add("energy", per_atom)
    add("energy_shifted", per_atom - per_atom.mean() if per_atom.size else per_atom)
    counted = (real * np.asarray(labels.has_forces)[:, None]) > 0
    add("force", 1e3 * (force - np.asarray(labels.forces))[counted])
    add("stress", EV_PER_A3_IN_GPA * (stress - np.asarray(labels.stress))[np.asarray(labels.has_stress) > 0])
    return result
