"""State points as inputs of the composite chains: their ports, their checks, and their sampling jobs."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from typing import Any

from aiida import orm
from aiida.engine import ProcessBuilder, ProcessSpec, WorkChain

from aiida_difftre.calculations.checks import (
    check_composition,
    check_labels,
    check_observables,
    check_periodic,
    check_species,
    check_target_nodes,
    check_temperature,
    check_trajectory,
    masses_of,
    symbols_of,
)
from aiida_difftre.calculations.update import check_earlier
from aiida_difftre.data.base import BasePotentialData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract import quantum
from aiida_difftre.engine.contract.dynamic_requests import check_dynamic_requests
from aiida_difftre.engine.contract.jobs import SampleJob, SamplingSettings
from aiida_difftre.engine.contract.observables import check_requests
from aiida_difftre.engine.contract.sampling_settings import WALKERS
from aiida_difftre.engine.contract.targets import Conditions, Target
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains.builders import refuse_unknown
from aiida_difftre.workchains.engine import UNSTABLE, EngineBaseWorkChain
from aiida_difftre.workchains.protocols import deep_merge, load_protocol
from aiida_difftre.workchains.sample import SampleBaseWorkChain

PLACEHOLDER_K = 300.0
"""In checks of parameters to which each state point adds its own temperature."""


def positive_temperature(value: orm.Float | None, _: Any) -> str | None:
    """Port validator: a temperature in K."""
    return None if value is None else _conditions_problem(value.value, None)


def _conditions_problem(temperature: float, pressure: float | None) -> str | None:
    try:
        validate(Conditions, {"temperature": temperature, "pressure": pressure})
    except ValueError as error:
        return str(error)
    return None


def define_state_points(spec: ProcessSpec) -> None:
    """Declare the namespace ``state_points``: structure, temperature, pressure and targets of each label."""
    spec.input_namespace(
        "state_points",
        dynamic=True,
        help="By label (letters, digits, single underscores): `structure` StructureData (the simulation cell), "
        "`temperature` Float (K), `pressure` Float (GPa; optional, for sampling with a barostat), "
        "`targets` namespace of TargetData by label, `trajectory` TrajectoryEnsembleData (optional; the first "
        "reference of a refinement, in place of its first sampling), `earlier` {NAME: {trajectory, potential}} "
        "(optional; trajectories of earlier runs there, which the updates of a refinement take where they overlap).",
        validator=check_state_points,
    )


def define_base(spec: ProcessSpec) -> None:
    """Declare the base of the potential, which goes to every job."""
    spec.input(
        "base",
        valid_type=BasePotentialData,
        required=False,
        help="The base to which the potential is a correction; needed where it has files.",
    )


def expose_sampling(spec: ProcessSpec) -> None:
    """Expose the inputs of sampling, but for those that a state point and the chain give."""
    given = ("potential", "base", "structure", "start_trajectory", "start_folder", "trajectory", "parent_folder")
    spec.expose_inputs(
        SampleBaseWorkChain,
        namespace="sample",
        exclude=[f"calc.{name}" for name in given],
        namespace_options={"help": "Of sampling, at every state point."},
    )
    parameters = spec.inputs["sample"]["calc"]["parameters"]
    parameters.validator = check_sampling
    parameters.help = "Of each sampling job: `sampling` and `machine`; temperature, seed and observables are set."


def add_base(calculation: MutableMapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Give a job the base of its potential, where the chain has one."""
    if "base" in inputs:
        calculation["base"] = inputs["base"]


def check_state_points(state_points: Mapping[str, Any] | None, _: Any) -> str | None:
    """Port validator of the whole namespace; a message that names the label and the value, or None."""
    if not state_points:
        return "no state point was given; give at least one, with a structure, a temperature and targets"
    if problem := check_labels(state_points, "state point"):
        return problem
    for label, point in state_points.items():
        problem = _check_state_point(point)
        if problem:
            return f"state point {label!r}: {problem}"
    return None


def _check_state_point(point: Any) -> str | None:
    if not isinstance(point, Mapping):
        return f"expected structure, temperature and targets, got {type(point).__name__}"
    for name, kind in (("structure", orm.StructureData), ("temperature", orm.Float)):
        if not isinstance(point.get(name), kind):
            return f"{name} is {type(point.get(name)).__name__}; it must be {kind.__name__}"
    if point.get("pressure") is not None and not isinstance(point["pressure"], orm.Float):
        return f"pressure is {type(point['pressure']).__name__}; it must be Float (GPa)"
    if not isinstance(point.get("trajectory"), TrajectoryEnsembleData | None):
        return f"trajectory is {type(point['trajectory']).__name__}; it must be TrajectoryEnsembleData"
    if unknown := set(point) - {"structure", "temperature", "pressure", "targets", "trajectory", "earlier"}:
        return (
            f"unknown inputs {sorted(unknown)}; known: structure, temperature, pressure, targets, trajectory, earlier"
        )
    if problem := check_earlier(point.get("earlier") or {}):
        return problem
    if problem := _conditions_problem(point["temperature"].value, pressure_of(point)):
        return problem
    targets = point.get("targets") or {}
    if not targets:
        return "no targets were given"
    if problem := check_target_nodes(targets) or check_periodic(point["structure"], "its structure"):
        return problem
    requests = [node.target.request() for node in targets.values()]
    return check_observables(requests, point["structure"], "its structure")


def check_structures(potential: PotentialData, state_points: Mapping[str, Any]) -> str | None:
    """A message where a structure holds a species that the potential does not know, or None."""
    for label, point in state_points.items():
        structure, what = point["structure"], f"the structure of state point {label!r}"
        species = sorted(structure.get_symbols_set())
        if problem := check_species(potential, species, what) or check_composition(potential, structure, what):
            return problem
        if problem := check_temperature(potential, point["temperature"].value, f"state point {label!r}"):
            return problem
    return None


def quantum_advice(point: Mapping[str, Any]) -> str | None:
    """What to know of a state point whose nuclei are quantum, or None."""
    structure = point["structure"]
    symbols, masses = symbols_of(structure), masses_of(structure)
    places = [site.position for site in structure.sites]
    return quantum.advice(symbols, masses or (), places, structure.cell, point["temperature"].value)


def check_training_target(state_points: Mapping[str, Any]) -> str | None:
    """A message where no target can enter the loss, or None."""
    if not any(node.target.is_in_loss for point in state_points.values() for node in point["targets"].values()):
        return "no training target with a positive weight: nothing to refine towards"
    return None


def in_refinement(state_points: Mapping[str, Any]) -> dict[str, Any]:
    """The state points that a refinement samples, without their test targets.

    They have a target in the loss, or one that chooses the best iteration; the others are validated alone. A test
    target is left out of every job of a refinement: its observable would change the errors of the others.
    """
    return {
        label: {
            **point,
            "targets": {name: node for name, node in point["targets"].items() if node.target.role != "test"},
        }
        for label, point in state_points.items()
        if any(node.target.is_decisive for node in point["targets"].values())
    }


def check_targets(state_points: Mapping[str, Any], sampling: orm.Dict) -> str | None:
    """A message where the ensemble that is sampled cannot give a target, or None.

    Args:
        state_points: pressures and targets.
        sampling: parameters of the sampling jobs.
    """
    settings = validate(SamplingSettings, sampling.get_dict().get("sampling", {}))
    for label, point in state_points.items():
        requests = [target.target.request() for target in point["targets"].values()]
        try:
            check_requests(requests, settings.ensemble(pressure_of(point)))
        except ValueError as error:
            return f"state point {label!r}: {error}"
    return None


def check_dynamic_targets(state_points: Mapping[str, Any], sampling: orm.Dict) -> str | None:
    """A message where the dynamics of a validation cannot give a target that is a property of it, or None.

    Args:
        state_points: targets.
        sampling: parameters of the sampling jobs.
    """
    settings = validate(SamplingSettings, sampling.get_dict().get("sampling", {}))
    for label, point in state_points.items():
        try:
            check_dynamic_requests([target.target.request() for target in point["targets"].values()], settings)
        except ValueError as error:
            return f"state point {label!r}: {error}"
    return None


def check_trajectories(state_points: Mapping[str, Any], sampling: orm.Dict) -> str | None:
    """A message where a trajectory that is to be the first reference is not of its state point, or None.

    Args:
        state_points: structures, temperatures, pressures and trajectories.
        sampling: parameters of the sampling jobs.
    """
    settings = validate(SamplingSettings, sampling.get_dict().get("sampling", {}))
    for label, point in state_points.items():
        for name, one in (point.get("earlier") or {}).items():
            if one["trajectory"].symbols != list(symbols_of(point["structure"])):
                return f"state point {label!r}: earlier.{name} is of other atoms than its structure; leave it out"
        if point.get("trajectory") is None:
            continue
        temperature, pressure = point["temperature"].value, pressure_of(point)
        problem = check_trajectory(point["trajectory"], point["structure"], temperature, pressure, settings)
        if problem:
            return f"state point {label!r}: {problem}"
    return None


def pressure_of(point: Mapping[str, Any]) -> float | None:
    """The pressure of a state point, GPa; None where it has none."""
    node = point.get("pressure")
    return None if node is None else float(node.value)


def targets_of(nodes: Mapping[str, TargetData]) -> dict[str, Target]:
    """The targets behind nodes, by the name under which they are predicted."""
    targets = [node.target for node in nodes.values()]
    return {target.name: target for target in targets}


def sampling_parameters(
    template: Mapping[str, Any],
    point: Mapping[str, Any],
    *,
    seed: int,
    predict: bool,
    born_stride: int = 0,
    **sampling: float | None,
) -> dict[str, Any]:
    """The parameters of one sampling job.

    Args:
        template: parameters as given to the chain.
        point: state point: temperature, pressure and targets.
        seed: Seed of this run.
        predict: True if the job also predicts the observables of the targets.
        born_stride: Every so many snapshots get a Born term of a base; 0 for none.
        **sampling: settings that replace those of the template; None leaves them.

    Returns:
        The parameters, as plain dictionaries.
    """
    chosen = {name: value for name, value in sampling.items() if value is not None}
    parameters = {
        **template,
        "temperature": point["temperature"].value,
        "seed": seed,
        "sampling": {**template.get("sampling", {}), **chosen},
    }
    if born_stride:
        parameters["base_born_stride"] = born_stride
    if (pressure := pressure_of(point)) is not None:
        parameters["pressure"] = pressure
    if predict:
        requests = [target.request() for target in targets_of(point["targets"]).values()]
        parameters["observables"] = [request.model_dump(mode="json") for request in requests]
    return parameters


def base_born_stride(point: Mapping[str, Any]) -> int:
    """The stride of Born terms that an update of a correction to a base needs; 0 where no target takes them."""
    requests = [target.request() for target in targets_of(point["targets"]).values()]
    fluctuating = [request.options for request in requests if request.options.get("strain") is None]
    return math.gcd(*(options["born_stride"] for options in fluctuating if "born_stride" in options))


def check_sampling(node: orm.Dict | None, _: Any) -> str | None:
    """Port validator of the parameters of sampling, which have no temperature yet."""
    try:
        validate(SampleJob, {"temperature": PLACEHOLDER_K, **(node.get_dict() if node is not None else {})})
    except ValueError as error:
        return f"parameters of sampling: {error}"
    return None


def make_builder(
    chain: type[WorkChain],
    name: str,
    second: type[EngineBaseWorkChain],
    *,
    codes: tuple[orm.AbstractCode | str, orm.AbstractCode | str],
    state_points: Mapping[str, Mapping[str, Any]],
    nodes: Mapping[str, orm.Data | None],
    protocol: str | None,
    overrides: Mapping[str, Any] | None,
    options: Mapping[str, Any] | None,
) -> ProcessBuilder:
    """A builder of a chain that samples at state points and then runs jobs of a second kind.

    Args:
        chain: The composite chain.
        name: Name of its protocol file.
        second: Restart chain of the second kind of job.
        codes: Codes of sampling and of the second kind of job, or their labels.
        state_points: State points by label: structure, temperature, targets.
        nodes: Further inputs by name; None values are left out.
        protocol: Name of the preset; None for the default one.
        overrides: Changes that are merged into the preset.
        options: Options of the jobs, by the names of their protocols.

    Returns:
        The builder.
    """
    refuse_unknown(overrides, {"settings", SampleBaseWorkChain.CHAIN, second.CHAIN}, f"overrides of {name}")
    refuse_unknown(options, {SampleBaseWorkChain.CHAIN, second.CHAIN}, f"options of {name}")
    preset, options = load_protocol(name, protocol, overrides), options or {}
    builder: Any = chain.get_builder()
    builder.state_points = state_points
    builder.settings = orm.Dict(preset["settings"])
    for key, node in nodes.items():
        if node is not None:
            builder[key] = node
    temperature = next((point["temperature"].value for point in state_points.values()), None)
    parts: tuple[type[EngineBaseWorkChain], ...] = (SampleBaseWorkChain, second)
    for part, code, given in zip(parts, codes, ({"temperature": temperature}, {}), strict=True):
        made = part.get_builder_from_protocol(  # type: ignore[attr-defined]  # every restart chain has it
            code=code,
            protocol=protocol,
            overrides=preset.get(part.CHAIN),
            options=options.get(part.CHAIN),
            **given,
        )
        builder[part.CHAIN] = made._inputs(prune=True)
    return builder


def production_fs(template: Mapping[str, Any]) -> float:
    """The sampled time of each walker in parameters of sampling, fs."""
    default = SamplingSettings.model_fields["production_fs"].default
    return float(template.get("sampling", {}).get("production_fs", default))


def within_memory(parameters: Mapping[str, Any], lowered: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of sampling with what was found to fit into memory.

    Args:
        parameters: Parameters of a sampling job.
        lowered: Lowered settings of an earlier one, see :func:`aiida_difftre.workchains.engine.lowered_for_memory`;
            fewer walkers sample for a longer time, which keeps the number of snapshots.

    Returns:
        The parameters, as plain dictionaries.
    """
    changes = dict(lowered)
    if "sampling" in lowered:
        wanted = validate(SamplingSettings, parameters.get("sampling", {}))
        walkers = lowered["sampling"]["walkers"]
        before = wanted.walkers or WALKERS
        longer = wanted.production_fs * max(1.0, before / walkers)
        changes["sampling"] = {"walkers": min(walkers, before), "production_fs": longer}
    return deep_merge(parameters, changes)


def is_unstable(node: orm.ProcessNode) -> bool:
    """Whether a restart chain ended because of the dynamics, not of the machine."""
    return node.exit_status in UNSTABLE


def reason_of(node: orm.ProcessNode) -> str:
    """Why a process did not finish well, with its PK."""
    state = node.process_state.value if node.process_state else "unknown"
    return f"{node.process_label}<{node.pk}>: {node.exit_message or 'it ended in the state ' + state}"
