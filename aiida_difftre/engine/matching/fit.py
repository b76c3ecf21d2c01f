"""Training of a potential on labels: optimizer steps, errors on both parts of a dataset, checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from numpy.typing import NDArray

from aiida_difftre.engine import optimizers
from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.jobs import PretrainJob
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.matching import matching
from aiida_difftre.engine.matching.configurations import Configurations, Labels
from aiida_difftre.engine.matching.initial import Start
from aiida_difftre.engine.matching.prediction import Linearised, Predicted, predict_all, predictor
from aiida_difftre.engine.potentials.parameters import without_references
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop

CHECKPOINT_INTERVAL_S = 30.0

LEAST_HELD_OUT = 0.5
"""How much a configuration counts that is held out."""

UNREPORTED = {"step", "learning_rate"}
"""Of an entry of the history: what progress does not repeat."""


class Part(NamedTuple):
    """Configurations as a training step wants them: features (leading configuration axis), labels, real atoms."""

    features: Linearised | Configurations
    labels: Labels
    real: Array

    @property
    def size(self) -> int:
        """Number of configurations."""
        return int(self.labels.energy.shape[0])


class Dataset(NamedTuple):
    """Configurations to train with and to validate with, and what predicts their labels.

    Args:
        predict: energies, forces and stresses of a part's features.
        training: configurations that train.
        validation: those that are held out.
    """

    predict: Callable[..., Predicted]
    training: Part
    validation: Part


@dataclass
class State:
    """How far a training is: leaves of free parameters, of the best ones and of the optimizer state, and numbers."""

    free: list[Array]
    best: list[Array]
    optimizer: Any
    step: int = 0
    best_step: int = 0
    best_loss: float = float("inf")
    stale: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def split(
    alone: NDArray[np.bool_], fraction: float, seed: int, counts: NDArray[np.floating[Any]] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of training and validation configurations; at least one of each where both are wanted and possible.

    Args:
        alone: (configurations,), True for an atom alone; these always train.
        fraction: Fraction of the others that is held out.
        seed: Seed of the random choice.
        counts: How much each counts in the loss, (configurations,), from 0 to 1; None for all alike. Those that count
            less than half always train: held out, they would call any fit good.
    """
    stays = alone if counts is None else alone | (counts < LEAST_HELD_OUT)
    shared = np.flatnonzero(~stays)
    held_out = min(max(1, round(fraction * len(shared))), len(shared) - 1) if fraction > 0 else 0
    order = shared[np.random.default_rng(seed).permutation(len(shared))]
    return np.sort(np.concatenate([order[held_out:], np.flatnonzero(stays)])), np.sort(order[:held_out])


def divide(
    potential: Potential,
    parameters: Parameters,
    everything: Configurations,
    indices: tuple[NDArray[np.intp], NDArray[np.intp]],
    dtype: Any,
) -> Dataset:
    """The parts of a dataset as training steps want them; labels without atomic reference energies.

    Args:
        potential: the potential.
        parameters: its parameters; their reference energies are taken off the labels.
        everything: all configurations.
        indices: Indices of those that train, and of those that are held out (:func:`split`).
        dtype: Precision of the arithmetic.
    """
    composition = matching.compositions(everything, len(potential.spec.species))
    references = matching.reference_energies(composition, np.asarray(parameters["atomic_energies"]))
    labels = everything.labels._replace(energy=everything.labels.energy - references)
    predict, features = predictor(potential, everything, dtype)
    whole = Part(features, labels, jnp.asarray(everything.real))
    training, validation = (
        jax.tree.map(lambda leaf, chosen=chosen: _device_array(leaf[chosen], dtype), whole) for chosen in indices
    )
    return Dataset(predict, training, validation)


def _device_array(leaf: Any, dtype: Any) -> Array:
    return jnp.asarray(leaf, dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.asarray(leaf)


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds how far a training is.

    Args:
        path: Path of the file.
        identity: what it belongs to.
    """

    path: Path
    identity: str

    def read(self, fresh: State) -> State:
        """The state in the file; the fresh one where there is none.

        Raises:
            EngineError: with status INVALID_INPUT for the checkpoint of another job, CORRUPT_FILE for what does not
                fit.
        """
        if not self.path.exists():
            return fresh
        arrays, metadata = files.read_arrays(self.path)
        if metadata.get("job") != self.identity:
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                f"{self.path.name} belongs to another potential, dataset, seed, optimizer or loss; remove it to start "
                "anew",
            )
        leaves, structure = jax.tree.flatten(fresh.optimizer)
        try:
            restored = _restored(leaves, arrays, "optimizer")
            free, best = _restored(fresh.free, arrays, "free"), _restored(fresh.free, arrays, "best")
            numbers = json.loads(metadata["state"])
        except (KeyError, ValueError) as error:
            raise EngineError(
                ExitStatus.CORRUPT_FILE, f"{self.path.name} does not fit the job ({error}); remove it to start anew"
            ) from None
        return State(free, best, jax.tree.unflatten(structure, restored), **numbers)

    def write(self, state: State) -> None:
        """Replace the file by one that holds a state."""
        groups = {"free": state.free, "best": state.best, "optimizer": jax.tree.leaves(state.optimizer)}
        arrays = {
            f"{group}/{number}": np.asarray(leaf)
            for group, leaves in groups.items()
            for number, leaf in enumerate(leaves)
        }
        numbers = {key: getattr(state, key) for key in ("step", "best_step", "best_loss", "stale", "history")}
        files.write_arrays(self.path, arrays, {"job": self.identity, "state": json.dumps(numbers)})


def _restored(leaves: Sequence[Array], arrays: dict[str, NDArray[Any]], group: str) -> list[Array]:
    return [_like(leaf, arrays[f"{group}/{number}"]) for number, leaf in enumerate(leaves)]


def _like(leaf: Array, array: NDArray[Any]) -> Array:
    if array.shape != leaf.shape:
        raise ValueError(f"shape {array.shape} where {leaf.shape} is expected")
    return jnp.asarray(array, leaf.dtype)


class Fit:
    """The compiled training of one job.

    Args:
        job: settings.
        potential: the potential.
        start: parameters to start from.
        dataset: training and validation configurations.
    """

    def __init__(self, job: PretrainJob, potential: Potential, start: Start, dataset: Dataset) -> None:
        self._job, self._potential, self._predict = job, potential, dataset.predict
        self._training, self._validation = dataset.training, dataset.validation
        self._schedule = optimizers.cosine(job.optimizer, job.steps)
        self._optimizer = optimizers.make(job.optimizer, self._schedule)
        dtype = jnp.dtype(job.machine.precision)
        leaves, self._structure = jax.tree.flatten(without_references(start.parameters, dtype))
        # References that were fitted to what the initial terms leave move on with the terms, from zero: what belongs to
        # an atom and what to its surroundings is decided together.
        trainable = potential.trainable(start.parameters)
        movable = {**trainable, "atomic_energies": bool(start.fitted.any())}
        self._fitted = start.fitted
        self._movable = jax.tree.leaves(movable)
        self._fixed = [None if free else leaf for leaf, free in zip(leaves, self._movable, strict=True)]
        self._initial = [leaf for leaf, free in zip(leaves, self._movable, strict=True) if free]
        if not any(jax.tree.leaves(trainable)):
            raise EngineError(ExitStatus.INVALID_INPUT, "no term of the potential is trainable: nothing to fit")
        self._chunk = jax.jit(self._steps)
        self._evaluate = jax.jit(self._predict_all)

    def merge(self, free: list[Array]) -> Parameters:
        """The parameter tree with these free parameters."""
        moving = iter(free)
        leaves = [next(moving) if leaf is None else leaf for leaf in self._fixed]
        parameters: Parameters = jax.tree.unflatten(self._structure, leaves)
        offsets = jnp.where(self._fitted, parameters["atomic_energies"], 0.0)
        return {**parameters, "atomic_energies": offsets}

    def count(self, free: list[Array]) -> int:
        """Number of parameters that move."""
        idle = int(np.sum(~self._fitted)) if self._fitted.any() else 0
        return sum(leaf.size for leaf in free) - idle

    def _loss(self, free: list[Array], batch: Part) -> Array:
        predicted = self._predict(self._potential, self.merge(free), batch.features)
        return matching.loss(predicted, batch.labels, batch.real, self._job.weights)

    def _steps(self, free: list[Array], state: Any, batches: Array, training: Part) -> tuple[list[Array], Any, Array]:
        def step(carry: tuple[list[Array], Any], chosen: Array) -> tuple[tuple[list[Array], Any], Array]:
            free, state = carry
            batch = jax.tree.map(lambda leaf: leaf[chosen], training)
            value, slopes = jax.value_and_grad(self._loss)(free, batch)
            updates, state = self._optimizer.update(slopes, state, free)
            return (optax.apply_updates(free, updates), state), value

        (free, state), losses = jax.lax.scan(step, (free, state), batches)
        return free, state, jnp.mean(losses)

    def _predict_all(self, free: list[Array], part: Part) -> Predicted:
        size = self._job.machine.batch_size
        return predict_all(self._potential, self._predict, self.merge(free), part.features, size)

    def errors(self, free: list[Array], part: Part) -> dict[str, float]:
        """Errors on a part, and its loss."""
        predicted = self._evaluate(free, part)
        value = float(matching.loss(predicted, part.labels, part.real, self._job.weights))
        return {"loss": value, **matching.errors(predicted, part.labels, np.asarray(part.real))}

    def _batches(self) -> NDArray[np.int32]:
        """Configurations of every step: each epoch is a permutation."""
        size = min(self._job.batch_configurations, self._training.size)
        rng = np.random.default_rng(self._job.seed + 1)
        epochs = -(-self._job.steps * size // self._training.size)
        order = np.concatenate([rng.permutation(self._training.size) for _ in range(epochs)])
        return order[: self._job.steps * size].reshape(self._job.steps, size).astype(np.int32)

    def run(self, checkpoint: Checkpoint, stop: Stop, progress: Reporter) -> State:
        """Train, from a checkpoint where there is one, until the steps are done or patience ends.

        Raises:
            EngineError: for losses that are not finite, or a stop (after writing a checkpoint).
        """
        batches = self._batches()
        fresh = State([leaf.copy() for leaf in self._initial], self._initial, self._optimizer.init(self._initial))
        state = checkpoint.read(fresh)
        begun = state.step
        saved = time.monotonic()
        while state.step < self._job.steps and state.stale < self._job.patience:
            self._advance(state, batches)
            latest = state.history[-1]
            progress.report(
                "pretrain", state.step, self._job.steps, **{k: v for k, v in latest.items() if k not in UNREPORTED}
            )
            reason = stop.requested()
            if reason is not None or time.monotonic() - saved > CHECKPOINT_INTERVAL_S:
                checkpoint.write(state)
                saved = time.monotonic()
            if reason is not None:
                raise reason
        if state.step > begun:
            checkpoint.write(state)  # a signal after this finds the whole fit in it
        return state

    def _advance(self, state: State, batches: NDArray[np.int32]) -> None:
        """Steps up to the next evaluation, and what it finds."""
        end = min(state.step + self._job.evaluate_every, self._job.steps)
        state.free, state.optimizer, mean = self._chunk(
            state.free, state.optimizer, jnp.asarray(batches[state.step : end]), self._training
        )
        state.step = end
        found = self.errors(state.free, self._validation if self._validation.size else self._training)
        self._check(state, float(mean), found["loss"])
        rate = float(self._schedule(end))
        state.history.append({"step": end, "training_loss": float(mean), "learning_rate": rate, **found})
        if found["loss"] < state.best_loss:
            state.best, state.best_loss = [leaf.copy() for leaf in state.free], found["loss"]
            state.best_step, state.stale = end, 0
        else:
            state.stale += 1

    def _check(self, state: State, training: float, validation: float) -> None:
        if not (np.isfinite(training) and np.isfinite(validation)):
            raise EngineError(
                ExitStatus.NOT_FINITE,
                f"the loss is {training} in training and {validation} in validation at step {state.step}; lower "
                f"optimizer.learning_rate ({self._job.optimizer.learning_rate:g}) or set optimizer.clip_norm",
                {"step": state.step},
            )
