"""The loss of a dataset that is held on to: value, gradient, second derivative and offset in other ways."""

from __future__ import annotations

from pathlib import Path

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from jax.flatten_util import ravel_pytree

from aiida_difftre.engine.contract.jobs import LossSettings, Machine
from aiida_difftre.engine.contract.label_weights import DatasetWidths, volume_of
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.matching import configurations as dataset
from aiida_difftre.engine.matching import matching, prediction
from aiida_difftre.engine.matching.dataset_loss import DatasetLoss, dataset_loss
from aiida_difftre.engine.matching.prediction import predict_directly
from aiida_difftre.engine.potentials.parameters import without_references
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from tests.fixtures.mixed_configurations import frames, model

TERM = "0_lennard_jones"


def labelled(
    folder: Path, potential: Potential, parameters: Parameters, above: float = 0.0, force: float = 0.0
) -> Path:
    """Labels that the potential gives, but for a constant per atom (eV) and for forces (eV/Å)."""
    given = frames()
    configurations = dataset.pad(given, potential.spec.species, potential.cutoff)
    found = predict_directly(potential, without_references(parameters, jnp.float64), configurations)
    kinds = np.asarray(parameters["atomic_energies"])
    for number, atoms in enumerate(given):
        counts = [atoms.get_chemical_symbols().count(symbol) for symbol in potential.spec.species]
        energy = float(found.energy[number]) + counts @ kinds + above * len(atoms)
        forces = np.asarray(found.forces[number][: len(atoms)]) + force
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=np.asarray(found.stress[number]))
    path = folder / "dataset.extxyz"
    ase.io.write(path, given)
    return path


def loss_of(path: Path, potential: Potential, batch_size: int = 0, widths: DatasetWidths | None = None) -> DatasetLoss:
    machine = Machine(precision="float64", batch_size=batch_size)
    settings = LossSettings(dataset_weight=0.5, dataset_widths=widths or DatasetWidths())
    found = dataset_loss(potential, path, settings, machine)
    assert found is not None
    return found


def moved(parameters: Parameters, sigma: float) -> Parameters:
    term = parameters["terms"][TERM]
    changed = {**term, "sigma": term["sigma"].at[1].add(sigma)}
    return {**parameters, "terms": {**parameters["terms"], TERM: changed}}


@pytest.mark.parametrize(("limit", "batch_size"), [(0, 0), (1 << 30, 1)])
def test_value_and_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, batch_size: int) -> None:
    """The matching loss less a constant per atom, and finite differences."""
    monkeypatch.setattr(prediction, "JACOBIAN_LIMIT", limit)
    potential, truth = model()
    evaluate = loss_of(labelled(tmp_path, potential, truth, force=0.1), potential, batch_size)
    parameters = moved(truth, 0.03)
    value, gradient = evaluate(parameters)

    found = dataset.read_training(tmp_path / "dataset.extxyz").frames
    configurations = dataset.pad(found, potential.spec.species, potential.cutoff)
    predicted = predict_directly(potential, without_references(parameters, jnp.float64), configurations)
    references = matching.compositions(configurations, 2) @ np.asarray(parameters["atomic_energies"])
    excess = (predicted.energy + references - configurations.labels.energy) / configurations.sizes
    labels = configurations.labels._replace(
        energy=configurations.labels.energy - references + configurations.sizes * np.mean(excess)
    )
    weights = LossSettings().dataset_weights
    expected = 0.5 * matching.loss(predicted, labels, jnp.asarray(configurations.real), weights)
    assert value == pytest.approx(float(expected), rel=1e-6)
    assert evaluate.offset(parameters) == pytest.approx(float(np.mean(excess)), rel=1e-9)

    np.testing.assert_array_equal(gradient["atomic_energies"], 0)
    h = 1e-6
    numerical = (evaluate(moved(parameters, h))[0] - evaluate(moved(parameters, -h))[0]) / (2 * h)
    assert float(gradient["terms"][TERM]["sigma"][1]) == pytest.approx(numerical, rel=1e-5)


def test_a_constant_per_atom_is_no_error(tmp_path: Path) -> None:
    potential, truth = model()
    evaluate = loss_of(labelled(tmp_path, potential, truth, above=0.3), potential)
    assert evaluate(truth)[0] == pytest.approx(0, abs=1e-12)
    assert evaluate.offset(truth) == pytest.approx(-0.3, abs=1e-6)
    shifted = {**truth, "atomic_energies": truth["atomic_energies"] - evaluate.offset(truth)}
    assert evaluate.offset(shifted) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("limit", "width"), [(0, None), (1 << 30, None), (1 << 30, 0.1)])
def test_curvature_where_all_labels_are_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, width: float | None
) -> None:
    """There it is half of the second derivative, that of the predictions counting nothing."""
    monkeypatch.setattr(prediction, "JACOBIAN_LIMIT", limit)
    potential, truth = model()
    widths = DatasetWidths(energy=width, force=width, stress=width, volumes=[6.0] if width else [])
    evaluate = loss_of(labelled(tmp_path, potential, truth), potential, widths=widths)
    movable = [bool(moves) for moves in jax.tree.leaves(potential.trainable(truth))]
    leaves, structure = jax.tree.flatten(truth)
    moving, unravel = ravel_pytree([leaf for leaf, moves in zip(leaves, movable, strict=True) if moves])

    def gradient(step: np.ndarray) -> np.ndarray:
        given = iter(unravel(moving + step))
        whole = [next(given) if moves else leaf for leaf, moves in zip(leaves, movable, strict=True)]
        slopes = jax.tree.leaves(evaluate(jax.tree.unflatten(structure, whole))[1])
        return np.asarray(ravel_pytree([slope for slope, moves in zip(slopes, movable, strict=True) if moves])[0])

    ways = 1e-5 * np.random.default_rng(1).normal(size=(len(moving), 3))
    found = evaluate.curvature(truth, movable, ways)
    for way, product in zip(ways.T, found.T, strict=True):
        numerical = (gradient(way) - gradient(-way)) / 4
        np.testing.assert_allclose(product, numerical, atol=2e-4 * np.abs(numerical).max())


def test_labels_count_by_the_distance_of_their_volume(tmp_path: Path) -> None:
    """The weighted means, written out, and finite differences of them."""
    potential, truth = model()
    path = labelled(tmp_path, potential, truth, force=0.1)
    widths = DatasetWidths(energy=0.05, force=0.1, volumes=[6.0])
    evaluate, parameters = loss_of(path, potential, widths=widths), moved(truth, 0.03)
    value, gradient = evaluate(parameters)

    given = dataset.read_training(path).frames
    configurations = dataset.pad(given, potential.spec.species, potential.cutoff)
    found = predict_directly(potential, without_references(parameters, jnp.float64), configurations)
    sizes = configurations.sizes
    distances = np.log([volume_of(atoms) / 6.0 for atoms in given])
    energy, force = (np.exp(-0.5 * (distances / width) ** 2) for width in (0.05, 0.1))
    assert 0.05 < energy[1] / energy[0] < 20 != 1
    assert evaluate.weights == {"energy": energy.round(4).tolist(), "force": force.round(4).tolist()}
    references = matching.compositions(configurations, 2) @ np.asarray(parameters["atomic_energies"])
    excess = (found.energy + references - configurations.labels.energy) / sizes
    expected = 100 * np.average((excess - np.average(excess, weights=energy)) ** 2, weights=energy)
    squares = np.sum((found.forces - configurations.labels.forces) ** 2 * configurations.real[..., None], axis=(1, 2))
    expected += (force @ squares) / (force @ (3 * sizes))
    expected += 1e4 * np.mean((found.stress - configurations.labels.stress) ** 2)
    assert value == pytest.approx(0.5 * float(expected), rel=1e-6)
    assert evaluate.offset(parameters) == pytest.approx(float(np.average(excess, weights=energy)), rel=1e-9)

    h = 1e-6
    numerical = (evaluate(moved(parameters, h))[0] - evaluate(moved(parameters, -h))[0]) / (2 * h)
    assert float(gradient["terms"][TERM]["sigma"][1]) == pytest.approx(numerical, rel=1e-5)


def test_a_label_of_weight_zero_is_one_that_was_left_out(tmp_path: Path) -> None:
    potential, truth = model()
    path = labelled(tmp_path, potential, truth, force=0.1)
    crystal, primitive = ase.io.read(path, index=":")
    shorter = tmp_path / "shorter.extxyz"
    ase.io.write(shorter, crystal)
    width, parameters = 1e-3, moved(truth, 0.03)
    only_crystal = DatasetWidths(energy=width, force=width, stress=width, volumes=[volume_of(crystal)])
    assert abs(np.log(volume_of(primitive) / volume_of(crystal))) > 0.04
    weighted, without = loss_of(path, potential, widths=only_crystal), loss_of(shorter, potential)
    assert weighted.weights == {name: [1.0, 0.0] for name in ("energy", "force", "stress")}

    found, expected = weighted(parameters), without(parameters)
    assert found[0] == pytest.approx(expected[0], rel=1e-13)
    for one, other in zip(jax.tree.leaves(found[1]), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    assert weighted.offset(parameters) == pytest.approx(without.offset(parameters), rel=1e-13)

    with pytest.raises(EngineError, match=r"loss\.dataset_widths\.energy = 0\.001 leaves 0 labels in all"):
        loss_of(path, potential, widths=DatasetWidths(energy=width, volumes=[12.0]))


def test_none_without_dataset_or_weight(tmp_path: Path) -> None:
    potential, _ = model()
    assert dataset_loss(potential, None, LossSettings(dataset_weight=1.0), Machine()) is None
    assert dataset_loss(potential, tmp_path / "absent", LossSettings(), Machine()) is None
