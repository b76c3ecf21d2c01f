"""The job that tells what targets determine of a potential, and which measurement would tell most. Free of JAX."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from aiida_difftre.engine.contract.base import FileName, Name, Strict
from aiida_difftre.engine.contract.bounds import GridValue, Limits, Measurement
from aiida_difftre.engine.contract.dynamic_requests import check_dynamic_requests
from aiida_difftre.engine.contract.jobs import POTENTIAL_IN, Job, StatePointTrajectory
from aiida_difftre.engine.contract.observables import ObservableRequest, check_requests
from aiida_difftre.engine.contract.validation import validate


class Candidate(Strict):
    """A measurement that could be made: an observable, and the errors that its values would have.

    Args:
        name: What the advice calls it.
        state_point: Label of the state point at which it would be measured.
        observable: Name under which the observable is registered.
        options: Options of the observable; those that are left out have their defaults.
        grid: Values of the independent variable, where the observable has one.
        error: Standard error that each value would have, in the unit of the observable.
    """

    name: Name = Field(min_length=1)
    state_point: Name = Field(min_length=1)
    observable: str
    options: dict[str, Any] = Field(default_factory=dict)
    grid: list[GridValue] | None = None
    error: Annotated[Measurement, Limits(above=0, reason="no measurement is exact")]

    def request(self) -> ObservableRequest:
        """The observable, under the name of the candidate."""
        content = {"observable": self.observable, "options": self.options, "grid": self.grid, "label": self.name}
        return validate(ObservableRequest, content)

    @model_validator(mode="after")
    def _known(self) -> Candidate:
        self.request()
        return self


MEMBERS = "member_*.safetensors"
"""Files of the members of an ensemble."""


def member_file(number: int) -> str:
    """The file of a member."""
    return MEMBERS.replace("*", f"{number:03d}")


class AssessJob(Job):
    """Tell what the targets determine of a potential, what they leave open, and which measurement would tell most.

    Args:
        potential: file; the refined potential.
        start: file; the potential before refinement, whose distance tells whether the prior is too narrow. None for
            none.
        state_points: trajectories that the refined potential sampled, with all targets of their state points: the
            training ones determine the parameters, the others are predicted.
        candidates: Measurements that could be made at these state points.
        prior_width: how well energies are known before the experiment, in units of kT for each atom
            (:func:`aiida_difftre.engine.refinement.posterior.prior_widths`).
        pair_distances: distances for the energies of pairs, Å; None for those from where pairs were seen to the cutoff.
        members: potentials to draw from what the targets leave open; 0 for none.

    Writes: ``results.json``; ``member_000.safetensors`` and so on.
    """

    kind: Literal["assess"] = "assess"
    potential: FileName = POTENTIAL_IN
    start: FileName | None = None
    state_points: list[StatePointTrajectory] = Field(min_length=1)
    candidates: list[Candidate] = Field(default_factory=list)
    prior_width: Annotated[
        float, Limits(above=0, most=1000, unit="kT", reason="energies off by more are no start of a refinement")
    ] = 1.0
    pair_distances: list[GridValue] | None = None
    members: Annotated[int, Limits(least=0, most=1000, reason="a few dozen tell a spread")] = 0

    @model_validator(mode="after")
    def _consistent(self) -> AssessJob:
        labels = [point.label for point in self.state_points]
        if len(set(labels)) != len(labels):
            raise ValueError(f"state points {labels} repeat a label")
        if not any(target.is_in_loss for point in self.state_points for target in point.targets):
            raise ValueError("no training target with a positive weight: nothing determines anything")
        for candidate in self.candidates:
            if candidate.state_point not in labels:
                raise ValueError(
                    f"candidate {candidate.name!r} is at the state point {candidate.state_point!r}, of which there is "
                    f"no trajectory; there are {', '.join(labels)}"
                )
        for point in self.state_points:
            requests = [target.request() for target in point.targets]
            candidates = [one.request() for one in self.candidates if one.state_point == point.label]
            check_dynamic_requests(candidates, None)
            requests += candidates
            check_requests(requests, "NVT" if point.pressure is None else "NPT")
        if self.pair_distances is not None and (min(self.pair_distances, default=0) <= 0):
            raise ValueError(f"pair_distances: {self.pair_distances[:3]} must be distances above 0 Å")
        return self
