"""Potentials without labels: initial parameters, standardised on rattled structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import jax
import numpy as np
import pytest
from ase.build import bulk

from aiida_difftre.engine.contract.jobs import POTENTIAL_OUT, PretrainJob
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs.pretrain import run as pretrain
from aiida_difftre.engine.matching import configurations
from aiida_difftre.engine.matching.initial import ENVIRONMENTS, rattled
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.parameters import flatten
from aiida_difftre.engine.runtime.progress import Silent

NETWORK = {"architecture": "moment_network", "cutoff": 4.5, "hyperparameters": {"n_radial": 4, "hidden": [8]}}
PRIOR = {
    "architecture": "repulsion", "cutoff": 3.0, "hyperparameters": {"epsilon": 0.1, "sigma": 1.5}, "trainable": False
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ase.io.write(tmp_path / "dataset.extxyz", bulk("Si", "diamond", a=5.431, cubic=True))
    return tmp_path


def job(**changes: Any) -> PretrainJob:
    content = {"potential": {"species": ["Si"], "terms": [NETWORK, PRIOR]}, "steps": 0, "seed": 4, **changes}
    return PretrainJob.model_validate(content)


def test_makes_initial_parameters_on_the_scale_of_the_structure(folder: Path) -> None:
    results = pretrain(job(), folder, Silent())
    assert results.errors.content() == {}
    potential, parameters = potentials.load(folder / POTENTIAL_OUT)
    network = parameters["terms"]["0_moment_network"]
    fresh = potential.init(jax.random.key(4))["terms"]["0_moment_network"]
    np.testing.assert_array_equal(network["mlp"]["w0"], fresh["mlp"]["w0"])
    assert results.number_of_parameters == sum(leaf.size for leaf in jax.tree.leaves(network["mlp"]))
    np.testing.assert_allclose(parameters["terms"]["1_repulsion"]["epsilon"], 0.1)
    # Other rattled structures than those it was standardised on: inputs of the network of order one.
    frames = rattled(ase.io.read(folder / "dataset.extxyz", index=":"), 0.1, seed=77)
    environment = configurations.pad(frames, ["Si"], potential.cutoff).environment
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), environment)
    term = potential.terms[0]
    inputs = (term.invariants(network, term.project(flat)) - network["mean"]) / network["deviation"]
    deviation = np.std(np.asarray(inputs), axis=0)
    assert np.all(deviation < 1.6)
    assert np.median(deviation) > 0.6


def test_the_seed_decides(folder: Path) -> None:
    found = []
    for seed in (1, 1, 2):
        pretrain(job(seed=seed), folder, Silent())
        found.append(flatten(potentials.load(folder / POTENTIAL_OUT)[1]))
    name = "terms/0_moment_network/mlp/w0"
    np.testing.assert_array_equal(found[0][name], found[1][name])
    assert np.any(found[0][name] != found[2][name])


def test_atomic_energies_are_taken_over(folder: Path) -> None:
    assert pretrain(job(atomic_energies={"Si": -3.0}), folder, Silent()).atomic_energies == {"Si": -3.0}
    with pytest.raises(EngineError, match="no reference energy for Si") as caught:
        pretrain(job(atomic_energies={"C": -3.0}), folder, Silent())
    assert caught.value.status == ExitStatus.INVALID_INPUT


def test_no_steps_from_a_potential_that_exists_is_no_job() -> None:
    with pytest.raises(ValueError, match="steps is 0, which would leave initial_potential as it is"):
        job(potential=None, initial_potential="potential.safetensors")


def test_rattled_copies() -> None:
    frames = [bulk("Si", "diamond", a=5.431, cubic=True), bulk("Si", "diamond", a=5.431)]
    copies = rattled(frames, 0.05, seed=0)
    assert sum(len(frame) for frame in copies) >= ENVIRONMENTS
    assert len(rattled([frames[0].repeat(4)], 0.05, seed=0)) == 1
    moves = np.concatenate([copy.positions - frames[len(copy) == 2].positions for copy in copies])
    assert np.std(moves) == pytest.approx(0.05, rel=0.1)
