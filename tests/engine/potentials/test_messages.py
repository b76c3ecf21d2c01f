"""Terms that pass messages: what they see, and that all that is built on environments is right for them."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.neighborlist import neighbor_list

from aiida_difftre import testing
from aiida_difftre.engine import units
from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract import architectures
from aiida_difftre.engine.contract.jobs import PotentialSpec, SamplingSettings, TermSpec, UpdateSettings
from aiida_difftre.engine.contract.sampling_settings import LangevinSpec
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.export.folder import Options
from aiida_difftre.engine.export.others import bundle
from aiida_difftre.engine.matching import configurations
from aiida_difftre.engine.matching.prediction import predictor
from aiida_difftre.engine.potentials.parameters import without_references
from aiida_difftre.engine.potentials.potential import Potential, build
from aiida_difftre.engine.potentials.term import Kind, Parameters
from aiida_difftre.engine.refinement import objective
from aiida_difftre.engine.refinement.minimise import minimise
from aiida_difftre.engine.runtime.progress import Silent
from tests.engine.snapshots.test_snapshots import DIRECTIONS, Directions, positions_of, snapshots, strained_energy
from tests.fixtures.engine import prepared, rattled, simulate, start, target
from tests.fixtures.messages import Messages

CUTOFF = 3.0


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("messages", "tests.fixtures.messages:Messages", architectures.ENTRY_POINT_GROUP)
    monkeypatch.setitem(architectures.registry(), "messages", point)


def crystal() -> Atoms:
    """Eight atoms in a distorted cell that is smaller than twice the cutoff."""
    atoms = bulk("C", "diamond", a=3.7, cubic=True)
    atoms.set_cell(atoms.cell.array + np.random.default_rng(0).normal(scale=0.1, size=(3, 3)), scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def potential(trainable: Any = True) -> tuple[Potential, Parameters]:
    made = build(
        PotentialSpec(species=["C"], terms=[TermSpec(architecture="messages", cutoff=CUTOFF, trainable=trainable)])
    )
    return made, made.init(jax.random.key(2))


def by_hand(parameters: Parameters, atoms: Atoms) -> float:
    """The energy from the equation in the documentation of the term, pair by pair."""
    values = parameters["terms"]["0_messages"]
    a, b, c = (float(values["readout"][name]) for name in "abc")
    i, j, vectors = neighbor_list("ijD", atoms, CUTOFF)
    f = (1 - np.sum(vectors**2, axis=1) / CUTOFF**2) ** 3
    h, m, dipole = np.zeros(len(atoms)), np.zeros(len(atoms)), np.zeros((len(atoms), 3))
    np.add.at(h, i, f)
    known = np.tanh(float(values["first"]["w"]) * h)
    np.add.at(m, i, f * known[j])
    np.add.at(dipole, i, (f * known[j])[:, None] * vectors)
    return float(np.sum(a * np.tanh(h) + b * m**2 + c * np.sum(dipole**2, axis=1)))


@pytest.mark.parametrize("check", testing.POTENTIAL_CHECKS.values(), ids=testing.POTENTIAL_CHECKS.keys())
def test_contract(check: Any) -> None:
    made, parameters = potential()
    check(testing.PotentialExample(made, parameters, crystal()))


def test_an_atom_sees_the_neighbours_of_its_neighbours() -> None:
    made, parameters = potential()
    chain = Atoms("C3", [[0, 0, 0], [2, 0, 0], [4, 0, 0]])
    calculator = DiffTReCalculator(made, parameters)
    for atoms in (crystal(), chain):
        calculator.calculate(atoms)
        assert calculator.results["energy"] == pytest.approx(by_hand(parameters, atoms), rel=1e-12)
    before = calculator.results["energies"][0]
    chain.positions[2, 0] = 4.3
    calculator.calculate(chain)
    assert abs(calculator.results["energies"][0] - before) > 1e-3


def test_snapshots_and_labels() -> None:
    made, parameters = potential()
    atoms = crystal()
    positions = positions_of(atoms, 3)
    wanted = Directions(2, np.stack([DIRECTIONS, DIRECTIONS[::-1]]))
    store = snapshots(made, atoms, positions, directions={"born": wanted}, batch_size=2)
    values = store.evaluate(parameters)
    calculator = DiffTReCalculator(made, parameters)
    frames = []
    for number, x in enumerate(positions):
        atoms.set_scaled_positions(x)
        calculator.calculate(atoms)
        results = calculator.results
        assert values["energy"][number] == pytest.approx(results["energy"], rel=1e-12)
        np.testing.assert_allclose(values["stress"][number], results["stress"] * units.EV_PER_A3_IN_GPA, atol=1e-8)
        frames.append(atoms.copy())
        frames[-1].calc = SinglePointCalculator(atoms, **{key: results[key] for key in ("energy", "forces", "stress")})
    energy, h = strained_energy(made, parameters, atoms, positions[2]), 1e-3
    scale = units.EV_PER_A3_IN_GPA / atoms.get_volume()
    for k, direction in enumerate(DIRECTIONS[::-1]):
        near, far, centre = (energy(n * h * direction) + energy(-n * h * direction) for n in (1, 2, 0))
        curvature = (16 * near - far - 15 * centre) / (12 * h * h)
        assert values["born"][1, k] == pytest.approx(scale * curvature, rel=1e-4, abs=1e-2)

    cotangents = {key: np.random.default_rng(5).normal(size=value.shape) for key, value in values.items()}
    slopes = store.pullback(parameters, cotangents)
    for name in ("a", "b", "c"):
        moved = []
        for sign in (1, -1):
            shifted = jax.tree.map(lambda x: x, parameters)
            shifted["terms"]["0_messages"]["readout"][name] += sign * 1e-5
            moved.append(sum(float(np.vdot(cotangents[key], value)) for key, value in store.evaluate(shifted).items()))
        slope = float(slopes["terms"]["0_messages"]["readout"][name])
        assert slope == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-6)

    # Configurations of different sizes, padded, where the Jacobians of single atoms would not do.
    frames.append(frames[0].repeat((2, 1, 1)))
    frames[-1].calc = SinglePointCalculator(frames[-1], energy=2 * frames[0].get_potential_energy())
    padded = configurations.pad(frames, ["C"], CUTOFF)
    predict, features = predictor(made, padded, jnp.float64)
    predicted = predict(made, without_references(parameters, jnp.float64), features)
    np.testing.assert_allclose(predicted.energy, padded.labels.energy, rtol=1e-12)
    np.testing.assert_allclose(predicted.forces[:3, :8], padded.labels.forces[:3, :8], atol=1e-10)
    np.testing.assert_allclose(predicted.stress[:3], padded.labels.stress[:3], atol=1e-10)


def test_dynamics_keeps_the_energy() -> None:
    """Forces of the compiled dynamics, whose lists hold a skin, belong to the energies that are recorded."""
    made, parameters = potential()
    settings = SamplingSettings(
        thermostat=LangevinSpec(friction_per_ps=0.01), walkers=2, timestep_fs=0.5, equilibration_fs=0.0,
        production_fs=20.0, stride_fs=5.0, max_temperature_ratio=100.0, min_distance=0.3,
    )  # fmt: skip
    found = simulate(made, parameters, start(crystal(), 2), temperature=300.0, settings=settings)
    kinetic = 1.5 * 8 * units.BOLTZMANN * found.temperatures
    total = (found.energies + kinetic).reshape(2, -1)
    assert np.ptp(found.energies) > 0.05
    assert np.ptp(total, axis=1).max() < 0.1 * np.ptp(found.energies)


def test_chosen_parameters_alone_are_trained() -> None:
    made, parameters = potential(["readout"])
    sampled = rattled(made, parameters, crystal(), snapshots=40, amplitude=0.05, temperature=900.0)
    settings = UpdateSettings.model_validate({"bootstrap": 10, "gate": 0.3, "optimizer": {"name": "gauss_newton"}})
    energy = float(np.mean(sampled.energies)) / 8 + 0.002
    point = prepared(made, parameters, sampled, [target("potential_energy", [energy], error=1e-3)], settings)
    outcome = minimise(objective.Objective([point], settings, parameters, None), made, seed=0, progress=Silent())
    before, after = (tree["terms"]["0_messages"] for tree in (parameters, outcome.parameters))
    assert float(after["first"]["w"]) == float(before["first"]["w"])
    assert all(float(after["readout"][name]) != float(before["readout"][name]) for name in "abc")
    with pytest.raises(EngineError, match=r"no parameters 'readouts'; it has: first, readout"):
        potential(["readouts"])


def test_what_cannot_be_is_refused() -> None:
    made, parameters = potential()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Messages, "kind", Kind.PAIRWISE, raising=False)
        with pytest.raises(EngineError, match="passes messages, and is of the kind PAIRWISE"):
            potential()
    with pytest.raises(ValueError, match="--to lammps"):
        bundle(made, parameters, None, Options())
