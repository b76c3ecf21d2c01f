"""The ``results.json`` of the kinds of jobs, as models, with the unit of each number. Free of JAX."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from aiida_difftre.engine.contract.agreement import Criterion
from aiida_difftre.engine.contract.choice import Judged
from aiida_difftre.engine.contract.hot import HotRun
from aiida_difftre.engine.contract.matching_results import MatchingErrors
from aiida_difftre.engine.contract.observables import Ensemble
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.reasons import Reason
from aiida_difftre.engine.contract.records import Record, Results
from aiida_difftre.engine.contract.verdict import Arrangement, Dimer, Lattice


class Stationarity(Record):
    """Whether a trajectory has forgotten where it started.

    Args:
        stationary: True if its drift may be chance.
        equilibration: Fraction of each walker that still relaxes.
        drift: Difference between the means of the second and the first half, in standard errors, of the energy and, at
            constant pressure, of the volume.
        r_hat: Gelman and Rubin's R-hat between the halves of all walkers, of the same quantities; None for short
            walkers.
        independent_samples: Snapshots over the statistical inefficiency.
        warning: What is wrong and what to do; None where the trajectory is stationary.
    """

    stationary: bool
    equilibration: float
    drift: dict[str, float]
    r_hat: dict[str, float | None]
    independent_samples: float
    warning: str | None


class GivenReference(Record):
    """How well a trajectory of another origin stands for the ensemble of a potential.

    Args:
        energies: Where the energies of the weights come from: ``potential`` where that sampled it, by their agreement
            or by statement, or ``trajectory``, where something else did.
        deviation: Standard deviation of the energies of the potential from those of the trajectory, eV; None where it
            has none.
        n_eff_entropy: Effective number of snapshots, by the entropy of the weights.
        n_eff_kish: Effective number of snapshots, by the sum of the squares of the weights.
        n_eff_independent: Effective independent snapshots.
    """

    energies: Literal["potential", "trajectory"]
    deviation: float | None = None
    n_eff_entropy: float
    n_eff_kish: float
    n_eff_independent: float


class KeptPart(Record):
    """The part of a trajectory that was written beside the whole one.

    Args:
        every: Every so many snapshots of each walker are in it.
        snapshots: Number of its snapshots.
        digest: SHA-256 of the file of the whole trajectory.
    """

    every: int
    snapshots: int
    digest: str


class SampleResults(Results):
    """Results of sampling.

    Args:
        snapshots: Number of snapshots of all walkers.
        walkers: Number of walkers.
        mean_temperature: Mean over the snapshots, K.
        mean_energy: Mean potential energy, eV.
        ensemble: ``NVT`` or ``NPT``.
        mean_volume: Mean volume of the cell, Å³.
        statistical_inefficiency: Snapshots that count as one; the largest of all thermal quantities.
        stationarity: Stationarity of the trajectory.
        given: How well a trajectory that was taken in place of sampling stands for the potential; None for one that was
            sampled.
        arrangement: Where the atoms are; None in results before this was told.
        hot: What became of the hot runs; None where none were asked for.
        kept: The part of the trajectory beside the whole one; None without ``keep_every``.
        predictions: The observables of the job.
    """

    kind: Literal["sample"] = "sample"
    snapshots: int
    walkers: int
    mean_temperature: float
    mean_energy: float
    ensemble: Ensemble | None = None
    mean_volume: float | None = None
    statistical_inefficiency: float
    stationarity: Stationarity | None = None
    given: GivenReference | None = None
    arrangement: Arrangement | None = None
    hot: list[HotRun] | None = None
    kept: KeptPart | None = None
    predictions: list[Prediction] = Field(default_factory=list)


class StatePointStep(Record):
    """What a step of an update leaves of the trajectory of a state point.

    Args:
        n_eff_entropy: Effective number of snapshots, by the entropy of the weights.
        n_eff_kish: Effective number of snapshots, by the sum of the squares of the weights.
        n_eff_independent: The smallest estimate over the statistical inefficiency.
        predictions: Reweighted values by target, in its unit; curves are left out.
    """

    n_eff_entropy: float
    n_eff_kish: float
    n_eff_independent: float | None = None
    predictions: dict[str, list[float]] = Field(default_factory=dict)


class UpdateStep(Record):
    """A set of parameters that an update accepted; the first is where it began.

    Args:
        step: Number of optimizer steps before it.
        loss: The quantity that the steps lower.
        loss_targets: The part of the targets.
        loss_extra: The part of the labels.
        chi2: Reduced chi² of the training targets, reweighted.
        n_eff_fraction: Effective over all snapshots, the smallest of all state points.
        state_points: The state points with a target in the loss, by label.
        gradient_norm: Norm of the gradient of the loss; None for the last set.
        step_scale: Factor on the optimizer's step from here; None where none was made.
    """

    step: int
    loss: float
    loss_targets: float | None = None
    loss_extra: float | None = None
    chi2: float
    n_eff_fraction: float
    state_points: dict[str, StatePointStep]
    gradient_norm: float | None = None
    step_scale: float | None = None


class PooledTrajectory(Record):
    """An earlier trajectory that was given to an update, to be pooled with the newest one.

    Args:
        label: Name that the job gives it.
        snapshots: Number of its snapshots.
        is_used: Whether it is in the pool.
        overlap: Fraction of them that is left effective where it alone is reweighted to the potential that the update
            starts from; None where it was left out before that was known.
        reason: Why it is not; empty where it is.
    """

    label: str
    snapshots: int
    is_used: bool
    overlap: float | None = None
    reason: str = ""


class StatePointUpdate(Record):
    """A state point in an update. What follows the steps is None where no target was in the loss.

    Args:
        snapshots: Number of snapshots of the trajectory, and of those pooled with it.
        statistical_inefficiency: Snapshots that count as one.
        pool: What became of the earlier trajectories of the job.
        before: Predictions of the potential that sampled.
        chi2_before: Reduced chi² of them, by the role of the targets.
        n_eff_entropy: That of the last step.
        n_eff_kish: That of the last step.
        held: Effective independent snapshots after the last step over the independent ones of the newest trajectory;
            0 where they are too few to predict anything.
        after: Predictions after the last step, reweighted; in AiiDA a node of its own.
        chi2_after: Reduced chi² of them.
    """

    snapshots: int
    statistical_inefficiency: float
    pool: list[PooledTrajectory] = Field(default_factory=list)
    before: list[Prediction]
    chi2_before: dict[str, float | None] = Field(default_factory=dict)
    n_eff_entropy: float | None = None
    n_eff_kish: float | None = None
    held: float | None = None
    after: list[Prediction] | None = None
    chi2_after: dict[str, float | None] | None = None


class SnapshotCache(Record):
    """Memory for what an update keeps of its snapshots.

    Args:
        kept_mib: MiB that were kept.
        wanted_mib: MiB that would have been, had all been there.
    """

    kept_mib: float
    wanted_mib: float


class UpdateSummary(Record):
    """What an update did.

    Args:
        steps: Number of optimizer steps.
        reason: Why it ended.
        chi2_before: Reduced chi² of the training targets.
        chi2_after: Reduced chi² of the training targets after the last step, reweighted.
        chi2_before_selection: Reduced chi² of the selection targets; None where there are none.
        history: Each accepted set of parameters.
        state_points: The state points, by label.
        snapshot_cache: Memory for what is kept of the snapshots.
        label_weights: How much each label counts in the loss, in the order of the dataset, by what has a width.
    """

    steps: int
    reason: Reason
    chi2_before: float | None
    chi2_after: float | None
    chi2_before_selection: float | None = None
    history: list[UpdateStep]
    state_points: dict[str, StatePointUpdate]
    snapshot_cache: SnapshotCache | None = None
    label_weights: dict[str, list[float]] = Field(default_factory=dict)

    @property
    def held(self) -> dict[str, float]:
        """What is left of a new trajectory at each state point, which need not be sampled where that is enough."""
        return {label: point.held or 0.0 for label, point in self.state_points.items()}

    @property
    def has_moved(self) -> bool:
        """Whether it made a step, or had no reason to: the history starts with where it began."""
        return len(self.history) > 1 or self.reason is Reason.CHI2


class UpdateResults(UpdateSummary, Results):
    """Results of an update: its summary."""

    kind: Literal["update"] = "update"


class StaticElasticity(Record):
    """Stress and stiffness of a crystal at rest (T = 0), in the cell as it is; Voigt order xx, yy, zz, yz, xz, xy.

    Args:
        stress: Six components of the stress, GPa.
        stiffness: C11, C12 and C44, means over what a cubic crystal makes equal, GPa.
        tensor: 6x6 stress-strain coefficients, GPa.
        density: Mass density, kg/m³.
        energy: Potential energy, eV/atom.
        strain: Strain of the finite differences.
    """

    stress: list[float]
    stiffness: dict[str, float]
    tensor: list[list[float]] | None = None
    density: float | None = None
    energy: float | None = None
    strain: float | None = None


class Conditions(Record):
    """A state point.

    Args:
        temperature: Temperature, K.
        pressure: Pressure, GPa; None at constant volume.
    """

    temperature: float
    pressure: float | None


class Reweighting(Record):
    """Reweighting from the state point and potential of a trajectory to those of the predictions.

    Args:
        sampled: State point at which the trajectory was sampled.
        predicted: State point of the predictions.
        snapshots: Number of snapshots of the trajectory.
        n_eff_entropy: Effective number of snapshots, by the entropy of the weights.
        n_eff_kish: Effective number of snapshots, by the sum of the squares of the weights.
        statistical_inefficiency: Snapshots that count as one.
        n_eff_independent: Effective independent snapshots.
        least_n_eff_independent: The fewest with which a prediction is made.
        widening: Factor on the errors, for the effective samples that were lost.
    """

    sampled: Conditions
    predicted: Conditions
    snapshots: int
    n_eff_entropy: float
    n_eff_kish: float
    statistical_inefficiency: float | None = None
    n_eff_independent: float | None = None
    least_n_eff_independent: float | None = None
    widening: float | None = None


class PredictResults(Results):
    """Results of a prediction; energies, forces and stresses are in ``predictions.npz``.

    Args:
        structures: Number of structures; None without.
        errors: Errors against the labels; None without structures.
        static: Elasticity of the first structure, where it was asked for.
        lattices: Each structure as a crystal at rest, where stability was asked for.
        dimers: Energies of two atoms alone, likewise.
        predictions: Averages over the trajectory; None without.
        reweighting: Loss of effective samples from the trajectory's state point to that of the predictions; None
            without a trajectory.
    """

    kind: Literal["predict"] = "predict"
    structures: int | None = None
    errors: MatchingErrors | None = None
    static: StaticElasticity | None = None
    lattices: list[Lattice] | None = None
    dimers: list[Dimer] | None = None
    predictions: list[Prediction] | None = None
    reweighting: Reweighting | None = None


class Failure(Record):
    """Why a part of a job failed.

    Args:
        status: Name of the exit status.
        message: What went wrong, and the remedy.
        diagnostics: Numbers that tell more.
    """

    status: str
    message: str
    diagnostics: dict[str, Any] = Field(default_factory=dict)


class FailedValidation(Record):
    """A state point whose validation failed.

    Args:
        error: Why it failed.
    """

    error: Failure


class RefineIteration(Record):
    """An iteration of a refinement: a potential on the trajectories that it sampled, and the update that followed.

    Args:
        iteration: Its number, from 0.
        production_fs: Sampled time of each walker, fs.
        learning_rate_scale: Factor on the learning rate of the update.
        discarded: True if the update was done again.
        chi2: Reduced chi² of the targets that decide.
        chi2_training: Reduced chi² of the training targets.
        predictions: Predictions on its trajectories, by state point.
        held: State points that this potential did not sample: their predictions are reweighted.
        stationarity: Stationarity of the trajectories that it sampled, by state point.
        decisions: What followed, in words.
        update: None where none followed.
    """

    iteration: int
    production_fs: float
    learning_rate_scale: float
    discarded: bool
    chi2: float
    chi2_training: float
    predictions: dict[str, list[Prediction]]
    held: list[str] = Field(default_factory=list)
    stationarity: dict[str, Stationarity]
    decisions: list[str]
    update: UpdateSummary | None = None


class Selection(Record):
    """Which iteration was chosen, by what, and what was given up for it.

    Args:
        criterion: The role of the targets that decided.
        iteration: Number of the chosen iteration.
        training: Reduced chi² of the training targets in the chosen iteration.
        lowest: The iteration with the lowest such chi², on trajectories of the same length.
        leader: The iteration with the lowest chi² of the targets that decided, from which noise does not tell the
            chosen one; None in results of an earlier version.
        sentence: All this in words.
    """

    criterion: Criterion
    iteration: int
    training: float
    lowest: Judged
    sentence: str
    leader: int | None = None


class RefineResults(Results):
    """Results of a refinement.

    Args:
        reason: Why it ended.
        best_iteration: The iteration whose potential was kept; None where none was judged.
        chi2: Reduced chi² of the best iteration.
        selected: The choice of that iteration; None where none was judged.
        roll_backs: Number of roll-backs.
        iterations: The iterations that were judged.
        validation: Predictions of the long runs, or why there are none, by state point; None without validation.
        error: What ended it; None for an end of its own.
    """

    kind: Literal["refine"] = "refine"
    reason: Reason
    best_iteration: int | None
    chi2: float | None
    selected: Selection | None
    roll_backs: int
    iterations: list[RefineIteration]
    validation: dict[str, list[Prediction] | FailedValidation] | None = None
    error: Failure | None = None
