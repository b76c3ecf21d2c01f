"""Random packings: apart, reproducible, disordered, refused where nothing fits."""

import numpy as np
import pytest
from ase.build import bulk
from ase.geometry import get_distances

from aiida_difftre.data.packing import DEFAULT_SPACING, packed


def _shortest(positions: np.ndarray, box: float) -> float:
    lengths = get_distances(positions, cell=box * np.eye(3), pbc=True)[1]
    return float(lengths[np.triu_indices(len(positions), 1)].min())


@pytest.mark.parametrize(("number", "box"), [(108, 17.19), (901, 30.0), (10, 8.0)])
def test_atoms_are_apart_inside_the_box(number: int, box: float) -> None:
    positions = packed(number, box, seed=3)
    assert positions.shape == (number, 3)
    assert positions.min() >= 0
    assert positions.max() < box
    assert _shortest(positions, box) >= DEFAULT_SPACING * box / number ** (1 / 3)


def test_asked_distance_holds() -> None:
    assert _shortest(packed(64, 15.0, min_distance=3.7), 15.0) >= 3.7
    assert 0.5 <= _shortest(packed(64, 15.0, min_distance=0.5), 15.0) < 2.5


def test_same_seed_same_atoms() -> None:
    np.testing.assert_array_equal(packed(50, 12.0, seed=1), packed(50, 12.0, seed=1))
    assert not np.allclose(packed(50, 12.0, seed=1), packed(50, 12.0, seed=2))


def test_it_is_no_crystal() -> None:
    """A crystal of 108 atoms has a Bragg peak of intensity N; a fluid has a structure factor of a few."""
    box = 17.19
    positions = packed(108, box)
    crystal = bulk("Ar", "fcc", a=box / 3, cubic=True)

    def highest(positions: np.ndarray) -> float:
        steps = np.arange(-8, 9)
        vectors = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
        vectors = vectors[np.any(vectors != 0, axis=1)] * 2 * np.pi / box
        return float((np.abs(np.exp(1j * vectors @ positions.T).sum(axis=1)) ** 2 / len(positions)).max())

    assert highest(crystal.repeat(3).positions) == pytest.approx(108)
    assert highest(positions) < 30


@pytest.mark.parametrize(
    ("number", "distance", "fragment"), [(108, 5.0, "at most 3.79 Å"), (1000, 3.0, "do not fit"), (2, 10.0, "images")]
)
def test_what_does_not_fit_is_refused(number: int, distance: float, fragment: str) -> None:
    with pytest.raises(ValueError, match=fragment):
        packed(number, 17.19, min_distance=distance)
