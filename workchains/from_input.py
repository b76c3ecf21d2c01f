"""From an input file to the builder of a composite chain: nodes, codes and overrides, checked before submission."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.engine import ProcessBuilder, WorkChain, run_get_node
from aiida.plugins import WorkflowFactory

from aiida_difftre.calculations.pretrain import PretrainParameters
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.update_settings import UpdateSettings
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains import estimate
from aiida_difftre.workchains.absorption import without_paths
from aiida_difftre.workchains.cells import labelled_cell, labelled_files, of_stage, simulation_cell
from aiida_difftre.workchains.codes import CHAIN_OF, code_of, load_code
from aiida_difftre.workchains.earlier_runs import run_of, with_earlier_runs
from aiida_difftre.workchains.estimate import Sampling
from aiida_difftre.workchains.input_models import Dft, RunInput
from aiida_difftre.workchains.inputs import check_fixed_volumes, read_input
from aiida_difftre.workchains.label_volumes import with_volumes
from aiida_difftre.workchains.machines import JobMachine
from aiida_difftre.workchains.nodes import (
    base_of,
    dataset_of,
    potential_of,
    spec_of,
    stages_of,
    state_points,
    with_trajectories,
)
from aiida_difftre.workchains.protocols import load_protocol
from aiida_difftre.workchains.refine import RefineWorkChain
from aiida_difftre.workchains.refine_settings import RefineSettings
from aiida_difftre.workchains.train import TrainWorkChain
from aiida_difftre.workchains.validate_checks import ValidateSettings, has_undistorted_cell

PREFIX_OF_A_BUILDER = "invalid attribute value "
"""Of AiiDA, before the message of a validator."""

SECTIONS = {
    "refine.settings": "refinement.settings", "refine.sample": "sampling", "refine.update": "refinement.update",
    "refine": "refinement", "validate.settings": "validation.settings", "validate.sample": "validation.sampling",
    "validate": "validation", "pretrain": "pretraining", "dataset_inputs": "dft", "dataset": "dft.dataset",
    "potential": "model.potential", "base": "model.base", "stages": "refinement.stages",
}  # fmt: skip
"""Sections of an input by the namespaces of the chain that take them; longer names first."""


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
    return builder_of(read_input(file), file, chain, seed=seed)


def builder_of(
    run: RunInput, file: Path, chain: type[WorkChain] = TrainWorkChain, *, seed: int | None = None
) -> ProcessBuilder:
    """Make a builder of an input that was read.

    Args:
        run: The input.
        file: Its file.
        chain: As of :func:`read_builder`.
        seed: Seed in place of that of the input.

    Returns:
        The builder, ready to be submitted.

    Raises:
        ValueError: As :func:`read_builder`.
    """
    folder = file.parent
    if seed is not None:
        run = run.model_copy(update={"seed": seed})
    estimate.check(plan_of(run, folder))
    run = with_volumes(run, folder)
    check_jobs(run)
    try:
        made = _train(run, folder) if chain is TrainWorkChain else _part(run, folder, chain)
    except ValueError as error:
        raise ValueError(str(error).removeprefix(PREFIX_OF_A_BUILDER)) from None
    made["metadata"]["label"] = run.label or file.stem
    check(made, chain)
    return made


def presets(run: RunInput) -> tuple[dict[str, Any], dict[str, Any]]:
    """The presets of the refinement and of the validation of a run, with what its input changes in them."""
    changes = overrides(run)
    return tuple(load_protocol(name, run.protocol, changes[name]) for name in ("refine", "validate"))  # type: ignore[return-value]


def samplings(run: RunInput) -> dict[str, SamplingSettings]:
    """How a run samples, presets included, by the section of the input that changes it."""
    refine, validate_ = presets(run)
    sections = {"sampling": refine, "validation.sampling": validate_}
    return {section: _sampling(run.protocol, preset, section) for section, preset in sections.items()}


def plan(run: RunInput, folder: Path, spec: PotentialSpec, base: str | None = None) -> list[Sampling]:
    """The sampling of a run: in its refinement, and before and after it.

    Args:
        run: the input.
        folder: Folder of the input.
        spec: Spec of the potential.
        base: Name of its base; None for none.

    Returns:
        What the trajectories of the run take.
    """
    refine, validate_ = presets(run)
    moving, lasting = samplings(run).values()
    settings = validate(RefineSettings, refine["settings"], "refinement.settings")
    growth = settings.growth.factor ** len(settings.growth.thresholds)
    hot = validate(ValidateSettings, validate_["settings"], "validation.settings").hot
    parts = []
    for label, point in run.state_points.items():
        cell = simulation_cell(run, label, folder)
        size: dict[str, Any] = {"atoms": len(cell), "volume": float(cell.get_volume()), "base": base}
        if any(isinstance(target, Target) and target.is_in_loss for target in point.targets.values()):
            most = settings.max_iterations + settings.max_roll_backs
            parts.append(estimate.sampling("refinement", label, moving, spec, times=most, growth=growth, **size))
        parts.append(estimate.sampling("validation", label, lasting, spec, times=2, **size))
        if hot is not None:
            times = {"equilibration_fs": 0.0, "production_fs": hot.time_fs, "walkers": hot.walkers}
            heated = lasting.model_copy(update=times)
            parts.append(estimate.sampling(estimate.HOT_RUNS, label, heated, spec, times=len(hot.factors), **size))
    for number, stage in reversed(list(enumerate(run.refinement.stages))):
        refined = [one for one in plan(of_stage(run, stage), folder, spec, base) if one.stage == "refinement"]
        parts = [*(replace(one, stage=f"stage {number}, {one.stage}") for one in refined), *parts]
    return parts


def _sampling(protocol: str, preset: dict[str, Any], section: str) -> SamplingSettings:
    merged = load_protocol("sample", protocol, preset.get("sample", {}))
    return validate(SamplingSettings, merged["calc"]["parameters"]["sampling"], section)


def read_plan(file: Path) -> list[Sampling]:
    """What the run of an input file will sample.

    Raises:
        ValueError: for an input that is refused.
    """
    return plan_of(read_input(file), file.parent)


def plan_of(run: RunInput, folder: Path) -> list[Sampling]:
    """What a run will sample.

    Raises:
        ValueError: for an input that is refused.
    """
    check_fixed_volumes(run, folder)
    potential = potential_of(run, folder)
    spec = (run.model.spec or run.model.correction) if potential is None else potential.spec
    if spec is None:
        raise ValueError("model: give either potential (one that exists) or spec (one to make)")
    named = spec.base if run.model.base is None else run.model.base
    if named is not None and named.name is None:  # a node
        named = base_of(run, folder).spec  # type: ignore[union-attr]
    return plan(run, folder, spec, None if named is None else named.name)


def check_jobs(run: RunInput) -> None:
    """Check what an input changes in the settings of jobs, merged into its presets, as the jobs will.

    Raises:
        ValueError: naming the place in the input, and the value.
    """
    refine, _ = presets(run)
    update = load_protocol("update", run.protocol, refine.get("update", {}))
    validate(UpdateSettings, update["calc"]["parameters"]["update"], "refinement.update")
    pretrain = load_protocol("pretrain", run.protocol, overrides(run)["pretrain"])
    validate(PretrainParameters, pretrain["calc"]["parameters"], "pretraining")


def _train(run: RunInput, folder: Path) -> ProcessBuilder:
    potential, dataset, base = potential_of(run, folder), dataset_of(run, folder), base_of(run, folder)
    spec = spec_of(run, base)
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
    if (form := spec if potential is None else potential.spec) is not None:
        points = _with_pool(run, points, form)
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
        stages=stages_of(run, folder),
        protocol=run.protocol,
        overrides=overrides(run),
        options={name: getattr(run.machines, kind).job_options for kind, name in needed.items()},
    )


def _part(run: RunInput, folder: Path, chain: type[WorkChain]) -> ProcessBuilder:
    potential = potential_of(run, folder)
    if potential is None:
        raise ValueError(f"model.potential: {chain.__name__} needs a potential that exists")
    dataset = dataset_of(run, folder)
    if run.refinement.stages:
        raise ValueError("refinement.stages are of a whole run (difftre.train); leave them out, or run the whole")
    if chain is not RefineWorkChain:
        _check_static_stiffness(run, potential, dataset)
    points = state_points(run, folder)
    if chain is RefineWorkChain:
        points = _with_pool(run, with_trajectories(points, run, folder), potential.spec)
    second = "update" if chain is RefineWorkChain else "prediction"
    section = "refine" if chain is RefineWorkChain else "validate"
    return chain.get_builder_from_protocol(  # type: ignore[attr-defined]
        **{("potential" if chain is RefineWorkChain else "after"): potential},
        **{f"{CHAIN_OF[second]}_code": load_code(second, getattr(run.machines, second), code_of(run))},
        sample_code=load_code("sampling", run.machines.sampling, code_of(run)),
        base=base_of(run, folder),
        state_points=points,
        dataset=dataset,
        protocol=run.protocol,
        overrides=overrides(run)[section],
        options={CHAIN_OF[kind]: getattr(run.machines, kind).job_options for kind in ("sampling", second)},
    )


def _with_pool(run: RunInput, points: dict[str, dict[str, Any]], spec: PotentialSpec) -> dict[str, dict[str, Any]]:
    """State points with the trajectories of the earlier runs that the input names.

    Raises:
        ValueError: naming the run, and why nothing of it serves.
    """
    if run.refinement.pool is None:
        return points
    sampling = samplings(run)["sampling"]
    try:
        runs = [run_of(name) for name in run.refinement.pool.runs]
        return with_earlier_runs(points, runs, spec, sampling)
    except ValueError as error:
        raise ValueError(f"refinement.pool.runs: {error}") from None


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
    kept = {} if machine.keep_every is None else {"keep_every": machine.keep_every}
    if machine.engine is None:
        return kept
    return {**kept, "machine": machine.engine.model_dump(mode="json", exclude_unset=True)}


def check(builder: ProcessBuilder, chain: type[WorkChain]) -> None:
    """Validate the inputs as the work chain will.

    Raises:
        ValueError: with the port and the message of its validator.
    """
    ports = chain.spec().inputs
    error = ports.validate(ports.pre_process(ports.serialize(builder._inputs(prune=True))))
    if error is not None:
        place = place_of(error.port)
        raise ValueError(f"{place}: {error.message}" if place else error.message)


def place_of(port: str) -> str:
    """Where in an input stands what a port of a chain takes; empty for the whole of it.

    Args:
        port: Name of the port with those of its namespaces, as a validation tells it.
    """
    name = port.removeprefix("inputs").removeprefix(".")
    for namespace, section in SECTIONS.items():
        if name == namespace or name.startswith(f"{namespace}."):
            return section
    return name


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
