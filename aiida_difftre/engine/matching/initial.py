"""Initial parameters: of a potential to train, or of one that starts from scratch, without any labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jaxtyping import Array
from numpy.typing import NDArray

from aiida_difftre.engine.bases.loading import of_potential
from aiida_difftre.engine.contract import labels
from aiida_difftre.engine.contract.jobs import POTENTIAL_OUT, PretrainJob
from aiida_difftre.engine.contract.labels import Labelled
from aiida_difftre.engine.contract.matching_results import PretrainErrors, PretrainResults
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.matching import configurations, matching
from aiida_difftre.engine.matching.base_labels import subtracting
from aiida_difftre.engine.matching.configurations import Configurations
from aiida_difftre.engine.potentials.parameters import without_references
from aiida_difftre.engine.potentials.potential import Potential, build, load, save
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.runtime import device

ENVIRONMENTS = 256
"""Atoms in rattled copies of structures without labels, at least; enough for means and deviations."""


class Start(NamedTuple):
    """Parameters to start a training from.

    Args:
        parameters: Parameters, with atomic reference energies.
        fitted: (species,), True where the reference energy was fitted, and moves on with the terms.
    """

    parameters: Parameters
    fitted: NDArray[np.bool_]


def start(job: PretrainJob, folder: Path) -> tuple[Potential, Parameters]:
    """The potential of a job: new, with random weights where its architecture has them, or from a file.

    Raises:
        EngineError: for a spec or a file that is invalid.
    """
    if job.potential is not None:
        potential = build(job.potential)
        return potential, potential.init(jax.random.key(job.seed))
    if job.initial_potential is None:
        raise EngineError(ExitStatus.INVALID_INPUT, "give either potential or initial_potential")
    return load(folder / job.initial_potential)


def make(job: PretrainJob, folder: Path) -> PretrainResults:
    """Write a potential with its initial parameters, standardised on rattled structures."""
    potential, parameters = start(job, folder)
    found = configurations.read(folder / job.dataset, job.keys)
    if potential.spec.base is not None and found.alone.any():  # whose energies are references, of the terms alone
        without_base = subtracting(of_potential(potential.spec, folder, job.base_files), potential.spec.base.digest)
        found = found if without_base is None else without_base(found)
    crowded = [atoms for atoms, alone in zip(found.frames, found.alone, strict=True) if not alone]
    if not crowded:
        raise EngineError(
            ExitStatus.INVALID_INPUT, f"{job.dataset} holds atoms alone; give structures of several atoms"
        )
    frames = rattled(crowded, job.rattle, job.seed)
    everything = configurations.pad(frames, potential.spec.species, potential.cutoff)
    final = standardised(potential, parameters, everything)
    device.self_check(potential, final, jax.tree.map(lambda leaf: leaf[0], everything.environment), "float64")
    known = known_references(job.atomic_energies, potential, found)
    references = np.array([known.get(symbol, 0.0) for symbol in potential.spec.species])
    final = {**final, "atomic_energies": jnp.asarray(references)}
    save(folder / POTENTIAL_OUT, potential, final)
    movable = zip(jax.tree.leaves(final), jax.tree.leaves(potential.trainable(final)), strict=True)
    return PretrainResults(
        errors=PretrainErrors(),
        configurations={},
        history=[],
        steps=0,
        best_step=0,
        stopped_early=False,
        number_of_parameters=sum(leaf.size for leaf, free in movable if free),
        atomic_energies=dict(zip(potential.spec.species, final["atomic_energies"].tolist(), strict=True)),
    )


def rattled(frames: list[Atoms], deviation: float, seed: int) -> list[Atoms]:
    """Copies of structures with normal displacements, as many as make :data:`ENVIRONMENTS` atoms; at least one of each.

    Args:
        frames: structures.
        deviation: standard deviation of the displacements along each axis, Å.
        seed: Seed of the displacements.

    Returns:
        The copies.
    """
    copies = -(-ENVIRONMENTS // sum(len(frame) for frame in frames))
    rng = np.random.default_rng(seed)
    made = []
    for frame in (frame for frame in frames for _ in range(copies)):
        copy = Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=frame.pbc)
        copy.positions += rng.normal(scale=deviation, size=copy.positions.shape)
        made.append(copy)
    return made


def standardised(potential: Potential, parameters: Parameters, part: Configurations) -> Parameters:
    """Parameters with buffers that fit the environments of a part."""
    atoms = np.nonzero(part.real.reshape(-1))[0]
    environment = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[atoms], part.environment)
    environment = environment._replace(neighbors=None)  # of atoms one by one; terms with buffers pass no messages
    terms = dict(parameters["terms"])
    for name, term in zip(potential.names(), potential.terms, strict=True):
        if term.buffers:
            terms[name] = term.standardise(terms[name], jax.jit(term.project)(environment))
    return {**parameters, "terms": terms}


def known_references(given: dict[str, float] | None, potential: Potential, found: Labelled) -> dict[str, float]:
    """Atomic reference energies (eV) that need no fit, as :func:`labels.known_references` says.

    Raises:
        EngineError: for those that are given in part, or otherwise than an atom alone says.
    """
    with configurations.explained():
        return labels.known_references(given, potential.spec.species, found.species(), found.references())


def prepare(
    job: PretrainJob,
    potential: Potential,
    parameters: Parameters,
    everything: Configurations,
    training: NDArray[np.intp],
    found: Labelled,
) -> Start:
    """Standardise a new potential on the training part and set the atomic reference energies.

    Args:
        job: settings.
        potential: the potential.
        parameters: random ones, or those of a file.
        everything: all configurations.
        training: indices of those that train.
        found: what the dataset holds.

    Raises:
        EngineError: with status INVALID_INPUT, for reference energies that are missing.
    """
    species = potential.spec.species
    by_species = known_references(job.atomic_energies, potential, found)
    if job.potential is None:
        kept = parameters["atomic_energies"].tolist()
        given = job.atomic_energies or {}
        stated = [given.get(symbol, energy) for symbol, energy in zip(species, kept, strict=True)]
        return Start({**parameters, "atomic_energies": jnp.asarray(stated, jnp.float64)}, np.zeros(len(species), bool))
    with configurations.explained():
        labels.check_seen(species, found.species(), by_species)
    known = np.array([by_species.get(symbol, np.nan) for symbol in species])
    crowded = training[~found.alone[training]]
    parameters = standardised(potential, parameters, jax.tree.map(lambda leaf: leaf[crowded], everything))
    part = jax.tree.map(lambda leaf: leaf[training], everything)
    references = _fit_references(potential, parameters, part, known)
    return Start({**parameters, "atomic_energies": jnp.asarray(references, jnp.float64)}, np.isnan(known))


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
