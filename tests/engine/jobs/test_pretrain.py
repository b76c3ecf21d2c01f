"""Pretraining: learns Stillinger-Weber silicon, resumes, keeps fixed terms fixed, refuses bad input."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.engine.contract.jobs import CHECKPOINT, POTENTIAL_OUT, PotentialSpec, PretrainJob, TermSpec
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import pretrain as pretrain_job
from aiida_difftre.engine.jobs.pretrain import run
from aiida_difftre.engine.matching import configurations as dataset
from aiida_difftre.engine.matching.fit import split
from aiida_difftre.engine.matching.prediction import predict_directly
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.parameters import flatten, without_references
from aiida_difftre.engine.runtime.progress import Silent

NETWORK = {"architecture": "moment_network", "cutoff": 4.5, "hyperparameters": {"n_radial": 5, "hidden": [16]}}
PRIOR = {
    "architecture": "repulsion",
    "cutoff": 3.0,
    "hyperparameters": {"epsilon": 0.1, "sigma": 1.5},
    "trainable": False,
}
OFFSET = -100.0


@pytest.fixture(scope="module")
def silicon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a data set of rattled and strained silicon, labelled by Stillinger-Weber and shifted."""
    term = TermSpec(architecture="stillinger_weber", cutoff=1.8 * 2.0951)
    potential = potentials.build(PotentialSpec(species=["Si"], terms=[term]))
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(24):
        atoms = bulk("Si", "diamond", a=5.431, cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.08, size=(8, 3))
        frames.append(atoms)
    free = without_references(potential.init(jax.random.key(0)), jnp.float64)
    configurations = dataset.pad(frames, ["Si"], potential.cutoff)
    labels = jax.jit(lambda c: predict_directly(potential, free, c))(configurations)
    for number, atoms in enumerate(frames):
        energy, forces, stress = (np.asarray(part[number]) for part in labels)
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy) + 8 * OFFSET, forces=forces, stress=stress)
    folder = tmp_path_factory.mktemp("silicon")
    ase.io.write(folder / "dataset.extxyz", frames)
    return folder


@pytest.fixture
def folder(silicon: Path, tmp_path: Path) -> Path:
    (tmp_path / "dataset.extxyz").write_bytes((silicon / "dataset.extxyz").read_bytes())
    return tmp_path


def pretrain(settings: PretrainJob, folder: Path, progress: Any) -> dict[str, Any]:
    """A job from its beginning to its end, at which the console script removes the checkpoint."""
    results = run(settings, folder, progress).content()
    (folder / CHECKPOINT).unlink()
    return results


def job(**changes: Any) -> PretrainJob:
    content = {
        "potential": {"species": ["Si"], "terms": [NETWORK, PRIOR]},
        "steps": 60,
        "batch_configurations": 6,
        "evaluate_every": 20,
        "machine": {"precision": "float64"},
        **changes,
    }
    return PretrainJob.model_validate(content)


class Recorder:
    """Keeps reports; calls ``then`` at the first."""

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        self.steps: list[int] = []
        self._then = then

    def report(self, phase: str, step: int, total: int, **numbers: float) -> None:
        self.steps.append(step)
        if self._then is not None and len(self.steps) == 1:
            self._then()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_learns_silicon(folder: Path, precision: str) -> None:
    recorder = Recorder()
    results = pretrain(job(steps=1500, evaluate_every=100, machine={"precision": precision}), folder, recorder)
    assert recorder.steps[-1] == 1500
    found = results["errors"]["validation"]
    assert found["energy_rmse"] < 10
    assert found["force_rmse"] < 100
    assert found["stress_rmse"] < 0.5
    assert results["configurations"] == {"training": 22, "validation": 2}
    assert results["history"][-1]["step"] == 1500
    assert results["history"][0]["force_rmse"] > found["force_rmse"]

    potential, parameters = potentials.load(folder / POTENTIAL_OUT)
    np.testing.assert_allclose(parameters["terms"]["1_repulsion"]["epsilon"], 0.1, rtol=1e-6)
    frames = dataset.read(folder / "dataset.extxyz").frames
    configurations = dataset.pad(frames, ["Si"], potential.cutoff)
    energies = jax.vmap(lambda e: jnp.sum(potential.energies(parameters, e)))(configurations.environment)
    assert np.max(np.abs(np.asarray(energies) - configurations.labels.energy)) / 8 < 0.05


def test_finds_the_energy_of_an_isolated_atom(tmp_path: Path) -> None:
    # Dimers and compressed crystals of ase's Lennard-Jones argon: the mean energy of the labels is far above an atom's.
    truth = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0, smooth=False)
    dimers = [Atoms("Ar2", [[0, 0, 0], [r, 0, 0]], cell=[20, 20, 20], pbc=True) for r in (3.2, 3.5, 3.8, 4.3, 5.0, 6.0)]
    frames = [*dimers, *(bulk("Ar", "fcc", a=a, cubic=True) for a in (4.7, 4.8, 4.9, 5.0, 5.2, 5.4, 5.7))]
    for number, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=number)
        truth.calculate(atoms)
        energy = float(truth.results["energy"]) + OFFSET * len(atoms)
        labels = {name: truth.results[name] for name in ("forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, energy=energy, **labels)
    ase.io.write(tmp_path / "dataset.extxyz", frames)
    spline = {"architecture": "pair_spline", "cutoff": 8.0, "hyperparameters": {"inner": 2.6, "knots": 20}}
    given = {"potential": {"species": ["Ar"], "terms": [spline]}, "steps": 2000, "evaluate_every": 200}
    results = pretrain(job(**given, validation_fraction=0.0), tmp_path, Silent())
    assert results["number_of_parameters"] == 21
    assert results["atomic_energies"]["Ar"] == pytest.approx(OFFSET, abs=2e-3)
    fixed = pretrain(job(**given, atomic_energies={"Ar": OFFSET + 0.05}), tmp_path, Silent())
    assert fixed["atomic_energies"]["Ar"] == OFFSET + 0.05
    assert results["errors"]["training"]["energy_rmse"] < 5 < fixed["errors"]["training"]["energy_rmse"]


def test_interrupted_and_resumed_ends_as_uninterrupted(folder: Path) -> None:
    whole = pretrain(job(), folder, Silent())
    expected = flatten(potentials.load(folder / POTENTIAL_OUT)[1])
    with pytest.raises(EngineError, match="SIGTERM") as caught:
        pretrain(job(), folder, Recorder(lambda: signal.raise_signal(signal.SIGTERM)))
    assert caught.value.status == ExitStatus.INTERRUPTED
    assert (folder / CHECKPOINT).exists()
    recorder = Recorder()
    resumed = pretrain(job(), folder, recorder)
    assert recorder.steps == [40, 60]
    assert not (folder / CHECKPOINT).exists()
    assert resumed["history"] == whole["history"]
    found = flatten(potentials.load(folder / POTENTIAL_OUT)[1])
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_walltime_writes_a_checkpoint_that_other_data_cannot_use(folder: Path) -> None:
    with pytest.raises(EngineError) as caught:
        pretrain(job(machine={"walltime_s": 1e-3}), folder, Silent())
    assert caught.value.status == ExitStatus.WALLTIME
    for other in ({"potential": {"species": ["Si"], "terms": [NETWORK]}}, {"seed": 9}, {"validation_fraction": 0.3}):
        with pytest.raises(EngineError, match="another potential, dataset, seed"):
            pretrain(job(**other), folder, Silent())
    (folder / CHECKPOINT).write_bytes(b"rubbish")
    with pytest.raises(EngineError) as caught:
        pretrain(job(), folder, Silent())
    assert caught.value.status == ExitStatus.CORRUPT_FILE


def test_early_stop_keeps_the_best(folder: Path) -> None:
    optimizer = {"learning_rate": 1.0, "name": "sgd", "clip_norm": 5.0, "final_learning_rate_fraction": 1.0}
    results = pretrain(job(steps=400, evaluate_every=10, patience=3, optimizer=optimizer), folder, Silent())
    assert results["stopped_early"]
    losses = [entry["loss"] for entry in results["history"]]
    assert results["best_loss"] == min(losses)
    assert results["best_step"] == results["history"][int(np.argmin(losses))]["step"]
    assert results["errors"]["validation"]["loss"] == pytest.approx(min(losses), rel=1e-9)


def test_continues_from_a_potential_without_validation(folder: Path) -> None:
    first = pretrain(job(), folder, Silent())
    (folder / "potential.safetensors").write_bytes((folder / POTENTIAL_OUT).read_bytes())
    again = pretrain(
        job(potential=None, initial_potential="potential.safetensors", validation_fraction=0.0), folder, Silent()
    )
    assert "validation" not in again["errors"]
    assert again["atomic_energies"] == first["atomic_energies"]
    assert again["errors"]["training"]["loss"] < first["errors"]["training"]["loss"]


def test_labels_far_from_the_volume_are_not_held_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights as the formula has them, written out; half of those that count at least a half in all validate."""
    parts: list[list[int]] = []
    monkeypatch.setattr(pretrain_job, "split", lambda *given: parts.append(split(*given)) or parts[-1])
    widths = {"energy": 0.02, "stress": 0.008, "volumes": [20.0, 20.4]}
    found = pretrain(job(steps=20, widths=widths, validation_fraction=0.5), folder, Silent())
    volumes = [atoms.get_volume() / 8 for atoms in ase.io.read(folder / "dataset.extxyz", index=":")]
    distances = np.array([min(abs(np.log(volume / 20.0)), abs(np.log(volume / 20.4))) for volume in volumes])
    expected = {name: np.exp(-(distances**2) / (2 * widths[name] ** 2)) for name in ("energy", "stress")}
    assert found["label_weights"].keys() == expected.keys()
    for name, weights in expected.items():
        np.testing.assert_allclose(found["label_weights"][name], weights, atol=5.1e-5)
    counting = np.flatnonzero(expected["stress"] >= 0.5)
    assert 4 <= len(counting) <= 20
    ((training, validation),) = parts
    assert set(validation) <= set(counting)
    assert found["configurations"] == {"training": len(training), "validation": round(len(counting) / 2)}


def test_large_data_sets_differentiate_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = pretrain(job(steps=20), folder, Silent())
    monkeypatch.setattr("aiida_difftre.engine.matching.prediction.JACOBIAN_LIMIT", 0)
    direct = pretrain(job(steps=20), folder, Silent())
    assert direct["best_loss"] == pytest.approx(stored["best_loss"], rel=1e-6)


def gold(folder: Path, box: str) -> None:
    """Gold of ase's EMT, whose single atom has 3.80 eV, with the atom in a box or in free space."""
    frames = [bulk("Au", a=a, cubic=True) for a in (3.9, 3.95, 4.0, 4.05, 4.1, 4.15)]
    for number, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=number)
    for atoms in frames:
        atoms.calc = EMT()
        atoms.get_stress()
    ase.io.write(folder / "gold.extxyz", frames)
    atom = Atoms("Au")
    atom.calc = EMT()
    energy = atom.get_potential_energy()
    assert energy == pytest.approx(3.80)
    with (folder / "gold.extxyz").open("a") as stream:
        stream.write(f"1\n{box} energy={energy} free_energy={energy}\nAu 0 0 0\n")


@pytest.mark.parametrize("box", ['pbc="F F F"', 'Lattice="15 0 0 0 15 0 0 0 15" config_type=IsolatedAtom'])
def test_atoms_alone_give_reference_energies_and_always_train(tmp_path: Path, box: str) -> None:
    gold(tmp_path, box)
    spline = {"architecture": "pair_spline", "cutoff": 6.0, "hyperparameters": {"inner": 2.0, "knots": 8}}
    spec = {"potential": {"species": ["Au"], "terms": [spline]}, "dataset": "gold.extxyz"}
    results = pretrain(job(**spec, steps=1000, evaluate_every=100, validation_fraction=0.5), tmp_path, Silent())
    assert results["atomic_energies"]["Au"] == pytest.approx(3.80)
    assert results["configurations"] == {"training": 4, "validation": 3}
    assert results["number_of_parameters"] == 8
    assert results["errors"]["validation"]["loss"] < 10
    assert "reference energies of Au from atoms alone" in results["labels"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"potential": {"species": ["Si", "Ge"], "terms": [NETWORK]}},
            "species Ge of the potential is in no configuration of the dataset",
        ),
        ({"keys": {"energy": "e_dft"}}, r"keys\.energy: no frame has e_dft"),
        ({"dataset": "dataset.extxyz@30:"}, r"dataset\.extxyz@30: means none of its 24 frames"),
        ({"atomic_energies": {"C": -1.0}}, "no reference energy for Si"),
        ({"dataset": "absent.extxyz"}, "absent.extxyz"),
        ({"potential": {"species": ["C"], "terms": [NETWORK]}}, "contains Si"),
        ({"potential": {"species": ["Si"], "terms": [PRIOR]}}, "no term of the potential is trainable"),
    ],
)
def test_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        pretrain(job(**changes), folder, Silent())
    assert caught.value.status == ExitStatus.INVALID_INPUT


def test_diverging_loss(folder: Path) -> None:
    optimizer = {"name": "sgd", "learning_rate": 100.0, "final_learning_rate_fraction": 1.0}
    with pytest.raises(EngineError, match="learning_rate") as caught:
        pretrain(job(optimizer=optimizer), folder, Silent())
    assert caught.value.status == ExitStatus.NOT_FINITE
