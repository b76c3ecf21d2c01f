"""Move the parameters of a potential towards the targets, on reference trajectories, until the gate closes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.engine import CalcJobProcessSpec

from aiida_difftre.calculations import ports
from aiida_difftre.calculations.checks import (
    check_base_labels,
    check_composition,
    check_energies,
    check_labels,
    check_observables,
    check_species,
    check_target_nodes,
    evaluates_elsewhere,
    parameters_model,
)
from aiida_difftre.calculations.engine import EngineCalculation, LinkedTrajectory, Submission
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.base_arrays import BASE_LABEL_ARRAYS
from aiida_difftre.engine.contract.jobs import (
    BASE_LABELS,
    DATASET,
    OPTIMIZER_IN,
    OPTIMIZER_OUT,
    POTENTIAL_IN,
    POTENTIAL_OUT,
    UpdateJob,
)
from aiida_difftre.engine.contract.neighbours import is_same_model

UpdateParameters = parameters_model(
    UpdateJob, ("potential", "optimizer_state", "state_points", "dataset", "keys", "base_labels")
)


def trajectory_name(label: str) -> str:
    """The file of the trajectory of one state point."""
    return f"trajectory_{label}.npz"


def check_state_points(points: Mapping[str, Any] | None, _: Any) -> str | None:
    """Each state point needs a trajectory and targets, under labels that are valid names."""
    message = check_labels(points or {}, "state point")
    if message:
        return message
    for label, point in (points or {}).items():
        unknown = set(point) - {"trajectory", "remote", "targets", "potential", "earlier"}
        if unknown:
            return (
                f"state point {label!r} has {', '.join(sorted(unknown))}; it takes trajectory, remote, targets, "
                "potential and earlier"
            )
        if not isinstance(point.get("trajectory"), TrajectoryEnsembleData):
            return f"state point {label!r} needs a trajectory (TrajectoryEnsembleData), got {point.get('trajectory')!r}"
        remote, targets = point.get("remote"), point.get("targets") or {}
        if remote is not None and not isinstance(remote, orm.RemoteData):
            return f"remote of state point {label!r} is {remote!r}; give the remote_folder of the sampling job"
        if not isinstance(point.get("potential"), PotentialData | None):
            return f"potential of state point {label!r} is {point['potential']!r}; give the PotentialData that sampled"
        if not targets:
            return f"state point {label!r} needs targets (TargetData), got none"
        if message := check_target_nodes(targets) or check_earlier(point.get("earlier") or {}):
            return f"state point {label!r}: {message}"
    return None


def check_earlier(earlier: Mapping[str, Any]) -> str | None:
    """Each earlier trajectory comes with the potential that sampled it."""
    if message := check_labels(earlier, "earlier trajectory"):
        return message
    for name, one in earlier.items():
        if unknown := set(one) - {"trajectory", "remote", "potential"}:
            return f"earlier.{name} has {', '.join(sorted(unknown))}; it takes trajectory, remote and potential"
        if not isinstance(one.get("trajectory"), TrajectoryEnsembleData):
            return f"earlier.{name} needs a trajectory (TrajectoryEnsembleData), got {one.get('trajectory')!r}"
        if not isinstance(one.get("potential"), PotentialData):
            return f"earlier.{name} needs the potential that sampled it (PotentialData), got {one.get('potential')!r}"
    return None


def define_state_points(spec: CalcJobProcessSpec) -> None:
    """Declare the trajectories of all state points, with their targets."""
    spec.input_namespace(
        "state_points",
        dynamic=True,
        valid_type=(TrajectoryEnsembleData, orm.RemoteData, TargetData, PotentialData),
        validator=check_state_points,
        help="LABEL -> {trajectory: TrajectoryEnsembleData, remote: RemoteData (optional; the folder where it was "
        "made, to link instead of copy), targets: {NAME: TargetData}, potential: PotentialData (optional; of updates: "
        "what sampled the trajectory, where that was an earlier potential), earlier: {NAME: {trajectory, remote, "
        "potential}} (optional; of updates: others that earlier potentials sampled there; names tell the order)}.",
    )


def job_state_points(points: Mapping[str, Any]) -> list[dict[str, Any]]:
    """State points of a job: labels, conditions and files of the trajectories, and targets."""
    return [
        {
            "label": label,
            "temperature": point["trajectory"].temperature,
            "pressure": point["trajectory"].pressure,
            "trajectory": trajectory_name(label),
            "targets": [node.target.model_dump() for _, node in sorted(point["targets"].items())],
        }
        for label, point in sorted(points.items())
    ]


def newest_trajectories(points: Mapping[str, Any]) -> Iterator[LinkedTrajectory]:
    """The trajectories of state points, without earlier ones."""
    for label, point in points.items():
        yield LinkedTrajectory(trajectory_name(label), point["trajectory"], point.get("remote"))


def check_form(potential: PotentialData, point: Mapping[str, Any]) -> str | None:
    """Weights take the energies of every potential on all snapshots, of which the base gave a part."""
    sampled_by = {f"earlier.{name}": one["potential"] for name, one in (point.get("earlier") or {}).items()}
    if point.get("potential") is not None:
        sampled_by["its trajectory"] = point["potential"]
    for name, one in sampled_by.items():
        if not is_same_model(one.spec, potential.spec):
            return f"{name} was sampled with a potential of other species or another base; give those of one system"
    return None


def sampled_by_file(label: str, point: Mapping[str, Any]) -> str | None:
    """The file of the potential that sampled the newest trajectory, where that is not the one of the update."""
    return f"potential_{label}" if point.get("potential") is not None else None


def earlier_files(label: str, earlier: Mapping[str, Any]) -> list[dict[str, str]]:
    """Earlier trajectories of one state point and their potentials in the job file: names and files, latest first."""
    return [
        {"label": name, "trajectory": trajectory_name(f"{label}__{name}"), "potential": f"potential_{label}__{name}"}
        for name in sorted(earlier, reverse=True)
    ]


class UpdateCalculation(EngineCalculation):
    """Optimizer steps on trajectories that were sampled with the potential which the update starts from.

    Trajectories of earlier potentials at the same state points are pooled with them where they overlap.
    """

    JOB_MODEL = UpdateJob
    KIND = "update"
    NEEDED = ("potential", "state_points")
    RETRIEVE_TEMPORARY = (POTENTIAL_OUT, OPTIMIZER_OUT)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Ports of the update job."""
        super().define(spec)
        ports.parameters(
            spec,
            UpdateParameters,
            "Loss, optimizer, gate, factor on the learning rate, seed, machine: UpdateJob without its files.",
            required=False,
        )
        ports.potential(spec, "The potential that sampled the trajectories.")
        spec.input(
            "optimizer_state",
            valid_type=orm.SinglefileData,
            required=False,
            help="State of the optimizer after an earlier update.",
        )
        spec.input(
            "dataset",
            valid_type=DatasetData,
            required=False,
            help="Labelled configurations for the matching term (update.loss.dataset_weight > 0).",
        )
        ports.base_labels(spec)
        define_state_points(spec)
        spec.output("potential", valid_type=PotentialData, help="The potential after the last step.")
        spec.output(
            "optimizer_state", valid_type=orm.SinglefileData, help="State of the optimizer after the last step."
        )
        spec.output_namespace(
            "predictions",
            dynamic=True,
            valid_type=orm.ArrayData,
            help="For each state point the reweighted predictions after the last step: arrays LABEL_values, "
            "LABEL_errors (standard errors), LABEL_grid; units and labels in the attribute predictions.",
        )

    @classmethod
    def check(cls, inputs: Mapping[str, Any]) -> str | None:
        """Species must be known to the potential, and the trajectories able to give what was measured."""
        for label, point in inputs["state_points"].items():
            what = f"the trajectory of state point {label!r}"
            requests = [node.target.request() for node in point["targets"].values()]
            trajectory = point["trajectory"]
            message = (
                check_species(inputs["potential"], trajectory.species, what)
                or check_composition(inputs["potential"], trajectory, what)
                or check_energies(trajectory, what)
                or check_observables(requests, trajectory, what)
                or check_form(inputs["potential"], point)
            )
            if message:
                return message
        dataset = inputs.get("dataset")
        if dataset is None:
            return None
        if not dataset.labelled:
            return "the dataset carries no energies and forces; label it first (difftre.dataset)"
        base, labels = inputs["potential"].spec.base, inputs.get("base_labels")
        if labels is None and evaluates_elsewhere(base, inputs.get("parameters")):
            return (
                f"the dataset is matched by terms on top of the base {base.label!r}, which no update evaluates; "
                "predict the dataset with this potential (difftre.predict), and give its predictions as base_labels"
            )
        return check_species(inputs["potential"], dataset.species, "the dataset") or check_base_labels(
            labels, base, dataset
        )

    @classmethod
    def trajectories(cls, inputs: Mapping[str, Any]) -> Iterator[LinkedTrajectory]:
        """The newest ones of all state points, and the earlier ones."""
        yield from newest_trajectories(inputs["state_points"])
        for label, point in inputs["state_points"].items():
            earlier = point.get("earlier") or {}
            for files in earlier_files(label, earlier):
                one = earlier[files["label"]]
                yield LinkedTrajectory(files["trajectory"], one["trajectory"], one.get("remote"))

    @classmethod
    def content(cls, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Names of the files, state points and targets."""
        return {
            "potential": POTENTIAL_IN,
            "optimizer_state": OPTIMIZER_IN if inputs.get("optimizer_state") is not None else None,
            "dataset": DATASET if inputs.get("dataset") is not None else None,
            "keys": {} if inputs.get("dataset") is None else inputs["dataset"].job_keys,
            "base_labels": BASE_LABELS if inputs.get("base_labels") is not None else None,
            "state_points": [
                {
                    **point,
                    "potential": sampled_by_file(point["label"], given),
                    "earlier": earlier_files(point["label"], given.get("earlier") or {}),
                }
                for point in job_state_points(inputs["state_points"])
                for given in (inputs["state_points"][point["label"]],)
            ],
        }

    def add_files(self, submission: Submission) -> None:
        """Potentials, optimizer state, dataset, and what its base gives there."""
        for port, name in (("potential", POTENTIAL_IN), ("optimizer_state", OPTIMIZER_IN), ("dataset", DATASET)):
            if port in self.inputs:
                submission.copy(self.inputs[port], name)
        if "base_labels" in self.inputs:
            submission.arrays(self.inputs.base_labels, BASE_LABEL_ARRAYS, BASE_LABELS)
        for label, point in self.inputs.state_points.items():
            if (sampled_by := sampled_by_file(label, point)) is not None:
                submission.copy(point["potential"], sampled_by)
            earlier = point.get("earlier") or {}
            for files in earlier_files(label, earlier):
                submission.copy(earlier[files["label"]]["potential"], files["potential"])
