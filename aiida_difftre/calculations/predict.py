"""Predict with a given potential, for structures or on a trajectory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.engine import CalcJobProcessSpec

from aiida_difftre.calculations import ports
from aiida_difftre.calculations.checks import (
    check_composition,
    check_energies,
    check_observables,
    check_species,
    parameters_model,
)
from aiida_difftre.calculations.engine import EngineCalculation, LinkedTrajectory, Submission
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.dynamic_requests import check_dynamic_requests
from aiida_difftre.engine.contract.jobs import DATASET, POTENTIAL_IN, PREDICTIONS, TRAJECTORY, PredictJob
from aiida_difftre.engine.contract.observables import ObservableRequest, check_requests
from aiida_difftre.engine.contract.validation import validate

PredictParameters = parameters_model(PredictJob, ("potential", "structures", "keys", "trajectory"))


class PredictCalculation(EngineCalculation):
    """Energies, forces and stresses of structures; observables on a trajectory."""

    JOB_MODEL = PredictJob
    KIND = "predict"
    NEEDED = ("potential",)
    RETRIEVE_TEMPORARY = (PREDICTIONS,)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Ports of the prediction job."""
        super().define(spec)
        ports.parameters(
            spec,
            PredictParameters,
            "Whether to compute the static stiffness (static_stiffness), observables on the trajectory, the "
            "temperature (K) and pressure (GPa) for which, where they are not those sampled, seed and machine: a "
            "PredictJob without its files.",
            required=False,
        )
        ports.potential(spec, "The potential to predict with.")
        spec.input(
            "structures",
            valid_type=DatasetData,
            required=False,
            help="Configurations, labelled or not; where they are labelled, errors are reported.",
        )
        spec.input(
            "trajectory",
            valid_type=TrajectoryEnsembleData,
            required=False,
            help="Snapshots on which observables are averaged, at their own temperature and pressure or, reweighted, "
            "at those of the parameters.",
        )
        ports.trajectory_folder(spec, "remote", "the trajectory")
        spec.output(
            "predictions",
            valid_type=orm.ArrayData,
            required=False,
            help="Of the structures: energies (eV), forces (eV/Å, atoms of all structures one after another), stresses "
            "(GPa), atoms (their number in each); for each observable LABEL_values, LABEL_errors, LABEL_grid.",
        )

    @classmethod
    def check(cls, inputs: Mapping[str, Any]) -> str | None:
        """The potential must know all species, and the trajectory must be able to give the observables."""
        for name in ("structures", "trajectory"):
            node = inputs.get(name)
            message = None if node is None else check_species(inputs["potential"], node.species, f"input {name!r}")
            if message:
                return message
        trajectory = inputs.get("trajectory")
        if trajectory is None:
            return None
        if message := check_composition(inputs["potential"], trajectory, "input 'trajectory'"):
            return message
        asked = inputs["parameters"].get_dict().get("observables", []) if inputs.get("parameters") is not None else []
        requests = [validate(ObservableRequest, one) for one in asked]
        try:
            check_requests(requests, trajectory.ensemble)
            check_dynamic_requests(requests, None)
        except ValueError as error:
            return str(error)
        return check_energies(trajectory, "the trajectory") or check_observables(requests, trajectory, "the trajectory")

    @classmethod
    def trajectories(cls, inputs: Mapping[str, Any]) -> Iterator[LinkedTrajectory]:
        """The one of which averages are taken."""
        if (trajectory := inputs.get("trajectory")) is not None:
            yield LinkedTrajectory(TRAJECTORY, trajectory, inputs.get("remote"))

    @classmethod
    def content(cls, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Names of the files."""
        structures, trajectory = inputs.get("structures"), inputs.get("trajectory")
        return {
            "potential": POTENTIAL_IN,
            "structures": DATASET if structures is not None else None,
            "keys": {} if structures is None else structures.job_keys,
            "trajectory": TRAJECTORY if trajectory is not None else None,
        }

    def add_files(self, submission: Submission) -> None:
        """Potential and structures."""
        submission.copy(self.inputs.potential, POTENTIAL_IN)
        if "structures" in self.inputs:
            submission.copy(self.inputs.structures, DATASET)
