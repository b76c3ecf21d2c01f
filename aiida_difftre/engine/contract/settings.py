"""The settings of which jobs are made: potential, machine, optimizer, sampling, update. Free of JAX."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ase.data import atomic_numbers
from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from aiida_difftre.engine.contract import optimizer_options, samplers
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.bounds import Chi2, Duration, DurationOrZero, Iterations, Limits, Spacing, Weight
from aiida_difftre.engine.contract.label_weights import DatasetWidths, check_widths
from aiida_difftre.engine.contract.observables import Ensemble
from aiida_difftre.engine.contract.optimizer_options import GAUSS_NEWTON

LONGEST_CUTOFF = 20.0
"""Å. A neighbour list holds every neighbour of every snapshot in memory; diamond has some 6000 within this distance."""


class TermSpec(Strict):
    """One term of a potential: its architecture, cutoff and hyperparameters.

    Args:
        architecture: Name under which the architecture is registered, such as ``lennard_jones``.
        cutoff: Distance beyond which a neighbour does not count, Å; at most 20.
        hyperparameters: Settings of the architecture by name, which it checks itself.
        trainable: Whether pretraining and refinement change its parameters; or the names of those that they change,
            such as ``[readout]`` or ``[layers/2, readout]``.

    Example:
        >>> from aiida_difftre.engine.contract.settings import TermSpec
        >>> term = TermSpec(architecture="repulsion", cutoff=3.0, hyperparameters={"epsilon": 1.0, "sigma": 1.2})
        >>> term.trainable
        True
    """

    architecture: str
    cutoff: Annotated[
        float,
        Limits(
            above=0,
            most=LONGEST_CUTOFF,
            unit="Å",
            reason="potentials of this package are short-ranged, 3 to 8 Å; longer lists do not fit into memory",
        ),
    ]
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    trainable: bool | Annotated[list[str], Field(min_length=1)] = True

    def trains(self, path: str) -> bool:
        """Whether a parameter, by its path in the term such as ``mlp/w0``, is one that training changes."""
        if isinstance(self.trainable, bool):
            return self.trainable
        return any(path == name or path.startswith(f"{name}/") for name in self.trainable)


class PotentialSpec(Strict):
    """Everything about a potential but its parameters.

    Args:
        species: Chemical symbols, without repetition.
        terms: The terms, whose sum is the energy; with a base, the correction to it.
        base: Fixed potential to which the terms are added; None for none.

    Example:
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> terms = [{"architecture": "repulsion", "cutoff": 3.0}, {"architecture": "moment_network", "cutoff": 5.0}]
        >>> PotentialSpec(species=["C"], terms=terms).cutoff
        5.0
    """

    species: list[str] = Field(min_length=1)
    terms: list[TermSpec] = Field(min_length=1)
    base: BaseSpec | None = None

    @model_serializer(mode="wrap")
    def _without_empty_base(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What has no base is written as it was before there were any: digests and files stay as they are.
        content: dict[str, Any] = handler(self)
        return content if self.base is not None else {key: value for key, value in content.items() if key != "base"}

    @model_validator(mode="after")
    def _distinct(self) -> PotentialSpec:
        if len(set(self.species)) != len(self.species):
            raise ValueError(f"species {self.species} repeat")
        if unknown := [symbol for symbol in self.species if symbol not in atomic_numbers]:
            raise ValueError(f"species {', '.join(map(repr, unknown))}: no chemical symbol")
        return self

    @property
    def cutoff(self) -> float:
        """The largest cutoff of the terms, in Å."""
        return max(term.cutoff for term in self.terms)


class Machine(Strict):
    """How a job uses the machine: precision, cores, memory and time.

    Args:
        platform: ``auto`` takes what JAX finds; ``cpu`` leaves GPUs alone; ``gpu`` refuses to run without one.
        precision: Precision of forces and gradients; energies that enter weights are always in float64.
        threads: Number of cores, over which walkers and batches are spread; 0 takes all that the process may use.
        batch_size: Number of snapshots per device and batch; 0 lets the engine choose.
        walltime_s: Time after which the job stops, s; None for no limit. Sampling and pretraining leave a checkpoint,
            an update what it has reached.
        snapshot_cache_mib: Memory for what an update or a prediction keeps of the snapshots of all its state points,
            MiB: projections where they fit, else neighbour lists. What is not kept is computed anew at each step, which
            can take several times as long.
        compilation_cache: Folder of JAX's persistent compilation cache; None takes ``$DIFFTRE_CACHE`` or
            ``~/.cache/difftre``.

    Example:
        >>> from aiida_difftre.engine.contract.settings import Machine
        >>> Machine(threads=4).precision
        'float32'
    """

    platform: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["float32", "float64"] = "float32"
    threads: Annotated[int, Limits(least=0, most=4096, reason="no node has more cores")] = 0
    batch_size: Annotated[int, Limits(least=0, most=1_000_000, reason="no trajectory has more snapshots")] = 0
    walltime_s: (
        Annotated[float, Limits(above=0, most=1e8, unit="s", reason="no queue lets a job run for three years")] | None
    ) = None
    snapshot_cache_mib: Annotated[
        float, Limits(least=0, most=1e7, unit="MiB", reason="no node has 10 TiB of memory")
    ] = 512.0
    compilation_cache: str | None = None

    def share_of(self, number: int) -> Machine:
        """The same, with the memory for snapshots that one of several state points may take.

        Args:
            number: Number of state points.
        """
        return self.model_copy(update={"snapshot_cache_mib": self.snapshot_cache_mib / max(1, number)})


class OptimizerSpec(Strict):
    """An optimizer.

    Args:
        name: Name of a first-order optimizer of optax, such as ``adam``; or, in an update, ``gauss_newton``.
        options: its keyword arguments, but for the learning rate.
        learning_rate: Learning rate at step 0.
        final_learning_rate_fraction: learning rate at the last step over that at step 0 (cosine in pretraining,
            exponential in refinement).
        decay_steps: steps over which it falls; 0 for a constant learning rate (pretraining takes its number of steps).
        clip_norm: global norm to which gradients are clipped; None for none.
    """

    name: str = "adam"
    options: dict[str, Any] = Field(default_factory=dict)
    learning_rate: Annotated[
        float,
        Limits(above=0, most=100, reason="it is in units of the parameters, of which most lie between 0.001 and 10"),
    ] = 5e-3
    final_learning_rate_fraction: Annotated[float, Limits(above=0, most=1, reason="a learning rate falls")] = 0.01
    decay_steps: Annotated[int, Limits(least=0, most=10_000_000, reason="no optimization takes more steps")] = 0
    clip_norm: (
        Annotated[float, Limits(above=0, most=1e12, reason="a larger norm clips nothing; leave it out")] | None
    ) = None

    @model_validator(mode="after")
    def _known(self) -> OptimizerSpec:
        optimizer_options.check(self.name, self.options)
        return self


class DatasetWeights(Strict):
    """Weights of energy (per atom, eV), force (eV/Å) and stress (eV/Å³) mean squared errors in a matching loss."""

    energy: Weight = 100.0
    force: Weight = 1.0
    stress: Weight = 1e4


class LangevinSpec(Strict):
    """Langevin thermostat (BAOAB); friction in 1/ps."""

    name: Literal["langevin"] = "langevin"
    friction_per_ps: Annotated[
        float,
        Limits(above=0, most=1e4, unit="1/ps", reason="velocities would be forgotten within a tenth of a femtosecond"),
    ] = 10.0


class NoseHooverSpec(Strict):
    """Nose-Hoover chain; relaxation time in fs."""

    name: Literal["nose_hoover"] = "nose_hoover"
    time_constant_fs: Annotated[
        float,
        Limits(
            least=0.1,
            most=1e6,
            unit="fs",
            reason="a chain resonates with bonds below some femtoseconds and does not act above a nanosecond",
        ),
    ] = 50.0
    chain_length: Annotated[int, Limits(least=1, most=100, reason="chains of three to ten are enough")] = 5


class BarostatSpec(Strict):
    """Langevin piston: the cell keeps its shape and changes its size; used where a pressure is given.

    Args:
        relaxation_time_fs: Time within which fluctuations of the volume decay, fs.
        max_volume_ratio: a volume above this multiple of that of the starting structure's cell, or below its inverse,
            stops the run.
    """

    relaxation_time_fs: Annotated[
        float,
        Limits(least=1, most=1e7, unit="fs", reason="a cell is slower than its atoms and faster than a run"),
    ] = 500.0
    max_volume_ratio: Annotated[
        float, Limits(above=1, most=100, reason="a solid or liquid that expands further has gone")
    ] = 1.5


WALKERS = 8
"""Where their number is left open, on a CPU, whose time per walker does not depend on it."""

ATOMS_THAT_FILL_A_GPU = 65_536
"""Of all walkers together. By reasoning, not measured: a GPU of 132 multiprocessors keeps some 270 000 threads, each of
which takes an atom or a neighbour; with fewer, a step costs what the launch of its kernels costs."""


MOST_STEPS = 2**31 - 1
"""Of a walker: they are counted in integers of 32 bits."""

MOST_SNAPSHOTS = 1_000_000
"""Of a trajectory: 20 GB of positions of 1728 atoms, more than an update can look at."""


class SamplingSettings(Strict):
    """Sampling by several independent walkers: molecular dynamics, unless another sampler is chosen.

    Args:
        sampler: registered name of what samples: ``jax_md``, or a sampler of another package.
        thermostat: Thermostat of the atoms.
        barostat: isotropic, of the cell; None keeps it fixed (NVT) even where there is a pressure.
        walkers: independent walkers, batched in one program. None: 8; on a GPU as many as make 65 536 atoms, sharing
            the time of 8.
        timestep_fs: fs.
        equilibration_fs: discarded time of each walker, fs.
        production_fs: sampled time of each walker, fs; of each of 8 where ``walkers`` is None.
        stride_fs: time between snapshots, fs.
        skin: Skin of the neighbour list, Å; chosen from the speed of the atoms and what forces and lists cost where not
            given. It grows when an atom moves farther than the list allows.
        min_distance: two atoms closer than this stop the run, Å.
        max_temperature_ratio: an instantaneous temperature of a walker above this multiple of the target stops the run.
        checkpoint_interval_s: time between checkpoints, s.
    """

    sampler: Annotated[str, AfterValidator(samplers.check)] = samplers.JAX_MD
    thermostat: LangevinSpec | NoseHooverSpec = Field(default_factory=LangevinSpec, discriminator="name")
    barostat: BarostatSpec | None = None
    walkers: (
        Annotated[int, Limits(least=1, most=ATOMS_THAT_FILL_A_GPU, reason="as many as fill a GPU with one atom each")]
        | None
    ) = None
    timestep_fs: Annotated[
        float, Limits(least=0.001, most=10, unit="fs", reason="bonds vibrate within 10 to 100 fs")
    ] = 1.0
    equilibration_fs: DurationOrZero = 500.0
    production_fs: Duration = 1000.0
    stride_fs: Duration = 20.0
    skin: Spacing | None = None
    min_distance: Spacing = 0.7
    max_temperature_ratio: Annotated[float, Limits(above=1, most=1000, reason="a guard that never acts is none")] = 3.0
    checkpoint_interval_s: Annotated[
        float, Limits(above=0, most=1e6, unit="s", reason="a checkpoint that is never written is none")
    ] = 60.0

    @model_validator(mode="after")
    def _times(self) -> SamplingSettings:
        if self.stride_fs < self.timestep_fs:
            raise ValueError(f"stride_fs = {self.stride_fs} is shorter than timestep_fs = {self.timestep_fs}")
        if self.production_fs < self.stride_fs:
            raise ValueError(f"production_fs = {self.production_fs} is shorter than stride_fs = {self.stride_fs}")
        steps = (self.equilibration_fs + self.production_fs) / self.timestep_fs
        if steps > MOST_STEPS:
            raise ValueError(
                f"equilibration_fs and production_fs are {steps:.3g} steps of {self.timestep_fs:g} fs; a job takes at "
                f"most {MOST_STEPS:.3g}: sample more walkers, or for a shorter time"
            )
        snapshots = (self.walkers or WALKERS) * self.production_fs / self.stride_fs
        if snapshots > MOST_SNAPSHOTS:
            raise ValueError(
                f"walkers, production_fs and stride_fs make {snapshots:.3g} snapshots; a trajectory holds at most "
                f"{MOST_SNAPSHOTS:.3g}: give a longer stride_fs"
            )
        return self

    @property
    def steps_per_snapshot(self) -> int:
        """Time steps between two snapshots."""
        return max(1, round(self.stride_fs / self.timestep_fs))

    def on_device(self, atoms: int, *, gpu: bool, running: int | None = None) -> tuple[int, SamplingSettings]:
        """The number of walkers, and the settings with the time of each for the same number of snapshots.

        A GPU takes many walkers in the time of one until some 65 000 atoms move at once. Each of the walkers is
        equilibrated, so that there are only as many as sample no less than they equilibrate.

        Args:
            atoms: Number of atoms of a walker.
            gpu: whether the device is one.
            running: walkers of the trajectory that is continued, which go on; None for a start from a structure.
        """
        if self.walkers is not None:
            return self.walkers, self
        total, walkers = WALKERS * self.production_fs, WALKERS
        if running is not None:
            walkers = running
        elif gpu:
            affordable = total / max(self.equilibration_fs, self.stride_fs)
            walkers = max(WALKERS, int(min(ATOMS_THAT_FILL_A_GPU / atoms, affordable)))
        times = {"walkers": walkers, "production_fs": max(total / walkers, self.stride_fs)}
        return walkers, self.model_copy(update=times)

    def ensemble(self, pressure: float | None) -> Ensemble:
        """What is sampled at a state point: NPT where both a barostat and a pressure (GPa) are given."""
        return "NVT" if self.barostat is None or pressure is None else "NPT"


class LossSettings(Strict):
    """The loss of an update.

    Args:
        kind: ``chi2``: sum of gamma_k mean[(pred - exp)²/(σ_exp² + σ_sim²)]; ``mse``: sum of gamma_k mean[(pred -
        exp)²].
        dataset_weight: factor of the energy, force and stress matching term on the DFT dataset; 0 for none.
        dataset_weights: inside that term.
        dataset_widths: how far from the volumes of the state points labels count inside that term; by default all do.
        anchor_weight: factor of the squared L2 distance of the parameters to those the update starts from.
        curvature_width: prior of smooth pair splines: the standard deviation of their second derivative at the cutoff,
            eV/Å², from where it grows inwards as (cutoff/r)⁸; it counts as one more target. None for none.
    """

    kind: Literal["chi2", "mse"] = "chi2"
    dataset_weight: Weight = 0.0
    dataset_weights: DatasetWeights = Field(default_factory=DatasetWeights)
    dataset_widths: DatasetWidths = Field(default_factory=DatasetWidths)
    anchor_weight: Weight = 0.0
    curvature_width: (
        Annotated[
            float,
            Limits(least=1e-9, most=100, unit="eV/Å²", reason="pairs of argon have some 0.001 at 6 Å, bonds some 10"),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _widths_of_labels(self) -> LossSettings:
        if self.dataset_widths.given() and self.dataset_weight == 0:
            raise ValueError(
                "dataset_widths are of labels, which dataset_weight: 0 leaves out; give dataset_weight, or leave "
                "dataset_widths out (in a stage of a run that has them, null for each)"
            )
        check_widths(self.dataset_widths, self.dataset_weights.model_dump(), "dataset_widths")
        return self

    @model_validator(mode="after")
    def _in_units_of_errors(self) -> LossSettings:
        if self.kind == "mse" and self.curvature_width is not None:
            raise ValueError(
                f"curvature_width = {self.curvature_width:g} counts in units of errors, which a loss of the kind mse "
                "does not have; take kind: chi2, or leave it out"
            )
        return self


UPDATE_OPTIMIZER: dict[str, Any] = {"learning_rate": 2e-3, "clip_norm": 1.0}
"""In which the optimizer of an update differs from that of pretraining."""


LEAST_PART = 0.05
"""Of a Gauss-Newton step; a smaller learning rate is one of another optimizer."""


class PoolSettings(Strict):
    """Which earlier trajectories an update takes beside the newest one.

    Args:
        overlap: fraction of the snapshots of an earlier trajectory that must be left effective when it alone is
            reweighted to the potential that the update starts from.
        max_snapshots: snapshots in all, those of the newest trajectory included; the earliest are left out first.
    """

    overlap: Annotated[float, Limits(above=0, below=1, reason="it is a fraction of the snapshots")] = 0.1
    max_snapshots: Annotated[
        int, Limits(least=1, most=10_000_000, reason="an update evaluates each snapshot in every step")
    ] = 100_000


class UpdateSettings(Strict):
    """How parameters move on one set of trajectories.

    Args:
        loss: what is minimised.
        optimizer: optax optimizer; what is not given is as in the default, not as in ``OptimizerSpec``. Or
            ``gauss_newton``, whose steps are the longest towards the targets that ``max_step_loss`` allows; its
            learning rate is the part of the step to go, 1 by default, and its option ``damping`` (1) holds what the
            snapshots hardly tell. It takes the derivatives of the energy of each snapshot by all parameters.
        gate: resample when the effective fraction of snapshots falls below this (0.9 in the original work); of that
            at the first step, where something else sampled the trajectory.
        max_step_loss: a single step may lose at most this fraction of the effective samples, else it is halved.
        max_halvings: halvings of a step before the update ends.
        max_steps: optimizer steps on one set of trajectories.
        chi2_stop: stop when the reduced chi² of the training targets is below this; where labels or the distance to the
            start are in the loss, an update goes on to the least loss.
        chi2_converged: take no step at all when the reduced chi² of the potential that sampled is below this.
        bootstrap: replicates of the block bootstrap.
        pool: which earlier trajectories are taken, where the job has some.
    """

    loss: LossSettings = Field(default_factory=LossSettings)
    optimizer: OptimizerSpec = Field(default_factory=lambda: OptimizerSpec(**UPDATE_OPTIMIZER))
    gate: Annotated[float, Limits(above=0, below=1, reason="it is a fraction of the effective samples")] = 0.9
    max_step_loss: Annotated[float, Limits(above=0, below=1, reason="it is a fraction of the effective samples")] = 0.3
    max_halvings: Annotated[int, Limits(least=0, most=60, reason="a step halved more often moves nothing")] = 12
    max_steps: Iterations = 20
    chi2_stop: Chi2 = 0.0
    chi2_converged: Chi2 = 0.0
    bootstrap: Annotated[
        int, Limits(least=10, most=100_000, reason="fewer give no error, and a thousand are enough")
    ] = 200
    pool: PoolSettings = Field(default_factory=PoolSettings)

    @field_validator("optimizer", mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        default = {"learning_rate": 1.0} if given.get("name") == GAUSS_NEWTON else UPDATE_OPTIMIZER
        return {**default, **given}

    @model_validator(mode="after")
    def _part_of_a_step(self) -> UpdateSettings:
        optimizer = self.optimizer
        if optimizer.name == GAUSS_NEWTON and not LEAST_PART <= optimizer.learning_rate <= 1:
            raise ValueError(
                f"learning_rate = {optimizer.learning_rate:g} of gauss_newton is the part of a step to go, from "
                f"{LEAST_PART} to 1; for a length in units of the parameters give another optimizer, such as name: adam"
            )
        return self
