"""The scheduler of a computer: options that it could not take are refused, and what it does to jobs has names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from aiida import orm
from aiida.common.exceptions import AiidaException
from aiida.engine.processes.ports import PortNamespace

from aiida_difftre.engine.contract.bounds import Limits, is_number
from aiida_difftre.engine.errors import did_you_mean, one_line, shown

LIMITS = {
    "max_wallclock_seconds": Limits(least=1, most=1e8, unit="s", reason="no queue lets a job run for three years"),
    "max_memory_kb": Limits(least=1, most=1e12, unit="kB", reason="no node has a petabyte of memory"),
}
"""Of options that are whole numbers."""

RESOURCES = Limits(least=1, most=1_000_000, reason="no machine has more nodes or cores")
"""Of every number among the resources."""

WORDS = ("queue_name", "account", "qos", "priority")
"""Options that stand in a line of the header of a submit script."""

UNLISTED = {"core.lsf": ("use_num_machines",)}
"""Resources that a scheduler takes beyond those that its class lists."""


class SchedulerStatus(IntEnum):
    """Exit statuses of jobs that a scheduler stopped, beside those that the engine gives itself."""

    NODE_FAILURE = 342
    """The node died."""
    PREEMPTED = 343
    """Another job or the hours of a queue took the node."""
    CANCELLED_BY_OWNER = 344
    """Cancelled past AiiDA, as with scancel, by the user who submitted it."""
    CANCELLED = 345
    """Cancelled, and nothing says by whom."""


DEFAULT_RESOURCES = {"num_machines": 1, "num_mpiprocs_per_machine": 1}


def check_options(options: Mapping[str, Any], ports: PortNamespace, computer: orm.Computer | None) -> None:
    """Refuse options that a job does not have, and values that the scheduler of its computer does not take.

    Args:
        options: Options of the job (``metadata.options``).
        ports: Ports of these options.
        computer: Computer on which the job runs; None where that is not known yet.

    Raises:
        ValueError: naming the option, its value, and what there is.
    """
    for name, value in options.items():
        if name not in ports:
            near = did_you_mean(name, ports)
            raise ValueError(f"unknown option {shown(name)}; known options: {', '.join(sorted(ports))}{near}")
        if name in LIMITS:
            _check_whole(name, value, LIMITS[name])
        if name in WORDS and value is not None and not (isinstance(value, str) and value.isprintable()):
            raise ValueError(f"{name} = {shown(value)} must be a word on one line")
    if computer is not None:
        check_resources(options.get("resources", DEFAULT_RESOURCES), computer)


def check_resources(resources: Any, computer: orm.Computer) -> None:
    """Refuse resources that the scheduler of a computer does not take.

    Raises:
        ValueError: naming the resource and those that the scheduler knows.
    """
    scheduler = computer.get_scheduler()
    known = [*scheduler.job_resource_class.get_valid_keys(), *UNLISTED.get(computer.scheduler_type, ())]
    of_which = f"the resources of scheduler {computer.scheduler_type!r} are {', '.join(known)}"
    if not isinstance(resources, Mapping):
        raise ValueError(f"resources = {shown(resources)} must be a mapping; {of_which}")
    for name, value in resources.items():
        if name not in known:
            raise ValueError(
                f"unknown resource {shown(name)}; {of_which}; what it lacks, such as GPUs, is asked for with "
                f"custom_scheduler_commands{did_you_mean(name, known)}"
            )
        if name.startswith(("num_", "tot_", "default_")):
            _check_whole(f"resources.{name}", value, RESOURCES)
        elif isinstance(value, str) and not value.isprintable():
            raise ValueError(f"resources.{name} = {shown(value)} must be words on one line")
    given = dict(copy.deepcopy(resources))
    try:
        scheduler.preprocess_resources(given, computer.get_default_mpiprocs_per_machine())
        scheduler.create_job_resource(**given)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, AiidaException) as error:
        raise ValueError(one_line(f"resources = {shown(dict(resources))}: {error}; {of_which}")) from None


def _check_whole(name: str, value: Any, limits: Limits) -> None:
    if value is None:
        return
    if not is_number(value) or value != int(value):
        raise ValueError(f"{name} = {shown(value)} must be a whole number")
    try:
        limits.check(value)
    except ValueError as error:
        raise ValueError(f"{name} = {shown(value)} {error}") from None
