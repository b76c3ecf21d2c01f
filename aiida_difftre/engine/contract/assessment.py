"""What an assessment writes: what the targets determine, what they leave open, what would tell most. Free of JAX."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aiida_difftre.engine.contract.agreement import Role
from aiida_difftre.engine.contract.records import Record, Results


class AssessedTarget(Record):
    """An observable with what is known about it; all lists are in its unit.

    Args:
        label: Name of the target.
        observable: Name under which the observable is registered.
        role: Role of the target.
        unit: Unit of the values.
        grid: Values of the independent variable; None where there is none.
        values: Predictions.
        sampling_errors: Standard errors of the averages over the trajectory.
        model_errors: Standard deviations that the targets leave to the predictions.
        prior_errors: Standard deviations before the experiment.
        measured: What was measured.
        measured_errors: Standard errors of that.
        member_errors: Standard deviations of what the members of an ensemble predict, by reweighting; None without one,
            and where the snapshots stand for too few of them.
    """

    label: str
    observable: str
    role: Role
    unit: str
    grid: list[float] | None = None
    values: list[float]
    sampling_errors: list[float]
    model_errors: list[float]
    prior_errors: list[float]
    measured: list[float]
    measured_errors: list[float]
    member_errors: list[float] | None = None


class Well(Record):
    """The lowest energy of a pair.

    Args:
        distance: Distance at which it lies, Å.
        depth: Depth below zero, eV.
        error: Standard deviation that the targets leave to the depth, eV.
        prior_error: Standard deviation before the experiment, eV.
    """

    distance: float
    depth: float
    error: float
    prior_error: float


class PairBand(Record):
    """The energy of two atoms alone, by distance, with what the targets leave open.

    Args:
        pair: Chemical symbols of the two.
        distances: Distances, Å.
        energies: Energies, eV; zero far apart.
        errors: Standard deviations that the targets leave, eV.
        prior_errors: Standard deviations before the experiment, eV.
        well: The lowest of the energies; None where it lies at an end.
    """

    pair: tuple[str, str]
    distances: list[float]
    energies: list[float]
    errors: list[float]
    prior_errors: list[float]
    well: Well | None = None


class Prior(Record):
    """What was assumed before the experiment.

    Args:
        width: How well energies were taken to be known, in units of kT for each atom.
        suggested: The width for which the way from the potential before refinement speaks; None without that.
    """

    width: float
    suggested: float | None = None


class Advice(Record):
    """What a measurement that could be made would tell.

    Args:
        name: Its name.
        state_point: Label of the state point.
        information: Expected information, nats: the logarithm of the factor by which the volume of what is possible
            shrinks.
        left: Part of the standard deviations that it would leave, by what they belong to: ``STATE POINT/TARGET`` or a
            pair such as ``Ar-Ar``.
        mean_left: Geometric mean of these.
    """

    name: str
    state_point: str
    information: float
    left: dict[str, float]
    mean_left: float


class Member(Record):
    """A potential that is as likely as the assessed one is to be right, drawn from what the targets leave open.

    Args:
        file: Its file.
        effective: Fraction of the snapshots that stand for it, by state point.
        held: State points at which these are enough for predictions; elsewhere it has to be sampled.
    """

    file: str
    effective: dict[str, float]
    held: list[str]


class AssessResults(Results):
    """Results of an assessment.

    Args:
        parameters: Number of parameters that may move.
        points: Number of points of the training targets.
        chi2: Reduced chi² of the training targets; above one it widens their errors.
        prior: What was assumed before.
        determined: Number of directions that the targets tell better than the prior does.
        effective: Effective number of parameters that the targets determine.
        gains: Of each direction the variance before over that after, less one; falling.
        state_points: What is known of each target, by state point.
        pairs: Energies of pairs; none of potentials with external fields.
        advice: The candidates, the most telling first.
        members: Members of an ensemble, where they were asked for.
        sentences: All this in words.
    """

    kind: Literal["assess"] = "assess"
    parameters: int
    points: int
    chi2: float
    prior: Prior
    determined: int
    effective: float
    gains: list[float]
    state_points: dict[str, list[AssessedTarget]]
    pairs: list[PairBand] = Field(default_factory=list)
    advice: list[Advice] = Field(default_factory=list)
    members: list[Member] = Field(default_factory=list)
    sentences: list[str] = Field(default_factory=list)
