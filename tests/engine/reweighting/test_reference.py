"""What is kept of a trajectory: weights at the parameters that sampled it, and what is refused."""

from __future__ import annotations

from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine.contract.files import Trajectory
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.errors import EngineError
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
