"""Initial parameters: of a potential to train, or of one that starts from scratch, without any labels."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from aiida_difftre.engine.contract import labels
from aiida_difftre.engine.contract.jobs import POTENTIAL_OUT, PretrainJob
from aiida_difftre.engine.contract.labels import Labelled
from aiida_difftre.engine.contract.results import PretrainErrors, PretrainResults
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.matching import configurations as dataset
from aiida_difftre.engine.matching.configurations import Configurations
from aiida_difftre.engine.potentials.potential import Potential, build, load, save
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.runtime import device

ENVIRONMENTS = 256
"""Atoms in rattled copies of structures without labels, at least; enough for means and deviations."""


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
    found = dataset.read(folder / job.dataset, job.keys)
    crowded = [atoms for atoms, alone in zip(found.frames, found.alone, strict=True) if not alone]
    if not crowded:
        raise EngineError(
            ExitStatus.INVALID_INPUT, f"{job.dataset} holds atoms alone; give structures of several atoms"
        )
    frames = rattled(crowded, job.rattle, job.seed)
    everything = dataset.pad(frames, potential.spec.species, potential.cutoff)
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
    with dataset.explained():
        return labels.known_references(given, potential.spec.species, found.species(), found.references())
