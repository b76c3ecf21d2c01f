r"""The matching loss of a whole dataset, for a refinement that must not forget it.

.. math:: L(\theta) = w_E \left\langle\left(\frac{\Delta E}{N} - c\right)^2\right\rangle + w_F \langle\Delta F^2\rangle
    + w_\sigma \langle\Delta\sigma^2\rangle, \qquad c = \left\langle\frac{\Delta E}{N}\right\rangle

The means are weighted ones where ``dataset_widths`` let labels count less the further their volume is from those of the
state points (:mod:`aiida_difftre.engine.contract.label_weights`).

A constant c per atom is no error of an energy, and no observable holds it: it goes to the reference energies of the
atoms. A Gauss-Newton step takes, besides the gradient of L, the half of its second derivative that the derivatives of
predictions alone make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aiida_difftre.engine.contract.jobs import LossSettings, Machine
from aiida_difftre.engine.contract.label_names import LabelKeys
from aiida_difftre.engine.contract.labels import Labelled
from aiida_difftre.engine.matching.configurations import Labels, pad, read_training, weighted
from aiida_difftre.engine.matching.matching import compositions, loss
from aiida_difftre.engine.matching.prediction import Predicted, predict_all, predictor
from aiida_difftre.engine.potentials.parameters import without_references
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters


@dataclass
class DatasetLoss:
    """The matching loss of a dataset as a function of the parameters.

    Args:
        potential: The potential.
        settings: Weights of the loss.
        machine: Whose precision and size of batches are used.
        predict: What predicts a batch.
        batch: All configurations.
        labels: Their labels.
        composition: Atoms of each species in each configuration, (configurations, species).
        real: 1 for atoms, 0 for padding, (configurations, atoms).
        weights: How much each label counts, in the order of the dataset, by what has a width.

    Example:
        Two dimers whose energies are labelled too high by the same 0.2 eV, 0.1 eV per atom, which is no error:

        >>> import tempfile
        >>> from pathlib import Path
        >>> import jax
        >>> import numpy as np
        >>> from ase import Atoms
        >>> from ase.calculators.singlepoint import SinglePointCalculator
        >>> from ase.io import write
        >>> from aiida_difftre.engine.contract.jobs import LossSettings, Machine
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> from aiida_difftre.engine.matching.dataset_loss import dataset_loss
        >>> from aiida_difftre.engine.potentials.potential import build
        >>> hyperparameters = {"epsilon": 0.0103, "sigma": 3.4}
        >>> term = {"architecture": "lennard_jones", "cutoff": 8.5, "hyperparameters": hyperparameters}
        >>> potential = build(PotentialSpec(species=["Ar"], terms=[term]))
        >>> dimers = [Atoms("Ar2", positions=[[0, 0, 0], [distance, 0, 0]]) for distance in (9.0, 10.0)]
        >>> for dimer in dimers:
        ...     dimer.calc = SinglePointCalculator(dimer, energy=0.2, forces=np.zeros((2, 3)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(Path(folder, "dimers.extxyz"), dimers)
        ...     loss = dataset_loss(
        ...         potential, Path(folder, "dimers.extxyz"), LossSettings(dataset_weight=1.0), Machine()
        ...     )
        >>> parameters = potential.init(jax.random.key(0))
        >>> loss(parameters)[0], round(loss.offset(parameters), 6)
        (0.0, -0.1)
    """

    potential: Potential
    settings: LossSettings
    machine: Machine
    predict: Callable[..., Predicted]
    batch: Any
    labels: Labels
    composition: Float[Array, "configurations species"]
    real: Float[Array, "configurations atoms"]
    weights: dict[str, list[float]]

    def __post_init__(self) -> None:
        # Arrays are arguments, that they are no constants of the compiled programs.
        self._value_and_gradient = jax.jit(jax.value_and_grad(self._value))
        self._offset = jax.jit(lambda *given: self._excess(self._predicted(*given[:2]), given[0], given[2]))
        self._curvature = jax.jit(self._products, static_argnums=0)

    def __call__(self, parameters: Parameters) -> tuple[float, Parameters]:
        """Compute the loss.

        Args:
            parameters: Parameters of the potential.

        Returns:
            The loss, and its gradient, which is zero for the atomic reference energies.
        """
        value, gradient = self._value_and_gradient(parameters, self.batch, self.labels)
        return float(value), gradient

    def offset(self, parameters: Parameters) -> float:
        """Compute the constant c by which the energy of each atom is above its label, eV.

        Args:
            parameters: Parameters of the potential.

        Returns:
            The constant, which the loss does not count.
        """
        return float(self._offset(parameters, self.batch, self.labels))

    def curvature(
        self, parameters: Parameters, movable: Sequence[bool], ways: Float[np.ndarray, "parameters ways"]
    ) -> Float[np.ndarray, "parameters ways"]:
        """Multiply the matrix of Gauss and Newton, which is never stored, with some ways through the parameters.

        Args:
            parameters: Parameters of the potential.
            movable: Whether each leaf of them may move.
            ways: Steps of the parameters that may move, beside each other, (parameters, ways).

        Returns:
            Half of the second derivative of the loss, without that of the predictions, times the ways.
        """
        along = jnp.asarray(ways, self._dtype)
        return np.asarray(self._curvature(tuple(movable), parameters, self.batch, self.labels, along), np.float64)

    @property
    def _dtype(self) -> Any:
        return jnp.dtype(self.machine.precision)

    def _predicted(self, parameters: Parameters, batch: Any) -> Predicted:
        free = without_references(parameters, self._dtype)
        return predict_all(self.potential, self.predict, free, batch, self.machine.batch_size)

    def _excess(self, predicted: Predicted, parameters: Parameters, labels: Labels) -> Array:
        energies = predicted.energy + self.composition @ parameters["atomic_energies"] - labels.energy
        counts = labels.counts()[0]
        return jnp.sum(counts * energies / jnp.sum(self.real, 1)) / jnp.maximum(jnp.sum(counts), 1)

    def _value(self, parameters: Parameters, batch: Any, labels: Labels) -> Array:
        predicted = self._predicted(parameters, batch)
        # The best constant: that it depends on the parameters changes no derivative.
        offset = jax.lax.stop_gradient(self._excess(predicted, parameters, labels))
        references = jax.lax.stop_gradient(self.composition @ parameters["atomic_energies"])
        shifted = labels._replace(energy=labels.energy - references + offset * jnp.sum(self.real, 1))
        return self.settings.dataset_weight * loss(predicted, shifted, self.real, self.settings.dataset_weights)

    def _factors(self, labels: Labels) -> tuple[Array, Array, Array]:
        """What residuals of energies per atom, forces and stresses are multiplied with."""
        weights, whole = self.settings.dataset_weights, self.settings.dataset_weight
        energies = jnp.sum(labels.has_energy)
        forces = 3 * jnp.sum(self.real * labels.has_forces[:, None])
        stresses = 6 * jnp.sum(labels.has_stress)
        pairs = ((weights.energy, energies), (weights.force, forces), (weights.stress, stresses))
        energy, force, stress = (jnp.sqrt(whole * weight / jnp.maximum(number, 1)) for weight, number in pairs)
        return energy, force, stress

    def _products(
        self, movable: tuple[bool, ...], parameters: Parameters, batch: Any, labels: Labels, ways: Array
    ) -> Array:
        leaves, structure = jax.tree.flatten(without_references(parameters, self._dtype))
        moving = [leaf for leaf, moves in zip(leaves, movable, strict=True) if moves]
        energy, force, stress = self._factors(labels)

        def residuals(moving: list[Array], one: Any, label: Labels, real: Array) -> Array:
            given = iter(moving)
            whole = [next(given) if moves else leaf for leaf, moves in zip(leaves, movable, strict=True)]
            batch = jax.tree.map(lambda leaf: leaf[None], one)
            found = self.predict(self.potential, jax.tree.unflatten(structure, whole), batch)
            roots = [jnp.sqrt(count) for count in label.counts()]
            return jnp.concatenate(
                [
                    energy * roots[0] * found.energy / jnp.sum(real),
                    (force * roots[1] * real[:, None] * found.forces[0]).ravel(),
                    stress * roots[2] * found.stress[0],
                ]
            )

        def add(total: tuple[Array, Array], single: tuple[Any, Labels, Array]) -> tuple[tuple[Array, Array], None]:
            slopes = jax.jacrev(residuals)(moving, *single)
            rows = jnp.concatenate([slope.reshape(len(slope), -1) for slope in slopes], axis=1)
            _, label, _ = single
            return (total[0] + rows.T @ (rows @ ways), total[1] + jnp.sqrt(label.counts()[0]) * rows[0]), None

        begin = (jnp.zeros_like(ways), jnp.zeros(len(ways), self._dtype))
        typed = jax.tree.map(lambda leaf: jnp.asarray(leaf, self._dtype), (labels, self.real))
        (total, energies), _ = jax.lax.scan(add, begin, (batch, *typed))
        # The constant per atom takes up the mean of the energies.
        return total - jnp.outer(energies, energies @ ways) / jnp.maximum(jnp.sum(labels.counts()[0]), 1)


def dataset_loss(
    potential: Potential,
    path: Path | None,
    settings: LossSettings,
    machine: Machine,
    keys: LabelKeys | None = None,
    without_base: Callable[[Labelled], Labelled] | None = None,
) -> DatasetLoss | None:
    """Prepare the matching loss of a dataset.

    Args:
        potential: The potential.
        path: Path of the dataset.
        settings: ``dataset_weight`` (included in the result), ``dataset_weights`` and ``dataset_widths``.
        machine: Whose precision and size of batches are used.
        keys: Names under which the dataset has its labels.
        without_base: Takes what a base gives off the labels; None for a potential without a base.

    Returns:
        The loss; None where there is no dataset or its weight is zero.

    Raises:
        EngineError: For a dataset that is invalid, does not fit the potential, or is too far from the state points.
    """
    if path is None or settings.dataset_weight == 0:
        return None
    found = read_training(path, keys)
    frames = (found if without_base is None else without_base(found)).frames
    configurations = pad(frames, potential.spec.species, potential.cutoff)
    predict, batch = predictor(potential, configurations, jnp.dtype(machine.precision))
    composition = jnp.asarray(compositions(configurations, len(potential.spec.species)))
    real = jnp.asarray(configurations.real)
    labels, weights = weighted(configurations.labels, frames, settings.dataset_widths, "loss.dataset_widths")
    return DatasetLoss(potential, settings, machine, predict, batch, labels, composition, real, weights)
