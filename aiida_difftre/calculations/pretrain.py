"""Match the energies, forces and stresses of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida.engine import CalcJobProcessSpec

from aiida_difftre.calculations import ports
from aiida_difftre.calculations.checks import check_species, parameters_model
from aiida_difftre.calculations.engine import EngineCalculation, Submission
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.jobs import DATASET, POTENTIAL_IN, POTENTIAL_OUT, PotentialSpec, PretrainJob
from aiida_difftre.engine.contract.labels import check_seen, known_references
from aiida_difftre.engine.contract.validation import validate

PretrainParameters = parameters_model(PretrainJob, ("initial_potential", "dataset", "keys"))


class PretrainCalculation(EngineCalculation):
    """Train a potential on a labelled dataset; or, with no steps, make one with initial parameters."""

    JOB_MODEL = PretrainJob
    KIND = "pretrain"
    NEEDED = ("parameters", "dataset")
    RETRIEVE_TEMPORARY = (POTENTIAL_OUT,)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Ports of the pretraining job."""
        super().define(spec)
        ports.parameters(
            spec,
            PretrainParameters,
            "The potential to make (unless one is given), atomic energies (eV), weights of the loss, optimizer, steps, "
            "seed and machine: a PretrainJob without its files.",
        )
        spec.input(
            "dataset",
            valid_type=DatasetData,
            help="Configurations with energy (eV), forces (eV/Å), stress; with no steps, structures without labels.",
        )
        ports.potential(spec, "A potential to continue from, in place of parameters.potential.", required=False)
        ports.parent_folder(spec)
        spec.output("potential", valid_type=PotentialData, help="The trained potential.")

    @classmethod
    def base_of(cls, inputs: Mapping[str, Any]) -> BaseSpec | None:
        """That of the potential to make, or to continue from."""
        made = inputs["parameters"].get_dict().get("potential")
        return super().base_of(inputs) if made is None else validate(PotentialSpec, made).base

    @classmethod
    def check(cls, inputs: Mapping[str, Any]) -> str | None:
        """The dataset must be labelled, with species that the potential knows and atomic energies for all of them."""
        dataset, parameters, potential = inputs["dataset"], inputs["parameters"].get_dict(), inputs.get("potential")
        if not dataset.labelled and parameters.get("steps") != 0:
            return (
                "the dataset carries no energies and forces; label it first (difftre.dataset), or make a potential "
                "with its initial parameters (steps: 0)"
            )
        message = check_species(potential, dataset.species, "the dataset")
        if message:
            return message
        known = parameters["potential"]["species"] if parameters.get("potential") else dataset.species
        if missing := set(dataset.species) - set(known):
            return (
                f"the dataset contains {', '.join(sorted(missing))}, which potential.species = {known!r} leaves out; "
                "add it"
            )
        try:
            references = known_references(
                parameters.get("atomic_energies"), known, dataset.species, dataset.references,
                has_base=cls.base_of(inputs) is not None,
            )  # fmt: skip
            if dataset.labelled and parameters.get("steps") != 0:
                check_seen(known, dataset.species, references)
        except ValueError as error:
            return str(error)
        return None

    @classmethod
    def content(cls, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Names of the files."""
        initial = POTENTIAL_IN if inputs.get("potential") is not None else None
        return {"dataset": DATASET, "keys": inputs["dataset"].job_keys, "initial_potential": initial}

    def add_files(self, submission: Submission) -> None:
        """Dataset, and where to continue from."""
        submission.copy(self.inputs.dataset, DATASET)
        if "potential" in self.inputs:
            submission.copy(self.inputs.potential, POTENTIAL_IN)
        if "parent_folder" in self.inputs:
            submission.checkpoint(self.inputs.parent_folder)
