"""Checks of inputs before anything is submitted: each returns a message with value and remedy, or None."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from aiida import orm
from aiida.engine import Process
from pydantic import Field, create_model

from aiida_difftre.calculations.scheduler import check_options
from aiida_difftre.data.base import BasePotentialData
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract import architectures
from aiida_difftre.engine.contract.base import LONGEST_LABEL
from aiida_difftre.engine.contract.base_arrays import BASE_LABEL_ARRAYS
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.frames import check_extent, check_thickness
from aiida_difftre.engine.contract.jobs import Job
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.contract.structure_files import WHOLE_ATOMS
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import shown
from aiida_difftre.engine.trajectories.fitting import check_fits

LABEL = re.compile(r"[A-Za-z](_?[A-Za-z0-9])*")

Check = Callable[[Any, Any], str | None]


def parameters_model(job: type[Job], files: Iterable[str]) -> type[Job]:
    """The part of a job that the user states: all its fields but its kind and those that input nodes fill."""
    given = Annotated[dict[str, str], Field(max_length=0, description="filled for files that are linked")]
    left_out = {*files, "kind", *Job.model_fields}
    fields: dict[str, Any] = {
        name: (field.annotation, field) for name, field in job.model_fields.items() if name not in left_out
    }
    fields["digests"] = (given, {})
    fields["base_files"] = (Annotated[dict[str, str], Field(max_length=0, description="filled from the base")], {})
    return create_model(f"{job.__name__}Parameters", __base__=Job, **fields)


def parameters_check(model: type[Job]) -> Check:
    """A port validator that checks a Dict node against ``model``."""

    def check(node: orm.Dict | None, _: Any) -> str | None:
        if node is None:
            return None
        content = node.get_dict()
        try:
            validate(model, content)
        except ValueError as error:
            return str(error)
        return check_labels(
            (one.get("label") or one.get("observable") for one in content.get("observables", [])), "observable"
        )

    return check


def check_labels(labels: Iterable[Any], what: str) -> str | None:
    """Labels name arrays and links: letters, digits and single underscores; each but once."""
    seen = set()
    for label in labels:
        if not isinstance(label, str) or not LABEL.fullmatch(label):
            return (
                f"the {what} label {shown(label)} is no valid name: start with a letter and use letters, digits and "
                "single underscores"
            )
        if len(label) > LONGEST_LABEL:
            return f"the {what} label {shown(label)} has {len(label)} characters; at most {LONGEST_LABEL}"
        if label in seen:
            return f"the {what} label {label!r} is used twice; give each a label of its own"
        seen.add(label)
    return None


def check_target_nodes(nodes: Mapping[str, Any]) -> str | None:
    """Every node must be a target, by the checks of this version, with a name that no other has."""
    names = []
    for label, node in nodes.items():
        if not isinstance(node, TargetData):
            return f"target {label!r} is {type(node).__name__}; it must be TargetData"
        try:
            names.append(node.check().name)
        except ValueError as error:
            return f"target {label!r}: {error}"
    return check_labels(names, "target")


def check_species(potential: PotentialData | None, species: Iterable[str], what: str) -> str | None:
    """The potential must be one that the engine takes, and know every species."""
    if potential is None:
        return None
    try:
        potential.check()
    except ValueError as error:
        return f"the potential <{potential.pk}> is of an earlier version: {error}"
    unknown = sorted(set(species) - set(potential.species))
    if not unknown:
        return None
    return (
        f"{what} contains {', '.join(unknown)}, but the potential knows {', '.join(potential.species)} only; use a "
        "potential that was trained with these species"
    )


def check_composition(
    potential: PotentialData | None, system: orm.StructureData | TrajectoryEnsembleData, what: str
) -> str | None:
    """The system must hold its species in the numbers that a potential, such as one of charges, is made for."""
    if potential is None:
        return None
    try:
        architectures.check_composition(potential.spec, symbols_of(system))
    except ValueError as error:
        return f"{what} does not fit the potential <{potential.pk}>: {error}"
    return None


def check_temperature(potential: PotentialData | None, temperature: float, what: str) -> str | None:
    """The temperature must be one that a potential, such as one with quantum corrections, is made for."""
    if potential is None:
        return None
    try:
        architectures.check_temperature(potential.spec, temperature)
    except ValueError as error:
        return f"{what} does not fit the potential <{potential.pk}>: {error}"
    return None


def check_observables(
    requests: Iterable[ObservableRequest], system: orm.StructureData | TrajectoryEnsembleData, what: str
) -> str | None:
    """The system must be able to give each observable: its species, and its size where there is a grid."""
    species, cell, masses = symbols_of(system), system.cell, masses_of(system)
    for request in requests:
        try:
            request.check_system(species, cell, masses)
        except ValueError as error:
            return f"{what} cannot give {request.name!r}: {error}"
    return None


def check_trajectory(
    trajectory: TrajectoryEnsembleData,
    structure: orm.StructureData,
    temperature: float,
    pressure: float | None,
    sampling: SamplingSettings,
) -> str | None:
    """A trajectory that exists must be of the atoms, the cell, the temperature and the ensemble of its state point."""
    ensemble = sampling.ensemble(pressure)
    try:
        check_fits(trajectory.get_trajectory(may_be_part=True), symbols_of(structure), structure.cell, ensemble)
    except ValueError as error:
        return str(error)
    if abs(trajectory.temperature - temperature) > 1e-6 * temperature:
        return (
            f"the trajectory was sampled at {trajectory.temperature:g} K, and the state point is at {temperature:g} K; "
            "state the temperature at which it was sampled"
        )
    held = trajectory.pressure
    if ensemble == "NPT" and held is not None and pressure is not None and abs(held - pressure) > 1e-6 * abs(held):
        return f"the trajectory was sampled at {held:g} GPa, and the state point is at {pressure:g} GPa"
    return None


def check_base(base: BasePotentialData | None, wanted: BaseSpec | None, computer: orm.Computer | None) -> str | None:
    """The base that is given must be that of the potential, with weights that the computer has or gets.

    Args:
        base: Node of the base; None where none is given.
        wanted: Base of the potential; None for none.
        computer: Computer of the job; None where it is not known yet.
    """
    if wanted is None:
        return None if base is None else f"base is {base.spec.label!r}, but the potential has no base; leave it out"
    if base is None:
        if not wanted.files:
            return None
        files = ", ".join(wanted.files)
        return f"the potential is a correction to {wanted.label!r}, whose weights ({files}) are missing; give base"
    try:
        found = base.check()
    except ValueError as error:
        return f"the base <{base.pk}> is of an earlier version: {error}"
    if found.digest != wanted.digest:
        return (
            f"base is {found.label!r} with the digest {found.digest[:12]}, but the potential is a correction to "
            f"{wanted.label!r} with {wanted.digest[:12]}; give the base that it was made for"
        )
    place = base.computer_label
    if place is not None and computer is not None and computer.label != place:
        return f"the files of the base are on {place!r}, and the job is to run on {computer.label!r}; use a code there"
    return None


def evaluates_elsewhere(base: BaseSpec | None, parameters: orm.Dict | None) -> bool:
    """Whether labels are matched on top of a base that an update does not evaluate, since it is called.

    Args:
        base: Base of the potential; None for none.
        parameters: Parameters of the update.
    """
    if base is None or base.engine == "jax" or parameters is None:
        return False
    return bool(parameters.get_dict().get("update", {}).get("loss", {}).get("dataset_weight", 0) > 0)


def check_base_labels(labels: orm.ArrayData | None, base: BaseSpec | None, dataset: DatasetData | None) -> str | None:
    """What a base gives for a dataset must be of this base, and of as many configurations.

    Args:
        labels: The predictions; None where none are given.
        base: Base of the potential; None for none.
        dataset: The dataset; None for none.
    """
    if labels is None:
        return None
    if base is None or dataset is None:
        lacking = "the potential has no base" if base is None else "there is no dataset"
        return f"base_labels are given, but {lacking}; leave them out"
    if missing := sorted(set(BASE_LABEL_ARRAYS) - set(labels.get_arraynames())):
        return (
            f"base_labels <{labels.pk}> have no {', '.join(missing)}; give the predictions of a difftre.predict job "
            "for the dataset with a potential that has this base"
        )
    digest, count = str(labels.get_array("base_digest")), len(labels.get_array("base_energies"))
    if digest != base.digest:
        return (
            f"base_labels are of a base with the digest {digest[:12]}, but the potential is a correction to "
            f"{base.label!r} with {base.digest[:12]}; predict the dataset with this potential"
        )
    if count != len(dataset):
        return (
            f"base_labels are of {count} configurations, and the dataset has {len(dataset)}; predict this dataset with "
            "this potential"
        )
    return None


def check_energies(trajectory: TrajectoryEnsembleData, what: str) -> str | None:
    """A trajectory that was imported without energies is for the first reference of a refinement alone."""
    if trajectory.has_energies:
        return None
    return (
        f"{what} was imported without energies, which the potential that a refinement starts from has to give: give it "
        "as the first reference of a refinement"
    )


def symbols_of(system: orm.StructureData | TrajectoryEnsembleData) -> list[str]:
    """The chemical symbol of each atom."""
    if isinstance(system, TrajectoryEnsembleData):
        return system.symbols
    return [system.get_kind(site.kind_name).symbol for site in system.sites]


def masses_of(system: orm.StructureData | TrajectoryEnsembleData) -> list[float] | None:
    """The mass of each atom, u; None for the standard atomic weights."""
    if isinstance(system, TrajectoryEnsembleData):
        return system.masses
    return [system.get_kind(site.kind_name).mass for site in system.sites]


def check_periodic(structure: orm.StructureData, what: str) -> str | None:
    """The engine simulates cells that are periodic in three directions, of lengths that simulations have."""
    if all(structure.pbc):
        try:
            check_extent([site.position for site in structure.sites], structure.cell, what)
            check_thickness(structure.cell, what)
        except ValueError as error:
            return str(error)
        return None
    return f"{what} has pbc {tuple(structure.pbc)}; a cell that is periodic in three directions is needed"


def check_scheduler(inputs: Mapping[str, Any], port: Any) -> str | None:
    """The scheduler of the computer must take the options of the job."""
    code = inputs.get("code")
    computer = inputs.get("metadata", {}).get("computer") or (code.computer if code is not None else None)
    options = inputs.get("metadata", {}).get("options", {})
    try:
        check_options(options, port["metadata"]["options"], computer)
    except ValueError as error:
        return f"metadata.options: {error}"
    return None


def check_whole(structure: orm.StructureData, what: str) -> str | None:
    """Every site must be one whole atom: no alloy, and no vacancies."""
    for kind in structure.kinds:
        shares = ", ".join(f"{symbol} {weight:g}" for symbol, weight in zip(kind.symbols, kind.weights, strict=True))
        if kind.is_alloy or kind.has_vacancies:
            return f"{what} has the kind {kind.name!r} occupied by {shares}; {WHOLE_ATOMS}"
    return None


def check_computer(inputs: Mapping[str, Any]) -> str | None:
    """The computer must be configured and enabled, where a user launches; a running chain waits for it instead."""
    code = inputs.get("code")
    computer = inputs.get("metadata", {}).get("computer") or (code.computer if code is not None else None)
    if computer is None or Process.current() is not None:
        return None
    user = orm.User.collection.get_default()
    if user is None:
        return None
    if not computer.is_user_configured(user):
        return (
            f"computer {computer.label!r} of the code is not configured for {user.email}; run "
            f"`verdi computer configure {computer.transport_type} {computer.label}`"
        )
    if not computer.is_user_enabled(user):
        return (
            f"computer {computer.label!r} of the code is disabled for {user.email}; when it is up again run "
            f"`verdi computer enable {computer.label} {user.email}`, or choose a code on another computer"
        )
    return None
