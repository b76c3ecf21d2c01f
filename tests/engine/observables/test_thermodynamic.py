"""Fluctuation formulas against analytic cases, NumPy, finite differences and pymbar; ensembles that are refused."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.jobs import (
    POTENTIAL_IN,
    TRAJECTORY,
    PredictJob,
    SampleJob,
    SamplingSettings,
    UpdateSettings,
)
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.trajectories import Trajectory, write_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import predict
from aiida_difftre.engine.observables import protocol, thermodynamic
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.refinement import objective
from aiida_difftre.engine.reweighting import extrapolation
from aiida_difftre.engine.reweighting.predictions import predict_trajectory, statistical_errors
from aiida_difftre.engine.reweighting.reference import Reference, prepare_reference
from aiida_difftre.engine.runtime.progress import Silent
from tests.fixtures.engine import (
    DOUBLE,
    argon,
    lennard_jones,
    prepared,
    rattled,
    silicon,
    simulate,
    start,
    stillinger_weber,
)

GAS_CONSTANT = 8.31446261815324
NPT = ("heat_capacity", "volume", "density", "thermal_expansion", "compressibility")
TEMPERATURE, PRESSURE = 60.0, 0.05


def requests(*names: str) -> list[ObservableRequest]:
    return [ObservableRequest(observable=name) for name in names]


def test_against_numpy() -> None:
    rng = np.random.default_rng(0)
    energy, volume = rng.normal(size=50), 1000 + 30 * rng.normal(size=50)
    inputs = {"energy": jnp.asarray(energy), "volume": jnp.asarray(volume)}
    point = protocol.Macrostate(300.0, 1000.0, 20, pressure=2.0, mass=20 * 39.948)
    kT, uniform = units.BOLTZMANN * 300, jnp.full(50, 0.02)
    enthalpy = energy + 2.0 / units.EV_PER_A3_IN_GPA * volume

    def value(observable: Any, **changes: Any) -> float:
        return float(observable.combine(inputs, uniform, changes.get("point", point))[0])

    expected = GAS_CONSTANT * (enthalpy.var(ddof=1) / kT**2 / 20 + 1.5)
    assert value(thermodynamic.HeatCapacity()) == pytest.approx(expected, rel=1e-9)
    at_volume = protocol.Macrostate(300.0, 1000.0, 20)
    expected = GAS_CONSTANT * (energy.var(ddof=1) / kT**2 / 20 + 1.5)
    assert value(thermodynamic.HeatCapacity(), point=at_volume) == pytest.approx(expected, rel=1e-9)
    assert value(thermodynamic.PotentialEnergy()) == pytest.approx(energy.mean() / 20, rel=1e-9)
    assert value(thermodynamic.Volume()) == pytest.approx(volume.mean() / 20)
    density = 20 * 39.948e-3 / 6.02214076e23 / (volume.mean() * 1e-30)
    assert value(thermodynamic.Density()) == pytest.approx(density, rel=1e-8)
    expansion = np.cov(volume, enthalpy)[0, 1] / (kT * 300 * volume.mean())
    assert value(thermodynamic.ThermalExpansion()) == pytest.approx(expansion, rel=1e-9)
    compressibility = volume.var(ddof=1) / (kT * volume.mean()) / units.EV_PER_A3_IN_GPA
    assert value(thermodynamic.Compressibility()) == pytest.approx(compressibility, rel=1e-9)


def test_heat_capacity_of_a_harmonic_crystal() -> None:
    """3 N k, but for the centre of mass, which feels no potential: 3/2 k each from momenta and from 3N - 3 modes."""
    chosen = SamplingSettings(
        thermostat={"name": "langevin", "friction_per_ps": 20.0}, walkers=16, timestep_fs=2.0, equilibration_fs=800.0,
        production_fs=8000.0, stride_fs=40.0, skin=0.4,
    )  # fmt: skip
    trajectory = simulate(*stillinger_weber(), start(silicon(), 16), temperature=10.0, settings=chosen)
    wanted = [ObservableRequest(observable="heat_capacity", options={"kind": "cv"})]
    found = predict_trajectory(*stillinger_weber(), trajectory, wanted, machine=DOUBLE, seed=0)[0]
    expected = 3 * GAS_CONSTANT * (1 - 1 / 16)
    assert found.labels == ["C_V"]
    assert found.errors[0] < 0.06 * expected
    assert abs(found.values[0] - expected) < 3.5 * found.errors[0]


@cache
def breathing(walkers: int = 4, snapshots: int = 64) -> Trajectory:
    """Rattled argon in cells of different sizes: not a Boltzmann distribution, but that is no matter to derivatives."""
    potential, parameters = lennard_jones()
    atoms = argon(2, 5.4)
    base = rattled(
        potential, parameters, atoms, snapshots=snapshots, amplitude=0.12, temperature=TEMPERATURE, walkers=walkers
    )
    scales = 1 + 0.01 * np.random.default_rng(3).normal(size=snapshots)
    fields = {name: getattr(base, name) for name in ("positions", "cell", "species", "times", "temperatures")}
    from aiida_difftre.engine.snapshots import snapshots as quantities

    energies = quantities.energies(potential, parameters, base.positions, base.cell, base.species, scales=scales)
    return Trajectory(
        **fields, energies=energies, walkers=np.repeat(np.arange(walkers, dtype=np.int32), snapshots // walkers),
        last_positions=base.last_positions, last_velocities=base.last_velocities, temperature=TEMPERATURE,
        scales=scales, last_scales=np.ones(walkers), pressure=PRESSURE,
    )  # fmt: skip


def changed(epsilon: float, sigma: float) -> Parameters:
    _, parameters = lennard_jones()
    term = {"epsilon": jnp.array([epsilon]), "sigma": jnp.array([sigma])}
    return {**parameters, "terms": {"0_lennard_jones": term}}


def test_density_is_that_of_the_masses() -> None:
    potential, _ = lennard_jones()
    parameters = changed(0.0104, 3.4)
    light = breathing()
    heavy = replace(light, masses=np.full(32, 2 * 39.948))
    values = [
        predict_trajectory(potential, parameters, t, requests("density"), machine=DOUBLE, seed=0)[0].values
        for t in (light, heavy)
    ]
    assert values[1] == pytest.approx([2 * values[0][0]])


@pytest.mark.parametrize("name", [*NPT, "pressure"])
def test_gradient_is_the_finite_difference(name: str) -> None:
    """Of the reweighted value, through energies and, for the pressure, stresses in cells of different sizes."""
    potential, _ = lennard_jones()
    reference = changed(0.0104, 3.4)
    units_of = {"heat_capacity": "J/mol/K", "volume": "angstrom^3/atom", "density": "kg/m3", "pressure": "GPa"}
    units_of |= {"thermal_expansion": "1/K", "compressibility": "1/GPa"}
    aim = Target(
        observable=name, values=[0.0], errors=[1.0], unit=units_of[name], conditions={"temperature": TEMPERATURE},
        citation="a test",
    )  # fmt: skip
    settings = UpdateSettings(loss={"kind": "mse"}, bootstrap=10)
    data = prepared(potential, reference, breathing(), [aim], settings)

    def loss(epsilon: float, sigma: float) -> float:
        return objective.evaluate([data], changed(epsilon, sigma)).loss

    evaluation = objective.evaluate([data], reference)
    assert evaluation.effective[data.label].kish == pytest.approx(64, rel=1e-12)
    found = objective.gradient([data], reference, evaluation)["terms"]["0_lennard_jones"]
    h = 1e-5
    by_epsilon = (loss(0.0104 * (1 + h), 3.4) - loss(0.0104 * (1 - h), 3.4)) / (2 * h * 0.0104)
    by_sigma = (loss(0.0104, 3.4 * (1 + h)) - loss(0.0104, 3.4 * (1 - h))) / (2 * h * 3.4)
    assert float(found["epsilon"][0]) == pytest.approx(by_epsilon, rel=1e-4)
    assert float(found["sigma"][0]) == pytest.approx(by_sigma, rel=1e-4)


def averaged(point: StatePoint | None = None) -> Reference:
    observed = requests("volume", "potential_energy")
    return prepare_reference(*lennard_jones(), breathing(), observed, DOUBLE, point)


def test_weights_at_the_sampled_state_are_exactly_uniform() -> None:
    for point in (None, StatePoint(TEMPERATURE), StatePoint(TEMPERATURE, PRESSURE)):
        ref = averaged(point)
        assert not ref.shift.any()
        assert np.all(np.asarray(ref.weights(jnp.asarray(ref.energies))) == 1 / 64)


def test_weights_at_another_state_are_those_of_pymbar() -> None:
    """Averages for other parameters, temperature and pressure from one sampled state."""
    os.environ["PYMBAR_DISABLE_JAX"] = "TRUE"
    from pymbar import MBAR

    ref = averaged(StatePoint(66.0, 0.08))
    quantities = ref.snapshots.evaluate(changed(0.0106, 3.41))
    weight = np.asarray(ref.weights(jnp.asarray(quantities["energy"])))

    def reduced(energy: np.ndarray, temperature: float, pressure: float) -> np.ndarray:
        work = pressure / units.EV_PER_A3_IN_GPA * ref.volumes
        return (energy + work) / (units.BOLTZMANN * temperature)

    states = np.stack([reduced(ref.energies, TEMPERATURE, PRESSURE), reduced(quantities["energy"], 66.0, 0.08)])
    solved = MBAR(states, np.array([64, 0]))
    np.testing.assert_allclose(weight, solved.W_nk[:, 1], rtol=1e-8, atol=1e-14)
    expected = solved.compute_expectations(ref.volumes)["mu"][1]
    averages = ref.averages({"energy": jnp.asarray(quantities["energy"])}, jnp.asarray(weight))
    assert float(averages[0][0]) * 32 == pytest.approx(expected, rel=1e-9)


def test_predict_reports_what_is_left_of_the_snapshots(tmp_path: Path) -> None:
    potential, parameters = lennard_jones()
    potentials.save(tmp_path / POTENTIAL_IN, potential, parameters)
    write_trajectory(tmp_path / TRAJECTORY, breathing())
    job = PredictJob(
        trajectory=TRAJECTORY, temperature=63.0, pressure=0.06, observables=requests("volume"),
        machine={"precision": "float64"},
    )  # fmt: skip
    results = predict.run(job, tmp_path, Silent())
    ref = averaged(StatePoint(63.0, 0.06))
    weight = np.asarray(ref.weights(jnp.asarray(ref.energies)))
    assert results.predictions[0].values[0] == pytest.approx(weight @ ref.volumes / 32, rel=1e-12)
    left = results.reweighting
    assert left.sampled.content() == {"temperature": TEMPERATURE, "pressure": PRESSURE}
    assert left.predicted.content() == {"temperature": 63.0, "pressure": 0.06}
    assert left.snapshots == 64
    assert left.n_eff_kish == pytest.approx(1 / np.sum(weight**2))
    assert left.n_eff_kish < left.n_eff_entropy < 64
    assert left.n_eff_independent == pytest.approx(
        min(left.n_eff_kish, extrapolation.normal_size(weight)) / left.statistical_inefficiency
    )
    assert results.predictions[0].effective_samples == pytest.approx(left.n_eff_independent)
    # The error is that of the weighted snapshots, widened.
    plain = statistical_errors(ref, {"energy": ref.energies}, weight, replicates=200, seed=0)[0][0]
    assert left.widening > 1
    assert results.predictions[0].errors[0] == pytest.approx(left.widening * plain, rel=1e-9)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"temperature": 80.0}, r"reweighting from 60 K and 0.05 GPa to 80 K and 0.05 GPa leaves \S+ effective indep"),
        (
            {"pressure": 5.0},
            r"to 60 K and 5 GPa leaves \S+ effective .* fewer than 20; sample at 60 K and 5 GPa, or",
        ),
    ],
)
def test_predict_refuses_a_state_that_the_trajectory_does_not_reach(
    tmp_path: Path, asked: dict[str, float], message: str
) -> None:
    potentials.save(tmp_path / POTENTIAL_IN, *lennard_jones())
    write_trajectory(tmp_path / TRAJECTORY, breathing())
    job = PredictJob(trajectory=TRAJECTORY, observables=requests("volume"), machine={"precision": "float64"}, **asked)
    with pytest.raises(EngineError, match=message) as caught:
        predict.run(job, tmp_path, Silent())
    assert caught.value.status == ExitStatus.TOO_FEW_EFFECTIVE_SAMPLES


@pytest.mark.parametrize(("temperature", "snapshots"), [(170.0, 20), (1e5, 20), (86.0, 1), (86.0, 4)])
def test_a_temperature_far_from_that_of_few_snapshots_is_refused(
    tmp_path: Path, temperature: float, snapshots: int
) -> None:
    """Twenty snapshots at 85 K: one would have all the weight, and hardly an error. Of one all seems to be left."""
    potential, parameters = lennard_jones()
    potentials.save(tmp_path / POTENTIAL_IN, potential, parameters)
    fixed = rattled(potential, parameters, argon(2, 5.4), snapshots=snapshots, amplitude=0.25, temperature=85.0)
    write_trajectory(tmp_path / TRAJECTORY, fixed)
    job = PredictJob(trajectory=TRAJECTORY, temperature=temperature, observables=requests("pressure"))
    asked = re.escape(f"from 85 K to {temperature:g} K leaves")
    with pytest.raises(EngineError, match=asked) as caught:
        predict.run(job, tmp_path, Silent())
    assert caught.value.status == ExitStatus.TOO_FEW_EFFECTIVE_SAMPLES
    assert caught.value.diagnostics["n_eff_independent"] < caught.value.diagnostics["least"] <= 10
    with pytest.raises(ValueError, match="at most 100000 K"):
        PredictJob(trajectory=TRAJECTORY, temperature=8.6e7, observables=requests("pressure"))
    here = predict.run(job.model_copy(update={"temperature": None}), tmp_path, Silent())
    assert here.reweighting.widening == pytest.approx(1)
    assert here.reweighting.n_eff_kish == pytest.approx(snapshots)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (StatePoint(66.0), "sampled at 60 K, but the state point is at 66 K"),
        (StatePoint(TEMPERATURE, 0.1), "sampled at 0.05 GPa, but the state point is at 0.1 GPa"),
    ],
)
def test_an_update_refuses_another_state_which_a_prediction_reaches(point: StatePoint, message: str) -> None:
    sampled = objective.SampledStatePoint("argon", breathing(), [], point)
    with pytest.raises(EngineError, match=message) as caught:
        objective.prepare(*lennard_jones(), sampled, UpdateSettings(), DOUBLE, seed=0)
    assert caught.value.status == ExitStatus.INVALID_INPUT
    assert np.ptp(averaged(point).shift) > 0


def test_ensembles_that_cannot_give_an_observable() -> None:
    barostat, barred = {"barostat": {}}, {"barostat": None}
    content = {"temperature": 300.0, "observables": [{"observable": "density"}]}
    for settings, pressure in ((barred, None), (barostat, None), (barred, 0.0)):
        with pytest.raises(ValueError, match="'density' needs an NPT trajectory, not NVT; give the state"):
            SampleJob(**content, sampling=settings, pressure=pressure)
    SampleJob(**content, sampling=barostat, pressure=0.0)
    for kind, settings in (("cp", barred), ("cv", barostat)):
        capacity = {"observable": "heat_capacity", "options": {"kind": kind}}
        with pytest.raises(ValueError, match=f"kind = '{kind}' needs an .* or choose another kind"):
            SampleJob(temperature=300.0, pressure=0.0, sampling=settings, observables=[capacity])
    with pytest.raises(ValueError, match="'stiffness' needs an NVT trajectory"):
        SampleJob(temperature=300.0, pressure=0.0, sampling=barostat, observables=[{"observable": "stiffness"}])
    with pytest.raises(ValueError, match="option 'kind' of heat_capacity is 'cx'; known kinds: cv, cp"):
        ObservableRequest(observable="heat_capacity", options={"kind": "cx"})
    potential, parameters = lennard_jones()
    fixed = rattled(potential, parameters, argon(1), snapshots=4, amplitude=0.1, temperature=60.0)
    with pytest.raises(EngineError, match="needs an NPT trajectory"):
        predict_trajectory(potential, parameters, fixed, requests("volume"), machine=DOUBLE, seed=0)
    with pytest.raises(EngineError, match="sampled at constant volume"):
        prepare_reference(potential, parameters, fixed, [], DOUBLE, StatePoint(60.0, 0.1))
