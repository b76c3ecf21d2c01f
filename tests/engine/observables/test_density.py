"""Density profiles against NumPy's histogram, normalisation, smearing; refusals."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.observables import protocol

SPECIES = ("Ar", "He") * 40
CELL = np.diag([5.0, 6.0, 7.0])


def profile(positions: np.ndarray, bins: int = 20, **options: Any) -> np.ndarray:
    grid = ((np.arange(bins) + 0.5) / bins).tolist()
    request = ObservableRequest(observable="density_profile", grid=grid, options=options)
    made = protocol.make(request, SPECIES, CELL)
    return np.asarray(made.features(jnp.asarray(positions), jnp.asarray(CELL)))


@pytest.fixture
def positions() -> np.ndarray:
    return np.random.default_rng(0).normal(0.3, 0.5, size=(len(SPECIES), 3))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_is_the_histogram_of_the_wrapped_coordinate(positions: np.ndarray, axis: int) -> None:
    expected, _ = np.histogram(positions[:, axis] % 1, bins=20, range=(0, 1), density=True)
    np.testing.assert_allclose(profile(positions, axis=axis), expected, atol=1e-12)


def test_one_species(positions: np.ndarray) -> None:
    expected, _ = np.histogram(positions[1::2, 0] % 1, bins=20, range=(0, 1), density=True)
    np.testing.assert_allclose(profile(positions, species="He"), expected, atol=1e-12)


def test_part_of_the_cell_keeps_the_normalisation(positions: np.ndarray) -> None:
    whole = profile(positions)
    request = ObservableRequest(observable="density_profile", grid=[0.225, 0.275, 0.325])
    part = protocol.make(request, SPECIES, CELL).features(jnp.asarray(positions), jnp.asarray(CELL))
    np.testing.assert_allclose(part, whole[4:7], atol=1e-12)


def test_smearing_is_a_periodic_convolution_of_unit_integral(positions: np.ndarray) -> None:
    smeared = profile(positions, smearing=0.04)
    assert smeared.mean() == pytest.approx(1.0, abs=1e-12)
    fine = (np.arange(4000) + 0.5) / 4000
    distance = (fine[:, None] - positions[:, 0] + 0.5) % 1 - 0.5
    density = np.mean(np.exp(-((distance / 0.04) ** 2) / 2) / (0.04 * np.sqrt(2 * np.pi)), axis=1)
    np.testing.assert_allclose(smeared, density.reshape(20, -1).mean(1), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": [0.1, 0.2, 0.4]}, "centres of equal bins"),
        ({"grid": [0.01, 0.11]}, "between 0 and 1"),
        ({"grid": [2.5, 3.5]}, "between 0 and 1"),
        ({"options": {"species": "Xe"}}, "names 'Xe'; the structure has Ar, He"),
    ],
)
def test_does_not_fit_the_system(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObservableRequest(**{"observable": "density_profile", "grid": [0.25, 0.75], **changes}).check_system(
            SPECIES, CELL
        )


@pytest.mark.parametrize(
    ("options", "message"), [({"axis": 3}, "'axis'.* is 3"), ({"smearing": 0.5}, "0.5"), ({"species": 4}, "is 4")]
)
def test_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObservableRequest(observable="density_profile", grid=[0.25, 0.75], options=options)
