"""A trajectory that exists in place of one that is sampled: whether a potential can start from it, and its energies.

Where the potential sampled it, weights at its parameters are uniform, as on a trajectory of its own. Where something
else did, its energies remain the reference of the weights, exp(-(U_θ - U_ref)/kT), and effective samples are lost from
the start. Energies that are the same for all snapshots, or none, never become weights.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.results import GivenReference
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting import extrapolation, stationarity, statistics
from aiida_difftre.engine.reweighting.reference import agree, check_sampled_at
from aiida_difftre.engine.reweighting.weights import boltzmann_weights, effective_size, reliable_size
from aiida_difftre.engine.sampling.starts import Start
from aiida_difftre.engine.snapshots.snapshots import Coordinates, total_energies
from aiida_difftre.engine.trajectories.fitting import check_fits, check_fluctuations


def given_reference(
    potential: Potential,
    parameters: Parameters,
    trajectory: Trajectory,
    start: Start,
    held: StatePoint,
    *,
    batch_size: int,
) -> tuple[Trajectory, GivenReference]:
    """Make a reference trajectory of a potential of one that exists.

    Args:
        potential: The potential that a refinement starts from.
        parameters: Its parameters.
        trajectory: The trajectory; without energies where the potential itself sampled it, and with what the base of
            the potential gives on the snapshots, where there is one.
        start: Structure of the state point: atoms, cell and masses.
        held: Temperature, and the pressure that a barostat holds; see :func:`held_at`.
        batch_size: Snapshots per device and batch; 0 to choose.

    Returns:
        The trajectory with energies of the potential, and how well it stands for it.

    Raises:
        EngineError: INVALID_INPUT for one of another system or state point; NOT_FINITE; TOO_FEW_EFFECTIVE_SAMPLES for
            one that does not stand for the ensemble of the potential.
    """
    try:
        check_fits(trajectory, start.symbols, start.cell, "NVT" if held.pressure is None else "NPT")
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None
    check_sampled_at(trajectory, held)
    stored = trajectory.energies if trajectory.reference_energies is None else trajectory.reference_energies
    if trajectory.has_energies and len(stored) > 1 and not np.ptp(stored):
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the energies are the same in all snapshots of the trajectory, {stored[0]:g} eV, and are no energies of "
            "what sampled it; import it with its energies, or as sampled by the potential that starts",
        )
    energies = total_energies(potential, parameters, Coordinates.of(trajectory), batch_size)
    if trajectory.base is not None:
        energies = energies + trajectory.base.energies
    if not np.isfinite(energies).all():
        number = int(np.argmin(np.isfinite(energies)))
        raise EngineError(ExitStatus.NOT_FINITE, f"the energy of snapshot {number} of the trajectory is not finite")
    is_own = not trajectory.has_energies or agree(stored, energies)
    if not trajectory.has_energies:
        try:
            check_fluctuations(energies, len(trajectory.species), trajectory.temperature)
        except ValueError as error:
            raise EngineError(ExitStatus.INVALID_INPUT, f"with the potential that starts, {error}") from None
    reference = None if is_own else stored
    taken = replace(trajectory, energies=energies, reference_energies=reference, masses=start.masses)
    return taken, _judged(taken, None if not trajectory.has_energies else stored)


def held_at(point: StatePoint, settings: SamplingSettings) -> StatePoint:
    """What sampling would hold at a state point.

    Args:
        point: Temperature and pressure.
        settings: Settings of sampling, for whether there is a barostat.

    Returns:
        The state point, without a pressure where there is no barostat.
    """
    return StatePoint(point.temperature, point.pressure if settings.ensemble(point.pressure) == "NPT" else None)


def _judged(taken: Trajectory, stored: np.ndarray | None) -> GivenReference:
    """How many snapshots stand for the potential; refuse too few."""
    reference = taken.energies if taken.reference_energies is None else taken.reference_energies
    weight = np.asarray(boltzmann_weights(jnp.asarray(taken.energies), jnp.asarray(reference), taken.temperature))
    columns = stationarity.thermal_columns(taken)
    g = float(np.max(statistics.statistical_inefficiency(columns, taken.walkers)))
    size, reliable, count = effective_size(weight), reliable_size(weight), len(weight)
    deviation = None if stored is None else float(np.std(taken.energies - stored))
    is_reweighted = taken.reference_energies is not None
    if is_reweighted and reliable / g < (least := extrapolation.least(count, g)):
        raise EngineError(
            ExitStatus.TOO_FEW_EFFECTIVE_SAMPLES,
            f"the potential does not stand for the ensemble of the trajectory: its energies deviate by {deviation:.3g} "
            f"eV from those that sampled it (kT is {units.BOLTZMANN * taken.temperature:.3g} eV), which leaves "
            f"{reliable / g:.3g} effective independent samples of {count / g:.3g}, fewer than {least:.3g}; start from "
            "the potential that sampled it, or from one that is matched to it (pretrain on its frames), or leave the "
            "trajectory out",
            {"n_eff": reliable, "n_eff_independent": reliable / g, "least": least, "snapshots": count},
        )
    return GivenReference(
        energies="trajectory" if is_reweighted else "potential",
        deviation=deviation,
        n_eff_entropy=size.entropy,
        n_eff_kish=size.kish,
        n_eff_independent=reliable / g,
    )
