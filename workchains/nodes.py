"""The nodes of a run from its input: potential, base, labels, state points with their trajectories, stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent

from aiida_difftre.data.base import BasePotentialData
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.stored import the_same
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.frames import split_index
from aiida_difftre.engine.contract.known_bases import check_potential
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.trajectories.importing import ImportSettings, import_trajectory
from aiida_difftre.workchains.cells import of_stage, simulation_cell
from aiida_difftre.workchains.codes import code_of, load_code
from aiida_difftre.workchains.input_models import RemoteFile, RunInput, TrajectoryFiles
from aiida_difftre.workchains.inputs import check_fixed_volumes
from aiida_difftre.workchains.paths import beside, missing

NodeT = TypeVar("NodeT", PotentialData, DatasetData, TrajectoryEnsembleData)
DataT = TypeVar("DataT", bound=orm.Data)


def potential_of(run: RunInput, folder: Path) -> PotentialData | None:
    """The potential that exists, as a node; None for a run that makes one."""
    return None if run.model.potential is None else node_or_file(PotentialData, run.model.potential, folder)


def base_of(run: RunInput, folder: Path) -> BasePotentialData | None:
    """The base of the potential as a node.

    Raises:
        ValueError: naming what is wrong with it.
    """
    given = run.model.base
    if given is None:
        return None
    if given.node is not None:
        try:
            return _node(BasePotentialData, given.node)
        except ValueError as error:
            raise ValueError(f"model.base.node: {error}") from None
    remote = {name: file for name, file in given.files.items() if isinstance(file, RemoteFile)}
    computer = load_code("sampling", run.machines.sampling, code_of(run)).computer if remote else None
    species = None if run.model.correction is None else run.model.correction.species
    try:
        return BasePotentialData.from_name(
            given.name or "",
            engine=given.engine,
            version=given.version,
            arguments=given.arguments,
            files={name: file.path for name, file in remote.items()}
            or {name: beside(folder, file) for name, file in given.files.items() if isinstance(file, Path)},
            computer=computer,
            digests={name: file.sha256 for name, file in remote.items()},
            species=species,
        )
    except ValueError as error:
        raise ValueError(f"model.base: {error}") from None


def spec_of(run: RunInput, base: BasePotentialData | None) -> PotentialSpec | None:
    """The potential to make: on top of the base, where there is one.

    Raises:
        ValueError: for a base that does not know its species.
    """
    correction = run.model.correction
    if correction is None or base is None:
        return run.model.spec
    try:
        return check_potential(correction.model_copy(update={"base": base.spec}))
    except ValueError as error:
        raise ValueError(f"model.base: {error}") from None


def dataset_of(run: RunInput, folder: Path) -> DatasetData | None:
    """The labels that exist, as a node; None for a run that makes them, or has none.

    Raises:
        ValueError: naming what was given.
    """
    if run.dft is None or run.dft.dataset is None:
        return None
    path = folder / run.dft.dataset
    if split_index(path)[0].is_file():
        return the_same(DatasetData.from_file(path, keys=run.dft.keys, label=split_index(path)[0].stem))
    if run.dft.keys.model_fields_set:
        raise ValueError(f"dft.keys are those of a file, not of a node: {missing(folder, run.dft.dataset)}")
    return node_or_file(DatasetData, run.dft.dataset, folder)


def _padding(run: RunInput, label: str) -> str:
    """What was put around the atoms of a state point, in one line; empty where nothing was."""
    vacuum = run.system.vacuum
    return f"vacuum of {vacuum:g} Å on both sides" if vacuum and run.state_points[label].structure is None else ""


def state_points(run: RunInput, folder: Path) -> dict[str, dict[str, Any]]:
    """The state points as nodes.

    Raises:
        ValueError: for a cell that does not fit the conditions of its targets.
    """
    check_fixed_volumes(run, folder)
    return {
        label: {
            "structure": orm.StructureData(ase=simulation_cell(run, label, folder), description=_padding(run, label)),
            "temperature": orm.Float(point.temperature),
            **({} if point.pressure is None else {"pressure": orm.Float(point.pressure)}),
            "targets": {name: _target_node(name, target) for name, target in point.targets.items()},
        }
        for label, point in run.state_points.items()
    }


def with_trajectories(points: dict[str, dict[str, Any]], run: RunInput, folder: Path) -> dict[str, dict[str, Any]]:
    """State points with the trajectories that exist for them.

    Raises:
        ValueError: naming the state point, and what is wrong with its trajectory.
    """
    found = {}
    for label, given in run.refinement.trajectory.items():
        try:
            found[label] = _trajectory(given, run, label, folder)
        except ValueError as error:
            raise ValueError(f"refinement.trajectory.{label}: {error}") from None
    return {
        label: {**point, "trajectory": found[label]} if label in found else point for label, point in points.items()
    }


def _trajectory(given: TrajectoryFiles | str, run: RunInput, label: str, folder: Path) -> TrajectoryEnsembleData:
    if isinstance(given, str):
        if (folder / given).is_file():
            return TrajectoryEnsembleData.from_file(folder / given, may_lack_energies=True, label=Path(given).stem)
        return node_or_file(TrajectoryEnsembleData, given, folder)
    point = run.state_points[label]
    stated = given.model_dump(exclude={"files", "logs"}, exclude_unset=True)
    pressure = point.pressure if run.sampling.get("barostat") is not None else None
    settings = validate(ImportSettings, {**stated, "temperature": point.temperature, "pressure": pressure})
    files, logs = ([beside(folder, path) for path in paths] for paths in (given.files, given.logs))
    return TrajectoryEnsembleData.from_imported(import_trajectory(files, logs, settings), label=given.files[0].name)


def stages_of(run: RunInput, folder: Path) -> dict[str, dict[str, Any]]:
    """The stages as nodes, by name."""
    found: dict[str, dict[str, Any]] = {}
    for number, stage in enumerate(run.refinement.stages):
        small = of_stage(run, stage)
        points = stage.state_points
        changes = stage.model_dump(include={"settings", "sampling", "update"})
        without = {
            label: [name for name, one in point.targets.items() if one is None] for label, point in points.items()
        }
        found[f"stage_{number}"] = {
            "structures": {
                label: orm.StructureData(ase=simulation_cell(small, label, folder))
                for label, point in points.items()
                if point.repeat is not None or point.structure is not None
            },
            "targets": {
                label: {name: _target_node(name, one) for name, one in point.targets.items() if one is not None}
                for label, point in points.items()
            },
            "changes": orm.Dict({**changes, "without": {label: names for label, names in without.items() if names}}),
        }
    return found


def _target_node(name: str, target: Any) -> TargetData:
    return the_same(TargetData(target, label=name))


def node_or_file(kind: type[NodeT], identifier: str, folder: Path) -> NodeT:
    """A node by PK, UUID or label, or a new one from a file.

    Raises:
        ValueError: naming what was given.
    """
    path = folder / identifier
    if path.is_file():
        return the_same(kind.from_file(path, label=path.stem))  # type: ignore[return-value]
    return _node(kind, identifier, f"neither a file in {folder.resolve()}, the folder of the input, nor a node")


def _node(kind: type[DataT], identifier: str, otherwise: str = "no node") -> DataT:
    """A node by PK, UUID or label.

    Raises:
        ValueError: naming what was given, and what it is if it is none.
    """
    try:
        node = orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        raise ValueError(f"{identifier!r} is {otherwise}: {error}") from None
    if not isinstance(node, kind):
        raise ValueError(f"node {identifier!r} is a {type(node).__name__}; a {kind.__name__} is needed")
    return node
