"""Pretraining: energy, force and stress matching of a dataset with an optax optimizer; or initial parameters alone."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
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
from aiida_difftre.engine.contract import files, frames, labels
from aiida_difftre.engine.contract.jobs import CHECKPOINT, POTENTIAL_OUT, PretrainJob
from aiida_difftre.engine.contract.labels import Labelled
from aiida_difftre.engine.contract.results import MatchingErrors, PretrainErrors, PretrainResults, PretrainStep
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.matching import configurations as dataset
from aiida_difftre.engine.matching import initial, matching
from aiida_difftre.engine.matching.configurations import Configurations, Labels
from aiida_difftre.engine.matching.matching import Linearised, Predicted
from aiida_difftre.engine.potentials.potential import Potential, save, without_references
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop

IDENTIFYING = {"seed", "keys", "atomic_energies", "weights", "validation_fraction", "optimizer", "batch_configurations"}
"""Of a job: what its checkpoint belongs to, besides the potential and the dataset."""

CHECKPOINT_INTERVAL_S = 30.0


class Part(NamedTuple):
    """Configurations as a training step wants them: features (leading configuration axis), labels, real atoms."""

    features: Linearised | Configurations
    labels: Labels
    real: Array

    @property
    def size(self) -> int:
        """Number of configurations."""
        return int(self.labels.energy.shape[0])


@dataclass
class _State:
    """What a checkpoint holds: leaves of free parameters, of the best ones and of the optimizer state, and numbers."""

    free: list[Array]
    best: list[Array]
    optimizer: Any
    step: int = 0
    best_step: int = 0
    best_loss: float = float("inf")
    stale: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def run(job: PretrainJob, folder: Path, progress: Reporter) -> PretrainResults:
    """Match a dataset; write the potential with the smallest validation loss.

    Args:
        job: what to do.
        folder: where the files of the job lie; a checkpoint of an earlier run in it is continued from.
        progress: takes step, losses and validation errors.

    Returns:
        Errors on both parts, the history and what was done.

    Raises:
        EngineError: for invalid input, losses that are not finite, or a stop (after writing a checkpoint).
    """
    started = time.monotonic()
    if job.steps == 0:
        made = initial.make(job, folder)
        made.seconds = round(time.monotonic() - started, 2)
        return made
    stop = Stop(job.machine.walltime_s)
    schedule = optimizers.cosine(job.optimizer, job.steps)
    optimizer = optimizers.make(job.optimizer, schedule)
    potential, beginning = initial.start(job, folder)
    found = dataset.read_training(folder / job.dataset, job.keys)
    everything = dataset.pad(found.frames, potential.spec.species, potential.cutoff)
    training, validation = split(found.alone, job.validation_fraction, job.seed)
    parameters, fitted = _prepare(job, potential, beginning, everything, training, found)
    first = int(np.argmin(found.alone))
    one = jax.tree.map(lambda leaf: leaf[first], everything.environment)
    device.self_check(potential, parameters, one, "float64")

    dtype = jnp.dtype(job.machine.precision)
    predict, parts = _parts(potential, parameters, everything, (training, validation), dtype)
    fit = _Fit(job, potential, parameters, fitted, predict, parts, dtype, optimizer, schedule)
    settings = job.model_dump_json(include=IDENTIFYING)
    source, index = frames.split_index(folder / job.dataset)
    described = f"{potential.spec.model_dump_json()}{files.digest(source)}{index or ''}{settings}"
    identity = hashlib.sha256(described.encode()).hexdigest()
    with stop:
        state = fit.run(folder / CHECKPOINT, identity, stop, progress)

    result = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), fit.merge(state.best))
    final = {**result, "atomic_energies": parameters["atomic_energies"] + result["atomic_energies"]}
    save(folder / POTENTIAL_OUT, potential, final)
    names = ("training", "validation")
    errors = {
        name: MatchingErrors(**fit.errors(state.best, part))
        for name, part in zip(names, parts, strict=True)
        if part.size
    }
    return PretrainResults(
        errors=PretrainErrors(**errors),
        configurations={name: part.size for name, part in zip(names, parts, strict=True)},
        history=[PretrainStep.model_validate(step) for step in state.history],
        steps=state.step,
        best_step=state.best_step,
        best_loss=state.best_loss,
        stopped_early=state.step < job.steps,
        labels=found.describe(),
        number_of_parameters=fit.count(state.free),
        atomic_energies=dict(zip(potential.spec.species, final["atomic_energies"].tolist(), strict=True)),
        seconds=round(time.monotonic() - started, 2),
    )


def split(alone: NDArray[np.bool_], fraction: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of training and validation configurations; at least one of each where both are wanted and possible.

    Args:
        alone: (configurations,), True for an atom alone; these always train.
        fraction: Fraction of the others that is held out.
        seed: Seed of the random choice.
    """
    shared = np.flatnonzero(~alone)
    held_out = min(max(1, round(fraction * len(shared))), len(shared) - 1) if fraction > 0 else 0
    order = shared[np.random.default_rng(seed).permutation(len(shared))]
    return np.sort(np.concatenate([order[held_out:], np.flatnonzero(alone)])), np.sort(order[:held_out])


def _prepare(
    job: PretrainJob,
    potential: Potential,
    parameters: Parameters,
    everything: Configurations,
    training: NDArray[np.intp],
    found: Labelled,
) -> tuple[Parameters, NDArray[np.bool_]]:
    """Standardise a new potential on the training part and set the atomic reference energies.

    Returns:
        Parameters, and for which species the reference energy is fitted and moves on with the terms.
    """
    species = potential.spec.species
    by_species = initial.known_references(job.atomic_energies, potential, found)
    if job.potential is None:
        kept = parameters["atomic_energies"].tolist()
        given = job.atomic_energies or {}
        stated = [given.get(symbol, energy) for symbol, energy in zip(species, kept, strict=True)]
        return {**parameters, "atomic_energies": jnp.asarray(stated, jnp.float64)}, np.zeros(len(species), bool)
    with dataset.explained():
        labels.check_seen(species, found.species(), by_species)
    known = np.array([by_species.get(symbol, np.nan) for symbol in species])
    crowded = training[~found.alone[training]]
    parameters = initial.standardised(potential, parameters, jax.tree.map(lambda leaf: leaf[crowded], everything))
    part = jax.tree.map(lambda leaf: leaf[training], everything)
    references = _fit_references(potential, parameters, part, known)
    return {**parameters, "atomic_energies": jnp.asarray(references, jnp.float64)}, np.isnan(known)


def _fit_references(
    potential: Potential, parameters: Parameters, part: Configurations, known: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Least squares of what the initial terms leave of the energies; the smallest where the composition is constant.

    Args:
        potential: the potential.
        parameters: its initial ones.
        part: configurations to train with.
        known: (species,), references that stay, eV; NaN for those to fit.
    """
    fitted = np.isnan(known)
    if not fitted.any():
        return known
    free = without_references(parameters, jnp.float64)

    def total(environment: Any, real: Array) -> Array:
        return jnp.sum(real * potential.energies(free, environment))

    energies = jax.jit(lambda e, r: jax.lax.map(lambda pair: total(*pair), (e, r)))(part.environment, part.real)
    composition = matching.compositions(part, len(potential.spec.species))
    left = part.labels.energy - np.asarray(energies) - composition[:, ~fitted] @ known[~fitted]
    references = known.copy()
    references[fitted] = np.linalg.lstsq(composition[:, fitted], left, rcond=1e-10)[0]
    return references


def _parts(
    potential: Potential,
    parameters: Parameters,
    everything: Configurations,
    indices: tuple[NDArray[np.intp], ...],
    dtype: Any,
) -> tuple[Callable[..., Predicted], list[Part]]:
    """How to predict, and the parts of the dataset as that wants them; labels without atomic reference energies."""
    composition = matching.compositions(everything, len(potential.spec.species))
    references = matching.reference_energies(composition, np.asarray(parameters["atomic_energies"]))
    labels = everything.labels._replace(energy=everything.labels.energy - references)
    predict, features = matching.features(potential, everything, dtype)
    whole = Part(features, labels, jnp.asarray(everything.real))
    return predict, [
        jax.tree.map(lambda leaf, chosen=chosen: _device_array(leaf[chosen], dtype), whole) for chosen in indices
    ]


def _device_array(leaf: Any, dtype: Any) -> Array:
    return jnp.asarray(leaf, dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.asarray(leaf)


class _Fit:
    """The compiled training of one job.

    Args:
        job: settings.
        potential: the potential.
        parameters: Parameters to start from.
        fitted: (species,), True where the reference energy moves on with the terms.
        predict: energies, forces and stresses of a part's features.
        parts: training and validation configurations.
        dtype: Precision of parameters and arithmetic.
        optimizer: moves the free parameters.
        schedule: its learning rate.
    """

    def __init__(
        self,
        job: PretrainJob,
        potential: Potential,
        parameters: Parameters,
        fitted: NDArray[np.bool_],
        predict: Callable[..., Predicted],
        parts: list[Part],
        dtype: Any,
        optimizer: optax.GradientTransformation,
        schedule: optax.Schedule,
    ) -> None:
        self._job, self._potential, self._predict = job, potential, predict
        self._training, self._validation = parts
        leaves, self._structure = jax.tree.flatten(without_references(parameters, dtype))
        # References that were fitted to what the initial terms leave move on with the terms, from zero: what belongs to
        # an atom and what to its surroundings is decided together.
        movable = {**potential.trainable(parameters), "atomic_energies": bool(fitted.any())}
        self._fitted = fitted
        self._movable = jax.tree.leaves(movable)
        self._fixed = [None if free else leaf for leaf, free in zip(leaves, self._movable, strict=True)]
        self._initial = [leaf for leaf, free in zip(leaves, self._movable, strict=True) if free]
        if not any(jax.tree.leaves(potential.trainable(parameters))):
            raise EngineError(ExitStatus.INVALID_INPUT, "no term of the potential is trainable: nothing to fit")
        self._optimizer, self._schedule = optimizer, schedule
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
        return matching.predict_all(self._potential, self._predict, self.merge(free), part.features, size)

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

    def run(self, checkpoint: Path, identity: str, stop: Stop, progress: Reporter) -> _State:
        """Train, from a checkpoint where there is one, until the steps are done or patience ends."""
        batches = self._batches()
        state = self._resume(checkpoint, identity)
        begun = state.step
        judged = self._validation if self._validation.size else self._training
        saved = time.monotonic()
        while state.step < self._job.steps and state.stale < self._job.patience:
            end = min(state.step + self._job.evaluate_every, self._job.steps)
            state.free, state.optimizer, mean = self._chunk(
                state.free, state.optimizer, jnp.asarray(batches[state.step : end]), self._training
            )
            state.step = end
            found = self.errors(state.free, judged)
            self._check(state, float(mean), found["loss"])
            rate = float(self._schedule(end))
            state.history.append({"step": end, "training_loss": float(mean), "learning_rate": rate, **found})
            progress.report("pretrain", end, self._job.steps, training_loss=float(mean), **found)
            if found["loss"] < state.best_loss:
                state.best, state.best_loss = [leaf.copy() for leaf in state.free], found["loss"]
                state.best_step, state.stale = end, 0
            else:
                state.stale += 1
            reason = stop.requested()
            if reason is not None or time.monotonic() - saved > CHECKPOINT_INTERVAL_S:
                self._save(checkpoint, identity, state)
                saved = time.monotonic()
            if reason is not None:
                raise reason
        if state.step > begun:
            self._save(checkpoint, identity, state)  # a signal after this finds the whole fit in it
        return state

    def _check(self, state: _State, training: float, validation: float) -> None:
        if not (np.isfinite(training) and np.isfinite(validation)):
            raise EngineError(
                ExitStatus.NOT_FINITE,
                f"the loss is {training} in training and {validation} in validation at step {state.step}; lower "
                f"optimizer.learning_rate ({self._job.optimizer.learning_rate:g}) or set optimizer.clip_norm",
                {"step": state.step},
            )

    def _resume(self, checkpoint: Path, identity: str) -> _State:
        fresh = _State([leaf.copy() for leaf in self._initial], self._initial, self._optimizer.init(self._initial))
        if not checkpoint.exists():
            return fresh
        arrays, metadata = files.read_arrays(checkpoint)
        if metadata.get("job") != identity:
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                f"{checkpoint.name} belongs to another potential, dataset, seed, optimizer or loss; remove it to start "
                "anew",
            )
        leaves, structure = jax.tree.flatten(fresh.optimizer)
        try:
            restored = [_like(leaf, arrays[f"optimizer/{number}"]) for number, leaf in enumerate(leaves)]
            free = [_like(leaf, arrays[f"free/{number}"]) for number, leaf in enumerate(self._initial)]
            best = [_like(leaf, arrays[f"best/{number}"]) for number, leaf in enumerate(self._initial)]
            numbers = json.loads(metadata["state"])
        except (KeyError, ValueError) as error:
            raise EngineError(
                ExitStatus.CORRUPT_FILE, f"{checkpoint.name} does not fit the job ({error}); remove it to start anew"
            ) from None
        return _State(free, best, jax.tree.unflatten(structure, restored), **numbers)

    def _save(self, checkpoint: Path, identity: str, state: _State) -> None:
        groups = {"free": state.free, "best": state.best, "optimizer": jax.tree.leaves(state.optimizer)}
        arrays = {
            f"{group}/{number}": np.asarray(leaf)
            for group, leaves in groups.items()
            for number, leaf in enumerate(leaves)
        }
        numbers = {key: getattr(state, key) for key in ("step", "best_step", "best_loss", "stale", "history")}
        files.write_arrays(checkpoint, arrays, {"job": identity, "state": json.dumps(numbers)})


def _like(leaf: Array, array: NDArray[Any]) -> Array:
    if array.shape != leaf.shape:
        raise ValueError(f"shape {array.shape} where {leaf.shape} is expected")
    return jnp.asarray(array, leaf.dtype)
