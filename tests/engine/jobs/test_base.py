"""Jobs of a potential with a base: labels without it, predictions of the sum, a refinement, and refusals."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.mixing import SumCalculator
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.engine.bases import loading
from aiida_difftre.engine.bases.base_pass import arrays_of
from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract import files, known_bases
from aiida_difftre.engine.contract.jobs import (
    DATASET,
    POTENTIAL_IN,
    POTENTIAL_OUT,
    PREDICTIONS,
    STRUCTURE,
    TRAJECTORY,
    PredictJob,
    PretrainJob,
    RefineJob,
    SampleJob,
    UpdateJob,
)
from aiida_difftre.engine.contract.known_bases import KnownBase
from aiida_difftre.engine.contract.labels import read_labelled
from aiida_difftre.engine.contract.results import UpdateResults
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.trajectories import read_trajectory, write_trajectory
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import predict, pretrain, refine, sample, update
from aiida_difftre.engine.matching.dataset_loss import dataset_loss
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.runtime.progress import Silent
from tests.fixtures.engine import DOUBLE, rattled, silicon, target

MACHINE = {"precision": "float64"}
REPULSION = {"architecture": "repulsion", "cutoff": 4.0, "hyperparameters": {"epsilon": 0.05, "sigma": 2.3}}
SPLINE = {"architecture": "pair_spline", "cutoff": 4.0, "hyperparameters": {"knots": 6, "inner": 2.0}}
EMT_BASE = {"engine": "ase", "name": "emt"}
SAMPLING = {
    "walkers": 2, "timestep_fs": 4.0, "equilibration_fs": 80.0, "production_fs": 400.0, "stride_fs": 40.0,
}  # fmt: skip


def spec(term: dict[str, Any], **changes: Any) -> PotentialSpec:
    return validate(PotentialSpec, {"species": ["Cu"], "terms": [term], "base": EMT_BASE, **changes})


def copper(seed: int = 0) -> Atoms:
    atoms = bulk("Cu", "fcc", 3.55, cubic=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repulsion on top of EMT, and crystals with the labels of their sum."""
    potential = potentials.build(spec(REPULSION))
    potentials.save(tmp_path / POTENTIAL_IN, potential, potential.init(jax.random.key(0)))
    terms = DiffTReCalculator(potential.without_base(), potential.init(jax.random.key(0)))
    frames = []
    for seed in range(6):
        atoms = copper(seed)
        atoms.calc = SumCalculator([EMT(), terms])
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    ase.io.write(tmp_path / DATASET, frames)
    ase.io.write(tmp_path / STRUCTURE, copper())
    return tmp_path


def test_predictions_and_the_calculator_give_the_sum(folder: Path) -> None:
    job = validate(PredictJob, {"structures": DATASET, "static_stiffness": True, "machine": MACHINE})
    results = predict.run(job, folder, Silent())
    assert results.errors is not None
    assert results.errors.energy_rmse < 1e-4  # meV/atom
    assert results.errors.force_rmse < 1e-3
    assert results.errors.stress_rmse < 1e-6
    calculator = DiffTReCalculator(folder / POTENTIAL_IN)
    frame = ase.io.read(folder / DATASET, 0)
    labels = frame.calc.results
    frame.calc = calculator
    assert frame.get_potential_energy() == pytest.approx(labels["energy"], abs=1e-6)
    np.testing.assert_allclose(frame.get_stress(), labels["stress"], atol=1e-7)
    assert results.static is not None
    assert results.static.stiffness["C11"] > 150  # EMT alone has some 170 GPa


def test_labels_to_match_are_without_the_base(folder: Path) -> None:
    content = {"potential": spec(SPLINE).model_dump(), "steps": 1, "machine": MACHINE, "validation_fraction": 0.4}
    content["optimizer"] = {"learning_rate": 1e-12}  # the spline stays zero
    found = pretrain.run(validate(PretrainJob, content), folder, Silent())
    assert found.errors.training is not None
    assert files.read_potential(folder / POTENTIAL_OUT)[0].base == spec(SPLINE).base
    left = [forces_of_repulsion(folder, frame) for frame in ase.io.read(folder / DATASET, ":")]
    parts = {"training": found.errors.training, "validation": found.errors.validation}
    assert found.configurations == {"training": 4, "validation": 2}
    squares = sum(part.force_rmse**2 * found.configurations[name] for name, part in parts.items())
    assert np.sqrt(squares / 6) == pytest.approx(1e3 * np.sqrt(np.mean(np.square(left))), rel=1e-4)


def test_reference_energies_of_atoms_alone_are_without_the_base(folder: Path) -> None:
    alone = Atoms("Cu")
    alone.calc = SinglePointCalculator(alone, energy=-5.0)
    ase.io.write(folder / DATASET, alone, append=True)
    alone.calc = EMT()
    content = {"potential": spec(SPLINE).model_dump(), "steps": 0, "machine": MACHINE}
    found = pretrain.run(validate(PretrainJob, content), folder, Silent())
    assert abs(alone.get_potential_energy()) > 1
    assert found.atomic_energies["Cu"] == pytest.approx(-5.0 - alone.get_potential_energy())


def forces_of_repulsion(folder: Path, frame: Atoms) -> np.ndarray:
    potential, parameters = potentials.load(folder / POTENTIAL_IN)
    frame.calc = DiffTReCalculator(potential.without_base(), parameters)
    return frame.get_forces()


def test_an_update_takes_the_labels_of_the_base_from_a_prediction(folder: Path) -> None:
    potential, parameters = potentials.load(folder / POTENTIAL_IN)
    loss = {"dataset_weight": 1.0}
    point = {"label": "a", "temperature": 300.0, "targets": [target("pressure", [0.0]).model_dump()]}
    content: dict[str, Any] = {"dataset": DATASET, "state_points": [point], "update": {"loss": loss}}
    with pytest.raises(EngineError, match=r"which an update does not evaluate; predict the dataset .* as base_labels"):
        update.without_base(validate(UpdateJob, content), potential.spec, folder)
    predict.run(validate(PredictJob, {"structures": DATASET, "machine": MACHINE}), folder, Silent())
    job = validate(UpdateJob, {**content, "base_labels": PREDICTIONS})
    without = update.without_base(job, potential.spec, folder)
    extra = dataset_loss(potential, folder / DATASET, job.update.loss, DOUBLE, None, without)
    assert extra is not None
    assert extra(parameters)[0] < 1e-10  # the repulsion is what was added to EMT
    assert without is not None
    other = read_labelled(folder / DATASET)
    other.frames[0].positions += 0.1
    with pytest.raises(EngineError, match="is of other configurations than the dataset"):
        without(other)
    found = read_labelled(folder / DATASET)
    whole = files.read_npz(folder / PREDICTIONS)
    for name, array, message in (
        (
            "base_forces",
            whole["base_forces"][1:],
            r"base_forces is float64 of the shape \(23, 3\), not",
        ),
        ("base_energies", np.full(6, np.nan), "base_energies holds what is no finite number"),
        ("base_digest", None, "is not a readable file of predictions of a potential with a base"),
    ):
        changed = {key: value for key, value in (whole | {name: array}).items() if value is not None}
        files.write_npz(folder / PREDICTIONS, changed)
        with pytest.raises(EngineError, match=message):
            without(found)
    files.write_npz(folder / PREDICTIONS, whole)
    wrong = spec(REPULSION, base={"engine": "jax", "name": "lennard_jones"})
    with pytest.raises(EngineError, match="is of a base with the digest"):
        update.without_base(job, wrong, folder)(other)  # type: ignore[misc]  # there is one


SW = {"epsilon": 2.1683, "sigma": 2.0951}
SILICON_SPLINE = {"architecture": "pair_spline", "cutoff": 3.5, "hyperparameters": {"knots": 6, "inner": 2.0}}


def stillinger_weber(species: tuple[str, ...]) -> DiffTReCalculator:
    """Stillinger-Weber as a calculator of ASE, as a package would register one."""
    term = {"architecture": "stillinger_weber", "cutoff": 3.7712, "hyperparameters": SW}
    potential = potentials.build(validate(PotentialSpec, {"species": list(species), "terms": [term]}))
    return DiffTReCalculator(potential, potential.init(jax.random.key(0)))


FIXED = {"architecture": "stillinger_weber", "cutoff": 3.7712, "hyperparameters": SW, "trainable": False}


def updated(folder: Path, base: dict[str, Any] | None) -> tuple[dict[str, Any], UpdateResults]:
    """Parameters of the spline, and results, after an update with labels, for a kind of base; None for a term."""
    whole = potentials.build(validate(PotentialSpec, {"species": ["Si"], "terms": [SILICON_SPLINE, FIXED]}))
    snapshots = rattled(
        whole, whole.init(jax.random.key(0)), silicon(5.4), snapshots=12, amplitude=0.05, temperature=300.0
    )
    point = {"label": "a", "temperature": 300.0, "targets": [target("pressure", [1.0], error=0.5).model_dump()]}
    content: dict[str, Any] = {
        "state_points": [point], "machine": MACHINE, "dataset": DATASET,
        "update": {"loss": {"dataset_weight": 1.0}, "gate": 0.1, "max_steps": 2, "bootstrap": 10},
    }  # fmt: skip
    potential = whole
    if base is not None:
        potential = potentials.build(
            validate(PotentialSpec, {"species": ["Si"], "terms": [SILICON_SPLINE], "base": base})
        )
        assert potential.spec.base is not None
        loaded = loading.load(potential.spec.base, ["Si"], folder)
        arrays = arrays_of(snapshots, loaded, potential.spec.base.digest, born_stride=0, progress=Silent())
        snapshots = replace(snapshots, base=arrays)
    potentials.save(folder / POTENTIAL_IN, potential, potential.init(jax.random.key(0)))
    write_trajectory(folder / TRAJECTORY, snapshots)
    if base is not None and base["engine"] == "ase":
        predict.run(validate(PredictJob, {"structures": DATASET, "machine": MACHINE}), folder, Silent())
        content["base_labels"] = PREDICTIONS
    results = update.run(validate(UpdateJob, content), folder, Silent())
    parameters = files.read_potential(folder / POTENTIAL_OUT)[1]
    return {name: array for name, array in parameters.items() if "spline" in name}, results


def test_an_update_with_labels_is_that_of_a_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stillinger-Weber as a term, as a base of JAX, and as one that is called, of which the update sees numbers."""
    called = KnownBase("sw", "ase", "Stillinger-Weber", f"{__name__}:stillinger_weber")
    monkeypatch.setitem(known_bases.registry(), ("ase", "sw"), called)
    truth, frames = stillinger_weber(("Si",)), []
    for seed in range(3):
        frame = silicon(5.3 + 0.1 * seed)
        frame.rattle(0.1, seed=seed)
        frame.calc = truth
        labels = {"energy": frame.get_potential_energy() + 0.1 * seed, "forces": 1.1 * frame.get_forces()}
        frame.calc = SinglePointCalculator(frame, **labels, stress=frame.get_stress() + 0.01)
        frames.append(frame)
    ase.io.write(tmp_path / DATASET, frames)
    expected, of_term = updated(tmp_path, None)
    assert of_term.history[-1].loss < of_term.history[0].loss
    assert of_term.history[0].loss_extra > 0.1
    for base in (
        {"engine": "jax", "name": "stillinger_weber", "arguments": {"cutoff": 3.7712, **SW}},
        {"engine": "ase", "name": "sw"},
    ):
        found, results = updated(tmp_path, base)
        assert len(results.history) == len(of_term.history)
        for one, other in zip(results.history, of_term.history, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-6)
            assert one.loss_extra == pytest.approx(other.loss_extra, rel=1e-6)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-8)


def test_a_refinement_moves_the_terms_alone(folder: Path) -> None:
    potential = potentials.build(spec(SPLINE))
    potentials.save(folder / POTENTIAL_IN, potential, potential.init(jax.random.key(0)))
    point = {
        "label": "solid", "temperature": 300.0,
        "targets": [target("pressure", [2.0], error=0.5).model_dump()],
    }  # fmt: skip
    content: dict[str, Any] = {
        "state_points": [point], "sampling": SAMPLING, "machine": MACHINE, "max_iterations": 2, "validation": None,
        "update": {"optimizer": {"name": "gauss_newton"}, "gate": 0.5, "max_steps": 4, "bootstrap": 10},
    }  # fmt: skip
    results = refine.run(validate(RefineJob, content), folder, Silent())
    assert len(results.iterations) >= 2
    assert results.chi2 is not None
    assert results.chi2 < 0.2 * results.iterations[0].chi2
    after, arrays = files.read_potential(folder / POTENTIAL_OUT)
    assert after.base == potential.spec.base
    assert all("spline" in name or name == "atomic_energies" for name in arrays)


def test_an_update_loads_no_calculator(folder: Path) -> None:
    """The trajectory of a sampling job is all that an update needs of the base."""
    job = {"temperature": 300.0, "sampling": SAMPLING, "machine": MACHINE, "base_born_stride": 5}
    sample.run(validate(SampleJob, job), folder, Silent())
    found = read_trajectory(folder / TRAJECTORY)
    assert found.base is not None
    assert found.base.born is not None
    assert found.base.born.shape == (4, 6, 6)
    point = {"label": "a", "temperature": 300.0, "targets": [target("pressure", [0.0]).model_dump()]}
    content = {"state_points": [point], "machine": MACHINE, "update": {"max_steps": 1, "bootstrap": 10}}
    script = f"""
import sys
from pathlib import Path
from aiida_difftre.engine.contract.jobs import UpdateJob
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.runtime.progress import Silent
job = validate(UpdateJob, {content!r})
device.configure(job.machine)
from aiida_difftre.engine.jobs import update
results = update.run(job, Path({str(folder)!r}), Silent())
assert results.state_points["a"].before[0].values[0] > 1
assert not any(name in sys.modules for name in ("torch", "ase.calculators.emt", "torch_sim", "chgnet")), "loaded"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=600)


@pytest.mark.parametrize(
    ("structure", "changes", "message"),
    [
        (bulk("Ni", "fcc", 3.5, cubic=True), {}, "the structure contains Ni, but the potential is for Cu only"),
        (copper(), {"base_files": {"weights": "x"}}, "base_files: base 'emt' has no file 'weights'"),
    ],
)
def test_a_bad_base_is_refused_before_it_samples(
    folder: Path, structure: Atoms, changes: dict[str, Any], message: str
) -> None:
    ase.io.write(folder / STRUCTURE, structure)
    job = validate(SampleJob, {"temperature": 300.0, "sampling": SAMPLING, "machine": MACHINE, **changes})
    with pytest.raises(EngineError, match=message) as caught:
        sample.run(job, folder, Silent())
    assert caught.value.status == ExitStatus.INVALID_INPUT
