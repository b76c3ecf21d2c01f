"""The file contract: one JSON file describes a job, checked by these models; unknown keys are errors. Free of JAX.

A job runs in a folder of its own: ``difftre KIND job.json`` reads ``job.json`` and the binary files that it names
(plain file names beside it), and writes the files named below. ``results.json`` is written last and atomically: a job
without it did not finish. A failure that the engine can explain writes ``error.json`` instead; a refinement that fails
after its first iteration writes both. ``progress.jsonl`` grows while it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from aiida_difftre.engine.contract.architectures import NewPotential
from aiida_difftre.engine.contract.base import FileName, Name, Seed, Sha256, Strict
from aiida_difftre.engine.contract.bases import BasePath
from aiida_difftre.engine.contract.bounds import (
    Energy,
    GridValue,
    Iterations,
    Limits,
    Measurement,
    Pressure,
    Temperature,
    of_stored,
)
from aiida_difftre.engine.contract.documents import read_json
from aiida_difftre.engine.contract.label_names import LabelKeys
from aiida_difftre.engine.contract.observables import ObservableRequest, check_requests
from aiida_difftre.engine.contract.optimizer_options import OPTAX
from aiida_difftre.engine.contract.policy import LoopSettings
from aiida_difftre.engine.contract.settings import (
    LONGEST_CUTOFF,
    BarostatSpec,
    DatasetWeights,
    LangevinSpec,
    LossSettings,
    Machine,
    NoseHooverSpec,
    OptimizerSpec,
    PotentialSpec,
    SamplingSettings,
    TermSpec,
    UpdateSettings,
)
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.errors import EngineError, ExitStatus, did_you_mean, one_line, shown

# The settings of which jobs are made are part of the contract: one import serves both.
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
]

SCHEMA_VERSION: Final = 1

JOB = "job.json"
RESULTS = "results.json"
ERROR = "error.json"
PROGRESS = "progress.jsonl"
CHECKPOINT = "checkpoint.safetensors"
TRAJECTORY = "trajectory.npz"
PREDICTIONS = "predictions.npz"
POTENTIAL_IN = "potential.safetensors"
POTENTIAL_OUT = "potential_out.safetensors"
OPTIMIZER_IN = "optimizer.safetensors"
OPTIMIZER_OUT = "optimizer_out.safetensors"
DATASET = "dataset.extxyz"
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

    Writes: ``trajectory.npz``, ``results.json`` (predictions, mean temperature, statistical inefficiency,
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

    @model_validator(mode="after")
    def _ensemble(self) -> SampleJob:
        check_requests(self.observables, self.sampling.ensemble(self.pressure))
        if self.trajectory is not None and self.start_trajectory is not None:
            raise ValueError("give either trajectory (to take) or start_trajectory (to continue from)")
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
    state_points: list[StatePointTrajectory] = Field(min_length=1)
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
    validated alone. A ``trajectory`` that exists takes the place of the first sampling.
    """

    label: Name = Field(min_length=1)
    temperature: Temperature
    pressure: Pressure | None = None
    structure: FileName = STRUCTURE
    trajectory: FileName | None = None
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
    trajectory: FileName | None = None
    temperature: Temperature | None = None
    pressure: Pressure | None = None
    observables: list[ObservableRequest] = Field(default_factory=list)

    @model_validator(mode="after")
    def _something(self) -> PredictJob:
        if self.structures is None and self.trajectory is None:
            raise ValueError("give structures or a trajectory to predict for")
        if self.static_stiffness and self.structures is None:
            raise ValueError("static_stiffness needs structures")
        for what in ("observables", "temperature", "pressure"):
            if self.trajectory is None and getattr(self, what) not in (None, []):
                raise ValueError(f"{what}: observables are averages over a trajectory, and none is given; give one")
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
        for point in self.state_points:
            for settings in (self.sampling, self.validation):
                if settings is not None:
                    check_requests([t.request() for t in point.targets], settings.ensemble(point.pressure))
        return self


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

    Writes: ``results.json``.
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
            requests += [one.request() for one in self.candidates if one.state_point == point.label]
            check_requests(requests, "NVT" if point.pressure is None else "NPT")
        if self.pair_distances is not None and (min(self.pair_distances, default=0) <= 0):
            raise ValueError(f"pair_distances: {self.pair_distances[:3]} must be distances above 0 Å")
        return self


class Prediction(Strict):
    """A predicted observable in ``results.json``: values and standard errors in ``unit``, on labels or a grid.

    ``options`` are without tables; ``fitted`` holds the parameters of the measurement that were fitted.
    ``effective_samples`` says how many independent snapshots stand for the prediction, N_eff/g; results before this
    was recorded have none.
    """

    label: str
    observable: str
    options: dict[str, Any] = Field(default_factory=dict)
    unit: str
    labels: list[str]
    grid: list[float] | None = None
    values: list[float]
    errors: list[float]
    fitted: dict[str, float] = Field(default_factory=dict)
    effective_samples: float | None = None


JOBS: dict[str, type[Job]] = {
    "pretrain": PretrainJob,
    "sample": SampleJob,
    "update": UpdateJob,
    "predict": PredictJob,
    "refine": RefineJob,
    "assess": AssessJob,
}

ModelT = TypeVar("ModelT", bound=Strict)


UNSTATED = re.compile(r"\[.*\]")
"""Of where a problem is: what pydantic adds, such as which of several kinds a value was taken for."""

MOST_PROBLEMS = 5
"""Of an input that are named at once."""


def explain(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """What is wrong, one phrase for each problem of a pydantic error: where, what, and the offending value.

    Args:
        error: The error.
        model: What was validated, whose keys are proposed for those that nobody knows; None for no proposals.
    """
    problems = error.errors(include_url=False)
    phrases = []
    for problem in problems[:MOST_PROBLEMS]:
        where = ".".join(str(part) for part in problem["loc"] if not UNSTATED.fullmatch(str(part))) or "input"
        unknown = problem["type"] == "extra_forbidden"
        message = "unknown key" if unknown else problem["msg"].removeprefix("Value error, ")
        value = "" if isinstance(problem["input"], dict | list) else f" (got {shown(problem['input'])})"
        place = problem["loc"]
        near = did_you_mean(place[-1], _fields_at(model, place[:-1])) if unknown and model is not None else ""
        phrases.append(f"{one_line(where)}: {message}{value}{near}")
    if (more := len(problems) - MOST_PROBLEMS) > 0:
        phrases.append(f"and {more} more")
    return one_line("; ".join(phrases))


def _fields_at(model: type[BaseModel], place: Iterable[Any]) -> set[str]:
    """The keys that are known at a place in a document: what is no key is an index, a label or the tag of a union."""
    models = {model}
    for part in place:
        inner = [one.model_fields[part].annotation for one in models if part in one.model_fields]
        if inner:
            models = {found for annotation in inner for found in _models_in(annotation)}
    return {name for one in models for name in one.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def validate(model: type[ModelT], content: Any) -> ModelT:
    """Check plain data against a model, such as a target or a job, and make it.

    Args:
        model: The model, a class of pydantic.
        content: Mappings, lists, strings and numbers, as they come from YAML or JSON.

    Returns:
        The content as an object of the model.

    Raises:
        ValueError: Where the content does not fit; the message names each offending value.

    Example:
        >>> from aiida_difftre.engine.contract.jobs import validate
        >>> from aiida_difftre.engine.contract.targets import Conditions
        >>> validate(Conditions, {"temperature": 300.0}).temperature
        300.0
        >>> validate(Conditions, {"temperature": -1.0})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: temperature: ...
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError(explain(error, model)) from None


def read_stored(model: type[ModelT], content: Any) -> ModelT:
    """What is stored, as ``model``, although its values may be outside of bounds that came later.

    Raises:
        ValueError: as :func:`validate`, for what has another form than the model.
    """
    with of_stored():
        return validate(model, content)


def read_job(path: Path, kind: str) -> Job:
    """Read and check a job file.

    Raises:
        EngineError: with status INVALID_INPUT, naming each offending value.
    """
    try:
        content = read_json(path)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None
    try:
        return validate(JOBS[kind], content)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, f"{path.name}: {error}") from None
