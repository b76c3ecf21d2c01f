"""External fields: values, forces against finite differences, periodicity, no stress; refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from scipy.interpolate import CubicSpline

from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract.jobs import PotentialSpec, TermSpec
from aiida_difftre.engine.contract.settings import Machine
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.matching import configurations
from aiida_difftre.engine.matching.prediction import predictor
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Environment, Parameters
from aiida_difftre.engine.snapshots import snapshots as quantities
from tests.fixtures.engine import build

COEFFICIENTS = [0.3, -0.1, 2.0, 0.0, -1.0]
CELL = np.array([[5.0, 0.3, 0.0], [0.1, 4.5, 0.2], [-0.4, 0.0, 6.0]])


def field(architecture: str, **hyperparameters: object) -> tuple[Potential, Parameters]:
    potential = build(architecture, ["He"], 0.1, **hyperparameters)
    parameters = potential.init(jax.random.key(0))
    if architecture == "external_spline":
        points = np.random.default_rng(1).normal(size=hyperparameters["knots"])
        parameters["terms"]["0_external_spline"]["control_points"] = jnp.asarray(points)
    return potential, parameters


def at(positions: np.ndarray) -> Environment:
    count = len(positions)
    nobody = jnp.zeros((count, 1), bool)
    return Environment(jnp.zeros((count, 1, 3)), nobody, jnp.zeros(count, int), jnp.zeros((count, 1), int), positions)


def along(s: np.ndarray, axis: int) -> Environment:
    positions = np.random.default_rng(2).normal(size=(len(s), 3))
    positions[:, axis] = s
    return at(jnp.asarray(positions))


@pytest.mark.parametrize("axis", [0, 2])
def test_polynomial(axis: int) -> None:
    potential, parameters = field("external_polynomial", coefficients=COEFFICIENTS, axis=axis, center=0.4)
    s = np.linspace(-0.05, 0.85, 41)
    expected = np.polynomial.Polynomial(COEFFICIENTS)(s - 0.4)
    np.testing.assert_allclose(potential.energies(parameters, along(s, axis)), expected, atol=1e-14)
    np.testing.assert_allclose(potential.energies(parameters, along(s - 3, axis)), expected, atol=1e-12)


def test_spline_is_the_periodic_cubic_spline_through_its_values() -> None:
    potential, parameters = field("external_spline", knots=9, axis=1)
    knots = np.arange(10) / 9
    values = np.array(potential.energies(parameters, along(knots, 1)))
    values[-1] = values[0]
    reference = CubicSpline(knots, values, bc_type="periodic")
    s = np.linspace(0, 1, 200, endpoint=False) + 1e-4
    for shift in (0, 1, -2):
        found = np.asarray(potential.energies(parameters, along(s + shift, 1)))
        np.testing.assert_allclose(found, reference(s), atol=1e-12)


@pytest.mark.parametrize(
    ("architecture", "hyperparameters"),
    [("external_polynomial", {"coefficients": COEFFICIENTS, "axis": 1}), ("external_spline", {"knots": 7, "axis": 2})],
)
def test_forces_in_a_triclinic_cell_and_no_stress(architecture: str, hyperparameters: dict) -> None:
    potential, parameters = field(architecture, **hyperparameters)
    atoms = Atoms("He2", scaled_positions=[[0.1, 0.2, 0.3], [0.6, 0.7, 0.9]], cell=CELL, pbc=True)
    atoms.calc = DiffTReCalculator(potential, parameters)
    forces, step = atoms.get_forces(), 1e-5
    for atom in range(2):
        for axis in range(3):
            energies = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[atom, axis] += sign * step
                moved.calc = atoms.calc
                energies.append(moved.get_potential_energy())
            assert forces[atom, axis] == pytest.approx((energies[1] - energies[0]) / (2 * step), abs=1e-7)
    assert np.abs(forces).max() > 0.05
    energy = atoms.get_potential_energy()
    np.testing.assert_array_equal(atoms.get_stress(), 0.0)
    strained = atoms.copy()
    strained.set_cell(CELL * 1.02, scale_atoms=True)
    strained.calc = atoms.calc
    assert strained.get_potential_energy() == pytest.approx(energy, abs=1e-12)


def test_snapshots_see_the_field_and_no_stress() -> None:
    potential, parameters = field("external_spline", knots=8)
    positions = np.random.default_rng(0).uniform(-1, 2, size=(6, 1, 3)).astype(np.float32)
    snapshots = quantities.Snapshots(
        potential, quantities.Coordinates(positions, 5 * np.eye(3), ["He"]), Machine(precision="float64"), stress=True
    )
    values = snapshots.evaluate(parameters)
    expected = potential.energies(parameters, at(jnp.asarray(positions[:, 0], jnp.float64)))
    np.testing.assert_allclose(values["energy"], expected, atol=1e-6)
    np.testing.assert_array_equal(values["stress"], 0.0)


def test_labels_and_fields_do_not_go_together() -> None:
    potential, _ = field("external_spline", knots=8)
    atoms = Atoms("He", cell=5 * np.eye(3), pbc=True)
    with pytest.raises(EngineError, match="external field"):
        predictor(potential, configurations.pad([atoms], ["He"], 0.1), jnp.float64)


def test_an_environment_without_a_cell() -> None:
    potential, parameters = field("external_spline", knots=8)
    with pytest.raises(ValueError, match="needs fractional positions"):
        potential.energies(parameters, at(np.zeros((1, 3)))._replace(positions=None))


@pytest.mark.parametrize(
    ("architecture", "hyperparameters", "message"),
    [
        ("external_polynomial", {}, "coefficients is missing"),
        ("external_polynomial", {"coefficients": [1.0, "two"]}, r"coefficients\[1\] = 'two'"),
        (
            "external_polynomial",
            {"coefficients": [1.0], "axis": 3},
            "axis = 3: must be .*is 0, 1 or 2",
        ),
        ("external_spline", {"knots": 3}, "knots = 3: must be at least 4"),
        ("external_spline", {"axis": True}, "axis = True"),
        ("external_spline", {"nodes": 5}, "unknown hyperparameter 'nodes'"),
    ],
)
def test_refused(architecture: str, hyperparameters: dict, message: str) -> None:
    term = TermSpec(architecture=architecture, cutoff=0.1, hyperparameters=hyperparameters)
    with pytest.raises(EngineError, match=message):
        potentials.build(PotentialSpec(species=["He"], terms=[term]))
