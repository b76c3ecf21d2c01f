"""The input of a whole run, read from its YAML and checked; and the inputs that come with the package."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from aiida_difftre import catalogue
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.documents import read_yaml
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains import consistency
from aiida_difftre.workchains.cells import of_stage, simulation_cell
from aiida_difftre.workchains.input_models import RunInput, StatePoint
from aiida_difftre.workchains.paths import beside

ModelT = TypeVar("ModelT", bound=Strict)


def _read_model(path: Path, model: type[ModelT]) -> ModelT:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, not a mapping of settings")
    try:
        return validate(model, content)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _read_target(folder: Path, name: Path) -> Target:
    """The target in a file beside the input, or of the catalogue."""
    if str(name).startswith(catalogue.PREFIX):
        return catalogue.find(str(name)).target()
    return _read_model(beside(folder, name), Target)


def read_input(path: Path) -> RunInput:
    """Read and check the input file of a run.

    Args:
        path: A YAML file.

    Returns:
        The input, as its model.

    Raises:
        ValueError: Where a value does not fit; the message names it and the remedy.

    Example:
        >>> from aiida_difftre.workchains.inputs import example, read_input
        >>> sorted(read_input(example("diamond/quick.yaml")).state_points)
        ['ambient']
    """
    run = _read_model(path, RunInput)
    for label, point in run.state_points.items():
        _read_targets(path.parent, point.targets)
        _check_conditions(label, point)
    _check_training(run, path.name)
    for number, stage in enumerate(run.refinement.stages):
        where = f"refinement.stages.{number}"
        for label, changed in stage.state_points.items():
            _read_targets(path.parent, changed.targets)
            _check_replaced(f"{where}: {label}.targets", run.state_points[label].targets, changed.targets)
        try:
            small = of_stage(run, stage)
            for label in stage.state_points:
                _check_conditions(label, small.state_points[label])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        _check_training(small, where)
    return run


def _read_targets(folder: Path, targets: MutableMapping[str, Any]) -> None:
    """Put targets in the places of the files that hold them, with the label they are given."""
    for name, target in targets.items():
        if target is not None:
            checked = _read_target(folder, target) if isinstance(target, Path) else target
            targets[name] = checked.model_copy(update={"label": name})


def _check_replaced(where: str, targets: Mapping[str, Any], replaced: Mapping[str, Any]) -> None:
    """Refuse test targets in a stage, and to train on what the run holds out."""
    for name, target in replaced.items():
        if target is None:
            continue
        if target.role == "test":
            raise ValueError(f"{where}.{name} has the role test, which no stage takes; leave it out")
        if targets[name].role == "test":
            raise ValueError(
                f"{where}.{name} replaces a target of role test, which never influences the run; leave it out"
            )


def _check_training(run: RunInput, where: str) -> None:
    targets = [target for point in run.state_points.values() for target in point.targets.values()]
    if not any(target.is_in_loss for target in targets if isinstance(target, Target)):
        raise ValueError(f"{where}: no training target with a positive weight: nothing to refine towards")


def check_fixed_volumes(run: RunInput, folder: Path) -> None:
    """Refuse targets that the cells of their state points, in the run and its stages, do not fit.

    A cell that a barostat moves fits.

    Raises:
        ValueError: naming the state point, the target, and what to state.
    """
    for number, stage in enumerate(run.refinement.stages):
        try:
            check_fixed_volumes(of_stage(run, stage), folder)
        except ValueError as error:
            raise ValueError(f"refinement.stages.{number}: {error}") from None
    for label, point in run.state_points.items():
        if point.pressure is not None and run.sampling.get("barostat") is not None:
            continue
        targets = {name: target for name, target in point.targets.items() if isinstance(target, Target)}
        states_volume = point.density is not None or point.structure is not None
        try:
            consistency.check_pressures(targets, states_volume=states_volume)
            consistency.check_cell(targets, simulation_cell(run, label, folder))
        except ValueError as error:
            raise ValueError(f"state point {label!r}: {error}") from None


def _check_conditions(label: str, point: StatePoint) -> None:
    targets = {name: target for name, target in point.targets.items() if isinstance(target, Target)}
    try:
        consistency.check_targets(targets)
    except ValueError as error:
        raise ValueError(f"state point {label!r}: {error}") from None
    for name, target in point.targets.items():
        if not isinstance(target, Target):
            continue
        _check_strain(label, point, name, target)
        measured = target.conditions
        if abs(measured.temperature - point.temperature) > 0.01 * point.temperature:
            raise ValueError(
                f"state point {label!r} is at {point.temperature} K, but its target {name!r} was measured at "
                f"{measured.temperature} K; make a state point of its own for it"
            )
        wanted, found = point.pressure, measured.pressure
        if wanted is not None and found is not None and abs(wanted - found) > 0.001 + 0.01 * abs(wanted):
            raise ValueError(
                f"state point {label!r} is at {wanted} GPa, but its target {name!r} was measured at {found} GPa; "
                "make a state point of its own for it"
            )
        wanted, found = point.density, measured.density
        if wanted is not None and found is not None and abs(wanted - found) > 0.01 * wanted:
            raise ValueError(
                f"state point {label!r} has a density of {point.density} kg/m³, but its target {name!r} was measured "
                f"at {measured.density} kg/m³; give it density: {measured.density}, or make a state point of its own "
                "for the target"
            )


def _check_strain(label: str, point: StatePoint, name: str, target: Target) -> None:
    if target.observable != "stiffness":
        return
    wanted, found = target.options["strain"], point.strain
    if (None if wanted is None else list(wanted)) == (None if found is None else list(found)):
        return
    if wanted is None:
        raise ValueError(
            f"state point {label!r} has the strain {list(found or ())}, but its target {name!r} is a stiffness by "
            "stress fluctuations, of a crystal without strain; give the target options: {strain: the same}, or make a "
            "state point of its own for it"
        )
    raise ValueError(
        f"target {name!r} is a stiffness from the stress under the strain {list(wanted)}; give the same strain to "
        f"its state point {label!r}, which has {'none' if found is None else list(found)}"
    )


def example(name: str) -> Path:
    """Find an example input that comes with the package.

    Args:
        name: System and file, such as ``diamond/quick.yaml``.

    Returns:
        The path of the file.

    Raises:
        ValueError: For a name that does not exist.

    Example:
        >>> from aiida_difftre.workchains.inputs import example
        >>> example("diamond/quick.yaml").name
        'quick.yaml'
    """
    path = Path(str(files("aiida_difftre"))) / "examples" / name
    if not path.is_file():
        raise ValueError(f"there is no example {name!r} in {path.parent}")
    return path
