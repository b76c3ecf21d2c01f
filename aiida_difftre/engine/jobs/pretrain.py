"""The pretraining job: energy, force and stress matching of a dataset, or initial parameters alone."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from aiida_difftre.engine.bases.loading import of_potential
from aiida_difftre.engine.contract import files, frames
from aiida_difftre.engine.contract.jobs import CHECKPOINT, POTENTIAL_OUT, PretrainJob
from aiida_difftre.engine.contract.matching_results import MatchingErrors, PretrainErrors, PretrainResults, PretrainStep
from aiida_difftre.engine.matching import configurations, initial
from aiida_difftre.engine.matching.base_labels import subtracting
from aiida_difftre.engine.matching.fit import Checkpoint, Fit, divide, split
from aiida_difftre.engine.potentials.potential import Potential, save
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop

IDENTIFYING = {"seed", "keys", "atomic_energies", "weights", "validation_fraction", "optimizer", "batch_configurations"}
"""Of a job: what its checkpoint belongs to, besides the potential and the dataset."""


def run(job: PretrainJob, folder: Path, progress: Reporter) -> PretrainResults:
    """Match a dataset; write the potential with the smallest validation loss.

    Args:
        job: The job, as it was read and checked.
        folder: Folder with the files of the job; a checkpoint of an earlier run in it is continued from.
        progress: Takes steps, losses and validation errors.

    Returns:
        Errors on both parts, the history and what was done.

    Raises:
        EngineError: For invalid input, losses that are not finite, or a stop (after writing a checkpoint).
    """
    started = time.monotonic()
    if job.steps == 0:
        made = initial.make(job, folder)
        made.seconds = round(time.monotonic() - started, 2)
        return made
    stop = Stop(job.machine.walltime_s)
    potential, beginning = initial.start(job, folder)
    found = configurations.read_training(folder / job.dataset, job.keys)
    if potential.spec.base is not None:
        progress.report("base", 0, 1)
        base = of_potential(potential.spec, folder, job.base_files)
        without_base = subtracting(base, potential.spec.base.digest)
        found = found if without_base is None else without_base(found)
    everything = configurations.pad(found.frames, potential.spec.species, potential.cutoff)
    labels, weights = configurations.weighted(everything.labels, found.frames, job.widths, "widths")
    everything = everything._replace(labels=labels)
    counts = np.min(list(weights.values()), axis=0) if weights else None
    indices = split(found.alone, job.validation_fraction, job.seed, counts)
    start = initial.prepare(job, potential, beginning, everything, indices[0], found)
    first = int(np.argmin(found.alone))
    one = jax.tree.map(lambda leaf: leaf[first], everything.environment)
    device.self_check(potential, start.parameters, one, "float64")

    dataset = divide(potential, start.parameters, everything, indices, jnp.dtype(job.machine.precision))
    fit = Fit(job, potential, start, dataset)
    checkpoint = Checkpoint(folder / CHECKPOINT, _identity(job, potential, folder))
    with stop:
        state = fit.run(checkpoint, stop, progress)

    result = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), fit.merge(state.best))
    final = {**result, "atomic_energies": start.parameters["atomic_energies"] + result["atomic_energies"]}
    save(folder / POTENTIAL_OUT, potential, final)
    parts = {"training": dataset.training, "validation": dataset.validation}
    errors = {name: MatchingErrors(**fit.errors(state.best, part)) for name, part in parts.items() if part.size}
    return PretrainResults(
        errors=PretrainErrors(**errors),
        configurations={name: part.size for name, part in parts.items()},
        history=[PretrainStep.model_validate(step) for step in state.history],
        steps=state.step,
        best_step=state.best_step,
        best_loss=state.best_loss,
        stopped_early=state.step < job.steps,
        labels=found.describe(),
        label_weights=weights,
        number_of_parameters=fit.count(state.free),
        atomic_energies=dict(zip(potential.spec.species, final["atomic_energies"].tolist(), strict=True)),
        seconds=round(time.monotonic() - started, 2),
    )


def _identity(job: PretrainJob, potential: Potential, folder: Path) -> str:
    """What a checkpoint belongs to."""
    widths = {"widths"} if job.widths.given() else set()  # as checkpoints had it before there were any
    settings = job.model_dump_json(include=IDENTIFYING | widths)
    source, index = frames.split_index(folder / job.dataset)
    base = "" if potential.spec.base is None else potential.spec.base.digest
    described = f"{potential.without_base().spec.model_dump_json()}{base}{files.digest(source)}{index or ''}{settings}"
    return hashlib.sha256(described.encode()).hexdigest()
