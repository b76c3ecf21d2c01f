"""Angular distribution function against brute force, perfect crystals, random directions and refused requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from aiida_difftre.engine.contract.jobs import Machine
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.observables.angular import AngularDistribution
from aiida_difftre.engine.observables.protocol import Macrostate
from aiida_difftre.engine.reweighting.predictions import predict_trajectory
from tests.fixtures.engine import alloy, lennard_jones, trajectory

POINT = Macrostate(300.0, 1.0, 1)
SHARED = Path(__file__).parents[4] / "shared" / "data"


def centres(bins: int) -> list[float]:
    return [180.0 / bins * (k + 0.5) for k in range(bins)]


def request(bins: int = 60, **options: Any) -> ObservableRequest:
    return ObservableRequest(observable="adf", grid=centres(bins), options={"cutoff": 3.0, **options})


def make(atoms: Atoms, wanted: ObservableRequest) -> AngularDistribution:
    return AngularDistribution.from_request(wanted, tuple(atoms.get_chemical_symbols()), atoms.cell.array)


def distribution(frames: list[Atoms], wanted: ObservableRequest) -> np.ndarray:
    """Mean over frames, with the room for neighbours that they need."""
    observable, larger = None, make(frames[0], wanted)
    cell = jnp.asarray(frames[0].cell.array)
    positions = jnp.stack([jnp.asarray(frame.get_scaled_positions(wrap=False)) for frame in frames])
    while larger is not None:
        observable = larger
        rows = np.asarray(jax.jit(jax.vmap(observable.features, in_axes=(0, None)))(positions, cell))
        larger = observable.enlarged(rows)
    weights = jnp.full(len(frames), 1 / len(frames))
    return np.asarray(observable.combine({"features": jnp.asarray(rows)}, weights, POINT))


def angles(atoms: Atoms, cutoff: float, triplet: list[str] | None = None) -> np.ndarray:
    """Of all triplets, one by one, from ase's neighbour list."""
    first, second, vectors = neighbor_list("ijD", atoms, cutoff)
    symbols = np.array(atoms.get_chemical_symbols())
    found = []
    for centre in range(len(atoms)):
        if triplet and symbols[centre] != triplet[1]:
            continue
        mine = np.flatnonzero(first == centre)
        for a, j in enumerate(mine):
            for k in mine[a + 1 :]:
                pair = sorted([symbols[second[j]], symbols[second[k]]])
                if triplet and pair != sorted([triplet[0], triplet[2]]):
                    continue
                u, v = vectors[j], vectors[k]
                cosine = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
                found.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return np.array(found)


def triclinic(seed: int = 0) -> Atoms:
    rng = np.random.default_rng(seed)
    cell = [[5.0, 0, 0], [1.5, 5.5, 0], [-1.0, 2.0, 6.0]]
    return Atoms("C8O4", scaled_positions=rng.uniform(size=(12, 3)), cell=cell, pbc=True)


@pytest.mark.parametrize("triplet", [None, ["C", "C", "C"], ["C", "O", "C"], ["C", "C", "O"]])
@pytest.mark.parametrize("build", [alloy, triclinic])
def test_agrees_with_brute_force(build: Any, triplet: list[str] | None) -> None:
    """Also in cells smaller than twice the cutoff."""
    frames = [build(seed=0)]
    for seed in (1, 2):
        frames.append(frames[0].copy())
        frames[-1].rattle(0.2, seed=seed)
    found = distribution(frames, request(triplet=triplet))
    everything = np.concatenate([angles(frame, 3.0, triplet) for frame in frames])
    expected, _ = np.histogram(np.radians(everything), bins=60, range=(0, np.pi), density=True)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found.sum() * np.pi / 60 == pytest.approx(1)


def test_perfect_diamond_has_the_tetrahedral_angle_alone() -> None:
    found = distribution([bulk("C", "diamond", a=3.567)], request(90, cutoff=1.8))
    assert np.flatnonzero(found).tolist() == [54]  # 108 to 110 degrees
    assert found[54] == pytest.approx(90 / np.pi)


def test_straight_angles_count() -> None:
    """Six neighbours in a simple cubic crystal: twelve right angles to three straight ones."""
    found = distribution([bulk("Po", "sc", a=3.3)], request(45, cutoff=3.5)) * np.pi / 45
    assert found[-1] == pytest.approx(3 / 15)
    assert found[22] == pytest.approx(12 / 15)


def test_random_directions() -> None:
    rng = np.random.default_rng(0)
    frames = [Atoms("Ar200", scaled_positions=rng.uniform(size=(200, 3)), cell=[9, 10, 11], pbc=True) for _ in range(4)]
    found = distribution(frames, request(18))
    np.testing.assert_allclose(found, np.sin(np.radians(centres(18))) / 2, atol=0.03)


@pytest.mark.parametrize("deviation", [0.7, 6.0])
def test_smearing_is_a_reflected_gaussian(deviation: float) -> None:
    atoms = triclinic()
    found = distribution([atoms], request(60, smearing=deviation))
    fine = np.linspace(0, 180, 36001)
    middle = (fine[1:] + fine[:-1]) / 2
    values = angles(atoms, 3.0)
    images = np.concatenate([values, -values, 360 - values])
    density = np.exp(-((middle[:, None] - images) ** 2) / (2 * deviation**2)).sum(1)
    density /= density.sum()
    expected = density.reshape(60, -1).sum(1) * 60 / np.pi
    np.testing.assert_allclose(found, expected, atol=4e-3 * expected.max())
    assert found.sum() * np.pi / 60 == pytest.approx(1, abs=1e-6)


def test_a_part_of_the_grid_is_normalised_over_all_angles() -> None:
    atoms = triclinic()
    whole = distribution([atoms], request(60))
    part = ObservableRequest(observable="adf", grid=centres(60)[20:40], options={"cutoff": 3.0})
    np.testing.assert_allclose(distribution([atoms], part), whole[20:40], atol=1e-9)


def test_of_a_trajectory_with_more_neighbours_than_expected() -> None:
    """Room for neighbours is guessed from the mean density; a cluster has more."""
    potential, parameters = lennard_jones(4.0)
    rng = np.random.default_rng(0)
    cluster = bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2)
    cluster.set_cell(np.eye(3) * 20)
    positions = (cluster.positions + rng.normal(scale=0.05, size=(6, 32, 3))) / 20
    found = trajectory(potential, parameters, cluster, positions, temperature=80.0)
    wanted = request(30, cutoff=4.5)
    assert make(cluster, wanted).capacity < 12
    predicted = predict_trajectory(
        potential, parameters, found, [wanted], machine=Machine(precision="float64"), seed=0
    )[0]
    frames = [Atoms(cluster.symbols, scaled_positions=x, cell=cluster.cell, pbc=True) for x in found.positions]
    everything = np.concatenate([angles(frame, 4.5) for frame in frames])
    expected, _ = np.histogram(np.radians(everything), bins=30, range=(0, np.pi), density=True)
    np.testing.assert_allclose(predicted.values, expected, atol=1e-9)
    with pytest.raises(EngineError, match=r"observable 'adf': no snapshot has a triplet within the cutoff of 1.2 Å"):
        predict_trajectory(potential, parameters, found, [request(cutoff=1.2)], machine=Machine(), seed=0)


def test_large_system_in_bounded_memory() -> None:
    """As many beads as the published water model has, with some ten neighbours each."""
    rng = np.random.default_rng(0)
    atoms = Atoms("O901", scaled_positions=rng.uniform(size=(901, 3)), cell=[30, 30, 30], pbc=True)
    observable = make(atoms, request(200, cutoff=3.18))
    compiled = jax.jit(observable.features).lower(
        jnp.asarray(atoms.get_scaled_positions()), jnp.asarray(atoms.cell.array)
    ).compile()  # fmt: skip
    assert compiled.memory_analysis().temp_size_in_bytes < 1e8


@pytest.mark.skipif(not SHARED.exists(), reason="published tables are not here")
def test_published_table_is_a_density_over_radians() -> None:
    """The coarse-grained water's table integrates to 1 over radians, without a sine."""
    angle, density = np.loadtxt(SHARED / "water_O_O_O_ADF_difftre.csv").T
    assert np.trapezoid(density, angle) == pytest.approx(1)


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        (None, {"cutoff": None}, "option 'cutoff' of adf is None; give a positive number, in Å"),
        (None, {"cutoff": -1.0}, "is -1.0"),
        (None, {"cutoff": 1e5}, "is 100000 Å; give the end of a shell of neighbours, 20 Å at most"),
        (None, {"smearing": 1e-9}, "is 1e-09 degrees, where the bins are 3 degrees wide"),
        (None, {"triplet": [["C"], "C", "C"]}, "give three species with the centre in the middle"),
        (None, {"triplet": ["C", "C"]}, r"option 'triplet' of adf is \['C', 'C'\]"),
        (None, {"smearing": -2.0}, "is -2.0; give zero or a positive number, in degrees"),
        ([90.0, 120.0, 150.0, 180.0], {}, "ends at 180 degrees with a bin that reaches 195"),
        ([10.0, 20.0, 35.0], {}, "value 20 at index 1 should be 22.5 degrees"),
        ([0.5, 1.5, 2.5], {}, "seems to be in radians"),
    ],
)
def test_refused_requests(grid: list[float] | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObservableRequest(observable="adf", grid=grid or centres(60), options={"cutoff": 3.0, **options})


def test_species_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="option 'triplet' of 'adf' names 'Si'; the structure has C, O"):
        request(triplet=["C", "Si", "C"]).check_system(("C", "O"), np.eye(3) * 8)
