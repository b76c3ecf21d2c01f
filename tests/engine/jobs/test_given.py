"""A trajectory that exists as the first reference: equal to one of its own, or weighed from what sampled it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.jobs import Machine, RefineJob, SampleJob, SamplingSettings, UpdateSettings
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.trajectories import Trajectory, read_trajectory, write_trajectory
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.jobs import refine, sample
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting.reference import prepare_reference
from aiida_difftre.engine.runtime.progress import Silent
from aiida_difftre.engine.trajectories.importing import ImportSettings, import_trajectory
from tests.fixtures.engine import argon, lennard_jones, prepared, simulate, start

KELVIN = 60.0
SAMPLING = SamplingSettings(walkers=2, timestep_fs=4, equilibration_fs=800, production_fs=4800, stride_fs=80)
PRESSURE = {
    "observable": "pressure", "values": [0.0], "errors": [0.001], "unit": "GPa", "error_source": "assumed",
    "conditions": {"temperature": KELVIN}, "citation": "made up",
}  # fmt: skip


@pytest.fixture(scope="module")
def sampled() -> tuple[Potential, Parameters, Trajectory]:
    potential, parameters = lennard_jones()
    begin = start(argon(), 2)
    return potential, parameters, simulate(potential, parameters, begin, temperature=KELVIN, settings=SAMPLING)


@pytest.fixture
def folder(tmp_path: Path, sampled: tuple[Potential, Parameters, Trajectory]) -> Path:
    """A potential, its structure, and its trajectory as another program would have written it."""
    potential, parameters, trajectory = sampled
    potentials.save(tmp_path / "potential.safetensors", potential, parameters)
    bare = argon()
    ase.io.write(tmp_path / "structure.extxyz", Atoms(bare.symbols, bare.positions, cell=bare.cell, pbc=True))
    names = []
    for walker in range(2):
        chosen = np.flatnonzero(trajectory.walkers == walker)
        frames = []
        for index in chosen:
            atoms = Atoms(bare.symbols, cell=trajectory.cell, pbc=True)
            atoms.set_scaled_positions(trajectory.positions[index].astype(float))
            atoms.calc = SinglePointCalculator(atoms, energy=float(trajectory.energies[index]) + 7.0)
            frames.append(atoms)
        names.append(tmp_path / f"md{walker}.traj")
        ase.io.write(names[-1], frames)
    settings = ImportSettings(temperature=KELVIN, interval_fs=80.0, equilibration_fs=0.0)
    write_trajectory(tmp_path / "foreign.npz", import_trajectory(names, [], settings).trajectory)
    return tmp_path


def taken(folder: Path, name: str = "foreign.npz") -> tuple[Trajectory, sample.SampleResults]:
    job = SampleJob(
        temperature=KELVIN, sampling=SAMPLING, trajectory=name, machine=Machine(precision="float64"),
        observables=[{"observable": "pressure"}],
    )  # fmt: skip
    results = sample.run(job, folder, Silent())
    return read_trajectory(folder / "trajectory.npz"), results


def test_what_the_potential_itself_sampled_is_as_good_as_its_own_trajectory(
    folder: Path, sampled: tuple[Potential, Parameters, Trajectory]
) -> None:
    potential, parameters, own = sampled
    found, results = taken(folder)
    assert results.given is not None
    assert results.given.energies == "potential"
    assert results.given.n_eff_kish == pytest.approx(len(own.energies), rel=1e-9)
    assert found.energies == pytest.approx(own.energies, abs=1e-6)
    settings, target = UpdateSettings(), validate_target()
    before = [prepared(potential, parameters, one, [target], settings).before[0].values[0] for one in (own, found)]
    assert before[1] == pytest.approx(before[0], rel=1e-6)
    assert abs(before[0]) > 0.01  # and not that of an ideal gas alone
    assert results.predictions[0].values == pytest.approx(before[:1], rel=1e-6)


def validate_target():  # type: ignore[no-untyped-def]
    from aiida_difftre.engine.contract.targets import Target

    return validate(Target, PRESSURE)


def test_weights_are_relative_to_what_sampled(folder: Path, sampled: tuple[Potential, Parameters, Trajectory]) -> None:
    """A potential that is a little off: averages by the weights of both energies, which are worked out here."""
    potential, parameters, own = sampled
    moved = jax.tree.map(lambda leaf: leaf, parameters)
    moved["terms"]["0_lennard_jones"]["sigma"] = moved["terms"]["0_lennard_jones"]["sigma"] * 1.002
    potentials.save(folder / "potential.safetensors", potential, moved)
    found, results = taken(folder)
    assert results.given is not None
    assert results.given.energies == "trajectory"
    assert found.reference_energies == pytest.approx(own.energies + 7.0, abs=1e-6)
    exponent = -(found.energies - own.energies) / (8.617333262e-5 * KELVIN)
    weight = np.exp(exponent - exponent.max())
    weight /= weight.sum()
    assert results.given.n_eff_kish == pytest.approx(1 / (weight**2).sum(), rel=1e-5)
    assert 0.1 * len(weight) < results.given.n_eff_kish < 0.999 * len(weight)
    ref = prepare_reference(potential, moved, found, [], Machine(precision="float64"))
    assert np.asarray(ref.weights(jnp.asarray(found.energies))) == pytest.approx(weight, rel=1e-4)


def test_what_does_not_stand_for_the_potential_is_refused(
    folder: Path, sampled: tuple[Potential, Parameters, Trajectory]
) -> None:
    potential, parameters, _ = sampled
    moved = jax.tree.map(lambda leaf: leaf, parameters)
    moved["terms"]["0_lennard_jones"]["sigma"] = moved["terms"]["0_lennard_jones"]["sigma"] * 1.05
    potentials.save(folder / "potential.safetensors", potential, moved)
    with pytest.raises(EngineError, match=r"does not stand for the ensemble .* deviate by .* eV .* fewer than"):
        taken(folder)


def test_without_energies_the_potential_gives_them_and_zeros_never_count(folder: Path) -> None:
    foreign = read_trajectory(folder / "foreign.npz")
    for name, energies in (("none", np.full(len(foreign.energies), np.nan)), ("zeros", 0.0 * foreign.energies)):
        write_trajectory(folder / f"{name}.npz", replace(foreign, energies=energies))
    with pytest.raises(EngineError, match="imported without energies"):
        read_trajectory(folder / "none.npz")
    found, results = taken(folder, "none.npz")
    assert results.given is not None
    assert results.given.deviation is None
    assert found.energies == pytest.approx(foreign.energies - 7.0, abs=1e-6)
    with pytest.raises(EngineError, match="energies are the same in all snapshots"):
        taken(folder, "zeros.npz")


def test_a_refinement_begins_without_dynamics(
    folder: Path, sampled: tuple[Potential, Parameters, Trajectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first update is over before anything is sampled; what comes after starts along the trajectory."""
    write_trajectory(folder / "earlier.npz", sampled[2])
    earlier = {"label": "run1", "trajectory": "earlier.npz", "potential": "potential.safetensors"}
    point = {
        "label": "cold", "temperature": KELVIN, "trajectory": "foreign.npz", "targets": [PRESSURE], "earlier": [earlier]
    }  # fmt: skip
    job = validate(
        RefineJob,
        {
            "state_points": [point], "sampling": SAMPLING.model_dump(), "max_iterations": 1,
            "machine": {"precision": "float64"}, "update": {"optimizer": {"name": "gauss_newton"}, "max_steps": 3},
        },
    )  # fmt: skip
    begun: list[int] = []
    simulate_ = refine.simulated

    def noticed(setup, point, parameters, previous, **options):  # type: ignore[no-untyped-def]
        begun.append(len(previous.energies))
        return simulate_(setup, point, parameters, previous, **options)

    monkeypatch.setattr(refine, "simulated", noticed)
    results = refine.run(job, folder, Silent())
    assert begun == [len(read_trajectory(folder / "foreign.npz").energies)]  # the second iteration alone
    first, last = results.iterations
    assert first.update is not None
    assert first.update.steps >= 1
    (pooled,) = first.update.state_points["cold"].pool
    assert (pooled.label, pooled.is_used) == ("run1", True)
    assert abs(last.predictions["cold"][0].values[0]) < abs(first.predictions["cold"][0].values[0])


def test_with_a_base_energies_and_stresses_are_sums(
    folder: Path, sampled: tuple[Potential, Parameters, Trajectory]
) -> None:
    """What is a base here sampled the trajectory, and the correction to it is next to nothing."""
    potential, parameters, own = sampled
    term = potential.spec.terms[0]
    values = {"cutoff": term.cutoff, "epsilon": 0.0104, "sigma": 3.4}
    base = {"engine": "jax", "name": "lennard_jones", "arguments": values}
    on_top = potentials.build(potential.spec.model_copy(update={"base": BaseSpec.model_validate(base)}))
    tiny = jax.tree.map(lambda leaf: leaf, parameters)
    tiny["terms"]["0_lennard_jones"]["epsilon"] = 1e-9 * tiny["terms"]["0_lennard_jones"]["epsilon"]
    potentials.save(folder / "potential.safetensors", on_top, tiny)
    found, results = taken(folder)
    assert results.given is not None
    assert results.given.energies == "potential"
    assert found.energies == pytest.approx(own.energies, abs=1e-6)
    assert found.base is not None
    assert found.base.energies == pytest.approx(own.energies, abs=1e-6)
    alone = prepared(potential, parameters, own, [validate_target()], UpdateSettings()).before[0].values[0]
    assert results.predictions[0].values[0] == pytest.approx(alone, rel=1e-5)


def test_a_base_that_is_called_is_evaluated_on_what_is_imported(tmp_path: Path) -> None:
    """Copper of EMT, as another program would have sampled it, and a correction that starts at zero."""
    rng, crystal = np.random.default_rng(3), bulk("Cu", "fcc", 3.6, cubic=True)
    frames = []
    for _ in range(30):
        atoms = crystal.copy()
        atoms.positions += rng.normal(scale=0.06, size=(4, 3))
        atoms.calc = EMT()
        frames.append(atoms)
    wanted = np.array([[atoms.get_potential_energy(), *atoms.get_stress()] for atoms in frames])
    ase.io.write(tmp_path / "md.extxyz", frames)
    ase.io.write(tmp_path / "structure.extxyz", crystal)
    settings = ImportSettings(temperature=300.0, interval_fs=80.0, equilibration_fs=0.0)
    made = import_trajectory([tmp_path / "md.extxyz"], [], settings)
    write_trajectory(tmp_path / "foreign.npz", made.trajectory)
    zero = {"inner": 1.8, "knots": 4, "values": [0.0] * 4}
    term = {"architecture": "pair_spline", "cutoff": 4.0, "hyperparameters": zero}
    spec = {"species": ["Cu"], "base": {"engine": "ase", "name": "emt"}, "terms": [term]}
    potential = potentials.build(PotentialSpec.model_validate(spec))
    potentials.save(tmp_path / "potential.safetensors", potential, potential.init(jax.random.key(0)))
    job = SampleJob(
        temperature=300.0, sampling=SAMPLING, trajectory="foreign.npz", machine=Machine(precision="float64"),
        observables=[{"observable": "stress"}], base_born_stride=10,
    )  # fmt: skip
    results = sample.run(job, tmp_path, Silent())
    found = read_trajectory(tmp_path / "trajectory.npz")
    assert results.given is not None
    assert results.given.energies == "potential"  # those of the file are its own
    assert found.base is not None
    assert found.base.born is not None
    assert found.base.energies == pytest.approx(wanted[:, 0], abs=1e-5)
    assert found.energies == pytest.approx(wanted[:, 0], abs=1e-5)
    assert found.base.stresses == pytest.approx(wanted[:, 1:] / units.GPa, abs=1e-3)
    assert found.base.born.shape == (3, 6, 6)
    ideal = 4 * units.kB * 300.0 / crystal.get_volume() / units.GPa
    mean = wanted[:, 1:].mean(0) / units.GPa - ideal * np.array([1, 1, 1, 0, 0, 0])
    assert results.predictions[0].values == pytest.approx(mean, abs=1e-3)
