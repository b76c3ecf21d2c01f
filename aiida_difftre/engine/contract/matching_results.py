"""Errors of a potential against labels, and what a pretraining on them writes. Free of JAX."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aiida_difftre.engine.contract.records import Record, Results


class MatchingErrors(Record):
    """Errors of a potential against labels: root mean squares and mean absolutes; of what has no labels, none.

    Args:
        loss: Loss of the matching, where it trains.
        energy_rmse: Root mean square of the energies, meV/atom.
        energy_mae: Mean absolute of the energies, meV/atom.
        energy_shifted_rmse: Root mean square with the mean error removed, meV/atom.
        energy_shifted_mae: Mean absolute with the mean error removed, meV/atom.
        force_rmse: Root mean square of the force components, meV/Å.
        force_mae: Mean absolute of the force components, meV/Å.
        stress_rmse: Root mean square of the stress components, GPa.
        stress_mae: Mean absolute of the stress components, GPa.
    """

    loss: float | None = None
    energy_rmse: float | None = None
    energy_mae: float | None = None
    energy_shifted_rmse: float | None = None
    energy_shifted_mae: float | None = None
    force_rmse: float | None = None
    force_mae: float | None = None
    stress_rmse: float | None = None
    stress_mae: float | None = None


class PretrainStep(MatchingErrors):
    """A validation during pretraining; errors on the validation part, or on the training part where there is no other.

    Args:
        step: Number of optimizer steps so far.
        training_loss: Mean loss of the steps since the validation before.
        learning_rate: Learning rate at this step.
    """

    step: int
    training_loss: float
    learning_rate: float


class PretrainErrors(Record):
    """Errors of the potential that was kept.

    Args:
        training: Errors on what it was trained on.
        validation: Errors on what was held out; None where nothing was.
    """

    training: MatchingErrors | None = None
    validation: MatchingErrors | None = None


class PretrainResults(Results):
    """Results of pretraining.

    Args:
        errors: Errors of the best potential; none where no step was asked for.
        configurations: Numbers of configurations for ``training`` and ``validation``.
        history: A step for each validation.
        steps: Number of optimizer steps.
        best_step: Number of the step whose potential was kept.
        best_loss: Loss of that potential; None where no step was asked for.
        stopped_early: True if patience ended it.
        labels: Origin of the labels, in words; None where no step was asked for.
        label_weights: How much each label counts in the loss, in the order of the dataset, by what has a width.
        number_of_parameters: Number of parameters that move.
        atomic_energies: Reference energy of each species, eV.
        seconds: Duration, s.
    """

    kind: Literal["pretrain"] = "pretrain"
    errors: PretrainErrors
    configurations: dict[str, int]
    history: list[PretrainStep]
    steps: int
    best_step: int
    best_loss: float | None = None
    stopped_early: bool
    labels: str | None = None
    label_weights: dict[str, list[float]] = Field(default_factory=dict)
    number_of_parameters: int
    atomic_energies: dict[str, float]
    seconds: float | None = None
