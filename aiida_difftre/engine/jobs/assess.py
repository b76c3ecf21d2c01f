"""The assessment job: what the targets determine of a potential, what they leave open, what would tell most."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract.assess_job import AssessJob, Candidate
from aiida_difftre.engine.contract.assessment import Advice, AssessedTarget, AssessResults, PairBand, Prior, Well
from aiida_difftre.engine.contract.dynamic_requests import is_dynamic
from aiida_difftre.engine.contract.jobs import StatePointTrajectory
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.records import Timings
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory, read_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs.members import drawn
from aiida_difftre.engine.potentials.potential import Potential, load
from aiida_difftre.engine.potentials.term import Environment, Parameters
from aiida_difftre.engine.refinement import losses
from aiida_difftre.engine.refinement.losses import TargetTerm
from aiida_difftre.engine.refinement.posterior import Posterior, evidence, posterior, prior_widths
from aiida_difftre.engine.refinement.sensitivities import columns, derivatives
from aiida_difftre.engine.reweighting.predictions import REPLICATES, reweighted_predictions
from aiida_difftre.engine.reweighting.reference import Reference, check_sampled_at, prepare_reference
from aiida_difftre.engine.runtime.progress import Reporter

DISTANCES = 60
"""At which energies of pairs are told."""

LARGEST_BYTES = 2 << 30
"""Of the derivatives of the energies of all snapshots of a state point by all parameters."""

OPEN = 1.5
"""What the targets leave open is worth a sentence where it is this many times the error of sampling."""


class _Model(NamedTuple):
    """The potential that is assessed.

    Args:
        potential: The potential.
        parameters: Its parameters.
        movable: For each leaf of the parameters, whether an optimizer may move it.
    """

    potential: Potential
    parameters: Parameters
    movable: Sequence[bool]


@dataclass(frozen=True)
class _Seen:
    """A state point to first order in the parameters.

    Args:
        label: Label of the state point.
        terms: Targets with the errors of their predictions.
        predictions: Predictions of the targets, then of the candidates.
        rows: Derivatives of each of these by the parameters.
        metric: Diagonal of the metric of the ensemble, (parameters,).
        atoms: Number of atoms.
        reference: The trajectory.
    """

    label: str
    terms: tuple[TargetTerm, ...]
    predictions: tuple[Prediction, ...]
    rows: tuple[Float[np.ndarray, "values parameters"], ...]
    metric: Float[np.ndarray, " parameters"]
    atoms: int
    reference: Reference


def run(job: AssessJob, folder: Path, progress: Reporter) -> AssessResults:
    """Assess a potential on the trajectories that it sampled.

    Args:
        job: The job, as it was read and checked.
        folder: Folder with the files of the job.
        progress: Takes a report of each state point.

    Returns:
        The content of ``results.json``.

    Raises:
        EngineError: For input that does not fit, and for derivatives that do not fit into memory.
    """
    began = time.monotonic()
    potential, parameters = load(folder / job.potential)
    movable = [bool(moves) for moves in jax.tree.leaves(potential.trainable(parameters))]
    if not any(movable):
        raise EngineError(ExitStatus.INVALID_INPUT, "no parameter of the potential may move; make a term trainable")
    model, seen = _Model(potential, parameters, movable), []
    for number, point in enumerate(job.state_points):
        candidates = [one for one in job.candidates if one.state_point == point.label]
        if candidates or not all(is_dynamic(target.request()) for target in point.targets):
            seen.append(_look(job, folder, model, point, candidates))
        progress.report("assess", number + 1, len(job.state_points))
    terms = [term for point in seen for term in point.terms]
    values = [np.asarray(p.values) for point in seen for p in point.predictions[: len(point.terms)]]
    chi2 = losses.reduced_chi2(values, terms, "training")
    residuals = [
        term.whitened(rows)
        for point in seen
        for term, rows in zip(point.terms, point.rows[: len(point.terms)], strict=True)
        if term.target.is_in_loss
    ]
    jacobian = np.concatenate(residuals)
    metric = np.mean([point.metric for point in seen], axis=0)
    sizes = [leaf.size for leaf, moves in zip(jax.tree.leaves(parameters), movable, strict=True) if moves]
    arrays = np.repeat(np.arange(len(sizes)), sizes)
    atoms = round(float(np.mean([point.atoms for point in seen])))
    widths = prior_widths(metric, arrays, width=job.prior_width, atoms=atoms)
    if not all(np.isfinite(array).all() for array in (jacobian, widths)):
        raise EngineError(ExitStatus.NOT_FINITE, "a derivative of an observable by the parameters is not finite")
    found = posterior(jacobian, widths, chi2 or 1.0)
    prior = Prior(width=job.prior_width, suggested=_suggested(job, folder, model, found))
    pairs, pair_rows = _pairs(job, folder, model, found)
    results = AssessResults(
        parameters=len(widths),
        points=len(jacobian),
        chi2=float(chi2 or 0.0),
        prior=prior,
        determined=found.determined,
        effective=found.effective,
        gains=found.gains.tolist(),
        state_points={point.label: _assessed(point, found) for point in seen},
        pairs=pairs,
        advice=_advice(job, seen, found, pairs, pair_rows),
        timings=Timings(update_s=time.monotonic() - began),
    )
    if job.members:
        of_points = {point.label: point.reference for point in seen}
        ensemble = drawn(job.members, (potential, parameters, movable), found, of_points, folder, job.seed)
        results.members = ensemble.members
        for label, spreads in ensemble.spreads.items():
            for target, spread in zip(results.state_points[label], spreads or [], strict=False):
                target.member_errors = spread.tolist()
    results.sentences = sentences(results)
    return results


def _look(
    job: AssessJob, folder: Path, model: _Model, point: StatePointTrajectory, candidates: Sequence[Candidate]
) -> _Seen:
    """Average and derive what was and what could be measured at a state point."""
    potential, parameters, movable = model
    trajectory = read_trajectory(folder / point.trajectory)
    state = StatePoint(point.temperature, point.pressure)
    check_sampled_at(trajectory, state)
    # How parameters move what the dynamics alone tells is not known here.
    targets = [target for target in point.targets if not is_dynamic(target.request())]
    requests = [target.request() for target in targets] + [one.request() for one in candidates]
    size = sum(leaf.size for leaf, moves in zip(jax.tree.leaves(parameters), movable, strict=True) if moves)
    if len(trajectory.energies) * size * 8 > LARGEST_BYTES:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"derivatives of {len(trajectory.energies)} snapshots by {size} parameters take more than "
            f"{LARGEST_BYTES >> 30} GiB; take a trajectory of fewer snapshots, or let fewer terms be trainable",
        )
    machine = job.machine.share_of(len(job.state_points))
    ref = prepare_reference(potential, parameters, trajectory, requests, machine, state)
    predictions, quantities = reweighted_predictions(ref, parameters, replicates=REPLICATES, seed=job.seed)

    def averages(arrays: dict[str, Array]) -> Array:
        return jnp.concatenate([jnp.ravel(one) for one in ref.averages(arrays, ref.weights(arrays["energy"]))])

    cotangents = jax.jit(jax.jacrev(averages))({key: jnp.asarray(value) for key, value in quantities.items()})
    jacobian, rows = derivatives(ref, parameters, quantities["energy"], cotangents, movable)
    ends = np.cumsum([len(prediction.values) for prediction in predictions])
    parts = tuple(jacobian[end - len(p.values) : end] for p, end in zip(predictions, ends, strict=True))
    terms = tuple(
        TargetTerm(target, np.asarray(prediction.errors))
        for target, prediction in zip(targets, predictions, strict=False)
    )
    metric = np.sum(rows**2, axis=0)
    return _Seen(point.label, terms, tuple(predictions), parts, metric, len(trajectory.species), ref)


def _suggested(job: AssessJob, folder: Path, model: _Model, found: Posterior) -> float | None:
    """The width of the prior for which the way of the refinement speaks."""
    if job.start is None:
        return None
    other, before = load(folder / job.start)
    if other != model.potential:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"{job.start} is a potential of another form than {job.potential}; give the one that its refinement "
            "started from",
        )
    moved = columns(jax.tree.map(jnp.subtract, model.parameters, before), model.movable)[0]
    told = evidence(found, moved)
    return None if told is None else job.prior_width * told.factor


def _assessed(point: _Seen, found: Posterior) -> list[AssessedTarget]:
    return [
        AssessedTarget(
            label=term.target.name,
            observable=term.target.observable,
            role=term.target.role,
            unit=term.target.unit,
            grid=term.target.grid,
            values=list(prediction.values),
            sampling_errors=list(prediction.errors),
            model_errors=found.deviations(rows).tolist(),
            prior_errors=found.prior_deviations(rows).tolist(),
            measured=list(term.target.values),
            measured_errors=term.target.total_errors().tolist(),
        )
        for term, prediction, rows in zip(point.terms, point.predictions, point.rows, strict=False)
    ]


def pair_energies(
    potential: Potential, parameters: Parameters, pair: tuple[int, int], distances: Float[Array, " distances"]
) -> Float[Array, " distances"]:
    r"""Compute the energy of two atoms alone.

    .. math:: u(r) = U(\text{two atoms at the distance } r) - U(\text{two atoms far apart})

    Args:
        potential: The potential.
        parameters: Its parameters.
        pair: Indices of the species of the two.
        distances: Distances, (distances,), Å.

    Returns:
        Energies, (distances,), eV.
    """
    species = jnp.asarray(pair)

    def dimer(distance: Array, is_near: Array) -> Array:
        nothing = jnp.zeros_like(distance)
        vector = jnp.stack([distance, nothing, nothing])
        surroundings = Environment(
            displacements=jnp.stack([vector, -vector])[:, None],
            mask=jnp.broadcast_to(is_near, (2, 1)),
            species=species,
            neighbor_species=species[::-1, None],
            neighbors=jnp.array([[1], [0]]),
        )
        return potential.total(parameters, surroundings)

    near = jax.vmap(lambda distance: dimer(distance, jnp.array(True)))(distances)
    return near - dimer(distances[-1], jnp.array(False))


def _pairs(
    job: AssessJob, folder: Path, model: _Model, found: Posterior
) -> tuple[list[PairBand], list[NDArray[np.float64]]]:
    """Energies of all pairs with their bands, and their derivatives by the parameters."""
    potential, parameters, movable = model
    if potential.has_external or not potential.has_neighbors:
        return [], []
    if job.pair_distances is None:
        shortest = min(_shortest(read_trajectory(folder / point.trajectory)) for point in job.state_points)
        distances = np.linspace(0.95 * min(shortest, potential.cutoff), potential.cutoff, DISTANCES)
    else:
        distances = np.asarray(job.pair_distances, np.float64)
    bands, slopes = [], []
    symbols = potential.spec.species
    for pair in itertools.combinations_with_replacement(range(len(symbols)), 2):

        def energies(values: Parameters, pair: tuple[int, int] = pair) -> Array:
            return pair_energies(potential, values, pair, jnp.asarray(distances))

        energy = np.asarray(jax.jit(energies)(parameters))
        rows = columns(jax.jit(jax.jacrev(energies))(parameters), movable, len(distances))
        errors, before = found.deviations(rows), found.prior_deviations(rows)
        lowest = int(np.argmin(energy))
        well = None
        if 0 < lowest < len(distances) - 1:
            well = Well(
                distance=float(distances[lowest]),
                depth=-float(energy[lowest]),
                error=float(errors[lowest]),
                prior_error=float(before[lowest]),
            )
        names = (symbols[pair[0]], symbols[pair[1]])
        bands.append(
            PairBand(
                pair=names,
                distances=distances.tolist(),
                energies=energy.tolist(),
                errors=errors.tolist(),
                prior_errors=before.tolist(),
                well=well,
            )
        )
        slopes.append(rows)
    return bands, slopes


def _shortest(trajectory: Trajectory) -> float:
    """A distance below which hardly any pair was seen: the shortest one of the last snapshot, Å."""
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    cell = trajectory.cell * float(trajectory.scales[-1])
    atoms = Atoms(trajectory.species, scaled_positions=trajectory.positions[-1], cell=cell, pbc=True)
    radius = 1.0
    while len(found := neighbor_list("d", atoms, radius)) == 0:
        radius *= 1.5
    return float(found.min())


def _advice(
    job: AssessJob,
    seen: Sequence[_Seen],
    found: Posterior,
    pairs: Sequence[PairBand],
    pair_rows: Sequence[NDArray[np.float64]],
) -> list[Advice]:
    """Rank the candidates by what they would leave of the deviations of all targets and pairs."""
    asked = {
        f"{point.label}/{term.target.name}": rows
        for point in seen
        for term, rows in zip(point.terms, point.rows, strict=False)
    }
    asked |= {"-".join(band.pair): rows for band, rows in zip(pairs, pair_rows, strict=True)}
    before = {name: _size(found.deviations(rows)) for name, rows in asked.items()}
    advice = []
    for point in seen:
        names = [one for one in job.candidates if one.state_point == point.label]
        for candidate, rows in zip(names, point.rows[len(point.terms) :], strict=True):
            errors = np.full(len(rows), candidate.error)
            left = {
                name: _size(found.after(rows, errors, wanted)) / before[name]
                for name, wanted in asked.items()
                if before[name] > 0
            }
            gains = np.linalg.svd(found.factor(rows) / candidate.error, compute_uv=False) ** 2
            advice.append(
                Advice(
                    name=candidate.name,
                    state_point=point.label,
                    information=float(np.sum(np.log1p(gains)) / 2),
                    left=left,
                    mean_left=math.exp(float(np.mean(np.log(list(left.values()))))) if left else 1.0,
                )
            )
    return sorted(advice, key=lambda one: one.mean_left)


def _size(deviations: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(deviations**2)))


def sentences(results: AssessResults) -> list[str]:
    """Say in words what an assessment found.

    Args:
        results: The assessment; its sentences are not looked at.

    Returns:
        Sentences, the most important ones first.
    """
    said = [
        f"The training targets determine {results.determined} of {results.parameters} parameters' directions "
        f"(effectively {results.effective:.1f}); the others are as open as before the experiment."
    ]
    said += [
        f"The well of {'-'.join(band.pair)} at {band.well.distance:.2f} Å is {1000 * band.well.depth:.3g} ± "
        f"{1000 * band.well.error:.2g} meV deep; before the experiment it was open by ± "
        f"{1000 * band.well.prior_error:.2g} meV."
        for band in results.pairs
        if band.well is not None
    ]
    for label, targets in results.state_points.items():
        for target in targets:
            model, sampling = _size(np.array(target.model_errors)), _size(np.array(target.sampling_errors))
            if target.role != "training" and model > OPEN * sampling:
                said.append(
                    f"{label}: the training targets leave {target.label} open by ± {model:.2g} {target.unit}, beside "
                    f"± {sampling:.2g} {target.unit} of sampling."
                )
    said += _of_members(results)
    if results.prior.suggested is not None and results.prior.suggested > 2 * results.prior.width:
        said.append(
            f"The refinement moved further than a prior width of {results.prior.width:g} kT per atom makes likely; "
            f"set prior_width to about {results.prior.suggested:.2g}."
        )
    if results.advice:
        best = results.advice[0]
        said.append(
            f"Of the measurements that could be made, {best.name} at {best.state_point} would tell most: it would "
            f"leave {best.mean_left:.0%} of the open deviations."
        )
    return said


def _of_members(results: AssessResults) -> list[str]:
    """How far the members spread beside what was propagated, at each state point."""
    said = []
    for label, targets in results.state_points.items():
        held = sum(label in member.held for member in results.members)
        if not results.members:
            continue
        sentence = f"{label}: the trajectory stands for {held} of {len(results.members)} members of the ensemble"
        ratios = [
            _size(np.array(target.member_errors)) / model
            for target in targets
            if target.member_errors is not None and (model := _size(np.array(target.model_errors))) > 0
        ]
        if ratios:
            said.append(
                f"{sentence}; their spread is {min(ratios):.2g} to {max(ratios):.2g} of what the targets leave."
            )
        else:
            said.append(f"{sentence}, too few for a spread: sample with them.")
    return said
