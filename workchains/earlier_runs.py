"""Trajectories of earlier runs in the graph that may serve a refinement: of the same system, state point and model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent

from aiida_difftre.calculations.checks import symbols_of
from aiida_difftre.calculations.sample import SampleCalculation
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.neighbours import is_alike, is_same_model
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.workchains.state_points import pressure_of


def run_of(identifier: str) -> orm.ProcessNode:
    """A run by PK, UUID or label.

    Raises:
        ValueError: for anything else.
    """
    try:
        node = orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        raise ValueError(f"{identifier!r} is no run: {error}") from None
    if not isinstance(node, orm.ProcessNode):
        raise ValueError(f"node {identifier!r} is a {type(node).__name__}; give the run, a work chain or a job")
    return node


def with_earlier_runs(
    points: Mapping[str, Mapping[str, Any]],
    runs: list[orm.ProcessNode],
    spec: PotentialSpec,
    sampling: SamplingSettings,
) -> dict[str, dict[str, Any]]:
    """State points with the trajectories that earlier runs sampled there, for the pools of updates.

    Those are taken that a potential of the same architectures and base sampled, of the same atoms and cell, at the same
    temperature and pressure; once, where two of the runs have it. Whether they overlap with the present potential is
    for each update to say.

    Args:
        points: State points by label.
        runs: Work chains or jobs.
        spec: Form of the potential of the refinement.
        sampling: Settings of the sampling of the refinement.

    Returns:
        The state points, with ``earlier`` where something was found.

    Raises:
        ValueError: For a run of which no trajectory is of any state point, with the reasons.
    """
    found: dict[str, dict[str, Any]] = {label: {} for label in points}
    known: set[tuple[str, str]] = set()
    digits = max((len(str(run.pk)) for run in runs), default=1)  # names tell the order
    for run in runs:
        reasons: Counter[str] = Counter()
        number = 0
        for job in _samplings(run):
            unlike = _other_model(job, spec)
            trajectory = job.outputs.trajectory
            at = {label: unlike or _other_place(trajectory, point, sampling) for label, point in points.items()}
            for label in (label for label, reason in at.items() if not reason):
                name = f"run{run.pk:0{digits}d}_{number:04d}"
                if (label, trajectory.uuid) not in known:
                    found[label][name] = {"trajectory": trajectory, "potential": job.inputs.potential}
                known.add((label, trajectory.uuid))
                number += 1
            if all(at.values()):
                reasons[" or ".join(sorted(set(at.values())))] += 1
        if number == 0:
            told = "; ".join(f"{count} of {reason}" for reason, count in reasons.items()) or "it has none"
            raise ValueError(f"run {run.pk}: none of its trajectories is of this refinement ({told}); leave it out")
    return {label: {**point, **({"earlier": found[label]} if found[label] else {})} for label, point in points.items()}


def _samplings(run: orm.ProcessNode) -> Iterator[orm.CalcJobNode]:
    """Jobs of a run that sampled a trajectory, the earliest first."""
    called = run.called_descendants if isinstance(run, orm.WorkChainNode) else [run]
    kind = SampleCalculation.build_process_type()
    jobs = [
        job for job in called if isinstance(job, orm.CalcJobNode) and job.process_type == kind and job.is_finished_ok
    ]
    for job in sorted(jobs, key=lambda node: node.ctime):
        # A trajectory that was taken as it is was sampled by something else.
        if "trajectory" in job.outputs and "trajectory" not in job.inputs:
            yield job


def _other_model(job: orm.CalcJobNode, spec: PotentialSpec) -> str:
    """What a trajectory is of, where its potential is another kind of model; empty where it is not."""
    other = job.inputs.potential.spec
    kinds, others = ([term.architecture for term in one.terms] for one in (spec, other))
    return "" if is_same_model(spec, other) and kinds == others else "another kind of potential"


def _other_place(node: TrajectoryEnsembleData, point: Mapping[str, Any], sampling: SamplingSettings) -> str:
    """What a trajectory is of, where it is not of a state point; empty where it is."""
    structure, pressure = point["structure"], pressure_of(point)
    ensemble = sampling.ensemble(pressure)
    if node.symbols != list(symbols_of(structure)):
        return "other atoms"
    if node.ensemble != ensemble or not is_alike(node.cell, np.asarray(structure.cell), ensemble):
        return "another ensemble or cell"
    wanted = (point["temperature"].value, pressure if ensemble == "NPT" else None)
    for of, value in zip((node.temperature, node.pressure), wanted, strict=True):
        if value is not None and (of is None or not np.isclose(of, value, rtol=1e-6, atol=1e-12)):
            return "another state point"
    return ""
