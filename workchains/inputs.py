"""The input of a whole run, read from its YAML and checked; and the inputs that come with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from aiida_difftre import catalogue
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.documents import read_yaml
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains import consistency
from aiida_difftre.workchains.cells import simulation_cell
from aiida_difftre.workchains.input_models import RunInput, StatePoint

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
    return _read_model(folder / name, Target)


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
        for name, target in point.targets.items():
            checked = _read_target(path.parent, target) if isinstance(target, Path) else target
            point.targets[name] = checked.model_copy(update={"label": name})
        _check_conditions(label, point)
    targets = [target for point in run.state_points.values() for target in point.targets.values()]
    if not any(target.is_in_loss for target in targets if isinstance(target, Target)):
        raise ValueError(f"{path.name}: no training target with a positive weight: nothing to refine towards")
    return run


def check_fixed_volumes(run: RunInput, folder: Path) -> None:
    """Refuse targets that the cells of their state points do not fit, where no barostat moves these.

    Raises:
        ValueError: naming the state point, the target, and what to state.
    """
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
                f"at {measured.density} kg/m³"
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
