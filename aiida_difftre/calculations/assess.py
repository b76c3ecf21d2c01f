"""Tell what the targets determine of a potential, what they leave open, and which measurement would tell most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiida.engine import CalcJobProcessSpec

from aiida_difftre.calculations import ports
from aiida_difftre.calculations.checks import check_observables, check_species, parameters_model
from aiida_difftre.calculations.engine import EngineCalculation, LinkedTrajectory, Submission
from aiida_difftre.calculations.update import define_state_points, job_state_points, newest_trajectories
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.assess_job import MEMBERS, AssessJob, Candidate
from aiida_difftre.engine.contract.jobs import POTENTIAL_IN
from aiida_difftre.engine.contract.validation import validate

START = "start.safetensors"

AssessParameters = parameters_model(AssessJob, ("potential", "start", "state_points"))


class AssessCalculation(EngineCalculation):
    """What the targets of trajectories determine of the potential that sampled them."""

    JOB_MODEL = AssessJob
    KIND = "assess"
    NEEDED = ("potential", "state_points")
    RETRIEVE_TEMPORARY = (MEMBERS,)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Ports of the assessment job."""
        super().define(spec)
        ports.parameters(
            spec,
            AssessParameters,
            "Candidates for a measurement, prior_width, pair_distances, members, seed, machine: AssessJob without its "
            "files.",
            required=False,
        )
        ports.potential(spec, "The refined potential, which sampled the trajectories.")
        spec.input(
            "start",
            valid_type=PotentialData,
            required=False,
            help="The potential before refinement; how far it moved tells whether the prior is too narrow.",
        )
        define_state_points(spec)
        spec.output_namespace(
            "members",
            valid_type=PotentialData,
            dynamic=True,
            required=False,
            help="Potentials drawn from what the targets leave open, as many as `members` of the parameters says.",
        )

    @classmethod
    def check(cls, inputs: Mapping[str, Any]) -> str | None:
        """Trajectories must be able to give what was measured and what could be; both potentials have one form."""
        potential, start = inputs["potential"], inputs.get("start")
        if start is not None and start.spec != potential.spec:
            return (
                "start is a potential of another form than the refined one; give the one that its refinement started "
                "from"
            )
        given = inputs["parameters"].get_dict().get("candidates", []) if inputs.get("parameters") is not None else []
        candidates = [validate(Candidate, one) for one in given]
        for label, point in inputs["state_points"].items():
            if point.get("earlier") or point.get("potential") is not None:
                return (
                    f"state point {label!r} has trajectories of earlier potentials, which an assessment does not take; "
                    "leave them out"
                )
            what = f"the trajectory of state point {label!r}"
            requests = [node.target.request() for node in point["targets"].values()]
            requests += [one.request() for one in candidates if one.state_point == label]
            message = check_species(potential, point["trajectory"].species, what) or check_observables(
                requests, point["trajectory"], what
            )
            if message:
                return message
        return None

    @classmethod
    def trajectories(cls, inputs: Mapping[str, Any]) -> Iterator[LinkedTrajectory]:
        """Those of all state points."""
        yield from newest_trajectories(inputs["state_points"])

    @classmethod
    def content(cls, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Names of the files, state points and targets."""
        return {
            "potential": POTENTIAL_IN,
            "start": START if inputs.get("start") is not None else None,
            "state_points": job_state_points(inputs["state_points"]),
        }

    def add_files(self, submission: Submission) -> None:
        """Both potentials."""
        submission.copy(self.inputs.potential, POTENTIAL_IN)
        if "start" in self.inputs:
            submission.copy(self.inputs.start, START)
