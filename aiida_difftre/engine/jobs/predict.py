"""Prediction with a given potential: for structures, for a strained crystal at rest, or on a trajectory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from aiida_difftre.engine.bases.loading import of_potential
from aiida_difftre.engine.bases.protocol import BasePotential
from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.calculators.elasticity import static_stiffness
from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.jobs import PREDICTIONS, PredictJob
from aiida_difftre.engine.contract.matching_results import MatchingErrors
from aiida_difftre.engine.contract.records import Timings
from aiida_difftre.engine.contract.results import Conditions, PredictResults, Reweighting, StaticElasticity
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory, read_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import stability
from aiida_difftre.engine.matching import base_labels, configurations, matching
from aiida_difftre.engine.matching.prediction import Predicted
from aiida_difftre.engine.potentials.potential import Potential, load
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting import extrapolation
from aiida_difftre.engine.reweighting.predictions import REPLICATES, reweighted_predictions
from aiida_difftre.engine.reweighting.reference import prepare_reference, sampled_at
from aiida_difftre.engine.reweighting.weights import effective_size, reliable_size
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.units import EV_PER_A3_IN_GPA


class _Model(NamedTuple):
    """What predicts: a potential with its parameters, and its base where it has one."""

    potential: Potential
    parameters: Parameters
    base: BasePotential | None


def run(job: PredictJob, folder: Path, progress: Reporter) -> PredictResults:
    """Predict what the job asks for; arrays go to ``predictions.npz``.

    Args:
        job: The job, as it was read and checked.
        folder: Folder with the files of the job.
        progress: Takes a report of each phase.

    Returns:
        The content of ``results.json``.

    Raises:
        EngineError: For invalid input; TOO_FEW_EFFECTIVE_SAMPLES for a state point that the trajectory does not reach.
    """
    started = time.monotonic()
    potential, parameters = load(folder / job.potential)
    results = PredictResults(timings=Timings())
    if job.structures is not None:
        frames = configurations.read(folder / job.structures, job.keys).frames
        results.structures = len(frames)
        base = of_potential(potential.spec, folder, job.base_files)
        results.errors = _structures(job, _Model(potential, parameters, base), frames, folder, progress)
        if job.static_stiffness or job.stability:
            _at_rest(results, job, frames, DiffTReCalculator(potential, parameters, base=base), progress)
    structures_s = time.monotonic() - started
    if job.trajectory is not None:
        trajectory = read_trajectory(folder / job.trajectory)
        _predict_trajectory(results, job, potential, parameters, trajectory)
    total = time.monotonic() - started
    results.timings.structures_s, results.timings.trajectory_s = structures_s, total - structures_s
    return results


def _at_rest(
    results: PredictResults, job: PredictJob, frames: list[Atoms], calculator: DiffTReCalculator, progress: Reporter
) -> None:
    """Record what is asked for of crystals at rest."""
    if job.static_stiffness:
        results.static = StaticElasticity(**static_stiffness(frames[0], calculator, progress))
    if job.stability:
        began = time.monotonic()
        results.lattices = stability.lattices(frames, calculator, progress, job.wave_vectors)
        results.dimers = stability.dimers(calculator)
        results.timings.stability_s = time.monotonic() - began


def _predict_trajectory(
    results: PredictResults,
    job: PredictJob,
    potential: Potential,
    parameters: Parameters,
    trajectory: Trajectory,
) -> None:
    """Record observables at the state point of the job, and how many snapshots still stand for it.

    Raises:
        EngineError: with status TOO_FEW_EFFECTIVE_SAMPLES, where these are too few.
    """
    point = StatePoint(job.temperature or trajectory.temperature, job.pressure)
    ref = prepare_reference(potential, parameters, trajectory, job.observables, job.machine, point)
    weight = np.asarray(ref.weights(jnp.asarray(ref.energies)))
    size, reliable = effective_size(weight), reliable_size(weight)
    snapshots, g = len(ref.energies), ref.inefficiency({"energy": ref.energies})
    asked, here = StatePoint(ref.point.temperature, ref.point.pressure), sampled_at(trajectory)
    if asked != here or trajectory.reference_energies is not None:
        extrapolation.check(reliable, snapshots, g, str(here), str(asked))
    results.predictions = reweighted_predictions(ref, parameters, replicates=REPLICATES, seed=job.seed)[0]
    results.reweighting = Reweighting(
        sampled=Conditions(temperature=here.temperature, pressure=here.pressure),
        predicted=Conditions(temperature=asked.temperature, pressure=asked.pressure),
        snapshots=snapshots,
        n_eff_entropy=size.entropy,
        n_eff_kish=size.kish,
        statistical_inefficiency=g,
        n_eff_independent=reliable / g,
        least_n_eff_independent=extrapolation.least(snapshots, g),
        widening=extrapolation.widening(reliable, snapshots, g),
    )


def _structures(
    job: PredictJob,
    model: _Model,
    frames: list[Atoms],
    folder: Path,
    progress: Reporter,
) -> MatchingErrors:
    """Write energies, forces and stresses of all frames; errors where there are labels."""
    potential, parameters, base = model
    first = configurations.pad(frames[:1], potential.spec.species, potential.cutoff).environment
    device.self_check(potential, parameters, jax.tree.map(lambda leaf: leaf[0], first), "float64")
    calculator = DiffTReCalculator(potential.without_base(), parameters, precision=job.machine.precision)
    largest = max(len(frame) for frame in frames)
    energies, stresses = np.zeros(len(frames)), np.full((len(frames), 6), np.nan)
    forces, real = np.zeros((len(frames), largest, 3)), np.zeros((len(frames), largest))
    for number, frame in enumerate(frames):
        calculator.calculate(frame)
        energies[number] = calculator.results["energy"]
        forces[number, : len(frame)] = calculator.results["forces"]
        stresses[number] = calculator.results.get("stress", np.nan)
        real[number, : len(frame)] = 1
        progress.report("predict", number + 1, len(frames))
    of_base = {}
    if base is not None and potential.spec.base is not None:
        given = base_labels.of_frames(base, potential.spec.base.digest, frames)
        energies, stresses, of_base = energies + given.energies, stresses + given.stresses, given.to_arrays()
        forces[real > 0] += given.forces
    for name, array in (("energy", energies), ("force", forces)):
        bad = ~np.isfinite(array.reshape(len(frames), -1)).all(axis=1)
        if bad.any():
            number = int(np.argmax(bad))
            raise EngineError(
                ExitStatus.NOT_FINITE, f"the {name} of structure {number} in {job.structures} is not finite"
            )
    arrays = {
        "energies": energies,
        "forces": forces[real > 0],
        "stresses": stresses * EV_PER_A3_IN_GPA,
        "atoms": real.sum(axis=1).astype(np.int64),
    }
    files.write_npz(folder / PREDICTIONS, arrays | of_base)
    labels = configurations.labels_of(frames, largest)
    predicted = Predicted(energies, forces, stresses)  # type: ignore[arg-type]  # NumPy arrays do
    return MatchingErrors(**matching.errors(predicted, labels, real))
