"""The settings of sampling: thermostat, barostat, walkers and times. Free of JAX."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from aiida_difftre.engine.contract import samplers
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Duration, DurationOrZero, Limits, Spacing
from aiida_difftre.engine.contract.observables import Ensemble


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
