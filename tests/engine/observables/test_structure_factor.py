"""Structure factors against direct sums, the ideal gas, a perfect crystal and each other."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from aiida_difftre.engine.contract.jobs import SamplingSettings
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.geometry import lattice
from aiida_difftre.engine.observables import protocol, scattering
from aiida_difftre.engine.observables.features import static_features
from aiida_difftre.engine.observables.protocol import Macrostate
from aiida_difftre.engine.observables.structure_factor import Direct, StructureFactor, Transform, wave_vectors
from aiida_difftre.engine.reweighting.predictions import predict_trajectory
from tests.fixtures.engine import DOUBLE, argon, lennard_jones, rattled, simulate, start

POINT = Macrostate(100.0, 1.0, 1)


def grid(first: float, width: float, count: int) -> list[float]:
    return [first + width * (k + 0.5) for k in range(count)]


def request(points: list[float], **options: Any) -> ObservableRequest:
    return ObservableRequest(observable="structure_factor", grid=points, options=options)


def make(atoms: Atoms, wanted: ObservableRequest, scales: tuple[float, float] = (1.0, 1.0)) -> StructureFactor:
    made = protocol.make(wanted, tuple(atoms.get_chemical_symbols()), atoms.cell.array, scales)
    assert isinstance(made, StructureFactor)
    return made


def mean(observable: StructureFactor, features: np.ndarray) -> np.ndarray:
    """S from the features of snapshots."""
    weights = jnp.full(len(features), 1 / len(features))
    return np.asarray(observable.combine({"features": jnp.asarray(features)}, weights, POINT))


def values(observable: StructureFactor, *frames: Atoms) -> np.ndarray:
    """S from structures."""
    compute = jax.jit(observable.features)
    pairs = [(frame.get_scaled_positions(wrap=False), frame.cell.array) for frame in frames]
    return mean(observable, np.array([compute(*map(jnp.asarray, pair)) for pair in pairs]))


def salt(seed: int = 0) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(2)
    atoms.set_cell(atoms.cell.array + np.random.default_rng(1).normal(scale=0.3, size=(3, 3)), scale_atoms=True)
    atoms.rattle(0.3, seed=seed)
    atoms.symbols[:3] = "Na"
    return atoms


def direct_sum(atoms: Atoms, edges: np.ndarray, radiation: str) -> np.ndarray:
    """All wave vectors of the cell, both signs, one by one."""
    reciprocal = 2 * np.pi * np.linalg.inv(atoms.cell.array).T
    reach = range(-12, 13)
    found: list[list[float]] = [[] for _ in edges[1:]]
    kinds, counts = np.unique(atoms.symbols, return_counts=True)
    share = counts / len(atoms)
    for index in np.stack(np.meshgrid(reach, reach, reach), -1).reshape(-1, 3):
        vector = index @ reciprocal
        q = np.linalg.norm(vector)
        where = np.searchsorted(edges, q, side="right") - 1
        if not (index.any() and 0 <= where < len(found)):
            continue
        b = scattering.weights(list(atoms.symbols), [q], radiation)[1][0]
        amplitude = np.exp(1j * atoms.positions @ vector) @ b[np.searchsorted(kinds, list(atoms.symbols))]
        intensity = abs(amplitude) ** 2 / len(atoms)
        found[where].append(1 + (intensity - share @ b**2) / (share @ b) ** 2)
    return np.array([np.mean(values) for values in found])


@pytest.mark.parametrize("radiation", ["neutron", "xray"])
def test_agrees_with_a_direct_sum(radiation: str) -> None:
    atoms = salt()
    atoms.positions += np.random.default_rng(0).integers(-1, 2, (len(atoms), 3)) @ atoms.cell.array
    points = grid(0.5, 0.4, 8)
    found = values(make(atoms, request(points, radiation=radiation, vectors_per_bin=None)), atoms)
    expected = direct_sum(atoms, 0.5 + 0.4 * np.arange(9), radiation)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol={"neutron": 0, "xray": 1e-7}[radiation])


def test_weights_of_elements() -> None:
    """Sears' lengths; form factors begin at the number of electrons."""
    elements, table = scattering.weights(["O", "H", "H"], [0.0, 2.0], "neutron")
    assert elements == ("H", "O")
    np.testing.assert_allclose(table, [[-3.739, 5.803]] * 2, atol=2e-3)
    np.testing.assert_allclose(scattering.weights(["O", "Ar"], [0.0], "xray")[1], [[18, 8]], atol=1e-3)
    np.testing.assert_allclose(scattering.weights(["H", "O"], [1.0], "neutron", {"H": 6.671})[1][0, 0], 6.671)


@pytest.mark.parametrize("method", ["direct", "transform"])
def test_isotopes_are_told_by_their_masses(method: str) -> None:
    """Half of the hydrogen is deuterium; by hand they are two species of other lengths."""
    rng = np.random.default_rng(2)
    positions = rng.uniform(size=(60, 3))
    masses = np.array([15.999, 2.0141, 1.008] * 20)
    atoms = Atoms(["O", "H", "H"] * 20, scaled_positions=positions, cell=[10] * 3, pbc=True)
    points = grid(1.0, 0.5, 6)
    wanted = request(points, method=method)
    by_mass = protocol.make(wanted, tuple(atoms.get_chemical_symbols()), atoms.cell.array, masses=masses)
    assert isinstance(by_mass, StructureFactor)
    by_hand = request(points, method=method, scattering_lengths={"O": 5.803, "N": 6.671, "H": -3.739})
    twin = Atoms(["O", "N", "H"] * 20, scaled_positions=positions, cell=[10] * 3, pbc=True)
    np.testing.assert_allclose(values(by_mass, atoms), values(make(twin, by_hand), twin), atol=0.02)
    xray = request(points, method=method, radiation="xray")
    heavy = protocol.make(xray, tuple(atoms.get_chemical_symbols()), atoms.cell.array, masses=masses)
    assert isinstance(heavy, StructureFactor)
    np.testing.assert_allclose(values(heavy, atoms), values(make(atoms, xray), atoms))


def test_a_request_says_which_lengths_a_system_has() -> None:
    species, masses = ("O", "H", "H"), [15.999, 2.0141, 1.008]
    wanted, names = request(grid(1.0, 0.5, 4)).for_system(species, masses)
    assert names == ("O", "D", "H")
    assert wanted.options["scattering_lengths"] == pytest.approx({"D": 6.671, "H": -3.739, "O": 5.803}, abs=0.005)
    again, same = wanted.for_system(species, masses)
    assert (again, same) == (wanted, names)
    given, _ = request(grid(1.0, 0.5, 4), scattering_lengths={"H-2": 6.6}).for_system(species, masses)
    assert given.options["scattering_lengths"]["D"] == 6.6
    xray = request(grid(1.0, 0.5, 4), radiation="xray")
    assert xray.for_system(species, masses) == (xray, species)
    with pytest.raises(ValueError, match=r"the mass 1.5 u of H is neither .* give its length in scattering_lengths"):
        xray.model_copy(update={"options": {**xray.options, "radiation": "neutron"}}).check_system(
            species, np.eye(3) * 10, [15.999, 1.5, 1.008]
        )


def test_results_report_the_lengths_of_isotopes() -> None:
    potential, parameters = lennard_jones()
    trajectory = rattled(potential, parameters, argon(1), snapshots=6, amplitude=0.1, temperature=85.0)
    heavy = dataclasses.replace(trajectory, masses=np.full(4, 35.96755))
    reported = {}
    for name, snapshots in (("Ar", trajectory), ("36Ar", heavy)):
        (found,) = predict_trajectory(
            potential, parameters, snapshots, [request(grid(2.0, 0.8, 4))], machine=DOUBLE, seed=0
        )
        reported[name] = found.options["scattering_lengths"]
    assert reported == {"Ar": {"Ar": pytest.approx(1.909)}, "36Ar": {"36Ar": pytest.approx(24.9)}}


@pytest.mark.parametrize("lengths", [{"Na": 3.63, "Cl": 9.577}, {"Na": -2.0, "Cl": 5.0}])
def test_a_transform_is_the_sum_over_pairs(lengths: dict[str, float]) -> None:
    r"""Debye's sum over the pairs within R, one by one, less that of a uniform medium, 4πρ/q³ [sin qR - qR cos qR]."""
    atoms, end = salt(), 4.5
    points = np.linspace(1.0, 5.0, 5)
    options = {"method": "transform", "window": "none", "r_max": end, "r_bin": 0.01, "scattering_lengths": lengths}
    found = values(make(atoms, request(points.tolist(), **options)), atoms)
    first, second, r = neighbor_list("ijd", atoms, end)
    b = np.array([lengths[symbol] for symbol in atoms.symbols])
    pairs = (b[first] * b[second]) @ (np.sin(np.outer(r, points)) / np.outer(r, points)) / len(atoms) / b.mean() ** 2
    x = points * end
    uniform = 4 * np.pi * len(atoms) / atoms.get_volume() * (np.sin(x) - x * np.cos(x)) / points**3
    assert np.abs(pairs - uniform).max() > 0.5
    np.testing.assert_allclose(found, 1 + pairs - uniform, atol=0.01 * np.abs(pairs).max())


def test_partial_by_scattering_lengths() -> None:
    """Lengths 1 and 0 leave the partial of one species, as if the others were not there."""
    atoms = salt()
    only = atoms[[a.index for a in atoms if a.symbol == "Na"]]
    for method in ("direct", "transform"):
        points = grid(1.0, 0.5, 6)
        both = request(points, method=method, scattering_lengths={"Na": 1.0, "Cl": 0.0}, r_max=4.0)
        found = values(make(atoms, both), atoms)
        alone = values(make(only, request(points, method=method, r_max=4.0)), only)
        # Faber-Ziman: S - 1 goes with the density of the species.
        factor = len(atoms) / len(only)
        np.testing.assert_allclose(found - 1, factor * (alone - 1), atol=1e-9)


def test_ideal_gas_is_one() -> None:
    rng = np.random.default_rng(0)
    frames = [
        Atoms("Ar300", scaled_positions=rng.uniform(size=(300, 3)), cell=[14, 15, 16], pbc=True) for _ in "12345678"
    ]
    points = grid(0.45, 0.5, 16)
    direct = make(frames[0], request(points))
    found = np.mean([values(direct, frame) for frame in frames], axis=0)
    np.testing.assert_allclose(found, 1, atol=0.25)
    assert found[3:].mean() == pytest.approx(1, abs=0.03)
    # In a closed system g = 1 - 1/N, whose transform is known.
    transform = make(frames[0], request(points, method="transform", r_bin=0.05))
    r = 0.05 * (np.arange(140) + 0.5)
    expected = scattering.structure_factor_from_rdf(r, np.full(140, 1 - 1 / 300), points, 300 / (14 * 15 * 16))
    found = np.mean([values(transform, frame) for frame in frames], axis=0)
    np.testing.assert_allclose(found, expected, atol=0.12)


def test_perfect_crystal_has_its_bragg_peaks_and_nothing_else() -> None:
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(3)
    shortest = 2 * np.pi / 10.8
    wide = grid(0.5, 0.25, 26)
    found = values(make(atoms, request(wide, vectors_per_bin=None)), atoms)
    expected = np.zeros(26)
    lengths = np.linalg.norm(wave_vectors(atoms.cell.array, 0.5, 7.0) * shortest, axis=1)
    everywhere = np.bincount(((lengths - 0.5) / 0.25).astype(int), minlength=26)
    for h, k, m in np.ndindex(9, 9, 9):
        index = np.array([h, k, m]) - 4
        q = np.linalg.norm(index) * 2 * np.pi / 3.6
        if len(set(index % 2)) == 1 and 0 < q < 7.0:
            expected[int((q - 0.5) / 0.25)] += 0.5 * len(atoms)  # one of each pair ±q
    np.testing.assert_allclose(found, expected / everywhere, atol=1e-9)
    with pytest.raises(EngineError, match="no wave vector of the cell falls in the bin at"):
        make(atoms, request(grid(0.6, 0.05, 130)))


def test_wave_vectors_are_those_of_the_cell_of_each_snapshot() -> None:
    """A crystal at several volumes: what is prepared for all of them gives for each what is prepared for it alone."""
    small, scales = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(4), (1.0, 1.03, 1.08)
    wanted = request(grid(2.6, 0.1, 6), vectors_per_bin=None, radiation="xray")
    together = make(small, wanted, (1.0, 1.08))
    x, cells = jnp.asarray(small.get_scaled_positions()), jnp.asarray([scale * small.cell.array for scale in scales])
    features = np.asarray(jax.jit(jax.vmap(together.features, (None, 0)))(x, cells))
    each = np.array([mean(together, one[None]) for one in features])
    for cell, found in zip(cells, each, strict=True):
        alone = small.copy()
        alone.set_cell(cell, scale_atoms=True)
        np.testing.assert_allclose(found, values(make(alone, wanted), alone), atol=1e-9)
    # The Bragg peak (111), at 2π√3/a, moves from bin to bin; the mean is that over all wave vectors of a bin.
    peaks = [int((2 * np.pi * np.sqrt(3) / (3.6 * scale) - 2.6) / 0.1) for scale in scales]
    assert peaks == [4, 3, 1]
    assert each.argmax(1).tolist() == peaks
    indices = wave_vectors(small.cell.array, 2.0, 4.0)
    lengths = [np.linalg.norm(indices @ lattice.reciprocal(cell), axis=1) for cell in cells]
    counts = np.array([np.histogram(q, 2.6 + 0.1 * np.arange(7))[0] for q in lengths])
    np.testing.assert_allclose(mean(together, features), (counts * each).sum(0) / counts.sum(0), atol=1e-9)


def test_drawn_wave_vectors_fill_the_bins_of_all_cells() -> None:
    small = argon(4)
    together = make(small, request(grid(1.0, 0.25, 20)), (0.97, 1.05))
    assert isinstance(together.method, Direct)
    for scale in (0.97, 1.0, 1.05):
        cell = jnp.asarray(scale * small.cell.array)
        numbers = np.split(np.asarray(together.features(jnp.asarray(small.get_scaled_positions()), cell)), 2)[1]
        assert numbers.min() >= 20
        assert numbers[-3:].min() >= 40


@cache
def liquid() -> Trajectory:
    """Argon above melting, 256 atoms."""
    settings = SamplingSettings(
        thermostat={"name": "langevin", "friction_per_ps": 2.0}, walkers=2, timestep_fs=8.0,
        equilibration_fs=4000.0, production_fs=12000.0, stride_fs=400.0, skin=0.5,
    )  # fmt: skip
    atoms = argon(4, 5.9)
    return simulate(*lennard_jones(6.0), start(atoms, 2), temperature=140.0, settings=settings)


@pytest.mark.slow
def test_both_methods_agree_for_a_liquid() -> None:
    trajectory = liquid()
    atoms = Atoms(trajectory.species, cell=trajectory.cell, pbc=True)
    direct = make(atoms, request(grid(1.0, 0.2, 40)))
    assert isinstance(direct.method, Direct)
    lengths = np.linalg.norm(direct.method.vectors @ lattice.reciprocal(trajectory.cell), axis=1)
    # In a bin the few wave vectors of a small cell are not centred.
    bin_of = np.searchsorted(direct.method.edges, lengths, side="right") - 1
    points = np.bincount(bin_of, lengths) / np.bincount(bin_of)
    transform = make(atoms, request(points.tolist(), method="transform", window="none"))
    found = [mean(one, static_features(one, trajectory, "S")) for one in (direct, transform)]
    assert 1.8 < found[0].max() < 3.5  # the first peak of a liquid
    assert 1.6 < points[int(found[0].argmax())] < 2.2
    np.testing.assert_allclose(found[1], found[0], atol=0.12)
    assert np.sqrt(np.mean((found[1] - found[0]) ** 2)) < 0.04


def test_draw_is_the_same_everywhere_and_bounded() -> None:
    atoms = salt()
    method = make(atoms, request(grid(1.0, 0.5, 20), vectors_per_bin=7)).method
    assert isinstance(method, Direct)
    lengths = np.linalg.norm(method.vectors @ lattice.reciprocal(atoms.cell.array), axis=1)
    assert np.histogram(lengths, method.edges)[0].max() == 7
    again = make(atoms, request(grid(1.0, 0.5, 20), vectors_per_bin=7)).method
    assert isinstance(again, Direct)
    np.testing.assert_array_equal(method.vectors, again.vectors)


def test_large_system_in_bounded_memory() -> None:
    atoms = argon(6, 5.77)
    assert len(atoms) == 864
    observable = make(atoms, request(grid(0.15, 0.1, 148)))
    positions, cell = jnp.asarray(atoms.get_scaled_positions()), jnp.asarray(atoms.cell.array)
    compiled = jax.jit(observable.features).lower(positions, cell).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 5e7


def test_r_max_is_half_of_the_box_by_default() -> None:
    atoms = argon(2)
    method = make(atoms, request(grid(1.0, 0.5, 6), method="transform")).method
    assert isinstance(method, Transform)
    assert method.partials[0].edges[-1] == pytest.approx(5.4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radiation": "electron"}, "option 'radiation' of structure_factor is 'electron'; choose neutron or xray"),
        ({"method": "fft"}, "choose direct or transform"),
        ({"window": "hann"}, "choose lorch or none"),
        ({"vectors_per_bin": 0}, "is 0; give an integer >= 1, or null"),
        ({"r_bin": 0.0}, "option 'r_bin' of structure_factor is 0.0"),
        ({"r_max": -2.0}, "is -2.0"),
        ({"radiation": "xray", "scattering_lengths": {"O": 1.0}}, "is for radiation: neutron"),
        ({"scattering_lengths": {"O": "5 fm"}}, "give numbers in fm by species"),
        ({"scattering_lengths": {"O": float("nan")}}, "scattering_lengths.O = nan must be a finite number"),
        ({"vectors_per_bin": True}, "is True; give an integer >= 1"),
        ({"r_bin": 1e-9}, "is 1e-09 Å; the transform needs no bins below 0.001 Å"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        request(grid(1.0, 0.5, 4), **options)


@pytest.mark.parametrize(
    ("points", "options", "species", "message"),
    [
        (grid(0.1, 0.1, 4), {}, "Ar", r"begins at 0.15 1/Å .* no wave vector below 0.62832 1/Å"),
        (grid(1.0, 1.0, 900), {}, "Ar", r"ends at 900.5 1/Å, up to where this cell has 6.2e\+09 wave vectors"),
        (grid(1.0, 0.5, 4), {}, "X", "no neutron weight for the species 'X'; give one in scattering_lengths"),
        (grid(1.0, 0.5, 4), {"radiation": "xray"}, "X", "no xray weight for the species 'X'"),
        (grid(1.0, 0.5, 4), {}, "At", "no neutron weight for the species 'At'"),
        (grid(1.0, 0.5, 4), {"scattering_lengths": {"H": 1.0}}, "Ar", "names 'H'; the structure has Ar"),
        (grid(1.0, 0.5, 4), {"scattering_lengths": {"Ar": 0.0}}, "Ar", "mean neutron weight of Ar vanishes"),
        (grid(1.0, 0.5, 4), {"method": "transform", "r_max": 6.0}, "Ar", "reaches 6 Å, beyond half .* 10 Å"),
    ],
)
def test_refused_systems(points: list[float], options: dict[str, Any], species: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        request(points, **options).check_system([species] * 4, np.eye(3) * 10)


def test_direct_grid_of_unequal_bins() -> None:
    with pytest.raises(ValueError, match=r"value 2 at index 1 should be 2\.5 1/Å"):
        request([1.0, 2.0, 4.0])
    request([1.0, 2.0, 4.0], method="transform")


def test_rdf_beyond_half_of_the_box() -> None:
    wanted = ObservableRequest(observable="rdf", grid=[0.1 + 0.2 * k for k in range(28)])
    wanted.check_system(["Ar"], np.eye(3) * 11.2)
    with pytest.raises(
        ValueError, match=r"ends at 5.5 Å with a bin that reaches 5.6 Å, beyond half .* 11 Å.*end at 5.5 Å"
    ):
        wanted.check_system(["Ar"], np.eye(3) * 11)
