"""Sample a trajectory at one state point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.engine import CalcJobProcessSpec

from aiida_difftre.calculations import ports
from aiida_difftre.calculations.checks import (
    check_composition,
    check_observables,
    check_periodic,
    check_species,
    check_trajectory,
    check_whole,
    parameters_model,
    symbols_of,
)
from aiida_difftre.calculations.engine import EngineCalculation, LinkedTrajectory, Submission
from aiida_difftre.data import places
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.hot import BLOWN_UP
from aiida_difftre.engine.contract.jobs import POTENTIAL_IN, STRUCTURE, TRAJECTORY, TRAJECTORY_PART, Job, SampleJob
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.validation import validate

START_TRAJECTORY = "start.npz"
GIVEN_TRAJECTORY = "given.npz"

SampleParameters = parameters_model(SampleJob, ("potential", "structure", "start_trajectory", "trajectory"))


class SampleCalculation(EngineCalculation):
    """Sample a trajectory at one state point (NVT, or isotropic NPT) and predict observables on it."""

    JOB_MODEL = SampleJob
    KIND = "sample"
    NEEDED = ("parameters", "potential", "structure")
    RETRIEVE_TEMPORARY = (TRAJECTORY, BLOWN_UP)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Ports of the sampling job."""
        super().define(spec)
        ports.parameters(
            spec,
            SampleParameters,
            "Temperature (K), pressure (GPa), sampling (times in fs), observables, seed, machine: SampleJob without "
            "its files.",
        )
        ports.potential(spec, "The potential to sample with.")
        spec.input(
            "structure",
            valid_type=orm.StructureData,
            help="Cell (Å) and atoms; where every walker starts if there is no start_trajectory.",
        )
        spec.input(
            "start_trajectory",
            valid_type=TrajectoryEnsembleData,
            required=False,
            help="Continue from the last positions, velocities and (NPT) cells of the walkers of this trajectory.",
        )
        ports.trajectory_folder(spec, "start_folder", "start_trajectory")
        spec.input(
            "trajectory",
            valid_type=TrajectoryEnsembleData,
            required=False,
            help="Take this trajectory in place of sampling one: energies of the potential are evaluated on it.",
        )
        ports.parent_folder(spec)
        spec.output(
            "trajectory",
            valid_type=TrajectoryEnsembleData,
            help="Snapshots of all walkers; with keep_every above 1 a part of them, and the whole in remote_folder.",
        )
        spec.output(
            "blown_up",
            valid_type=DatasetData,
            required=False,
            help="Structures of hot runs on the way to where walkers blew up, without labels.",
        )
        spec.output(
            "predictions",
            valid_type=orm.ArrayData,
            required=False,
            help="For each observable the arrays LABEL_values, LABEL_errors (standard errors) and LABEL_grid; units "
            "and component labels in the attribute predictions.",
        )

    @classmethod
    def check(cls, inputs: Mapping[str, Any]) -> str | None:
        """The potential must know the species, and the structure must be able to give the observables."""
        potential, structure, start = inputs["potential"], inputs["structure"], inputs.get("start_trajectory")
        symbols = sorted(structure.get_symbols_set())
        asked = inputs["parameters"].get_dict().get("observables", [])
        message = (
            check_periodic(structure, "the structure")
            or check_whole(structure, "the structure")
            or check_species(potential, symbols, "the structure")
            or check_composition(potential, structure, "the structure")
            or check_observables([validate(ObservableRequest, one) for one in asked], structure, "the structure")
        )
        if not message and inputs.get("trajectory") is not None:
            job: Any = cls.make_job(inputs)
            message = check_trajectory(inputs["trajectory"], structure, job.temperature, job.pressure, job.sampling)
        if message or start is None:
            return message
        if start.species != symbols:
            return f"start_trajectory is of {', '.join(start.species)}, but the structure of {', '.join(symbols)}"
        given, wanted = symbols_of(start), symbols_of(structure)
        if given != wanted:
            return (
                f"start_trajectory has {len(given)} atoms, the structure {len(wanted)}, or another order of species; "
                "give the structure that it was sampled with"
            )
        return None

    @classmethod
    def trajectories(cls, inputs: Mapping[str, Any]) -> Iterator[LinkedTrajectory]:
        """The one to go on from, of which the last state is enough, or the one to take."""
        if (start := inputs.get("start_trajectory")) is not None:
            yield LinkedTrajectory(START_TRAJECTORY, start, inputs.get("start_folder"), ends=True)
        if (given := inputs.get("trajectory")) is not None:
            yield LinkedTrajectory(GIVEN_TRAJECTORY, given, None)

    @classmethod
    def is_valid_cache(cls, node: Any) -> bool:
        """Not where a part is kept and the whole was deleted, which later jobs would miss.

        Args:
            node: The node of a job that ended.
        """
        trajectory = node.base.links.get_outgoing(TrajectoryEnsembleData, link_label_filter="trajectory").first()
        is_lost = trajectory is not None and trajectory.node.is_part and not places.of(trajectory.node)
        return not is_lost and super().is_valid_cache(node)

    @classmethod
    def brought_back(cls, job: Job) -> list[str]:
        """The whole trajectory, or the part of it that is kept."""
        names = super().brought_back(job)
        keeps_part = isinstance(job, SampleJob) and job.keep_every > 1
        return [TRAJECTORY_PART if keeps_part and name == TRAJECTORY else name for name in names]

    @classmethod
    def content(cls, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Names of the files."""
        start = START_TRAJECTORY if inputs.get("start_trajectory") is not None else None
        given = GIVEN_TRAJECTORY if inputs.get("trajectory") is not None else None
        return {"potential": POTENTIAL_IN, "structure": STRUCTURE, "start_trajectory": start, "trajectory": given}

    def add_files(self, submission: Submission) -> None:
        """Potential, structure, and the checkpoint to restart from."""
        submission.copy(self.inputs.potential, POTENTIAL_IN)
        submission.structure(self.inputs.structure, STRUCTURE)
        if "parent_folder" in self.inputs:
            submission.checkpoint(self.inputs.parent_folder)
