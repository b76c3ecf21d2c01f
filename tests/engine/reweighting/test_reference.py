"""What is kept of a trajectory: weights at the parameters that sampled it, and what is refused."""

from __future__ import annotations

import dataclasses
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.reweighting import statistics
from aiida_difftre.engine.reweighting.reference import prepare_reference
from aiida_difftre.engine.reweighting.weights import boltzmann_weights, effective_size
from tests.fixtures.engine import DOUBLE, argon, lennard_jones, rattled

TEMPERATURE, SAMPLES = 120.0, 64
POTENTIAL, PARAMETERS = lennard_jones()


@cache
def snapshots() -> Trajectory:
    """Of a crystal whose atoms are moved at random."""
    return rattled(POTENTIAL, PARAMETERS, argon(), snapshots=SAMPLES, amplitude=0.1, temperature=TEMPERATURE, walkers=4)


def test_weights_are_exactly_uniform_at_the_reference() -> None:
    """Whatever the precision; then both effective sizes are N."""
    for machine in (DOUBLE, DOUBLE.model_copy(update={"precision": "float32"})):
        ref = prepare_reference(POTENTIAL, PARAMETERS, snapshots(), [], machine)
        energies = ref.snapshots.evaluate(PARAMETERS)["energy"]
        weight = np.asarray(boltzmann_weights(jnp.asarray(energies), jnp.asarray(ref.energies), TEMPERATURE))
        assert np.all(weight == 1 / SAMPLES)
        size = effective_size(weight)
        assert size.entropy == pytest.approx(SAMPLES, rel=1e-12)
        assert size.kish == SAMPLES


def test_repeated_labels_are_refused() -> None:
    request = ObservableRequest(observable="pressure")
    with pytest.raises(EngineError, match="is used twice"):
        prepare_reference(POTENTIAL, PARAMETERS, snapshots(), [request, request], DOUBLE)


def test_a_trajectory_of_another_potential_is_refused() -> None:
    """Stored energies may differ by a constant, as reference energies do, a thousandth of their range and 1 meV."""
    fixed = snapshots()
    energies = prepare_reference(POTENTIAL, PARAMETERS, fixed, [], DOUBLE).energies
    allowed = 1e-3 * np.ptp(energies) + 1e-3
    for part, refused in ((0.97, False), (1.03, True)):
        stored = energies + 5.0
        stored[7] += part * allowed
        other = dataclasses.replace(fixed, energies=stored)
        if refused:
            with pytest.raises(EngineError, match="not sampled with this potential: its stored energies deviate by"):
                prepare_reference(POTENTIAL, PARAMETERS, other, [], DOUBLE)
        else:
            np.testing.assert_array_equal(
                prepare_reference(POTENTIAL, PARAMETERS, other, [], DOUBLE).energies, energies
            )


@pytest.mark.parametrize("slow", ["energy", "volume", "stress"])
def test_the_slowest_quantity_tells_how_many_snapshots_are_independent(slow: str) -> None:
    """Three of them are noise; the fourth stays for eight snapshots at a time."""
    rng = np.random.default_rng(0)
    count, walkers = 512, np.zeros(512, np.int32)
    noise = rng.normal(size=(count, 8))
    steps = np.repeat(rng.normal(size=count // 8), 8)
    noise[:, {"energy": 0, "volume": 1, "stress": 6}[slow]] = steps
    ref = prepare_reference(POTENTIAL, PARAMETERS, snapshots(), [], DOUBLE)
    ref = dataclasses.replace(ref, volumes=1e3 + noise[:, 1], walkers=walkers)
    found = ref.inefficiency({"energy": noise[:, 0], "stress": noise[:, 2:]})
    assert found == pytest.approx(statistics.statistical_inefficiency(steps[:, None], walkers)[0], rel=1e-9)
    assert found > 4


def test_snapshots_are_kept_where_the_cache_has_room_for_them() -> None:
    """Its size is in MiB: all of the projections fit, or none where it is smaller than they are."""

    def kept(mebibytes: float) -> int:
        machine = DOUBLE.model_copy(update={"snapshot_cache_mib": mebibytes})
        return prepare_reference(POTENTIAL, PARAMETERS, snapshots(), [], machine).snapshots.nbytes

    whole = kept(512.0)
    assert kept(whole / 2**20) == whole
    assert kept(0.6 * whole / 2**20) < whole
