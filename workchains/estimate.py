"""What a run will take, before it is submitted: atoms, steps, core hours, memory, disk; rough, from measured costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiida_difftre.engine.contract.sampling_settings import WALKERS, LangevinSpec, SamplingSettings
from aiida_difftre.engine.contract.settings import PotentialSpec

if TYPE_CHECKING:
    from aiida_difftre.workchains.input_models import RunInput

MICROSECONDS = {
    "lennard_jones": 0.6,
    "repulsion": 0.6,
    "dispersion": 0.6,
    "pair_spline": 0.8,
    "stillinger_weber": 0.6,
    "moment_network": 4.0,
    "external_polynomial": 0.1,
    "external_spline": 0.1,
}
"""CPU time per atom and step on one core, µs, of several walkers together: docs/benchmarks.md for Lennard-Jones,
Stillinger-Weber and the network with a prior; the other pair terms by likeness. Neighbour lists are part of it."""

BASE_MICROSECONDS = {"emt": 220.0, "chgnet": 1400.0}
"""The same of base potentials that are called back, µs: docs/benchmarks.md, base potentials (`bases.py`), where a step
of 128 atoms took 28.5 and 176 ms. Those that are terms of this package cost what the terms cost."""

UNKNOWN_MICROSECONDS = 5.0
"""Of a term of another package."""

BYTES_PER_NEIGHBOUR = 64
"""Of a walker while it is sampled: index, components, slopes and products in float32, and room in the list."""

BYTES_PER_POSITION = 12.3
"""Of an atom in a stored snapshot: docs/benchmarks.md, stored trajectories."""

BASE_GIB = 0.5
"""Of Python, JAX and compiled programs."""

SKIN = 1.0
"""Å, of neighbour lists."""

FIRST_JOB_S = 19.0
"""CPU time of a job for a few steps with nothing compiled, s: docs/benchmarks.md, start-up (`startup.py`)."""

LATER_JOB_S = 5.0
"""The same where its programs were compiled before, 3.7 (`startup.py`), and what AiiDA takes for a job, 1.2
(docs/overhead.md, `overhead.py`), s."""

MOST_CORE_HOURS = 1e6
"""More than a century of a core is a slip of an exponent."""

SINGLE_JOBS = 2
"""Of a run: pretraining, or what stands for it, and the lattices of its verdict."""

HOT_RUNS = "hot runs"
"""Stage whose trajectories no other job reads."""

LIQUID_FRICTION_PER_PS = 2.0
"""With which a liquid relaxes, 1/ps."""

MOST_MEMORY_GIB = 4096.0
MOST_DISK_GIB = 1e5

GIB = 2**30


@dataclass(frozen=True)
class Sampling:
    """Trajectories of one state point.

    Args:
        stage: Part of the run that they are for, such as ``refinement``.
        state_point: Label of the state point.
        atoms: Number of atoms of a walker.
        walkers: Number of walkers of a trajectory.
        steps: Number of steps of each walker, equilibration included.
        snapshots: Number of snapshots of a trajectory.
        times: Number of such trajectories, at most.
        microseconds: Time per atom and step, µs.
        neighbours: Number of neighbours of an atom within the cutoff.
        base: Name of the base potential; None for none.
    """

    stage: str
    state_point: str
    atoms: int
    walkers: int
    steps: float
    snapshots: float
    times: int
    microseconds: float
    neighbours: float
    base: str | None = None

    @property
    def label(self) -> str:
        """Name of the trajectories, for the reader."""
        return f"{self.stage} at {self.state_point}"

    @property
    def core_hours(self) -> float:
        """Time of all these trajectories, core hours."""
        return self.times * self.walkers * self.atoms * self.steps * self.microseconds * 1e-6 / 3600

    @property
    def memory_gib(self) -> float:
        """Memory of a job, GiB."""
        moving = self.walkers * self.atoms * self.neighbours * BYTES_PER_NEIGHBOUR
        return BASE_GIB + (moving + self.snapshots * self.atoms * BYTES_PER_POSITION) / GIB

    @property
    def disk_gib(self) -> float:
        """Disk of all these trajectories, GiB."""
        return self.times * self.snapshots * self.atoms * BYTES_PER_POSITION / GIB

    def __str__(self) -> str:
        return (
            f"{self.label}: {self.atoms} atoms, {self.walkers} walkers, {self.steps:.0f} steps each, "
            f"{self.snapshots:.0f} snapshots, at most {self.times} times: {core_time(self.core_hours)}, "
            f"{self.memory_gib:.2g} GiB of memory, {_disk(self.disk_gib)}"
        )


def microseconds(spec: PotentialSpec, base: str | None = None) -> float:
    """CPU time per atom and step of a potential, and of its base where that was measured, µs."""
    terms = sum(MICROSECONDS.get(term.architecture, UNKNOWN_MICROSECONDS) for term in spec.terms)
    return terms + (0.0 if base is None else (MICROSECONDS | BASE_MICROSECONDS).get(base, 0.0))


def neighbours(spec: PotentialSpec, atoms: int, volume: float) -> float:
    """Neighbours of an atom within the cutoff and the skin.

    Args:
        spec: Spec of the potential.
        atoms: Number of atoms of the cell.
        volume: Volume of the cell, Å³.

    Returns:
        Number of neighbours.
    """
    return atoms / volume * 4 / 3 * math.pi * (spec.cutoff + SKIN) ** 3


def sampling(
    stage: str,
    state_point: str,
    settings: SamplingSettings,
    spec: PotentialSpec,
    *,
    atoms: int,
    volume: float,
    times: int = 1,
    growth: float = 1.0,
    base: str | None = None,
) -> Sampling:
    """The trajectories of one state point.

    Args:
        stage: Part of the run that they are for, such as ``refinement``.
        state_point: Label of the state point.
        settings: Settings of molecular dynamics.
        spec: Spec of the potential.
        atoms: Number of atoms of the cell.
        volume: Volume of the cell, Å³.
        times: Number of trajectories.
        growth: Factor by which production gets longer in the end.
        base: Name of the base potential; None for none.

    Returns:
        What the trajectories take.
    """
    walkers = settings.walkers or WALKERS
    production = settings.production_fs * growth
    return Sampling(
        stage=stage,
        state_point=state_point,
        atoms=atoms,
        walkers=walkers,
        steps=(settings.equilibration_fs + production) / settings.timestep_fs,
        snapshots=walkers * production / settings.stride_fs,
        times=times,
        microseconds=microseconds(spec, base),
        base=base,
        neighbours=neighbours(spec, atoms, volume),
    )


@dataclass(frozen=True)
class Jobs:
    """The jobs of a run, and what all of them take to start and to compile.

    Args:
        number: Number of jobs, at most.
        kinds: Number of jobs that compile, as the first of their kind, what the others load.
    """

    number: int
    kinds: int

    @property
    def core_hours(self) -> float:
        """CPU time of starts and compilation, core hours."""
        return (self.kinds * FIRST_JOB_S + (self.number - self.kinds) * LATER_JOB_S) / 3600

    def __str__(self) -> str:
        return (
            f"start and compilation of at most {self.number} jobs: {core_time(self.core_hours)}; {FIRST_JOB_S:g} s of "
            f"one core for the first of each of {self.kinds} kinds, {LATER_JOB_S:g} s for every other one"
        )


def jobs(parts: Sequence[Sampling]) -> Jobs:
    """The jobs that sample, those that update or predict for all state points together, and those that a run has once.

    Comparisons with labels, phonons and assessments, which an input asks for, are not counted.
    """
    together = {part.stage: part.times for part in parts if part.stage != HOT_RUNS}
    number = sum(part.times for part in parts) + sum(together.values()) + SINGLE_JOBS
    return Jobs(number, len(parts) + len(together) + SINGLE_JOBS)


def lines(parts: Sequence[Sampling]) -> list[str]:
    """What a person is shown; hours of sampling and of the start of jobs, on cores like those that were measured."""
    started = jobs(parts)
    total = sum(part.core_hours for part in parts) + started.core_hours
    unknown = {part.base for part in parts if part.base is not None} - {*MICROSECONDS, *BASE_MICROSECONDS}
    without = "".join(f", and the base {name}, whose cost was not measured" for name in sorted(unknown))
    return [
        *map(str, parts),
        str(started),
        f"sampling and starts take at most {core_time(total)} of one core, and {_disk(sum(p.disk_gib for p in parts))};"
        " rough numbers, good to a factor of three, without labels, pretraining and the steps of updates"
        f"{without}",
        "an update takes some 1 GiB of memory, half of it for what it keeps of its snapshots (snapshot_cache_mib)",
    ]


def thermostat_advice(run: RunInput, samplings: Mapping[str, SamplingSettings]) -> list[str]:
    """What to change where atoms that were packed at random would be held up by the friction of the presets.

    Args:
        run: The input of a run.
        samplings: How it samples, by the section of the input that changes it.
    """
    if run.system.random is None:
        return []
    given = {"sampling": run.sampling, "validation.sampling": run.validation.sampling}
    return [
        f"{section}: the thermostat is that of the preset, whose friction of {thermostat.friction_per_ps:g} 1/ps is "
        "for crystals, and a liquid relaxes slowly under it; give thermostat: {name: langevin, friction_per_ps: "
        f"{LIQUID_FRICTION_PER_PS}}}"
        for section, settings in samplings.items()
        if "thermostat" not in given[section]
        and isinstance(thermostat := settings.thermostat, LangevinSpec)
        and thermostat.friction_per_ps > LIQUID_FRICTION_PER_PS
    ]


def check(parts: Iterable[Sampling]) -> None:
    """Refuse what no machine does.

    Raises:
        ValueError: naming the state point, and what would be needed.
    """
    for part in parts:
        for needed, most, unit in (
            (part.core_hours, MOST_CORE_HOURS, "core hours"),
            (part.memory_gib, MOST_MEMORY_GIB, "GiB of memory"),
            (part.disk_gib, MOST_DISK_GIB, "GiB on disk"),
        ):
            if needed > most:
                raise ValueError(
                    f"some {needed:.2g} {unit} would be needed, more than {most:.2g}, for {part.label}: {part.atoms} "
                    f"atoms, {part.walkers} walkers, {part.steps:.3g} steps, {part.snapshots:.3g} snapshots, "
                    f"{part.times} times; make the cell smaller or the trajectories shorter"
                )


def core_time(hours: float) -> str:
    """Hours of one core in words, in minutes where they are few."""
    return f"{hours:.2g} core hours" if hours >= 1 else f"{hours * 60:.2g} core minutes"


def _disk(gib: float) -> str:
    return f"{gib:.2g} GiB on disk" if gib >= 1 else f"{gib * 1024:.2g} MiB on disk"
