"""From an input file to the builder of a composite chain: nodes, codes and overrides, checked before submission."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from aiida import orm
from aiida.common.exceptions import AiidaException, MultipleObjectsError, NotExistent
from aiida.engine import ProcessBuilder, WorkChain, run_get_node
from aiida.engine.processes.ports import PortNamespace
from aiida.plugins import CalculationFactory, WorkflowFactory

from aiida_difftre.calculations.scheduler import check_options
from aiida_difftre.data.base import BasePotentialData, engine_of
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.stored import the_same
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract import known_bases
from aiida_difftre.engine.contract.frames import split_index
from aiida_difftre.engine.contract.known_bases import check_potential
from aiida_difftre.engine.contract.settings import PotentialSpec, SamplingSettings
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.trajectories.importing import ImportSettings, import_trajectory
from aiida_difftre.workchains import estimate
from aiida_difftre.workchains.absorption import without_paths
from aiida_difftre.workchains.estimate import Sampling
from aiida_difftre.workchains.inputs import (
    Dft,
    RemoteFile,
    RunInput,
    TrajectoryFiles,
    check_fixed_volumes,
    labelled_cell,
    labelled_files,
    of_stage,
    read_input,
    simulation_cell,
)
from aiida_difftre.workchains.machines import JobMachine
from aiida_difftre.workchains.protocols import load_protocol
from aiida_difftre.workchains.refine import RefineWorkChain
from aiida_difftre.workchains.refine_settings import RefineSettings
from aiida_difftre.workchains.train import TrainWorkChain
from aiida_difftre.workchains.validate import has_undistorted_cell

DEFAULT_CODES = {
    "dft": "pw@localhost",
    "feff": "feff@localhost",
    "pretraining": "difftre@localhost",
    "sampling": "difftre@localhost",
    "update": "difftre@localhost",
    "prediction": "difftre@localhost",
}
CHAIN_OF = {
    "dft": "pw",
    "feff": "feff",
    "pretraining": "pretrain",
    "sampling": "sample",
    "update": "update",
    "prediction": "predict",
}
EVALUATING = ("pretraining", "sampling", "prediction")
"""Jobs that evaluate the base of a potential."""

JOB_OF = {
    "dft": "quantumespresso.pw",
    "feff": "difftre.feff",
    "pretraining": "difftre.pretrain",
    "sampling": "difftre.sample",
    "update": "difftre.update",
    "prediction": "difftre.predict",
}
NodeT = TypeVar("NodeT", PotentialData, DatasetData, TrajectoryEnsembleData)


def read_builder(file: Path, chain: type[WorkChain] = TrainWorkChain, *, seed: int | None = None) -> ProcessBuilder:
    """Read an input file and make a builder.

    Args:
        file: YAML.
        chain: TrainWorkChain, or RefineWorkChain or ValidateWorkChain, for which ``model.potential`` has to be given.
        seed: Seed in place of that of the file.

    Returns:
        The builder, ready to be submitted.

    Raises:
        ValueError: whose message names the value and the remedy; also for a run that no machine does.
    """
    run, folder = read_input(file), file.parent
    if seed is not None:
        run = run.model_copy(update={"seed": seed})
    estimate.check(read_plan(file))
    made = _train(run, folder) if chain is TrainWorkChain else _part(run, folder, chain)
    made["metadata"]["label"] = run.label or file.stem
    check(made, chain)
    return made


def plan(run: RunInput, folder: Path, spec: PotentialSpec) -> list[Sampling]:
    """The sampling of a run: in its refinement, and before and after it.

    Args:
        run: the input.
        folder: Folder of the input.
        spec: Spec of the potential.

    Returns:
        What the trajectories of the run take.
    """
    changes = overrides(run)
    refine = load_protocol("refine", run.protocol, changes["refine"])
    validate_ = load_protocol("validate", run.protocol, changes["validate"])
    moving, lasting = (_sampling(run.protocol, preset) for preset in (refine, validate_))
    settings = validate(RefineSettings, refine["settings"])
    growth = settings.growth.factor ** len(settings.growth.thresholds)
    parts = []
    for label, point in run.state_points.items():
        cell = simulation_cell(run, label, folder)
        size: dict[str, Any] = {"atoms": len(cell), "volume": float(cell.get_volume())}
        if any(isinstance(target, Target) and target.is_in_loss for target in point.targets.values()):
            name, times = f"refinement at {label}", settings.max_iterations + settings.max_roll_backs
            parts.append(estimate.sampling(name, moving, spec, times=times, growth=growth, **size))
        parts.append(estimate.sampling(f"validation at {label}", lasting, spec, times=2, **size))
    for number, stage in reversed(list(enumerate(run.refinement.stages))):
        refined = [one for one in plan(of_stage(run, stage), folder, spec) if one.label.startswith("refinement")]
        parts = [*(replace(one, label=f"stage {number}, {one.label}") for one in refined), *parts]
    return parts


def _stages(run: RunInput, folder: Path) -> dict[str, dict[str, Any]]:
    """The stages as nodes, by name."""
    found: dict[str, dict[str, Any]] = {}
    for number, stage in enumerate(run.refinement.stages):
        small = of_stage(run, stage)
        found[f"stage_{number}"] = {
            "structures": {
                label: orm.StructureData(ase=simulation_cell(small, label, folder)) for label in stage.state_points
            },
            "changes": orm.Dict(stage.model_dump(include={"settings", "sampling", "update"})),
        }
    return found


def _sampling(protocol: str, preset: dict[str, Any]) -> SamplingSettings:
    merged = load_protocol("sample", protocol, preset.get("sample", {}))
    return validate(SamplingSettings, merged["calc"]["parameters"]["sampling"])


def read_plan(file: Path) -> list[Sampling]:
    """What the run of an input file will sample.

    Raises:
        ValueError: for an input that is refused.
    """
    run, folder = read_input(file), file.parent
    check_fixed_volumes(run, folder)
    potential = _potential(run, folder)
    spec = (run.model.spec or run.model.correction) if potential is None else potential.spec
    if spec is None:
        raise ValueError("model: give either potential (one that exists) or spec (one to make)")
    return plan(run, folder, spec)


def _potential(run: RunInput, folder: Path) -> PotentialData | None:
    return None if run.model.potential is None else node_or_file(PotentialData, run.model.potential, folder)


def _padding(run: RunInput, label: str) -> str:
    """What was put around the atoms of a state point, in one line; empty where nothing was."""
    vacuum = run.system.vacuum
    return f"vacuum of {vacuum:g} Å on both sides" if vacuum and run.state_points[label].structure is None else ""


def _base(run: RunInput, folder: Path) -> BasePotentialData | None:
    """The base of the potential as a node.

    Raises:
        ValueError: naming what is wrong with it.
    """
    given = run.model.base
    if given is None:
        return None
    if given.node is not None:
        node = orm.load_node(given.node)
        if not isinstance(node, BasePotentialData):
            raise ValueError(f"model.base.node: {given.node!r} is a {type(node).__name__}; give a BasePotentialData")
        return node
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
            or {name: folder / file for name, file in given.files.items() if isinstance(file, Path)},
            computer=computer,
            digests={name: file.sha256 for name, file in remote.items()},
            species=species,
        )
    except ValueError as error:
        raise ValueError(f"model.base: {error}") from None


def _spec(run: RunInput, base: BasePotentialData | None) -> PotentialSpec | None:
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


def code_of(run: RunInput) -> str | None:
    """The code that evaluates the base where an input names none: that of its environment; None without a package.

    Those are made by ``aiida-difftre setup --base NAME``. Updates need none: they take what the base gave.
    """
    given = run.model.base
    if given is None or given.name is None:
        return None
    package = known_bases.known(given.engine or engine_of(given.name), given.name).package
    return None if package is None else f"difftre-{given.name}@localhost"


def _dataset(run: RunInput, folder: Path) -> DatasetData | None:
    if run.dft is None or run.dft.dataset is None:
        return None
    path = folder / run.dft.dataset
    if split_index(path)[0].is_file():
        return the_same(DatasetData.from_file(path, keys=run.dft.keys, label=split_index(path)[0].stem))
    if run.dft.keys.model_fields_set:
        raise ValueError(f"dft.keys are those of a file; {run.dft.dataset!r} is none in {folder}")
    return node_or_file(DatasetData, run.dft.dataset, folder)


def _train(run: RunInput, folder: Path) -> ProcessBuilder:
    potential, dataset, base = _potential(run, folder), _dataset(run, folder), _base(run, folder)
    spec = _spec(run, base)
    _check_static_stiffness(run, potential, dataset)
    needed = dict(CHAIN_OF)
    if potential is not None:
        del needed["pretraining"]
    labels: dict[str, Any] = {}
    if potential is None and dataset is None and run.dft is not None:
        labels = {
            "structure": orm.StructureData(ase=labelled_cell(run, folder)),
            "structures": {
                f"file_{index}": orm.StructureData(ase=atoms) for index, atoms in enumerate(labelled_files(run, folder))
            },
            "pseudo_family": run.dft.pseudo_family,
            "functional": run.dft.functional,
            "kpoints": run.dft.kpoints,
            "kpoints_offset": run.dft.kpoints_offset,
            "kpoints_distance": run.dft.kpoints_distance,
        }
    else:
        del needed["dft"]
    points = with_trajectories(state_points(run, folder), run, folder)
    if not without_paths(points):
        del needed["feff"]
    return TrainWorkChain.get_builder_from_protocol(
        codes={name: load_code(kind, getattr(run.machines, kind), code_of(run)) for kind, name in needed.items()},
        state_points=points,
        spec=None if spec is None else spec.model_dump(mode="json"),
        base=base,
        dataset=dataset,
        potential=potential,
        labels=labels,
        stages=_stages(run, folder),
        protocol=run.protocol,
        overrides=overrides(run),
        options={name: getattr(run.machines, kind).options for kind, name in needed.items()},
    )


def _part(run: RunInput, folder: Path, chain: type[WorkChain]) -> ProcessBuilder:
    potential = _potential(run, folder)
    if potential is None:
        raise ValueError(f"model.potential: {chain.__name__} needs a potential that exists")
    dataset = _dataset(run, folder)
    if run.refinement.stages:
        raise ValueError("refinement.stages are of a whole run (difftre.train); leave them out, or run the whole")
    if chain is not RefineWorkChain:
        _check_static_stiffness(run, potential, dataset)
    points = state_points(run, folder)
    second = "update" if chain is RefineWorkChain else "prediction"
    section = "refine" if chain is RefineWorkChain else "validate"
    return chain.get_builder_from_protocol(  # type: ignore[attr-defined]
        **{("potential" if chain is RefineWorkChain else "after"): potential},
        **{f"{CHAIN_OF[second]}_code": load_code(second, getattr(run.machines, second), code_of(run))},
        sample_code=load_code("sampling", run.machines.sampling, code_of(run)),
        base=_base(run, folder),
        state_points=with_trajectories(points, run, folder) if chain is RefineWorkChain else points,
        dataset=dataset,
        protocol=run.protocol,
        overrides=overrides(run)[section],
        options={CHAIN_OF[kind]: getattr(run.machines, kind).options for kind in ("sampling", second)},
    )


def _check_static_stiffness(run: RunInput, potential: PotentialData | None, dataset: DatasetData | None) -> None:
    """Atoms packed at random relax slowly or not at all, at the end of the run; who wants that has to say so."""
    label, first = next(iter(run.state_points.items()))
    if run.system.random is None or first.structure is not None or "static_stiffness" in run.validation.settings:
        return
    makes_labels = potential is None and dataset is None and run.dft is not None
    if makes_labels or (dataset is not None and has_undistorted_cell(dataset)):
        return
    raise ValueError(
        f"validation.settings.static_stiffness: atoms packed at random ({label}) have to be relaxed for it, and the "
        "preset asks for it; say false for a liquid, or true to relax them"
    )


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
            "targets": {name: the_same(TargetData(target, label=name)) for name, target in point.targets.items()},  # type: ignore[arg-type]
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
    files, logs = ([folder / path for path in paths] for paths in (given.files, given.logs))
    return TrajectoryEnsembleData.from_imported(import_trajectory(files, logs, settings), label=given.files[0].name)


def overrides(run: RunInput) -> dict[str, Any]:
    """What the input changes in the presets, by section of the TrainWorkChain."""
    dft = run.dft or Dft()
    dataset: dict[str, Any] = {"generation": dft.generation, "pw": {"pw": {"parameters": dft.pw_parameters}}}
    dataset |= {
        name: value
        for name, value in (("max_concurrent", dft.max_concurrent), ("min_fraction", dft.min_fraction))
        if value is not None
    }
    machines = run.machines
    dataset["pw"] |= machines.dft.restarts()
    sample, sampling = _machine(machines.sampling), machines.sampling.restarts()
    pretraining = {"seed": run.seed, **run.pretraining, **_machine(machines.pretraining)}
    update = {"update": run.refinement.update, **_machine(machines.update)}
    return {
        "dataset": dataset,
        "feff": {"radius": run.feff.radius},
        "pretrain": {**machines.pretraining.restarts(), "calc": {"parameters": pretraining}},
        "refine": {
            "settings": {"seed": run.seed, **run.refinement.settings},
            "sample": {**sampling, "calc": {"parameters": {"sampling": run.sampling, **sample}}},
            "update": {**machines.update.restarts(), "calc": {"parameters": update}},
        },
        "validate": {
            "settings": {"seed": run.seed, **run.validation.settings},
            "sample": {**sampling, "calc": {"parameters": {"sampling": run.validation.sampling, **sample}}},
            "predict": {**machines.prediction.restarts(), "calc": {"parameters": _machine(machines.prediction)}},
        },
    }


def _machine(machine: JobMachine) -> dict[str, Any]:
    if machine.engine is None:
        return {}
    return {"machine": machine.engine.model_dump(mode="json", exclude_unset=True)}


def node_or_file(kind: type[NodeT], identifier: str, folder: Path) -> NodeT:
    """A node by PK, UUID or label, or a new one from a file.

    Raises:
        ValueError: naming what was given.
    """
    path = folder / identifier
    if path.is_file():
        return the_same(kind.from_file(path, label=path.stem))  # type: ignore[return-value]
    try:
        node = orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        raise ValueError(f"{identifier!r} is neither a file in {folder} nor a node: {error}") from None
    if not isinstance(node, kind):
        raise ValueError(f"node {identifier!r} is a {type(node).__name__}; a {kind.__name__} is needed")
    return node


def load_code(kind: str, machine: JobMachine, of_base: str | None = None) -> orm.AbstractCode:
    """The code of a kind of job, on a computer that answers; ``of_base`` is that of jobs that evaluate a base.

    Raises:
        ValueError: naming the code and the computer, or the option that its scheduler does not take.
    """
    is_of_base = of_base is not None and kind in EVALUATING
    label = machine.code or (of_base if is_of_base else None) or DEFAULT_CODES[kind]
    try:
        code = orm.load_code(label)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        made_by = "`aiida-difftre setup --feff`" if kind == "feff" else "`aiida-difftre setup`"
        if is_of_base and not machine.code:
            made_by = f"`aiida-difftre setup --base {label.removeprefix('difftre-').partition('@')[0]}`"
        remedy = "" if machine.code else f"; {made_by} makes it"
        raise ValueError(f"machines.{kind}: there is no code {label!r}: {error}{remedy}") from None
    try:
        _check_program(code)
    except (AiidaException, OSError, ValueError) as error:
        raise ValueError(f"machines.{kind}: code {code.full_label!r} cannot be used: {error}") from None
    try:
        check_options(machine.options, job_ports(kind), code.computer)
    except ValueError as error:
        raise ValueError(f"machines.{kind}.options: {error}") from None
    return code


def _check_program(code: orm.AbstractCode) -> None:
    """The program has to be there; one in a container is seen from inside alone, where its image may be a file."""
    if isinstance(code, orm.ContainerizedCode):  # which is an InstalledCode too
        with code.computer.get_transport() as transport:
            if code.image_name.startswith("/") and not transport.path_exists(code.image_name):
                raise ValueError(f"its image {code.image_name} is not on the computer {code.computer.label!r}")
    elif isinstance(code, orm.InstalledCode):
        code.validate_filepath_executable()


def job_ports(kind: str) -> PortNamespace:
    """The ports of the options of a kind of job."""
    return CalculationFactory(JOB_OF[kind]).spec().inputs["metadata"]["options"]  # type: ignore[union-attr, index, return-value]


def check(builder: ProcessBuilder, chain: type[WorkChain]) -> None:
    """Validate the inputs as the work chain will.

    Raises:
        ValueError: with the port and the message of its validator.
    """
    ports = chain.spec().inputs
    error = ports.validate(ports.pre_process(ports.serialize(builder._inputs(prune=True))))
    if error is not None:
        raise ValueError(f"{error.port}: {error.message}")


def launch(entry_point: str) -> None:
    """Run a chain with the input file on the command line: ``verdi run workchains/CHAIN.py FILE``."""
    import argparse

    chain: Any = WorkflowFactory(entry_point)
    parser = argparse.ArgumentParser(
        prog=f"verdi run -- workchains/{entry_point.split('.')[-1]}.py",
        description=f"{chain.__doc__.strip().splitlines()[0]} Runs in this process; `aiida-difftre submit FILE` hands "
        "the whole of an input to the daemon.",
        epilog="`verdi run FILE --help` shows the help of verdi itself; the two dashes hand options to this program.",
    )
    parser.add_argument(
        "file", type=Path, help="input file (YAML); examples/ holds some, docs/reference/input.md all keys"
    )
    try:
        builder = read_builder(parser.parse_args().file, chain)
    except ValueError as error:
        sys.exit(str(error))
    _, node = run_get_node(builder)
    print(
        f"{node.process_label}<{node.pk}> ended with exit status {node.exit_status}: {node.exit_message or 'finished'}"
    )
