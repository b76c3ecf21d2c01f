"""When a run will be over: from how long its parts have taken so far, and how much of them is left."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from aiida import orm
from aiida.common.links import LinkType

from aiida_difftre.cli.costs import Process
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains.refine_settings import RefineSettings

UPDATE, SAMPLE, LABEL = "UpdateBaseWorkChain", "SampleBaseWorkChain", "PwBaseWorkChain"


def expected(
    run: orm.ProcessNode,
    found: list[Process],
    labels: tuple[int, int, int | None] | None,
    jobs: list[float | None],
    now: datetime | None = None,
) -> str:
    """When a run will be over, in a sentence; empty where nothing tells yet, or where it is over.

    Args:
        run: The run.
        found: Its processes.
        labels: Labels that are done, failed, and in all.
        jobs: Time that each running job still needs, s; None where it does not tell.
        now: The present time; None for that of the clock.

    Returns:
        Such as ``expected end: 14:05 at the latest (refinement until 13:50, if it needs all 8 iterations)``.
    """
    now = now or datetime.now().astimezone()
    inputs: dict[str, Any] = run.base.links.get_incoming(link_type=LinkType.INPUT_WORK).nested()
    kind = str(run.process_label)
    refine = inputs if kind == "RefineWorkChain" else inputs.get("refine", {})
    has_validation = kind == "TrainWorkChain" and "validate" in inputs
    stage = _stage(kind, found)
    if stage == "labels":
        left = _labels_left(found, labels, now)
        return "" if left is None else f"labels until about {_clock(now, left)}; what follows is not known yet"
    if stage == "pretraining" or (stage == "validation"):
        known = [seconds for seconds in jobs if seconds is not None]
        if not known or len(known) < len(jobs):
            return ""
        until = _clock(now, max(known))
        return f"expected end: {until}" if stage == "validation" else f"{stage} until about {until}"
    left, iterations = _refinement_left(found, refine, now)
    if left is None:
        return ""
    why = f"refinement until {_clock(now, left)}, if it needs all {iterations} iterations"
    if not has_validation:
        return f"expected end: {_clock(now, left)} at the latest ({why})"
    after = _validation(found, refine, inputs["validate"])
    return f"expected end: {_clock(now, left + after)} at the latest ({why})" if after else why


def _stage(kind: str, found: list[Process]) -> str:
    """What goes on: the last part that the run called."""
    if kind != "TrainWorkChain":
        return {"ValidateWorkChain": "validation"}.get(kind, "refinement")
    names = {"dataset": "labels", "pretrain": "pretraining", "validate": "validation"}
    last = max((process for process in found if not process.is_over), key=lambda process: process.pk, default=None)
    return "refinement" if last is None else names.get(last.stage, "refinement")


def _labels_left(found: list[Process], labels: tuple[int, int, int | None] | None, now: datetime) -> float | None:
    jobs = [process for process in found if process.kind == LABEL and not process.is_cached]
    done = [process for process in jobs if process.is_over]
    if labels is None or labels[2] is None or not done:
        return None
    per_label = (max(process.changed for process in done) - min(process.began for process in jobs)) / len(done)
    return float(per_label.total_seconds() * max(0, labels[2] - labels[0] - labels[1]))


def _refinement_left(found: list[Process], refine: dict[str, Any], now: datetime) -> tuple[float | None, int]:
    """Time until all iterations are done, s, less what the present one has taken; and their number."""
    settings = validate(RefineSettings, refine["settings"].get_dict() if "settings" in refine else {})
    updates = [process for process in found if process.kind == UPDATE and process.is_over and process.exit_status == 0]
    samplings = [process for process in found if process.kind == SAMPLE]
    if not updates or not samplings:
        return None, settings.max_iterations
    began, last = min(process.began for process in samplings), max(process.changed for process in updates)
    each = (last - began).total_seconds() / len(updates)
    left = each * max(0, settings.max_iterations - len(updates)) + _mean(samplings)
    return max(0.0, left - (now - last).total_seconds()), settings.max_iterations


def _mean(samplings: list[Process]) -> float:
    over = [process.elapsed_s for process in samplings if process.is_over]
    return sum(over) / len(over) if over else 0.0


def _validation(found: list[Process], refine: dict[str, Any], validation: dict[str, Any]) -> float:
    """Time of the long runs, s, from that of the trajectories so far and the lengths of both; 0 where not known."""
    mean = _mean([process for process in found if process.kind == SAMPLE])
    lengths = [_length(part) for part in (validation, refine)]
    return mean * lengths[0] / lengths[1] * 2 if all(lengths) else 0.0  # before and after, side by side


def _length(part: dict[str, Any]) -> float:
    parameters = part.get("sample", {}).get("calc", {}).get("parameters")
    sampling = {} if parameters is None else parameters.get_dict().get("sampling", {})
    return float(sampling.get("equilibration_fs", 0.0) + sampling.get("production_fs", 0.0))


def _clock(now: datetime, seconds: float) -> str:
    """A time of day; with the day where it is another one."""
    then = now + timedelta(seconds=seconds)
    return f"{then:%H:%M}" if then.date() == now.date() else f"{then:%a %d %b %H:%M}"
