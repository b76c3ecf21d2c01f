"""What of the inputs of a whole run does not go together, before anything is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida_difftre.calculations.checks import check_base
from aiida_difftre.engine.contract.jobs import PotentialSpec
from aiida_difftre.engine.contract.labels import check_seen, known_references
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains import absorption
from aiida_difftre.workchains.kept import check_kept, check_reach
from aiida_difftre.workchains.label_counts import check_counts
from aiida_difftre.workchains.refine_checks import check_dataset_weight, check_smoothness
from aiida_difftre.workchains.stages import changed, check_stages_with, stage_names
from aiida_difftre.workchains.state_points import (
    check_dynamic_targets,
    check_structures,
    check_targets,
    check_training_target,
    check_trajectories,
)
from aiida_difftre.workchains.validate_checks import assesses


def check_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Validator of all inputs together."""
    if "dataset" in inputs and "dataset_inputs" in inputs:
        return "both dataset and dataset_inputs were given; give the labels or the inputs to make them"
    has_labels = "dataset" in inputs or "dataset_inputs" in inputs
    if "potential" not in inputs:
        if "pretrain" not in inputs:
            return "give either a potential or the inputs of pretraining (pretrain)"
        steps = inputs["pretrain"]["calc"]["parameters"].get_dict().get("steps")
        if not has_labels and steps != 0:
            return (
                f"{'pretraining' if steps is None else f'{steps} steps of pretraining'} need labels: give dataset, or "
                "dataset_inputs to make one; or start from initial parameters (steps: 0)"
            )
        problem = _check_pretraining(inputs)
        if problem:
            return problem
    elif "pretrain" in inputs:
        return "both potential and pretrain were given; to continue from a potential give it as pretrain.calc.potential"
    else:
        problem = check_structures(inputs["potential"], inputs["state_points"])
        if problem:
            return problem
    loss = inputs["refine"]["update"]["calc"]["parameters"].get_dict().get("update", {}).get("loss", {})
    if problem := _check_base(inputs) or check_dataset_weight(loss, has_dataset=has_labels):
        return problem
    for part in ("refine", "validate"):
        if part in inputs:
            problem = check_targets(inputs["state_points"], inputs[part]["sample"]["calc"]["parameters"])
            if problem:
                return f"{part}: {problem}"
    if "validate" in inputs:
        sampling = inputs["validate"]["sample"]["calc"]["parameters"]
        if problem := check_dynamic_targets(inputs["state_points"], sampling):
            return f"validate: {problem}"
        takers = {"assessment": inputs["validate"]["predict"]} if assesses(inputs["validate"]) else {}
        if problem := check_kept(inputs["validate"]["sample"], takers):
            return f"validate: {problem}"
    refine = inputs["refine"]
    problem = (
        check_trajectories(inputs["state_points"], refine["sample"]["calc"]["parameters"])
        or check_kept(refine["sample"], {"update": refine["update"]})
        or check_reach(inputs["state_points"], refine["sample"], refine["update"])
    )
    if problem:
        return f"refine: {problem}"
    if problem := check_stages_with(inputs, has_dataset=has_labels) or _check_smoothness(inputs):
        return problem
    losses = {name: changed(refine, inputs["stages"][name])["update"].get("loss", {}) for name in stage_names(inputs)}
    if has_labels and (problem := check_counts(inputs, losses)):
        return problem
    problem = absorption.check_paths(inputs["state_points"])
    if problem and "feff" not in inputs:
        return f"{problem}; or give the inputs of FEFF (feff), with its code, and it is made here"
    return check_training_target(inputs["state_points"])


def _check_base(inputs: Mapping[str, Any]) -> str | None:
    """The base that is given must be that of the potential, or of the one to make."""
    spec = _spec(inputs)
    return None if spec is None else check_base(inputs.get("base"), spec.base, None)


def _spec(inputs: Mapping[str, Any]) -> PotentialSpec | None:
    """The potential that is refined; None where pretraining says of none."""
    if "potential" in inputs:
        given: PotentialSpec = inputs["potential"].spec
        return given
    found = inputs["pretrain"]["calc"]["parameters"].get_dict().get("potential")
    return None if found is None else validate(PotentialSpec, found)


def _check_smoothness(inputs: Mapping[str, Any]) -> str | None:
    """The prior of smooth splines, of the refinement of the run and of its stages."""
    spec = _spec(inputs)
    if spec is None:
        return None
    for name, stage in [("refine", {}), *((name, inputs["stages"][name]) for name in stage_names(inputs))]:
        if problem := check_smoothness(changed(inputs["refine"], stage)["update"].get("loss", {}), spec):
            return f"{name}: {problem}"
    return None


def _check_pretraining(inputs: Mapping[str, Any]) -> str | None:
    """The species and reference energies of the potential to make, against the structures it is made for."""
    parameters = inputs["pretrain"]["calc"]["parameters"].get_dict()
    spec = parameters.get("potential") or {}
    known, energies, has_base = spec.get("species"), parameters.get("atomic_energies"), spec.get("base") is not None
    labelled, dataset = inputs.get("dataset_inputs", {}), inputs.get("dataset")
    cells = {f"state point {label!r}": point["structure"] for label, point in inputs["state_points"].items()}
    to_label = {f"structure {label!r} to label": cell for label, cell in labelled.get("structures", {}).items()}
    if "structure" in labelled:
        to_label["the structure to label"] = labelled["structure"]
    species = {name: cell.get_symbols_set() for name, cell in {**cells, **to_label}.items()}
    if dataset is not None:
        species["the dataset"] = set(dataset.species)
    there = set[str]().union(*(species[name] for name in (*to_label, "the dataset") if name in species))
    for name, present in species.items():
        if known and (unknown := present - set(known)):
            return f"{name} holds {', '.join(sorted(unknown))}, but the potential is for {', '.join(sorted(known))}"
        if not there and energies is not None and (without := present - set(energies)):
            return (
                f"{name} holds {', '.join(sorted(without))}, for which atomic_energies = {energies!r} gives no "
                "reference energy; add it (eV), or leave atomic_energies out"
            )
    alone = {} if dataset is None else dataset.references
    try:
        references = known_references(energies, known or sorted(there), sorted(there), alone, has_base=has_base)
        if known and there and parameters.get("steps") != 0:
            check_seen(known, sorted(there), references)
    except ValueError as error:
        return str(error)
    return None
