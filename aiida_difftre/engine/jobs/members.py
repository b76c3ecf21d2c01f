"""A small ensemble of potentials at the cost of one: members drawn from what the targets leave open, and their spread.

What a member predicts follows from the trajectory of the potential itself by reweighting, where its snapshots still
stand for the member. In directions that the targets leave open they mostly do not: such a member has to be sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.assess_job import member_file
from aiida_difftre.engine.contract.assessment import Member
from aiida_difftre.engine.contract.base import derived_seed
from aiida_difftre.engine.potentials.potential import Potential, save
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.refinement.posterior import Posterior
from aiida_difftre.engine.refinement.sensitivities import moved
from aiida_difftre.engine.reweighting import extrapolation
from aiida_difftre.engine.reweighting.reference import Reference
from aiida_difftre.engine.reweighting.weights import reliable_size

FEWEST = 3
"""Members that stand for a spread."""


class Ensemble(NamedTuple):
    """Members, and the standard deviations of what they predict.

    Args:
        members: The members.
        spreads: By state point the standard deviations of each observable of its reference over the members that its
            snapshots stand for; None where these are too few.
    """

    members: list[Member]
    spreads: dict[str, list[NDArray[np.float64]] | None]


def drawn(
    number: int,
    model: tuple[Potential, Parameters, Sequence[bool]],
    found: Posterior,
    references: dict[str, Reference],
    folder: Path,
    seed: int,
) -> Ensemble:
    """Draw members from a posterior, write them, and predict with each by reweighting.

    Args:
        number: Number of members.
        model: Potential, parameters, and whether each leaf of these may move.
        found: Posterior of the parameters.
        references: Trajectories of the potential, by state point.
        folder: Folder of the files.
        seed: Seed of the job.

    Returns:
        The ensemble.
    """
    potential, parameters, movable = model
    changes = found.draws(number, seed=derived_seed(seed, "members"))
    members: list[Member] = []
    predicted: dict[str, list[list[NDArray[np.float64]]]] = {label: [] for label in references}
    averages = {label: jax.jit(ref.averages) for label, ref in references.items()}
    for index, change in enumerate(changes):
        own = moved(parameters, movable, change)
        save(folder / member_file(index), potential, own)
        member = Member(file=member_file(index), effective={}, held=[])
        for label, ref in references.items():
            quantities = ref.snapshots.evaluate(own)
            arrays = {key: jax.device_put(value) for key, value in quantities.items()}
            weight = np.asarray(ref.weights(arrays["energy"]))
            size = float(reliable_size(weight)) if np.isfinite(weight).all() else 0.0
            g = ref.inefficiency(quantities) if size else 1.0
            member.effective[label] = size / len(weight)
            if size / g >= extrapolation.least(len(weight), g):
                member.held.append(label)
                predicted[label].append([np.atleast_1d(one) for one in averages[label](arrays, weight)])
        members.append(member)
    spreads = {
        label: [np.std(np.stack(values), axis=0, ddof=1) for values in zip(*ones, strict=True)]
        if len(ones) >= FEWEST
        else None
        for label, ones in predicted.items()
    }
    return Ensemble(members, spreads)
