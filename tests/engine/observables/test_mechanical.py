"""Stress and stiffness against crystals at rest, where finite strains tell what must come out."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.optimize import BFGS

from aiida_difftre.engine import units
from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.calculators.elasticity import static_stiffness
from aiida_difftre.engine.contract.jobs import SamplingSettings
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.geometry import voigt
from aiida_difftre.engine.geometry.lattice import strained
from aiida_difftre.engine.observables import mechanical, protocol
from aiida_difftre.engine.observables.protocol import Macrostate
from aiida_difftre.engine.reweighting.predictions import predict_trajectory
from aiida_difftre.engine.runtime.progress import Silent
from tests.fixtures.engine import DOUBLE, argon, lennard_jones, silicon, simulate, start, stillinger_weber, trajectory

LITERATURE = np.array([151.4, 76.4, 56.4])
"""C11, C12, C44 of Stillinger-Weber silicon at rest, GPa."""


@cache
def cold_silicon(lattice: float) -> Trajectory:
    """Strong friction lets the internal strain, which halves C44, be sampled soon."""
    chosen = SamplingSettings(
        thermostat={"name": "langevin", "friction_per_ps": 20.0}, walkers=16, timestep_fs=2.0,
        equilibration_fs=800.0, production_fs=8000.0, stride_fs=40.0, skin=0.3,
    )  # fmt: skip
    return simulate(*stillinger_weber(), start(silicon(lattice), 16), temperature=1.0, settings=chosen, seed=2)


def predict(lattice: float, **options: Any) -> Prediction:
    requests = [ObservableRequest(observable="stiffness", options={"born_stride": 20, **options})]
    return predict_trajectory(*stillinger_weber(), cold_silicon(lattice), requests, machine=DOUBLE, seed=0)[0]


def test_silicon_at_one_kelvin_has_its_static_stiffness() -> None:
    found = predict(5.43095)
    values, errors = np.array(found.values), np.array(found.errors)
    assert np.all(np.abs(values[:2] - LITERATURE[:2]) < 2)
    assert abs(values[2] - LITERATURE[2]) < 3.5 * errors[2] + 0.2
    assert errors[2] < 2
    # Without relaxation of the two sublattices C44 would be 117 GPa.
    general = predict(5.43095, symmetry="general", born_stride=40)
    tensor = dict(zip(general.labels, general.values, strict=True))
    assert np.mean([tensor[k] for k in ("C11", "C22", "C33")]) == pytest.approx(values[0], abs=0.2)
    assert np.mean([tensor[k] for k in ("C12", "C13", "C23")]) == pytest.approx(values[1], abs=0.2)
    assert np.mean([tensor[k] for k in ("C44", "C55", "C66")]) == pytest.approx(values[2], abs=0.2)
    others = [v for k, v in tensor.items() if k not in "C11 C22 C33 C12 C13 C23 C44 C55 C66"]
    np.testing.assert_allclose(others, 0, atol=4)


def test_compressed_silicon_has_the_stiffness_of_finite_strains() -> None:
    """At -6 % in length the stress is some 30 GPa, and B differs from C by as much."""
    lattice = 5.25
    static = static_stiffness(silicon(lattice), DiffTReCalculator(*stillinger_weber()), Silent())
    assert static["stress"][0] < -5
    found = predict(lattice)
    expected = [static["stiffness"][name] for name in ("C11", "C12", "C44")]
    assert np.all(np.abs(np.array(found.values) - expected) < 3.5 * np.array(found.errors) + 0.3)


@pytest.mark.parametrize("strain", [np.zeros(6), np.array([0.02, -0.03, 0.01, 0.02, -0.03, 0.04])])
def test_stressed_crystal_without_internal_coordinates(strain: np.ndarray) -> None:
    """One atom of fcc argon at T -> 0: Born term and stress correction alone make the finite-strain tensor."""
    potential, parameters = lennard_jones(7.0)
    atoms = argon(1, 5.0)
    matrix = np.array([[strain[0], strain[5], strain[4]], [0, strain[1], strain[3]], [0, 0, strain[2]]])
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + matrix + np.triu(matrix, 1).T), scale_atoms=True)
    at_rest = rest(atoms, potential, parameters)
    requests = [
        ObservableRequest(observable="stiffness", options={"symmetry": "general", "born_stride": 1}),
        ObservableRequest(observable="stress"),
        ObservableRequest(observable="pressure"),
    ]
    stiffness, stress, pressure = predict_trajectory(potential, parameters, at_rest, requests, machine=DOUBLE, seed=0)
    static = static_stiffness(atoms, DiffTReCalculator(potential, parameters), Silent())
    np.testing.assert_allclose(stress.values, static["stress"], atol=1e-5)
    assert pressure.values[0] == pytest.approx(-np.mean(static["stress"][:3]), abs=1e-5)
    tensor = np.array(static["tensor"])
    assert np.abs(static["stress"]).max() > 0.5
    expected = ((tensor + tensor.T) / 2)[np.triu_indices(6)]
    np.testing.assert_allclose(stiffness.values, expected, atol=3e-3 * np.abs(tensor).max())


def rest(atoms: Atoms, potential: Any, parameters: Any) -> Trajectory:
    """Identical snapshots, as good as at 0 K."""
    positions = atoms.get_scaled_positions()[None].repeat(16, 0)
    return trajectory(potential, parameters, atoms, positions, temperature=1e-6)


@pytest.mark.parametrize(("lattice", "size"), [(5.43095, -0.01), (5.25, 0.004)])
def test_one_strained_cell_has_the_stiffness_of_both_signs(lattice: float, size: float) -> None:
    """Silicon relaxed in one sheared cell, at rest and at -6 % in length, where the stress is some 30 GPa."""
    potential, parameters = stillinger_weber()
    calculator = DiffTReCalculator(potential, parameters)
    static = static_stiffness(silicon(lattice), calculator, Silent())["stiffness"]
    atoms, strain = silicon(lattice), [0.0, size, -size, 2 * size, 0.0, 0.0]
    atoms.set_cell(strained(atoms.cell.array, strain), scale_atoms=True)
    atoms.calc = calculator
    BFGS(atoms, logfile=None).run(fmax=1e-4)
    options = {"strain": strain}
    requests = [ObservableRequest(observable="stiffness", options=options)]
    found = predict_trajectory(
        potential, parameters, rest(atoms, potential, parameters), requests, machine=DOUBLE, seed=0
    )[0]
    assert found.labels == ["C11-C12", "C44"]
    # What is left is of third order in the strain: 1 % of the elastic constants for strains of 1 %.
    np.testing.assert_allclose(found.values, [static["C11"] - static["C12"], static["C44"]], rtol=0.015)


@pytest.mark.parametrize(
    ("strain", "symmetry", "cell", "message"),
    [
        ([0.01, 0.0, 0.0, 0.0, 0.0, 0.0], "cubic", None, "an angle between both, such as"),
        ([0.01, -0.01, 0.0, 0.02, 0.0, 0.0], "cubic", None, "an angle between both, such as"),
        ([0.01, -0.01], "cubic", None, "give six numbers"),
        ("1 %", "cubic", None, "give six numbers"),
        ([0.1, -0.1, 0.0, 0.0, 0.0, 0.0], "cubic", None, "give at most 0.05"),
        ([0.01, -0.01, 0.0, 0.0, 0.0, 0.0], "hexagonal", None, "is for cubic crystals"),
        ([0.01, -0.01, 0.0, 0.0, 0.0, 0.0], "cubic", np.diag([5.4, 5.4, 10.8]), "give the state point this strain"),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.02], "cubic", np.diag([5.4, 5.4, 10.8]), "give the state point this strain"),
    ],
)
def test_strains_that_give_no_stiffness_are_refused(strain: Any, symmetry: str, cell: Any, message: str) -> None:
    def check() -> None:
        request = ObservableRequest(observable="stiffness", options={"symmetry": symmetry, "strain": strain})
        request.check_system(("Si",) * 8, cell, None)

    with pytest.raises(ValueError, match=message):
        check()


def test_stress_correction() -> None:
    """The tensor formula, element by element."""
    sigma = np.array([[1.0, 0.6, 0.5], [0.6, 2.0, 0.4], [0.5, 0.4, 3.0]])
    found = np.asarray(mechanical.stress_correction(jnp.array([1.0, 2.0, 3.0, 0.4, 0.5, 0.6])))
    delta = np.eye(3)
    for row, (i, j) in enumerate(voigt.COMPONENTS):
        for column, (k, m) in enumerate(voigt.COMPONENTS):
            four = (
                delta[i, k] * sigma[j, m] + delta[j, k] * sigma[i, m] + delta[i, m] * sigma[j, k]
                + delta[j, m] * sigma[i, k]
            )  # fmt: skip
            assert found[row, column] == pytest.approx((four - 2 * delta[k, m] * sigma[i, j]) / 2)
    hydrostatic = np.asarray(mechanical.stress_correction(jnp.array([-5.0, -5, -5, 0, 0, 0])))
    assert hydrostatic[0, 0] == hydrostatic[3, 3] == -5
    assert hydrostatic[0, 1] == 5


def test_ideal_gas() -> None:
    """Without a potential the pressure is NkT/V and the stiffness that of an ideal gas: B11 = B12 = P, B44 = 0."""
    point = Macrostate(300.0, 1000.0, 50)
    pressure = 50 * 1.380649e-23 * 300 / 1e-27 / 1e9
    inputs = {"stress": jnp.zeros((4, 6)), "born": jnp.zeros((4, 3)), "volume": jnp.full(4, 1000.0)}
    weight = jnp.full(4, 0.25)
    assert float(mechanical.Pressure().combine(inputs, weight, point)[0]) == pytest.approx(pressure, rel=1e-9)
    found = mechanical.Stiffness("cubic", 1).combine(inputs, weight, point)
    np.testing.assert_allclose(found, [pressure, pressure, 0], atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("symmetry", ["cubic", "hexagonal", "general"])
def test_a_crystal_whose_born_terms_are_known(symmetry: str, stride: int) -> None:
    """The curvature of the energy along each direction, η C η, gives back C, and kT and the fluctuations add to it."""
    rng = np.random.default_rng(3)
    tensor = rng.normal(size=(6, 6))
    tensor += tensor.T
    labels = {"cubic": ("11", "12", "44"), "hexagonal": ("11", "12", "13", "33", "44"), "general": ()}[symmetry]
    if labels:
        tensor = np.zeros((6, 6))
        names = {"12": "12 13 23", "44": "44 55 66"} if symmetry == "cubic" else {"13": "13 23", "44": "44 55"}
        names["11"] = "11 22 33" if symmetry == "cubic" else "11 22"
        for name, value in zip(labels, (5.0, 2.0, 3.0, 7.0, 1.5), strict=False):
            for row, column in (np.array([int(x) for x in pair]) - 1 for pair in names.get(name, name).split()):
                tensor[row, column] = tensor[column, row] = value
        if symmetry == "hexagonal":
            tensor[5, 5] = (tensor[0, 0] - tensor[0, 1]) / 2
    snapshots = 12
    stiffness = mechanical.Stiffness(symmetry, stride)
    found = stiffness.directions(snapshots)
    assert found.stride == stride
    assert len(found.vectors) == snapshots // stride
    point = Macrostate(300.0, 1000.0, 50)
    inputs = {
        "stress": jnp.zeros((snapshots, 6)),
        "born": jnp.einsum("sda,ab,sdb->sd", found.vectors, tensor, found.vectors),
        "volume": jnp.full(snapshots, 1000.0),
    }
    weight = jnp.full(snapshots, 1 / snapshots)
    gas = stiffness.combine({**inputs, "born": 0 * inputs["born"]}, weight, point)
    crystal = stiffness.combine(inputs, weight, point) - gas
    whole = tensor[np.triu_indices(6)] if symmetry == "general" else [5.0, 2.0, 3.0, 7.0, 1.5][: len(labels)]
    np.testing.assert_allclose(crystal, whole, atol=1e-9)


def test_fluctuations_of_weighted_samples_are_unbiased() -> None:
    point = Macrostate(300.0, 1000.0, 50)
    stress = np.random.default_rng(0).normal(size=(7, 6))
    found = np.asarray(mechanical.fluctuation_term(jnp.asarray(stress), jnp.full(7, 1 / 7), point))
    factor = -1000.0 / (units.BOLTZMANN * 300 * units.EV_PER_A3_IN_GPA)
    np.testing.assert_allclose(found, factor * np.cov(stress.T), rtol=1e-10)


def harmonic_crystal(
    atoms: Atoms, potential: Any, parameters: Any, *, snapshots: int, temperature: float
) -> Trajectory:
    """Independent draws from the canonical distribution of the crystal's Hessian, as good as the limit T -> 0."""
    atoms = atoms.copy()
    atoms.calc = DiffTReCalculator(potential, parameters)
    assert np.abs(atoms.get_forces()).max() < 1e-5
    step, rows = 1e-3, []
    for number in range(3 * len(atoms)):
        forces = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions.reshape(-1)[number] += sign * step
            moved.calc = atoms.calc
            forces.append(moved.get_forces().reshape(-1))
        rows.append((forces[1] - forces[0]) / (2 * step))
    values, vectors = np.linalg.eigh((np.array(rows) + np.array(rows).T) / 2)
    widths = np.sqrt(units.BOLTZMANN * temperature / values[3:])  # the first three move the whole crystal
    noise = np.random.default_rng(0).normal(size=(snapshots, len(widths))) * widths
    displaced = atoms.positions + (noise @ vectors[:, 3:].T).reshape(snapshots, -1, 3)
    positions = displaced @ np.linalg.inv(atoms.cell.array)
    return trajectory(potential, parameters, atoms, positions, temperature=temperature)


@cache
def cold_hcp() -> tuple[Atoms, Trajectory]:
    potential, parameters = lennard_jones(7.0)
    atoms = bulk("Ar", "hcp", a=3.75, c=6.05).repeat((2, 1, 1))
    return atoms, harmonic_crystal(atoms, potential, parameters, snapshots=1000, temperature=0.02)


def predict_hcp(symmetry: str) -> tuple[dict[str, float], dict[str, float]]:
    request = ObservableRequest(observable="stiffness", options={"symmetry": symmetry, "born_stride": 100})
    potential, parameters = lennard_jones(7.0)
    found = predict_trajectory(potential, parameters, cold_hcp()[1], [request], machine=DOUBLE, seed=0)[0]
    return dict(zip(found.labels, found.values, strict=True)), dict(zip(found.labels, found.errors, strict=True))


def test_hexagonal_stiffness_is_that_of_finite_strains() -> None:
    """The two atoms of the cell relax against each other under a basal shear, and lower C66."""
    static = static_stiffness(cold_hcp()[0], DiffTReCalculator(*lennard_jones(7.0)), Silent())
    tensor = np.array(static["tensor"])
    expected = dict(
        zip(("C11", "C12", "C13", "C33", "C44"), mechanical.hexagonal_average(jnp.asarray(tensor)), strict=True)
    )
    assert tensor[0, 0] == pytest.approx(tensor[1, 1], rel=1e-3)  # the crystal is hexagonal, and c along z
    found, errors = predict_hcp("hexagonal")
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert abs(found[name] - value) < 3.5 * errors[name] + 0.01, name
        assert errors[name] < 0.02 * abs(value), name
    general, _ = predict_hcp("general")
    assert general["C33"] == pytest.approx(found["C33"], rel=1e-3)
    assert (general["C13"] + general["C23"]) / 2 == pytest.approx(found["C13"], rel=2e-3)
    assert (general["C11"] + general["C22"]) / 2 == pytest.approx(found["C11"], rel=0.02)
    assert general["C66"] == pytest.approx((found["C11"] - found["C12"]) / 2, rel=0.05)


def test_cubic_average_is_over_all_names_of_the_axes() -> None:
    matrix = np.random.default_rng(0).normal(size=(6, 6))
    turned = []
    for axes in itertools.permutations(range(3)):
        order = np.array([*axes, *(3 + axis for axis in axes)])  # the shear 23 turns as the axis 1
        turned.append(matrix[np.ix_(order, order)])
    mean = np.mean(turned, axis=0)
    np.testing.assert_allclose(mechanical.cubic_average(jnp.asarray(matrix)), mean[[0, 0, 3], [0, 1, 3]], rtol=1e-12)


def test_hexagonal_average_is_over_all_rotations_about_z() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 6))
    matrix += matrix.T
    tensor = np.zeros((3, 3, 3, 3))
    for row, (i, j) in enumerate(voigt.COMPONENTS):
        for column, (k, m) in enumerate(voigt.COMPONENTS):
            for first in {(i, j), (j, i)}:
                for second in {(k, m), (m, k)}:
                    tensor[first + second] = matrix[row, column]
    mean = np.zeros_like(tensor)
    for angle in np.arange(12) * np.pi / 6:
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        mean += np.einsum("ia,jb,kc,ld,abcd->ijkl", turn, turn, turn, turn, tensor) / 12
    expected = [mean[0, 0, 0, 0], mean[0, 0, 1, 1], mean[0, 0, 2, 2], mean[2, 2, 2, 2], mean[1, 2, 1, 2]]
    np.testing.assert_allclose(mechanical.hexagonal_average(jnp.asarray(matrix)), expected, atol=1e-12)


def test_a_turned_hexagonal_cell_is_refused() -> None:
    request = ObservableRequest(observable="stiffness", options={"symmetry": "hexagonal"})
    atoms = bulk("Ti", "hcp", a=2.95, c=4.68)
    orthogonal = bulk("Ti", "hcp", a=2.95, c=4.68, orthorhombic=True)
    for good in (atoms, atoms.repeat((5, 5, 3)), orthogonal.repeat((3, 2, 2))):
        request.check_system(good.get_chemical_symbols(), good.cell.array)
    atoms.rotate(90, "x", rotate_cell=True)
    with pytest.raises(ValueError, match="needs its c axis along z"):
        request.check_system(atoms.get_chemical_symbols(), atoms.cell.array)
    permuted = orthogonal.cell.array[[2, 0, 1]][:, [2, 0, 1]]
    with pytest.raises(EngineError, match="symmetry: general"):
        protocol.make(request, tuple(orthogonal.get_chemical_symbols()), permuted)
