"""Sampling: physical laws, restarts, overflows, guards."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.files import read_arrays, write_arrays
from aiida_difftre.engine.contract.jobs import CHECKPOINT, TRAJECTORY, Machine, PotentialSpec, SamplingSettings
from aiida_difftre.engine.contract.trajectories import Trajectory, read_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import linked_cells
from aiida_difftre.engine.geometry import neighbor_list as space
from aiida_difftre.engine.geometry.neighbor_list import Capacity
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.term import masses
from aiida_difftre.engine.runtime.stop import Stop
from aiida_difftre.engine.sampling import guards, run, starts
from aiida_difftre.engine.sampling.integrators import integrator
from aiida_difftre.engine.sampling.system import System
from aiida_difftre.engine.sampling.walkers import Snapshot
from tests.fixtures import engine
from tests.fixtures.engine import argon, lennard_jones, silicon, start, stillinger_weber

LANGEVIN = {"name": "langevin", "friction_per_ps": 5.0}
NOSE_HOOVER = {"name": "nose_hoover", "time_constant_fs": 200.0}
NO_FRICTION = {"name": "langevin", "friction_per_ps": 1e-20}


def settings(**changes: Any) -> SamplingSettings:
    defaults = {
        "walkers": 2, "timestep_fs": 4.0, "equilibration_fs": 0.0, "production_fs": 80.0, "stride_fs": 8.0,
        "skin": 0.6, "thermostat": LANGEVIN,
    }  # fmt: skip
    return SamplingSettings(**{**defaults, **changes})


def simulate(
    chosen: SamplingSettings, begin: starts.Start | None = None, *, temperature: float = 60.0, **options: Any
) -> Trajectory:
    potential, parameters = options.pop("model", None) or lennard_jones()
    begin = begin or start(argon(), chosen.walkers)
    return engine.simulate(potential, parameters, begin, temperature=temperature, settings=chosen, **options)


def total_energy(trajectory: Trajectory) -> np.ndarray:
    """By walker, eV."""
    kinetic = 1.5 * len(trajectory.species) * units.BOLTZMANN * trajectory.temperatures
    return (trajectory.energies + kinetic).reshape(int(trajectory.walkers.max()) + 1, -1)


def test_energy_is_conserved_without_friction() -> None:
    """No drift, and an error of the integrator that falls with the square of the time step."""
    deviations = []
    for step in (8.0, 4.0):
        trajectory = simulate(settings(thermostat=NO_FRICTION, timestep_fs=step, production_fs=2400.0, stride_fs=24.0))
        energy = total_energy(trajectory)
        kinetic = 1.5 * 32 * units.BOLTZMANN * 60
        times = np.arange(energy.shape[1]) * 0.024
        # The start from a perfect crystal is the same for both walkers, their velocities are not.
        drift = np.polyfit(times[20:], energy[:, 20:].T, 1)[0]
        assert np.all(np.abs(drift) < 2e-3 * kinetic)
        deviations.append(np.std(energy[:, 20:], axis=1).max())
        assert deviations[-1] < 5e-3 * kinetic
    assert 2.5 < deviations[0] / deviations[1] < 6


def test_heavier_atoms_are_slower() -> None:
    """Four times the mass and twice all times: the same path, by Newton's law and the equipartition of the start."""
    begin = start(argon(), 2)
    heavy = replace(begin, masses=4 * masses(begin.symbols))
    light = simulate(settings(thermostat=NO_FRICTION), begin)
    slow = settings(thermostat=NO_FRICTION, timestep_fs=8.0, stride_fs=16.0, production_fs=160.0)
    path = simulate(slow, heavy)
    np.testing.assert_allclose(path.positions, light.positions, rtol=0, atol=1e-6)
    np.testing.assert_allclose(2 * path.last_velocities, light.last_velocities, rtol=1e-8)
    assert path.temperatures.mean() == pytest.approx(light.temperatures.mean())
    # The next trajectory keeps velocities, not momenta of other masses.
    further = [starts.start_walkers(2, structure, path) for structure in (heavy, begin)]
    assert further[0].masses is heavy.masses
    np.testing.assert_array_equal(further[0].velocities, path.last_velocities)


def test_masses_of_a_file(tmp_path: Path) -> None:
    atoms = argon()
    atoms.write(tmp_path / "structure.extxyz")
    assert starts.read_structure(tmp_path / "structure.extxyz").masses is None
    atoms.set_masses([36.0] * len(atoms))
    atoms.write(tmp_path / "structure.extxyz")
    begin = starts.read_structure(tmp_path / "structure.extxyz")
    assert begin.masses is not None
    assert (begin.masses == 36.0).all()
    atoms.set_masses([36.0, -1.0, *[36.0] * (len(atoms) - 2)])
    atoms.write(tmp_path / "structure.extxyz")
    with pytest.raises(EngineError, match=r"mass of atom 1 in structure\.extxyz is -1\.0 amu"):
        starts.read_structure(tmp_path / "structure.extxyz")


def read_again(path: Path, header: str) -> starts.Start:
    """With another header, which says the same but is not as ase writes it."""
    number, _, *lines = path.read_text().splitlines()
    path.write_text("\n".join([number, header, *lines]))
    return starts.read_structure(path)


def test_a_structure_may_name_isotopes(tmp_path: Path) -> None:
    path = tmp_path / "structure.extxyz"
    path.write_text('2\nLattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3 pbc="T T T"\nD 0 0 0\nH 1 0 0\n')
    begin = starts.read_structure(path)
    assert begin.symbols == ("H", "H")
    assert begin.masses == pytest.approx([2.0141, 1.008], abs=1e-4)


@pytest.mark.parametrize("columns", ["", ":masses:R:1"])
def test_plain_structures_are_read_as_ase_reads_them(
    tmp_path: Path, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    masses = rng.uniform(1, 50, 5) if columns else None
    cell = 9 * np.eye(3) + rng.normal(size=(3, 3))
    path = tmp_path / "structure.extxyz"
    Atoms(["Ar", "H", "Cu", "H", "Si"], rng.normal(0, 9, (5, 3)), cell=cell, pbc=True, masses=masses).write(path)
    with monkeypatch.context() as patch:
        patch.setattr(starts, "_read_any", pytest.fail)
        plain = starts.read_structure(path)
    with monkeypatch.context() as patch:
        patch.setattr(starts, "_read_plain", lambda _: None)
        expected = starts.read_structure(path)
    lattice = " ".join(f"{number:.8f}" for number in cell.ravel())
    shuffled = read_again(path, f'pbc="T T T" Properties=species:S:1:pos:R:3{columns} Lattice="{lattice}"')
    for found in (plain, expected):
        assert found.symbols == ("Ar", "H", "Cu", "H", "Si")
        assert (found.masses is None) == (masses is None)
    for name in ("positions", "cell") + (("masses",) if columns else ()):
        np.testing.assert_array_equal(getattr(plain, name), getattr(expected, name))
        np.testing.assert_allclose(getattr(shuffled, name), getattr(expected, name), atol=1e-6)


@pytest.mark.parametrize(
    "lines", [("Ar 0 0",), ("Ar 0 0 0 1",), ("Ar 0 0 0", "Ar 0 0 1"), ("Xx 0 0 0",), ("Ar 0 0 zero",), ("",), ()]
)
def test_structures_that_are_not_plain_are_left_to_ase(tmp_path: Path, lines: tuple[str, ...]) -> None:
    path = tmp_path / "structure.extxyz"
    header = 'Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3 pbc="T T T"'
    path.write_text("\n".join(["1", header, "Ar 0 0 0"]))
    assert starts._read_plain(path) is not None
    path.write_text("\n".join(["1", header, *lines]))
    assert starts._read_plain(path) is None


@cache
def hot_argon(name: str) -> Trajectory:
    thermostat = {"langevin": LANGEVIN, "nose_hoover": NOSE_HOOVER}[name]
    chosen = settings(
        thermostat=thermostat, walkers=8, timestep_fs=8.0, equilibration_fs=3200.0, production_fs=12800.0,
        stride_fs=160.0,
    )  # fmt: skip
    return simulate(chosen)


@pytest.mark.parametrize(("name", "freedom"), [("langevin", 96), ("nose_hoover", 93)])
def test_kinetic_energy_has_its_canonical_distribution(name: str, freedom: int) -> None:
    """Mean and variance of a chi-square; Nose-Hoover keeps the momentum of the centre of mass at zero."""
    temperature = hot_argon(name).temperatures.reshape(8, -1)
    samples = temperature.size / 2
    assert temperature.mean() == pytest.approx(60, abs=4 * 60 * np.sqrt(2 / freedom / samples))
    assert np.var(temperature) == pytest.approx(60**2 * 2 / freedom, rel=5 * np.sqrt(2 / samples))


def test_walkers_are_independent() -> None:
    for name in ("langevin", "nose_hoover"):
        temperature = hot_argon(name).temperatures.reshape(8, -1)
        correlation = np.corrcoef(temperature)[np.triu_indices(8, 1)]
        assert np.abs(correlation).max() < 0.6
        assert abs(correlation.mean()) < 0.1


@pytest.mark.parametrize(
    "thermostat", [{"name": "langevin", "friction_per_ps": 20.0}, {"name": "nose_hoover", "time_constant_fs": 30.0}]
)
def test_harmonic_crystal_has_half_kt_per_mode(thermostat: dict[str, Any]) -> None:
    """<U> - U(0) = (3N - 3) kT/2: the centre of mass feels no potential."""
    chosen = settings(
        thermostat=thermostat, walkers=16, timestep_fs=2.0, equilibration_fs=800.0, production_fs=3200.0,
        stride_fs=40.0, skin=0.4,
    )  # fmt: skip
    trajectory = simulate(chosen, start(silicon(), 16), model=stillinger_weber(), temperature=10.0)
    excess = trajectory.energies - 8 * -4.33663
    expected = 21 / 2 * units.BOLTZMANN * 10
    assert excess.mean() == pytest.approx(expected, rel=0.04)


class StopAfter(Stop):
    """Asks to stop at the n-th question."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def requested(self) -> EngineError | None:
        self.left -= 1
        return EngineError(ExitStatus.INTERRUPTED, "enough") if self.left == 0 else None


@pytest.mark.parametrize(("thermostat", "calls"), [(LANGEVIN, 4), (NOSE_HOOVER, 1)])
def test_restart_continues_bit_for_bit(tmp_path: Path, thermostat: dict[str, Any], calls: int) -> None:
    chosen = settings(thermostat=thermostat, equilibration_fs=32.0, production_fs=160.0, skin=0.1)
    whole = simulate(chosen)
    with pytest.raises(EngineError, match="enough"):
        simulate(chosen, stop=StopAfter(calls), folder=tmp_path)
    assert (tmp_path / CHECKPOINT).exists()
    resumed = simulate(chosen, folder=tmp_path)
    for field in ("positions", "energies", "walkers", "times", "temperatures", "last_positions", "last_velocities"):
        np.testing.assert_array_equal(getattr(resumed, field), getattr(whole, field))
    if calls == 4:
        path, begin = tmp_path / CHECKPOINT, start(argon(), 2)
        moved = replace(begin, positions=begin.positions + 0.01)
        for other in ({"machine": Machine(precision="float32")}, {"seed": 9}, {"begin": moved}):
            with pytest.raises(EngineError, match="checkpoint of another") as caught:
                simulate(chosen, folder=tmp_path, **other)
            assert caught.value.status == ExitStatus.CORRUPT_FILE
        arrays, metadata = read_arrays(path)
        write_arrays(path, {key: array for key, array in arrays.items() if key != "built_scale"}, metadata)
        with pytest.raises(EngineError, match=r"lacks what a checkpoint has.*built_scale") as caught:
            simulate(chosen, folder=tmp_path)
        assert caught.value.status == ExitStatus.CORRUPT_FILE


def test_overflow_repeats_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists with room for the first shell only, while atoms of the second shell come near."""
    chosen = settings(production_fs=800.0, stride_fs=40.0, skin=0.3)
    ample = simulate(chosen)
    grown = []
    enlarge = run.relisted
    monkeypatch.setattr(run, "relisted", lambda *a: (grown.append(a[1]), enlarge(*a))[1])
    monkeypatch.setattr(run, "list_capacity", lambda *a: Capacity(12, 0))
    tight = simulate(chosen)
    assert grown
    assert all(capacity.neighbors > 12 for capacity in grown)
    np.testing.assert_allclose(tight.positions, ample.positions, atol=1e-6)
    np.testing.assert_allclose(tight.last_velocities, ample.last_velocities, atol=1e-9)


def test_bins_that_overflow_repeat_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bins with room for what the crystal at the start puts in them, no atom more, and edges on its planes."""
    monkeypatch.setattr(space, "GRID_COST", 0.0)
    monkeypatch.setattr(linked_cells, "OFFSET", 0.0)
    chosen = settings(production_fs=400.0, stride_fs=40.0, skin=0.3)
    ample = simulate(chosen)
    assert isinstance(space.search(argon().cell, 5.3, 32), linked_cells.Grid)
    grown = []
    capacity, enlarge = run.list_capacity, run.relisted
    monkeypatch.setattr(run, "relisted", lambda *a: (grown.append(a[1]), enlarge(*a))[1])
    monkeypatch.setattr(run, "list_capacity", lambda *a: capacity(*a)._replace(room=4))
    tight = simulate(chosen)
    assert grown
    assert all(capacity.room > 4 for capacity in grown)
    np.testing.assert_allclose(tight.positions, ample.positions, atol=1e-6)


def test_atoms_that_outrun_a_list_repeat_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A skin that atoms cross in one step: the same trajectory as with a wide one."""
    narrow = settings(timestep_fs=8.0, stride_fs=16.0, production_fs=320.0, skin=0.02)
    widened = []
    widen = run.widened
    monkeypatch.setattr(run, "widened", lambda *a: (widened.append(a[1]), widen(*a))[1])
    found = simulate(narrow)
    assert widened
    assert min(widened) > 0.01
    wide = simulate(narrow.model_copy(update={"skin": 1.0}))
    np.testing.assert_allclose(found.positions, wide.positions, atol=1e-6)


def test_a_block_whose_lists_ended_is_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missed neighbours may be what is wrong; what is still wrong with complete lists ends the run."""
    narrow = settings(timestep_fs=8.0, stride_fs=16.0, production_fs=320.0, skin=0.02)
    judged = []
    verdict = EngineError(ExitStatus.ATOMS_TOO_CLOSE, "too close")

    def failure(*_: object) -> EngineError | None:
        judged.append(verdict)
        return verdict if len(judged) in failing else None

    monkeypatch.setattr(guards, "failure", failure)
    failing = {1}
    assert len(simulate(narrow).energies) == 40
    judged.clear()
    failing = {1, 2, 3}
    with pytest.raises(EngineError, match="too close"):
        simulate(narrow)
    assert len(judged) == 2


def test_atoms_too_fast_for_any_list_are_refused() -> None:
    potential, _ = lennard_jones()
    system = System(potential, ("Ar",), 9 * np.eye(3), 60.0, settings(skin=8.0), "float64", widened=3.0)
    with pytest.raises(EngineError, match="too fast for any neighbour list; use a shorter time step"):
        run.widened(system, 20.0)


def test_the_skin_follows_the_atoms() -> None:
    """Wider for hot and light atoms and long steps, within bounds; a given one is kept."""
    potential, _ = lennard_jones()

    def skin(temperature: float, **changes: Any) -> float:
        chosen = settings(**{"skin": None, **changes})
        return System(potential, ("Ar",), 9 * np.eye(3), temperature, chosen, "float64").skin

    assert skin(1.0) < skin(60.0) < skin(600.0) <= 2.0
    assert skin(60.0, timestep_fs=1.0) < skin(60.0, timestep_fs=8.0)
    assert skin(60.0, skin=0.37) == 0.37


def test_a_trajectory_continues_another() -> None:
    """Positions and velocities: without friction two halves are the whole."""
    whole = simulate(settings(thermostat=NO_FRICTION, production_fs=160.0))
    half = settings(thermostat=NO_FRICTION, production_fs=80.0)
    first = simulate(half)
    second = simulate(half, starts.start_walkers(2, start(argon(), 1), first))
    np.testing.assert_allclose(second.last_positions, whole.last_positions, atol=1e-10)
    np.testing.assert_allclose(second.last_velocities, whole.last_velocities, atol=1e-12)
    whole_positions = whole.positions.reshape(2, 20, 32, 3)
    np.testing.assert_allclose(second.positions.reshape(2, 10, 32, 3), whole_positions[:, 10:], atol=1e-7)
    np.testing.assert_array_equal(first.times, np.tile(8.0 * np.arange(1, 11), 2))
    np.testing.assert_array_equal(first.walkers, [0] * 10 + [1] * 10)
    assert first.positions.dtype == np.float32

    more = starts.start_walkers(5, start(argon(), 1), first)
    assert more.velocities is None
    np.testing.assert_array_equal(more.positions[4], first.last_positions[0])
    with pytest.raises(EngineError, match="another order of atoms") as caught:
        starts.start_walkers(2, start(argon(1), 1), first)
    assert caught.value.status == ExitStatus.INVALID_INPUT


def test_nose_hoover_stops_the_centre_of_mass() -> None:
    """Of a start with the velocities of a Langevin run too."""
    first = simulate(settings())
    momentum = first.last_velocities.sum(1)
    assert np.abs(momentum).max() > 1e-6
    second = simulate(settings(thermostat=NOSE_HOOVER), starts.start_walkers(2, start(argon(), 1), first))
    np.testing.assert_allclose(second.last_velocities.sum(1), 0, atol=1e-12)


def test_a_nose_hoover_chain_begins_with_the_kinetic_energy_of_atoms_at_rest_together() -> None:
    """Σ p²/2m of momenta whose sum is zero, in 3N - 3 degrees of freedom."""
    chosen = settings(thermostat=NOSE_HOOVER)
    system = System(lennard_jones()[0], ("Ar",) * 4, 9 * np.eye(3), 60.0, chosen, "float64")
    init, _ = integrator(system, lambda x, scale: (0 * x, 0 * scale), jnp.dtype("float64"))
    state = init(jax.random.key(0), jnp.zeros((4, 3)), jnp.ones(()), mass=jnp.array([4.0, 20.0, 40.0, 84.0]))
    p, m = np.asarray(state.momentum), np.array([4.0, 20.0, 40.0, 84.0])
    np.testing.assert_allclose(p.sum(0), 0, atol=1e-12)
    assert float(state.chain.kinetic_energy) == pytest.approx(np.sum(p**2 / m[:, None]) / 2, rel=1e-12)
    assert state.chain.degrees_of_freedom == 9


def test_atoms_that_overlap_at_the_start() -> None:
    overlapping = argon()
    overlapping.positions[5] = overlapping.positions[0] + [0.2, 0.1, 0.0]
    with pytest.raises(EngineError, match=r"0\.224 Å apart") as caught:
        simulate(settings(), start(overlapping, 2))
    assert caught.value.status == ExitStatus.ATOMS_TOO_CLOSE


def stopped(folder: Path, begin: Atoms, **changes: Any) -> tuple[EngineError, Trajectory | None]:
    with pytest.raises(EngineError) as caught:
        # 97 snapshots: one for each call.
        simulate(settings(production_fs=388.0, stride_fs=4.0, **changes), start(begin, 2), folder=folder)
    written = folder / TRAJECTORY
    return caught.value, read_trajectory(written) if written.exists() else None


def test_atoms_that_come_too_close(tmp_path: Path) -> None:
    error, kept = stopped(tmp_path, argon(), min_distance=3.55)
    assert error.status == ExitStatus.ATOMS_TOO_CLOSE
    assert error.diagnostics["min_distance"] < 3.55
    assert kept is not None
    assert 2 <= len(kept.energies) < 2 * 97
    assert np.isfinite(kept.energies).all()
    closest = [np.min(distances(x, kept.cell)) for x in kept.positions]
    assert min(closest) > 3.55 - 1e-5


def distances(x: np.ndarray, cell: np.ndarray) -> np.ndarray:
    difference = x[None] - x[:, None]
    difference -= np.round(difference)
    return np.linalg.norm(difference @ cell, axis=-1)[np.triu_indices(len(x), 1)]


def test_temperature_out_of_bounds(tmp_path: Path) -> None:
    rattled = argon()
    rattled.rattle(0.4, seed=1)
    error, kept = stopped(tmp_path, rattled, max_temperature_ratio=1.2, min_distance=0.5)
    assert error.status == ExitStatus.TEMPERATURE_OUT_OF_BOUNDS
    assert error.diagnostics["temperature"] > 1.2 * 60
    assert kept is None or kept.temperatures.max() < error.diagnostics["temperature"]


def test_energies_that_are_not_finite() -> None:
    potential, parameters = lennard_jones()
    broken = {**parameters, "terms": {"0_lennard_jones": {"epsilon": jnp.array([np.nan]), "sigma": jnp.array([3.4])}}}
    with pytest.raises(EngineError, match="not finite") as caught:
        simulate(settings(), model=(potential, broken))
    assert caught.value.status == ExitStatus.NOT_FINITE


def test_positions_that_are_not_finite() -> None:
    potential, _ = lennard_jones()
    symbols = tuple(argon().get_chemical_symbols())
    system = System(potential, symbols, argon().cell.array, 60.0, settings(), "float64")
    good = Snapshot(
        np.zeros((1, 2, 32, 3)), np.full((1, 2), 60.0), np.full((1, 2), 3.5), np.array([[True, True]]), np.ones((1, 2))
    )
    assert guards.failure(system, good, 2, 5) is None
    failure = guards.failure(system, good._replace(finite=np.array([[True, False]])), 2, 5)
    assert failure is not None
    assert failure.status == ExitStatus.NOT_FINITE
    assert "walker 1 are not finite after 40 fs" in failure.message
    # The second walker may be a copy that only fills a device.
    assert guards.failure(system, good._replace(finite=np.array([[True, False]])), 1, 5) is None


def test_miscompiled_energies_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    jit = jax.jit
    potential, _ = lennard_jones()

    def biased(function: Any, **options: Any) -> Any:
        if getattr(function, "__name__", "") == "energies":
            return jit(lambda *a: function(*a) * (1 + 2e-4))
        return jit(function, **options)

    monkeypatch.setattr(jax, "jit", biased)
    with pytest.raises(EngineError, match="miscompiles") as caught:
        simulate(settings(), model=(potential, potential.init(jax.random.key(0))))
    assert caught.value.status == ExitStatus.SELF_CHECK_FAILED


def test_snapshots_per_call_divides_both_phases() -> None:
    potential, _ = lennard_jones()
    for equilibration, production, per_call in ((0, 970, 1), (0, 800, 5), (250, 1000, 5), (40, 120, 4), (30, 70, 1)):
        chosen = settings(equilibration_fs=equilibration, production_fs=production, stride_fs=10.0, timestep_fs=1.0)
        system = System(potential, ("Ar",), 9 * np.eye(3), 60.0, chosen, "float64")
        assert system.snapshots_per_call == per_call


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", r"frame 0 of structure\.extxyz \(line 1\) begins with 'nonsense'"),
        ('1\nLattice="9 0 0 0 9 0 0 0 9" pbc="F F F"\nAr 0 0 0\n', r"has pbc \[False, False, False\], and what is sim"),
        ('1\nLattice="9 0 0 0 9 0 0 0 9" pbc="T T F"\nAr 0 0 0\n', r"has pbc \[True, True, False\], and what is sim"),
        (2 * '1\nLattice="9 0 0 0 9 0 0 0 9"\nAr 0 0 0\n', r"gives 2 frames where one .* structure\.extxyz@-1 for the"),
        ('1\nProperties=species:S:1:pos:R:3 pbc="F F F"\nAr 0 0 0\n', "no three-dimensional cell"),
        (
            '2\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3 pbc="T T T"\nAr 0 0 0\nAr 1 nan 1\n',
            r"position of atom 1 in structure\.extxyz is \[1\.0, nan, 1\.0\]",
        ),
        (
            '1\nLattice="9 0 0 0 9 0 0 9 0.001" Properties=species:S:1:pos:R:3 pbc="T T T"\nAr 0 0 0\n',
            r"structure\.extxyz: its cell is 0\.001 Å thick; at least 0\.4 Å",
        ),
        (
            '1\nLattice="1e9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3 pbc="T T T"\nAr 0 0 0\n',
            r"structure\.extxyz: its cell is 1e\+09 Å long; at most 10000 Å are simulated",
        ),
    ],
)
def test_structures_that_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "structure.extxyz").write_text(content)
    with pytest.raises(EngineError, match=message):
        starts.read_structure(tmp_path / "structure.extxyz")


def test_one_of_several_frames(tmp_path: Path) -> None:
    frame = '1\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3 pbc="T T T"\nAr 0 0 {}\n'
    (tmp_path / "md.extxyz").write_text(frame.format(0.9) + frame.format(1.8))
    assert starts.read_structure(tmp_path / "md.extxyz@0").positions[0, 0, 2] == pytest.approx(0.1)
    assert starts.read_structure(tmp_path / "md.extxyz@-1").positions[0, 0, 2] == pytest.approx(0.2)


@pytest.mark.parametrize("thermostat", [{"name": "langevin"}, NOSE_HOOVER])
def test_steps_can_be_differentiated(thermostat: object) -> None:
    """In fractional coordinates too: jax-md's own shift hands derivatives on as if the cell were of unit size."""
    term = {"architecture": "external_polynomial", "cutoff": 0.1, "hyperparameters": {"coefficients": [0.0, 0.0, 1.0]}}
    potential = potentials.build(PotentialSpec.model_validate({"species": ["He"], "terms": [term]}))
    chosen = SamplingSettings.model_validate({"timestep_fs": 2.0, "thermostat": thermostat})
    system = System(potential, ("He",), 5.0 * np.eye(3), 300.0, chosen, "float64")

    def force(positions: jax.Array, scale: jax.Array, *, stiffness: jax.Array) -> tuple[jax.Array, jax.Array]:
        return -stiffness * 5.0 * (positions - 0.5), 0 * scale

    init, apply = integrator(system, force, jnp.dtype("float64"))
    start = init(jax.random.key(1), jnp.full((1, 3), 0.51), jnp.ones(()), mass=jnp.array([4.0]), stiffness=1.0)

    @jax.jit
    def place(stiffness: jax.Array) -> jax.Array:
        state = jax.lax.scan(lambda state, _: (apply(state, stiffness=stiffness), None), start, None, length=20)[0]
        return jnp.sum(state.position**2)

    step = 1e-4
    expected = (place(1.0 + step) - place(1.0 - step)) / (2 * step)
    assert expected != 0
    assert jax.grad(place)(1.0) == pytest.approx(float(expected), rel=1e-3)
