"""Hot runs of a sampling job: whether the potential holds walkers together above the temperature of its state point."""

from __future__ import annotations

from pathlib import Path

from ase.io import write

from aiida_difftre.engine.bases.protocol import BasePotential
from aiida_difftre.engine.bases.traced import TracedBase
from aiida_difftre.engine.contract.base import derived_seed
from aiida_difftre.engine.contract.hot import BLOWN_UP, HotRun, HotSettings
from aiida_difftre.engine.contract.jobs import SampleJob
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.potentials.potential import Potential, check_temperature
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop
from aiida_difftre.engine.sampling import hot
from aiida_difftre.engine.sampling.protocol import Run


def hot_runs(
    job: SampleJob,
    asked: HotSettings,
    model: tuple[Potential, Parameters, BasePotential | None],
    trajectory: Trajectory,
    folder: Path,
    progress: Reporter,
    stop: Stop,
) -> list[HotRun]:
    """Run walkers at each temperature, and write the structures of those that blow up.

    Args:
        job: The job, as it was read and checked.
        asked: Its hot runs.
        model: Potential, parameters, and base where there is one.
        trajectory: The trajectory, from whose last snapshots they start.
        folder: Folder of the job.
        progress: Takes reports.
        stop: Tells whether the job has to stop.

    Returns:
        What became of the walkers of each run.

    Raises:
        EngineError: For a signal or the walltime.
    """
    potential, parameters, base = model
    digest = None if potential.spec.base is None else potential.spec.base.digest
    if isinstance(base, TracedBase):
        potential, parameters = base.joined(potential, parameters)
        base = None
    settings = hot.settings_of(job.sampling, asked)
    found, frames = [], []
    for factor in asked.factors:
        temperature, seed = factor * job.temperature, derived_seed(job.seed, "hot", f"{factor:g}")
        try:
            check_temperature(potential, temperature)
        except EngineError as error:
            skipped = HotRun(
                factor=factor,
                temperature=temperature,
                time_fs=settings.production_fs,
                walkers=asked.walkers,
                skipped=error.message,
            )
            found.append(skipped)
            continue
        start = hot.perturbed(trajectory, asked.walkers, asked.rattle, seed)
        run = Run(job.machine, seed, progress, stop, base=base, base_digest=digest)
        one = hot.hot_run((potential, parameters), start, temperature, factor, settings, run)
        if one.run.skipped is not None and asked.rattle:
            one.run.skipped += f"; walkers start displaced by rattle = {asked.rattle:g} Å, which may be too much"
        found.append(one.run)
        frames += one.frames
    if frames:
        write(folder / BLOWN_UP, frames, format="extxyz")
    return found
