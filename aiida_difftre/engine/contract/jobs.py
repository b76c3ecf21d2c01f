"""The file contract: one JSON file describes a job, checked by these models; unknown keys are errors. Free of JAX.

A job runs in a folder of its own: ``difftre KIND job.json`` reads ``job.json`` and the binary files that it names
(plain file names beside it), and writes the files named below. ``results.json`` is written last and atomically: a job
without it did not finish. A failure that the engine can explain writes ``error.json`` instead; a refinement that fails
after its first iteration writes both. ``progress.jsonl`` grows while it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from aiida_difftre.engine.contract import samplers
from aiida_difftre.engine.contract.architectures import NewPotential
from aiida_difftre.engine.contract.base import FileName, Name, Seed, Sha256, Strict
from aiida_difftre.engine.contract.bases import BasePath
from aiida_difftre.engine.contract.bounds import (
    Energy,
    Iterations,
    Limits,
    Pressure,
    Temperature,
)
from aiida_difftre.engine.contract.dynamic_requests import check_dynamic_requests
from aiida_difftre.engine.contract.hot import HotSettings
from aiida_difftre.engine.contract.label_names import LabelKeys
from aiida_difftre.engine.contract.label_weights import DatasetWidths, check_widths
from aiida_difftre.engine.contract.loop_settings import LoopSettings
from aiida_difftre.engine.contract.observables import ObservableRequest, check_requests
from aiida_difftre.engine.contract.optimizer_options import OPTAX
from aiida_difftre.engine.contract.parts import KeepEvery
from aiida_difftre.engine.contract.sampling_settings import BarostatSpec, LangevinSpec, NoseHooverSpec, SamplingSettings
from aiida_difftre.engine.contract.settings import LONGEST_CUTOFF, Machine, PotentialSpec, TermSpec
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.update_settings import DatasetWeights, LossSettings, OptimizerSpec, UpdateSettings
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.contract.verdict import WaveVector

# The settings of which jobs are made are part of the contract, and so is how they are checked: one import serves all.
__all__ = [
    "LONGEST_CUTOFF",
    "BarostatSpec",
    "DatasetWeights",
    "LangevinSpec",
    "LossSettings",
    "Machine",
    "NoseHooverSpec",
    "OptimizerSpec",
    "PotentialSpec",
    "SamplingSettings",
    "TermSpec",
    "UpdateSettings",
    "validate",
]

SCHEMA_VERSION: Final = 1

JOB = "job.json"
RESULTS = "results.json"
ERROR = "error.json"
PROGRESS = "progress.jsonl"
CHECKPOINT = "checkpoint.safetensors"
TRAJECTORY = "trajectory.npz"
TRAJECTORY_PART = "trajectory_part.npz"
PREDICTIONS = "predictions.npz"
POTENTIAL_IN = "potential.safetensors"
POTENTIAL_OUT = "potential_out.safetensors"
OPTIMIZER_IN = "optimizer.safetensors"
OPTIMIZER_OUT = "optimizer_out.safetensors"
DATASET = "dataset.extxyz"
BASE_LABELS = "base_labels.npz"
STRUCTURE = "structure.extxyz"


class Job(Strict):
    """What every job has.

    Args:
        schema_version: Version of the file contract.
        seed: Seed of the pseudo-random numbers.
        machine: how to run.
        digests: SHA-256 of files beside the job file, by name; a job whose file has another one is refused.
        base_files: where the files of a base potential are on this computer, by argument: plain file names beside the
            job file or absolute paths; those that are not named are where the potential says.
    """

    schema_version: Literal[1] = 1
    seed: Seed = 0
    machine: Machine = Field(default_factory=Machine)
    digests: dict[FileName, Sha256] = Field(default_factory=dict)
    base_files: dict[str, BasePath] = Field(default_factory=dict)


def _of_gradients(optimizer: OptimizerSpec) -> OptimizerSpec:
    if optimizer.name not in OPTAX:
        raise ValueError(f"optimizer {optimizer.name!r} is for updates alone; for pretraining: {', '.join(OPTAX)}")
    return optimizer


class PretrainJob(Job):
    """Match energies, forces and stresses of a dataset; or, with no steps, make a potential that has seen none.

    Args:
        potential: the potential to make; or
        initial_potential: file of a potential to continue from.
        dataset: a file that ase reads, such as extended XYZ, with energies, forces and (optional) stresses; its frames
            may be chosen (``md.extxyz@::5``). With no steps, structures without labels.
        keys: Names under which the dataset has its labels; the usual ones are recognised.
        atomic_energies: reference energy of each species in eV, on top of that of a base. None takes those of single
            atoms in the dataset and fits the others; species that are in no configuration need one.
        weights: Weights of the loss.
        widths: how far from the volumes of the state points labels count; by default all do.
        validation_fraction: fraction of configurations held out.
        optimizer: optax optimizer.
        steps: optimizer steps; 0 for the initial parameters, with random weights where the architecture has them.
        rattle: standard deviation of the displacements of copies of structures without labels, Å; the inputs of a
            network are standardised on them.
        batch_configurations: configurations per step.
        evaluate_every: steps between validations.
        patience: validations without improvement before stopping; the best parameters are kept.

    Writes: ``potential_out.safetensors``, ``results.json`` (errors in meV/atom, meV/Å, GPa on both parts; history).
    """

    kind: Literal["pretrain"] = "pretrain"
    potential: NewPotential | None = None
    initial_potential: FileName | None = None
    dataset: FileName = DATASET
    keys: LabelKeys = Field(default_factory=LabelKeys)
    atomic_energies: dict[str, Energy] | None = None
    weights: DatasetWeights = Field(default_factory=DatasetWeights)
    widths: DatasetWidths = Field(default_factory=DatasetWidths)
    validation_fraction: Annotated[float, Limits(least=0, below=1, reason="it is a fraction of the configurations")] = (
        0.1
    )
    optimizer: Annotated[OptimizerSpec, AfterValidator(_of_gradients)] = Field(default_factory=OptimizerSpec)
    steps: Annotated[int, Limits(least=0, most=10_000_000, reason="no pretraining takes more steps")] = 4000
    rattle: Annotated[
        float, Limits(least=0, most=1, unit="Å", reason="atoms are displaced by less than their distance")
    ] = 0.1
    batch_configurations: Annotated[
        int, Limits(least=1, most=100_000, reason="no dataset holds more configurations")
    ] = 10
    evaluate_every: Annotated[int, Limits(least=1, most=10_000_000, reason="no pretraining takes more steps")] = 100
    patience: Iterations = 20

    @model_validator(mode="after")
    def _one_start(self) -> PretrainJob:
        if (self.potential is None) == (self.initial_potential is None):
            raise ValueError("give either potential (to make one) or initial_potential (to continue from one)")
        if self.steps == 0 and self.potential is None:
            raise ValueError("steps is 0, which would leave initial_potential as it is; use that potential itself")
        if self.steps == 0 and self.widths.given():
            raise ValueError("widths are of labels, which steps: 0 does not look at; leave widths out")
        check_widths(self.widths, self.weights.model_dump(), "widths")
        return self


class SampleJob(Job):
    """Sample a trajectory at one state point: NPT where there are a pressure and ``sampling.barostat``, else NVT.

    Args:
        potential: file.
        structure: extended XYZ, one frame (of several, the one of an index: ``md.extxyz@-1``) that is periodic in three
            directions: the start of every walker where no trajectory is given, and the cell.
        start_trajectory: continue from the last positions and velocities (NPT: and cells) of the walkers of this
            trajectory.
        trajectory: file of a trajectory that exists, taken in place of sampling one: energies of the potential are
            evaluated, and those of what sampled it stay the reference of weights. One that does not stand for the
            ensemble of the potential is refused.
        temperature: K.
        pressure: GPa; held by ``sampling.barostat`` if there is one.
        sampling: molecular dynamics.
        observables: predicted on the trajectory, with errors.
        base_born_stride: every so many snapshots get a Born term of the base of the potential, for stiffness targets of
            updates on this trajectory; 0 for as many as ``observables`` need.
        hot: short runs above the temperature, from the last snapshots; None for none.
        keep_every: every so many snapshots of each walker, its last one among them, are written once more as a part,
            for who does not want to move the whole; 1 for no part.

    Writes: ``trajectory.npz``, ``trajectory_part.npz`` (where ``keep_every`` is above 1), ``blown_up.extxyz`` (where
    walkers of hot runs blew up), ``results.json`` (predictions, mean temperature, statistical inefficiency,
    stationarity with a ``warning`` where the trajectory still drifts, ...),
    ``checkpoint.safetensors`` while it runs; a run with a checkpoint beside its job file continues from it.
    """

    kind: Literal["sample"] = "sample"
    potential: FileName = POTENTIAL_IN
    structure: FileName = STRUCTURE
    start_trajectory: FileName | None = None
    trajectory: FileName | None = None
    temperature: Temperature
    pressure: Pressure | None = None
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    observables: list[ObservableRequest] = Field(default_factory=list)
    base_born_stride: Annotated[int, Limits(least=0, most=1_000_000, reason="no trajectory has more snapshots")] = 0
    hot: HotSettings | None = None
    keep_every: KeepEvery = 1

    @model_validator(mode="after")
    def _ensemble(self) -> SampleJob:
        check_requests(self.observables, self.sampling.ensemble(self.pressure))
        check_dynamic_requests(self.observables, self.sampling if self.trajectory is None else None)
        if self.trajectory is not None and self.start_trajectory is not None:
            raise ValueError("give either trajectory (to take) or start_trajectory (to continue from)")
        if self.hot is not None and self.sampling.sampler != samplers.JAX_MD:
            raise ValueError(
                f"hot runs are molecular dynamics, and the sampler is {self.sampling.sampler!r}; sample with "
                f"{samplers.JAX_MD}, or leave out hot"
            )
        return self


class StatePointTrajectory(Strict):
    """A reference trajectory and the targets that it serves.

    Args:
        label: Label of the state point.
        temperature: K.
        pressure: GPa, of an NPT trajectory; None for NVT.
        trajectory: file, sampled with the potential that the update starts from.
        targets: measured at this state point; those of the role ``test`` are not looked at.
    """

    label: Name = Field(min_length=1)
    temperature: Temperature
    pressure: Pressure | None = None
    trajectory: FileName = TRAJECTORY
    targets: list[Target] = Field(min_length=1)

    @model_validator(mode="after")
    def _ensemble(self) -> StatePointTrajectory:
        check_requests([target.request() for target in self.targets], "NVT" if self.pressure is None else "NPT")
        return self


class Earlier(Strict):
    """A trajectory of an earlier potential at the same state point, and that potential.

    Args:
        label: Name by which results tell of it.
        trajectory: file.
        potential: file, with which it was sampled; of the same species and base as the potential of the job.
    """

    label: Name = Field(min_length=1)
    trajectory: FileName
    potential: FileName


class PooledStatePoint(StatePointTrajectory):
    """A reference trajectory, the targets that it serves, and earlier trajectories to be pooled with it.

    Args:
        potential: file of what sampled ``trajectory``, of the same species and base, where that is not the potential of
            the job, whose observables are then reweighted; None for that of the job.
        earlier: trajectories of earlier potentials, the latest first; those that overlap too little are left out.
    """

    potential: FileName | None = None
    earlier: list[Earlier] = Field(default_factory=list)

    @model_validator(mode="after")
    def _labelled_once(self) -> PooledStatePoint:
        labels = [one.label for one in self.earlier]
        if len(set(labels)) != len(labels) or "newest" in labels:
            raise ValueError(f"earlier trajectories {labels} need labels of their own, other than 'newest'")
        return self


class UpdateJob(Job):
    """Move the parameters on reference trajectories until the gate closes.

    Args:
        potential: file; the potential with which the trajectories were sampled.
        optimizer_state: file of an earlier update, or None.
        state_points: trajectories and targets.
        dataset: labelled configurations for the matching term, or None.
        keys: Names under which the dataset has its labels; the usual ones are recognised.
        base_labels: file that a prediction for the dataset with this potential wrote (``predictions.npz``), with what
            its base gives there; needed where there are a dataset and a base that is no function of JAX.
        learning_rate_scale: factor on the learning rate (halved by the work chain after a roll-back).
        update: settings.

    Writes: ``potential_out.safetensors``, ``optimizer_out.safetensors``, ``results.json`` (history of steps; per state
    point the effective sample sizes, the predictions before and after, with errors).
    """

    kind: Literal["update"] = "update"
    potential: FileName = POTENTIAL_IN
    optimizer_state: FileName | None = None
    state_points: list[PooledStatePoint] = Field(min_length=1)
    dataset: FileName | None = None
    keys: LabelKeys = Field(default_factory=LabelKeys)
    base_labels: FileName | None = None
    learning_rate_scale: Annotated[float, Limits(above=0, most=1, reason="it lowers the learning rate")] = 1.0
    update: UpdateSettings = Field(default_factory=UpdateSettings)

    @model_validator(mode="after")
    def _consistent(self) -> UpdateJob:
        _check_refinement(self.update, self.state_points, self.dataset)
        return self


class RefineStatePoint(Strict):
    """A state point of the loop in one process: its structure, temperature (K), pressure (GPa) and targets.

    It is sampled in each iteration where it has a training target with a weight or a selection target, and is else
    validated alone. A ``trajectory`` that exists takes the place of the first sampling; ``earlier`` trajectories, with
    the potentials that sampled them, are taken by updates where they overlap.
    """

    label: Name = Field(min_length=1)
    temperature: Temperature
    pressure: Pressure | None = None
    structure: FileName = STRUCTURE
    trajectory: FileName | None = None
    earlier: list[Earlier] = Field(default_factory=list)
    targets: list[Target] = Field(min_length=1)


def _check_refinement(
    update: UpdateSettings, points: Sequence[StatePointTrajectory | RefineStatePoint], dataset: str | None
) -> None:
    if update.loss.dataset_weight > 0 and dataset is None:
        raise ValueError(f"loss.dataset_weight is {update.loss.dataset_weight}, but there is no dataset")
    labels = [point.label for point in points]
    if len(set(labels)) != len(labels):
        raise ValueError(f"state points {labels} repeat a label")
    if not any(target.is_in_loss for point in points for target in point.targets):
        raise ValueError("no training target with a positive weight: nothing to refine towards")


class PredictJob(Job):
    """Predict with a given potential, for structures or for a trajectory.

    Args:
        potential: file.
        structures: a file that ase reads; energies, forces and stress of each frame, and errors where the frames carry
            labels.
        keys: Names under which the structures have their labels; the usual ones are recognised.
        static_stiffness: also the static relaxed stiffness and stress (T = 0, finite strains with internal relaxation)
            of the first frame, as it is.
        stability: also whether each frame is stable as a crystal at rest (all strains, and vibrations at each wave
            vector that fits into the cell), and the energy of each pair of species at short distances.
        wave_vectors: for stability, wave vectors of which all frequencies are told, in whole multiples of the
            reciprocal vectors of the cell.
        trajectory: file, sampled with this potential; observables as averages over it.
        temperature: K, for which to predict; another than that of the trajectory is reached by reweighting. None for
            the trajectory's own.
        pressure: GPa, likewise, for an NPT trajectory.
        observables: Observables to predict on the trajectory.

    Writes: ``predictions.npz`` (energies, forces, stresses; the part of a base too), ``results.json``.
    """

    kind: Literal["predict"] = "predict"
    potential: FileName = POTENTIAL_IN
    structures: FileName | None = None
    keys: LabelKeys = Field(default_factory=LabelKeys)
    static_stiffness: bool = False
    stability: bool = False
    wave_vectors: list[WaveVector] = Field(default_factory=list)
    trajectory: FileName | None = None
    temperature: Temperature | None = None
    pressure: Pressure | None = None
    observables: list[ObservableRequest] = Field(default_factory=list)

    @model_validator(mode="after")
    def _something(self) -> PredictJob:
        if self.structures is None and self.trajectory is None:
            raise ValueError("give structures or a trajectory to predict for")
        for what in ("static_stiffness", "stability"):
            if getattr(self, what) and self.structures is None:
                raise ValueError(f"{what} needs structures")
        if self.wave_vectors and not self.stability:
            raise ValueError("wave_vectors are looked at with stability alone; set that to true")
        for what in ("observables", "temperature", "pressure"):
            if self.trajectory is None and getattr(self, what) not in (None, []):
                raise ValueError(f"{what}: observables are averages over a trajectory, and none is given; give one")
        check_dynamic_requests(self.observables, None)
        return self


class RefineJob(Job, LoopSettings):
    """The whole loop in one process: sample, update, until it converges; then a long independent run.

    It goes on and ends as ``difftre.refine`` does, the work chain.

    Args:
        potential: file.
        state_points: structures, temperatures, targets; those with test targets alone are only validated.
        sampling: Settings of the reference trajectories.
        update: settings of each update.
        dataset: Training data for the matching term.
        keys: Names under which the dataset has its labels; the usual ones are recognised.
        validation: sampling of the final run; None for none.

    Writes: ``potential_out.safetensors`` (the best on fresh trajectories), ``results.json`` (``reason`` to end,
    ``iterations``, the best one and its chi², the criterion and what training chi² was given up for it in ``selected``,
    predictions of the validation by state point). A failure after the first trajectories were judged ends the job with
    ``error.json`` and leaves both: ``reason`` is then ``failed`` or ``too_many_roll_backs``, or the validation of a
    state point an ``error``.
    """

    kind: Literal["refine"] = "refine"
    potential: FileName = POTENTIAL_IN
    state_points: list[RefineStatePoint] = Field(min_length=1)
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    update: UpdateSettings = Field(default_factory=UpdateSettings)
    dataset: FileName | None = None
    keys: LabelKeys = Field(default_factory=LabelKeys)
    validation: SamplingSettings | None = None

    @model_validator(mode="after")
    def _consistent(self) -> RefineJob:
        _check_refinement(self.update, self.state_points, self.dataset)
        self.check_lengths(self.sampling)
        for point in self.state_points:
            for settings in (self.sampling, self.validation):
                if settings is not None:
                    check_requests([t.request() for t in point.targets], settings.ensemble(point.pressure))
            if self.validation is not None:
                check_dynamic_requests([target.request() for target in point.targets], self.validation)
        return self
