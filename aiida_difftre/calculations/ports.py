"""Ports that several jobs have: options of the scheduler, parameters, the potential, folders on the machine."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine import CalcJobProcessSpec

from aiida_difftre.calculations.checks import parameters_check
from aiida_difftre.data.base import BasePotentialData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.jobs import Job


def options(
    spec: CalcJobProcessSpec, *, parser: str, walltime_s: int, input_filename: str, output_filename: str
) -> None:
    """A code, its parser, and defaults for one process without MPI.

    Args:
        spec: Spec to extend.
        parser: entry point.
        walltime_s: default, s.
        input_filename: what ``verdi calcjob inputcat`` shows.
        output_filename: what ``verdi calcjob outputcat`` shows.
    """
    spec.inputs["code"].required = True
    ports = spec.inputs["metadata"]["options"]  # type: ignore[index]
    ports["parser_name"].default = parser
    ports["resources"].default = lambda: {"num_machines": 1, "num_mpiprocs_per_machine": 1}
    ports["resources"].required = False  # a default that is set later does not say so by itself
    ports["max_wallclock_seconds"].default = walltime_s
    ports["withmpi"].default = False
    ports["input_filename"].default = input_filename
    ports["output_filename"].default = output_filename


def parameters(spec: CalcJobProcessSpec, model: type[Job], says: str, *, required: bool = True) -> None:
    """What a user states of a job, checked against ``model``; nothing by default where it is not required."""
    given: dict[str, Any] = {} if required else {"default": lambda: orm.Dict({})}
    spec.input(
        "parameters",
        valid_type=orm.Dict,
        serializer=orm.to_aiida_type,
        validator=parameters_check(model),
        help=says,
        **given,
    )


def potential(spec: CalcJobProcessSpec, says: str, *, required: bool = True) -> None:
    """The potential that goes in."""
    spec.input("potential", valid_type=PotentialData, required=required, help=says)


def base(spec: CalcJobProcessSpec) -> None:
    """The base of the potential."""
    spec.input(
        "base",
        valid_type=BasePotentialData,
        required=False,
        help="The base to which the potential is a correction: its weights, and what it is in the provenance. Needed "
        "where it has files.",
    )


def base_labels(spec: CalcJobProcessSpec) -> None:
    """What the base of the potential gives for a dataset."""
    spec.input(
        "base_labels",
        valid_type=orm.ArrayData,
        required=False,
        help="What the base gives for the dataset: the predictions of a difftre.predict job with this base for it. "
        "Needed where labels are matched and the base is no function of JAX.",
    )


def trajectory_folder(spec: CalcJobProcessSpec, name: str, trajectory: str) -> None:
    """Where a trajectory lies on the machine, so that it need not be sent there.

    Args:
        spec: Spec to extend.
        name: Name of the port.
        trajectory: name of the port of the trajectory.
    """
    spec.input(
        name,
        valid_type=orm.RemoteData,
        required=False,
        help=f"The folder in which {trajectory} was made; on the same computer the file is linked, not copied.",
    )


def parent_folder(spec: CalcJobProcessSpec) -> None:
    """Where an interrupted job left its checkpoint."""
    spec.input(
        "parent_folder",
        valid_type=orm.RemoteData,
        required=False,
        help="The folder of an interrupted job with the same inputs; continue from its checkpoint, if it left one.",
    )


def value(
    spec: CalcJobProcessSpec, name: str, kind: type[orm.Data], says: str, *, required: bool = True, **given: Any
) -> None:
    """A number or a string, also as a Python value.

    Args:
        spec: Spec to extend.
        name: Name of the port.
        kind: Class of its node.
        says: what it is, and in which unit.
        required: whether it must be given.
        **given: ``default`` and ``validator``, where there are.
    """
    spec.input(name, valid_type=kind, serializer=orm.to_aiida_type, required=required, help=says, **given)
