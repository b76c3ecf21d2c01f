"""Contract tests of a sampler: an exactly solvable well, the temperature, energies and seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.sampling_settings import LangevinSpec, SamplingSettings
from aiida_difftre.engine.contract.settings import Machine, PotentialSpec, TermSpec
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.potentials.potential import Potential, build
from aiida_difftre.engine.runtime.progress import Silent
from aiida_difftre.engine.sampling.protocol import Run, Sampler
from aiida_difftre.engine.sampling.starts import Start
from aiida_difftre.engine.snapshots.snapshots import energies
from aiida_difftre.testing.expectations import close, require


def strong_friction() -> SamplingSettings:
    """Times with which molecular dynamics forgets where it was within a few snapshots."""
    return SamplingSettings(
        timestep_fs=10.0,
        equilibration_fs=3000.0,
        production_fs=4000.0,
        stride_fs=400.0,
        thermostat=LangevinSpec(friction_per_ps=20.0),
    )


@dataclass(frozen=True)
class SamplerExample:
    """A sampler, and settings with which it equilibrates in an harmonic well.

    The well holds one helium atom: along one axis its position is Gaussian with a standard deviation of 0.5 Å; along
    the other two it is free. Molecular dynamics has a period of 400 fs there.

    Args:
        sampler: The sampler.
        settings: Its settings; the times of the default are for molecular dynamics with strong friction.
        walkers: Independent walkers; they set the errors.
    """

    sampler: Sampler
    settings: SamplingSettings = field(default_factory=strong_friction)
    walkers: int = 64

    @property
    def width(self) -> float:
        """Standard deviation of the fractional coordinate."""
        return 0.05

    @property
    def temperature(self) -> float:
        """Temperature, K."""
        return 300.0

    @cached_property
    def potential(self) -> Potential:
        """The well, kT/2 deep at one standard deviation."""
        coefficients = [0.0, 0.0, units.BOLTZMANN * self.temperature / (2 * self.width**2)]
        term = TermSpec(architecture="external_polynomial", cutoff=1.0, hyperparameters={"coefficients": coefficients})
        return build(PotentialSpec(species=["He"], terms=[term]))

    @cached_property
    def trajectory(self) -> Trajectory:
        """A trajectory with the first seed."""
        return self.sample(seed=1)

    def sample(self, seed: int) -> Trajectory:
        """A trajectory in the well.

        Args:
            seed: Seed of the sampler.
        """
        with jax.enable_x64(True):
            start = Start(np.full((self.walkers, 1, 3), 0.5), None, 10.0 * np.eye(3), ("He",))
            settings = self.settings.model_copy(update={"walkers": self.walkers})
            return self.sampler(
                self.potential, self.potential.init(jax.random.key(0)), start, StatePoint(self.temperature), settings,
                Run(Machine(precision="float64"), seed, Silent()),
            )  # fmt: skip

    def by_walker(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Values of the snapshots of the trajectory, averaged over those of each walker."""
        walkers = self.trajectory.walkers
        return np.bincount(walkers, np.asarray(values, np.float64)) / np.bincount(walkers)


def _agrees(means: NDArray[np.float64], expected: float, message: str) -> None:
    """Require that the mean over independent walkers is within five standard errors of what is expected."""
    mean, error = float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))
    require(
        abs(mean - expected) <= 5 * error + 1e-9 * abs(expected),
        f"{message} is {mean:.4g} ± {error:.1g}; it must be {expected:.4g}",
    )


def harmonic_distribution_is_sampled(example: SamplerExample) -> None:
    """Positions in the well have the Gaussian distribution of Boltzmann: its mean, its variance and its tails."""
    reduced = (example.trajectory.positions[:, 0, 0].astype(np.float64) - 0.5) / example.width
    for power, expected, name in ((1, 0.0, "mean"), (2, 1.0, "variance"), (4, 3.0, "fourth moment")):
        message = f"the {name} of the position in an harmonic well, in widths of the distribution,"
        _agrees(example.by_walker(reduced**power), expected, message)


def temperature_is_held(example: SamplerExample) -> None:
    """The mean temperature is that of the state point; a sampler without velocities states that of the state point."""
    means = example.by_walker(example.trajectory.temperatures)
    _agrees(means, example.temperature, "the mean temperature (K)")


def energies_are_those_of_the_positions(example: SamplerExample) -> None:
    """Energies belong to the positions as stored, walker by walker and in the order of time."""
    found = example.trajectory
    with jax.enable_x64(True):
        parameters = example.potential.init(jax.random.key(0))
        expected = energies(example.potential, parameters, found.positions, found.cell, found.species)
    close(found.energies, expected, 1e-9, "energies (eV) are not those of the stored positions")
    require((np.diff(found.walkers) >= 0).all(), "snapshots are not in the order of the walkers")
    rises = np.diff(found.times)[np.diff(found.walkers) == 0]
    require((rises > 0).all(), "snapshots of a walker are not in the order of time")
    count = len(np.unique(found.walkers))
    require(count == example.walkers, f"there are {count} walkers; the start had {example.walkers}")


def the_seed_decides(example: SamplerExample) -> None:
    """The same seed gives the same trajectory, bit for bit; another gives another."""
    again, other = example.sample(seed=1), example.sample(seed=2)
    require(np.array_equal(again.positions, example.trajectory.positions), "one seed gives two trajectories")
    require(not np.array_equal(other.positions, again.positions), "two seeds give the same trajectory")


SamplerCheck = Callable[[SamplerExample], None]

SAMPLER_CHECKS: dict[str, SamplerCheck] = {
    check.__name__: check
    for check in (
        harmonic_distribution_is_sampled, temperature_is_held, energies_are_those_of_the_positions, the_seed_decides,
    )
}  # fmt: skip
"""By name; each takes a :class:`SamplerExample`."""
