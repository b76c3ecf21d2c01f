"""Constant pressure: the ensemble against exact cases and finite differences, lists in a cell that changes, guards."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.jobs import CHECKPOINT, TRAJECTORY, Machine, SamplingSettings
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory, read_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import neighbor_list
from aiida_difftre.engine.potentials.derivatives import virial
from aiida_difftre.engine.reweighting import statistics
from aiida_difftre.engine.reweighting.predictions import predict_trajectory, reweighted_predictions
from aiida_difftre.engine.reweighting.reference import prepare_reference
from aiida_difftre.engine.reweighting.weights import effective_size
from aiida_difftre.engine.runtime.stop import Stop
from aiida_difftre.engine.sampling import barostat, run
from aiida_difftre.engine.sampling.dynamics import dynamics as dynamics_of
from aiida_difftre.engine.sampling.starts import Start, start_walkers
from aiida_difftre.engine.sampling.system import System
from aiida_difftre.engine.snapshots import snapshots as quantities
from tests.fixtures import engine
from tests.fixtures.engine import DOUBLE, argon, build, energy_and_gradient, lennard_jones, start

TEMPERATURE, PRESSURE = 40.0, 0.1
KT = units.BOLTZMANN * TEMPERATURE
LANGEVIN = {"name": "langevin", "friction_per_ps": 10.0}
NOSE_HOOVER = {"name": "nose_hoover", "time_constant_fs": 50.0}


def settings(**changes: Any) -> SamplingSettings:
    defaults = {
        "walkers": 2, "timestep_fs": 8.0, "equilibration_fs": 0.0, "production_fs": 160.0, "stride_fs": 16.0,
        "skin": 0.6, "thermostat": LANGEVIN, "barostat": {"relaxation_time_fs": 300.0},
    }  # fmt: skip
    return SamplingSettings(**{**defaults, **changes})


def simulate(
    chosen: SamplingSettings, begin: Start | None = None, *, temperature: float = TEMPERATURE, **options: Any
) -> Trajectory:
    potential, parameters = options.pop("model", None) or lennard_jones()
    options = {"pressure": PRESSURE, **options}
    begin = begin or start(argon(lattice=5.2), chosen.walkers)
    return engine.simulate(potential, parameters, begin, temperature=temperature, settings=chosen, **options)


@pytest.mark.parametrize("thermostat", [LANGEVIN, NOSE_HOOVER])
def test_volume_of_an_ideal_gas_has_its_gamma_distribution(thermostat: dict[str, Any]) -> None:
    """Of V^N exp(-PV/kT): mean (N + 1) kT/P, relative variance 1/(N + 1), with and without motion of the centre."""
    atoms, walkers, temperature = 4, 32, 300.0
    potential = build("pair_spline", ["Ar"], 2.0)
    pressure = (atoms + 1) * units.BOLTZMANN * temperature / 1000.0 * units.EV_PER_A3_IN_GPA
    chosen = settings(
        thermostat=thermostat, barostat={"relaxation_time_fs": 50.0, "max_volume_ratio": 100.0}, walkers=walkers,
        timestep_fs=5.0, equilibration_fs=1000.0, production_fs=5000.0, stride_fs=200.0, min_distance=1e-6,
        max_temperature_ratio=100.0,
    )  # fmt: skip
    positions = np.random.default_rng(0).random((walkers, atoms, 3))
    begin = Start(positions, None, 10 * np.eye(3), ("Ar",) * atoms)
    model = (potential, potential.init(jax.random.key(0)))
    volumes = simulate(chosen, begin, temperature=temperature, pressure=pressure, model=model).volumes
    each = volumes.reshape(walkers, -1)
    assert abs(volumes.mean() - 1000) < 4 * each.mean(1).std() / np.sqrt(walkers)
    variance = ((each - 1000) ** 2).mean(1) / 1000**2
    assert abs(variance.mean() - 1 / (atoms + 1)) < 4 * variance.std() / np.sqrt(walkers)
    # The test tells V^N from V^(N-1) and V^(N+1).
    assert each.mean(1).std() / np.sqrt(walkers) < 1000 / (atoms + 1) / 5


def test_extended_energy_is_conserved_without_friction(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an error that falls with the square of the time step."""
    monkeypatch.setattr(barostat, "PISTON_FRICTION", 0.0)
    potential, parameters = lennard_jones()
    atoms, errors = argon(lattice=5.3), []
    for step in (4.0, 2.0):
        chosen = settings(
            timestep_fs=step, stride_fs=16.0, production_fs=800.0, thermostat={**LANGEVIN, "friction_per_ps": 1e-20}
        )
        system = System(
            potential, tuple(atoms.get_chemical_symbols()), atoms.cell.array, TEMPERATURE, chosen, "float64", PRESSURE
        )
        begin = start(atoms, 2)
        lists = run.start_lists(system, begin)
        dynamics = dynamics_of(system, run.list_capacity(lists))
        state = dynamics.init(0, begin.positions, np.ones(2), None, parameters, lists)
        energies = []
        for _ in range(10):
            state, _ = dynamics.apply(state, parameters)
            energies.append(extended_energy(system, state.md, parameters))
        assert np.ptp(np.exp(3 * np.asarray(state.md.strain))) > 0
        errors.append(np.std(energies, axis=0).max())
        assert errors[-1] < 1e-3 * 48 * KT
    assert 2.5 < errors[0] / errors[1] < 6.5


def extended_energy(system: System, md: barostat.State, parameters: Any) -> np.ndarray:
    tau = 300.0 / units.TIME_UNIT_IN_FS
    mass = 3 * (len(system.symbols) + 1) * KT * tau**2
    strain = np.asarray(md.strain)
    volume = abs(np.linalg.det(system.cell)) * np.exp(3 * strain)
    potential = quantities.energies(
        system.potential, parameters, np.asarray(md.position), system.cell, system.symbols, scales=np.exp(strain)
    )
    kinetic = np.sum(np.asarray(md.momentum) ** 2 / np.asarray(md.mass), (1, 2)) / 2
    piston = np.asarray(md.strain_momentum) ** 2 / (2 * mass)
    return kinetic + piston + potential + PRESSURE / units.EV_PER_A3_IN_GPA * volume - 3 * KT * strain


@cache
def crystal(temperature: float = TEMPERATURE, pressure: float = PRESSURE) -> Trajectory:
    chosen = settings(walkers=16, equilibration_fs=1600.0, production_fs=16000.0, stride_fs=160.0)
    return simulate(chosen, temperature=temperature, pressure=pressure)


def error_of_mean(values: np.ndarray, trajectory: Trajectory) -> float:
    g = float(statistics.statistical_inefficiency(values, trajectory.walkers))
    return float(values.std() * np.sqrt(g / len(values)))


def predict(trajectory: Trajectory, *names: str) -> dict[str, tuple[float, float]]:
    requests = [ObservableRequest(observable=name) for name in names]
    found = predict_trajectory(*lennard_jones(), trajectory, requests, machine=DOUBLE, seed=0)
    return {p.label: (p.values[0], p.errors[0]) for p in found}


def test_mean_pressure_is_that_of_the_barostat() -> None:
    value, error = predict(crystal(), "pressure")["pressure"]
    assert error < 0.004
    assert abs(value - PRESSURE) < 4 * error


def test_ratio_of_two_pressures() -> None:
    """ln[p(V|P2)/p(V|P1)] = const - (P2 - P1) V/kT, the slope by maximum likelihood (Shirts, JCTC 9, 909 (2013))."""
    low, high = crystal(), crystal(pressure=0.14)
    x = np.concatenate([low.volumes, high.volumes])
    mean, scale = x.mean(), x.std()
    is_high = np.concatenate([np.zeros(len(low.volumes)), np.ones(len(high.volumes))])
    slope, offset = 0.0, 0.0
    z = (x - mean) / scale
    for _ in range(30):
        p = 1 / (1 + np.exp(-(offset + slope * z)))
        gradient = np.array([np.sum(is_high - p), np.sum((is_high - p) * z)])
        hessian = np.array([[np.sum(p * (1 - p)), np.sum(p * (1 - p) * z)], [0, np.sum(p * (1 - p) * z * z)]])
        hessian[1, 0] = hessian[0, 1]
        change = np.linalg.solve(hessian, gradient)
        offset, slope = offset + change[0], slope + change[1]
    g = float(statistics.statistical_inefficiency(low.volumes, low.walkers))
    error = np.sqrt(g * np.linalg.inv(hessian)[1, 1]) / scale
    expected = -0.04 / units.EV_PER_A3_IN_GPA / KT
    assert error < 0.15 * abs(expected)
    assert abs(slope / scale - expected) < 4 * error


@pytest.mark.slow
def test_reweighting_to_a_neighbouring_state_is_a_run_there() -> None:
    requests = [ObservableRequest(observable=name) for name in ("volume", "potential_energy")]
    ref = prepare_reference(*lennard_jones(), crystal(), requests, DOUBLE, StatePoint(42.0, 0.12))
    found = reweighted_predictions(ref, lennard_jones()[1], replicates=200, seed=0)[0]
    size = effective_size(np.asarray(ref.weights(jnp.asarray(ref.energies))))
    assert 0.2 < size.kish / len(ref.energies) < 0.95
    there = predict(crystal(42.0, 0.12), "volume", "potential_energy")
    for prediction in found:
        value, error = there[prediction.label]
        assert abs(prediction.values[0] - value) < 4 * np.hypot(prediction.errors[0], error)
        here, _ = predict(crystal(), prediction.label)[prediction.label]
        assert abs(here - value) > 4 * np.hypot(prediction.errors[0], error)


def test_compressibility_is_the_slope_of_the_volume() -> None:
    low, high = crystal(pressure=0.06), crystal(pressure=0.14)
    (found, error), (volume, _) = predict(crystal(), "compressibility", "volume").values()
    slope = -(high.volumes.mean() - low.volumes.mean()) / 0.08 / (32 * volume)
    uncertain = np.hypot(*(error_of_mean(t.volumes, t) for t in (low, high))) / 0.08 / (32 * volume)
    assert error < 0.2 * found
    assert abs(found - slope) < 4 * np.hypot(error, uncertain)


@pytest.mark.slow
def test_heat_capacity_and_expansion_are_slopes_with_temperature() -> None:
    cold, hot = crystal(temperature=36.0), crystal(temperature=44.0)
    found = predict(crystal(), "heat_capacity", "thermal_expansion", "volume")

    def enthalpy(t: Trajectory) -> np.ndarray:
        return (t.energies + PRESSURE / units.EV_PER_A3_IN_GPA * t.volumes) / 32

    slope = (enthalpy(hot).mean() - enthalpy(cold).mean()) / 8
    uncertain = np.hypot(*(error_of_mean(enthalpy(t), t) for t in (cold, hot))) / 8 * units.JOULE_PER_MOL
    expected = units.JOULE_PER_MOL * (slope + 1.5 * units.BOLTZMANN)
    value, error = found["heat_capacity"]
    assert 20 < expected < 30
    assert abs(value - expected) < 4 * np.hypot(error, uncertain)
    value, error = found["thermal_expansion"]
    volume = 32 * found["volume"][0]
    expected = (hot.volumes.mean() - cold.volumes.mean()) / 8 / volume
    uncertain = np.hypot(*(error_of_mean(t.volumes, t) for t in (cold, hot))) / 8 / volume
    assert expected > 4e-4
    assert abs(value - expected) < 4 * np.hypot(error, uncertain)


def test_lists_stay_complete_in_a_cell_that_shrinks() -> None:
    """A cold crystal under high pressure shrinks without any atom moving in it: the cell alone wears the lists."""
    potential, parameters = lennard_jones()
    atoms = argon(lattice=5.6)
    chosen = settings(
        skin=0.2, barostat={"relaxation_time_fs": 2000.0}, thermostat={**LANGEVIN, "friction_per_ps": 1e-3},
        timestep_fs=4.0,
    )  # fmt: skip
    symbols = tuple(atoms.get_chemical_symbols())
    system = System(potential, symbols, atoms.cell.array, TEMPERATURE, chosen, "float64", 0.5)
    begin = start(atoms, 2)
    dynamics = dynamics_of(system, neighbor_list.Capacity(64, 32))
    momenta, lists = 0 * begin.positions, run.start_lists(system, begin)
    state = dynamics.init(0, begin.positions, np.ones(2), momenta, parameters, lists)
    shrunk = []
    for _ in range(6):
        state, _ = dynamics.apply(state, parameters)
        assert not dynamics.capacity.exceeded(state.needed)
        for walker in range(2):
            scale = float(np.exp(state.md.strain[walker]))
            position = np.asarray(state.md.position[walker])
            fresh = quantities.environment(potential, position, scale * system.cell, symbols, "float64")
            _, gradient = energy_and_gradient(potential, parameters, fresh)
            expected = float(np.trace(virial(gradient, fresh.displacements)))
            assert float(state.md.virial[walker]) == pytest.approx(expected, rel=1e-9)
        shrunk.append(scale)
    assert min(shrunk) < 0.97
    assert np.abs(np.asarray(state.md.position) - begin.positions).max() * 11.2 < 0.05
    assert np.all(np.asarray(state.built_scale) < 1)


class StopAfter(Stop):
    """Asks to stop at the n-th question."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def requested(self) -> EngineError | None:
        self.left -= 1
        return EngineError(ExitStatus.INTERRUPTED, "enough") if self.left == 0 else None


@pytest.mark.parametrize("thermostat", [LANGEVIN, NOSE_HOOVER])
def test_restart_continues_bit_for_bit(tmp_path: Path, thermostat: dict[str, Any]) -> None:
    chosen = settings(thermostat=thermostat, equilibration_fs=32.0, production_fs=320.0, skin=0.1)
    whole = simulate(chosen)
    with pytest.raises(EngineError, match="enough"):
        simulate(chosen, stop=StopAfter(4), folder=tmp_path)
    assert (tmp_path / CHECKPOINT).exists()
    with pytest.raises(EngineError, match="checkpoint of another"):
        simulate(chosen, folder=tmp_path, pressure=0.2)
    resumed = simulate(chosen, folder=tmp_path)
    for name in ("positions", "energies", "scales", "last_positions", "last_velocities", "last_scales"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    assert whole.pressure == PRESSURE
    assert np.ptp(whole.scales) > 0


def test_a_trajectory_goes_on_in_its_cells() -> None:
    first = simulate(settings(production_fs=800.0))
    begin = start_walkers(2, start(argon(lattice=5.2), 1), first)
    np.testing.assert_allclose(begin.scales, first.last_scales, rtol=1e-14)
    assert np.all(first.last_scales > 1.02)
    second = simulate(settings(production_fs=16.0), begin)
    np.testing.assert_allclose(second.scales, first.last_scales, atol=8e-3)
    other = start_walkers(2, start(argon(lattice=5.3), 1), first)
    np.testing.assert_allclose(other.scales * 5.3, first.last_scales * 5.2)
    fixed = simulate(settings(barostat=None), begin)
    assert np.all(fixed.scales == 1)
    assert fixed.pressure is None
    assert fixed.ensemble == "NVT"


@pytest.mark.parametrize("thermostat", [LANGEVIN, NOSE_HOOVER])
def test_single_precision(thermostat: dict[str, Any]) -> None:
    single = simulate(settings(thermostat=thermostat, production_fs=80.0), machine=Machine(precision="float32"))
    double = simulate(settings(thermostat=thermostat, production_fs=80.0))
    assert single.scales.dtype == np.float64
    np.testing.assert_array_equal(single.scales, single.scales.astype(np.float32))
    assert np.ptp(double.scales) > 0
    assert single.scales.mean() == pytest.approx(double.scales.mean(), abs=0.01)


def test_a_volume_out_of_bounds(tmp_path: Path) -> None:
    chosen = settings(production_fs=3200.0, barostat={"relaxation_time_fs": 500.0, "max_volume_ratio": 1.2})
    with pytest.raises(EngineError, match=r"max_volume_ratio = 1\.2") as caught:
        simulate(chosen, pressure=-0.3, folder=tmp_path)
    assert caught.value.status == ExitStatus.VOLUME_OUT_OF_BOUNDS
    assert caught.value.diagnostics["volume_ratio"] > 1.2
    if (tmp_path / TRAJECTORY).exists():
        assert read_trajectory(tmp_path / TRAJECTORY).scales.max() ** 3 < 1.2
