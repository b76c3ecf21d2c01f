"""What a refinement takes and gives: ports and exit codes of the chain."""

from __future__ import annotations

from aiida import orm
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.workchains import exit_codes
from aiida_difftre.workchains.refine_settings import check_settings
from aiida_difftre.workchains.state_points import define_base, define_state_points, expose_sampling
from aiida_difftre.workchains.update import UpdateBaseWorkChain


def define_inputs(spec: WorkChainSpec) -> None:
    """Declare the inputs."""
    spec.input("potential", valid_type=PotentialData, help="The potential to refine.")
    define_base(spec)
    define_state_points(spec)
    spec.input(
        "dataset",
        valid_type=DatasetData,
        required=False,
        help="First-principles labels for the matching term of the loss (used where loss.dataset_weight > 0).",
    )
    spec.input(
        "base_labels",
        valid_type=orm.ArrayData,
        required=False,
        help="What the base gives for the dataset, as predictions of difftre.predict hold it; computed first, with "
        "the code of sampling, where updates need it and it is left out.",
    )
    expose_sampling(spec)
    given = ("potential", "base", "optimizer_state", "dataset", "base_labels", "state_points")
    spec.expose_inputs(
        UpdateBaseWorkChain,
        namespace="update",
        exclude=[f"calc.{name}" for name in given],
        namespace_options={"help": "Of the update of each iteration."},
    )
    spec.input(
        "settings",
        valid_type=orm.Dict,
        default=lambda: orm.Dict({}),
        serializer=orm.to_aiida_type,
        validator=check_settings,
        help="max_iterations, patience, min_improvement, chi2_stop, max_noise, max_roll_backs, "
        "continued_equilibration_fs, growth {factor, thresholds, against_noise}, pool_iterations, "
        "pool_neighbours, resample_below, seed.",
    )


def define_outputs(spec: WorkChainSpec) -> None:
    """Declare the outputs, and how a refinement fails."""
    spec.output(
        "potential",
        valid_type=PotentialData,
        help="The best by chi² on fresh trajectories: the latest one within the noise of the lowest.",
    )
    spec.output("history", valid_type=orm.Dict, help="Per iteration: predictions, chi², optimizer steps.")
    spec.output(
        "base_labels",
        valid_type=orm.ArrayData,
        required=False,
        help="What the base gives for the dataset, where it was computed here.",
    )
    spec.exit_code(
        exit_codes.SAMPLING_FAILED,
        "ERROR_SAMPLING_FAILED",
        message="Sampling at state point {label} failed: {reason}",
    )
    spec.exit_code(exit_codes.UPDATE_FAILED, "ERROR_UPDATE_FAILED", message="The update failed: {reason}")
    spec.exit_code(
        exit_codes.PREDICTION_FAILED,
        "ERROR_PREDICTION_FAILED",
        message="The base failed on the dataset that is to be matched: {reason}",
    )
    spec.exit_code(
        exit_codes.UNSTABLE,
        "ERROR_INITIAL_POTENTIAL_UNSTABLE",
        message="The dynamics of the given potential at state point {label} is unstable: {reason}. Pretrain it on "
        "more rattled structures, or use a smaller timestep_fs.",
    )
    spec.exit_code(
        exit_codes.TOO_MANY_ROLL_BACKS,
        "ERROR_TOO_MANY_ROLL_BACKS",
        message="The potential was rolled back {number} times and the next one still fails: {reason}. Use a "
        "smaller learning rate; the outputs hold the best potential until then.",
    )
