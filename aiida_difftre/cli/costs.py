"""What a run has cost so far: its jobs by stage with their times, read from the graph in a few queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiida import orm
from aiida.common.links import LinkType

CALLS = [LinkType.CALL_WORK.value, LinkType.CALL_CALC.value]
CACHED = "_aiida_cached_from"
"""Extra of a job that was not run, since the same one had been."""

STAGES = {"dataset": "DFT labels", "pretrain": "pretraining", "refine": "refinement", "validate": "validation"}
"""What the parts of a run are called, by the label under which the chain calls them."""

JOBS = {"SampleCalculation": "sampling", "UpdateCalculation": "updates", "FeffCalculation": "scattering paths"}
"""What jobs are called where a stage has several kinds."""

ENDED = {"finished", "excepted", "killed"}


@dataclass(frozen=True)
class Process:
    """A process below a run.

    Args:
        pk: PK.
        kind: Process label.
        stage: Label under which the run called what it is in.
        began: When its node was made.
        changed: When its node changed last.
        is_over: Whether it ended.
        exit_status: None where it did not finish.
        is_cached: Whether it was taken from the cache.
        is_job: Whether it is a CalcJob.
        is_paused: Whether it stands still until somebody plays it.
        cores: Processor cores that the job asked for.
    """

    pk: int
    kind: str
    stage: str
    began: datetime
    changed: datetime
    is_over: bool
    exit_status: int | None
    is_cached: bool
    is_job: bool
    is_paused: bool
    cores: int

    @property
    def elapsed_s(self) -> float:
        """From the making of its node to its last change, s."""
        return (self.changed - self.began).total_seconds()


@dataclass
class Cost:
    """What a stage took.

    Args:
        stage: Name for the reader.
        jobs: Number of jobs that ran.
        cached: Number of jobs that were taken from the cache, and cost nothing.
        failed: Number of jobs that failed.
        running: Number of jobs that are not over.
        untimed: Number of jobs that ended without saying how long they took.
        wall_s: Duration of all jobs together, s.
        cpu_s: CPU time of all jobs together, s.
        began: When the first job was made.
        ended: When the last job ended.
    """

    stage: str
    jobs: int = 0
    cached: int = 0
    failed: int = 0
    running: int = 0
    untimed: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    began: datetime | None = None
    ended: datetime | None = None
    seconds: list[float] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        """From the first job to the end of the last one, waiting included, s."""
        return 0.0 if self.began is None or self.ended is None else (self.ended - self.began).total_seconds()


def processes(run: orm.ProcessNode) -> Iterator[Process]:
    """All processes that a run called, directly or not, level by level.

    Args:
        run: The run.

    Yields:
        The processes; the stage of one is the label of the call by the run itself.
    """
    stages: dict[int, str] = {run.pk or 0: ""}
    while stages:
        query = orm.QueryBuilder()
        query.append(orm.ProcessNode, filters={"id": {"in": list(stages)}}, project="id", tag="caller")
        query.append(
            orm.ProcessNode,
            with_incoming="caller",
            edge_filters={"type": {"in": CALLS}},
            edge_project="label",
            project=[
                "id", "node_type", "ctime", "mtime", "attributes.process_label", "attributes.process_state",
                "attributes.exit_status", f"extras.{CACHED}", "attributes.resources", "attributes.paused",
            ],
        )  # fmt: skip
        below: dict[int, str] = {}
        for caller, *values, link in query.all():
            pk, node_type, began, changed, kind, state, exit_status, cached, resources, paused = values
            below[pk] = stages[caller] or link
            is_job = node_type.startswith("process.calculation.calcjob")
            yield Process(
                pk, kind, below[pk], began, changed, state in ENDED, exit_status, cached is not None, is_job,
                bool(paused), _cores(resources or {}),
            )  # fmt: skip
        stages = below


def _cores(resources: dict[str, Any]) -> int:
    tasks = resources.get("tot_num_mpiprocs") or (
        (resources.get("num_machines") or 1) * (resources.get("num_mpiprocs_per_machine") or 1)
    )
    return int(tasks) * int(resources.get("num_cores_per_mpiproc") or 1)


def costs(run: orm.ProcessNode, found: list[Process] | None = None) -> list[Cost]:
    """What each stage of a run took, in the order of their first jobs.

    Args:
        run: The run.
        found: Its processes, where they are known.

    Returns:
        A cost for each stage that has jobs.
    """
    jobs = [process for process in (found if found is not None else processes(run)) if process.is_job]
    times = _times([job.pk for job in jobs if job.is_over and not job.is_cached])
    made: dict[str, Cost] = {}
    for job in sorted(jobs, key=lambda job: job.pk):
        name = _stage(job)
        cost = made.setdefault(name, Cost(name))
        cost.began = job.began if cost.began is None else min(cost.began, job.began)
        if not job.is_over:
            cost.running += 1
            continue
        cost.ended = job.changed if cost.ended is None else max(cost.ended, job.changed)
        if job.is_cached:
            cost.cached += 1
            continue
        cost.jobs += 1
        cost.failed += job.exit_status != 0
        wall, cpu = times.get(job.pk, (None, None))
        if wall is None:
            cost.untimed += 1
            continue
        cost.wall_s += wall
        cost.cpu_s += wall * job.cores if cpu is None else cpu
        cost.seconds.append(wall)
    return list(made.values())


def _stage(job: Process) -> str:
    part = next((name for label, name in STAGES.items() if job.stage.startswith(label)), "")
    if job.kind == "FeffCalculation":
        return JOBS[job.kind]
    if part in ("", STAGES["refine"]):
        return JOBS.get(job.kind, part or job.kind)
    return part


def _times(pks: list[int]) -> dict[int, tuple[float | None, float | None]]:
    """Wall and CPU time of jobs, s, as their output parameters tell."""
    if not pks:
        return {}
    query = orm.QueryBuilder().append(orm.CalcJobNode, filters={"id": {"in": pks}}, project="id", tag="job")
    query.append(
        orm.Dict,
        with_incoming="job",
        edge_filters={"label": "output_parameters"},
        project=["attributes.timings.total_s", "attributes.timings.cpu_s", "attributes.wall_time_seconds"],
    )
    return {pk: (own if own is not None else wall, cpu) for pk, own, cpu, wall in query.all()}


def duration(seconds: float) -> str:
    """A duration in words.

    Args:
        seconds: s.

    Returns:
        Such as ``3 h 20 min``.
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def total_line(found: list[Cost]) -> str:
    """The cost of all stages in a line; empty where no job ended yet."""
    jobs, cached = (sum(getattr(cost, name) for cost in found) for name in ("jobs", "cached"))
    if not jobs and not cached:
        return ""
    cpu = sum(cost.cpu_s for cost in found)
    kept = f", {cached} from the cache" if cached else ""
    return f"{duration(cpu)} of one core in {jobs} job{'' if jobs == 1 else 's'}{kept}"
