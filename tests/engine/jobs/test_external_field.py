"""One atom in an external field, end to end: sampling obeys Boltzmann's law, and refinement learns a double well."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml

from aiida_difftre.engine.contract.jobs import Machine, PotentialSpec, RefineJob
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.jobs import refine
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.runtime.progress import Silent
from aiida_difftre.engine.sampling import guards
from aiida_difftre.engine.sampling.starts import read_structure, start_walkers
from aiida_difftre.engine.units import BOLTZMANN
from tests.fixtures.engine import simulate

EXAMPLE = Path(__file__).parents[3] / "examples" / "double_well"
WELL = runpy.run_path(str(EXAMPLE / "well.py"))
TARGET = yaml.safe_load((EXAMPLE / "target.yaml").read_text())
KT = BOLTZMANN * WELL["TEMPERATURE"]
SAMPLING: dict[str, Any] = {
    "walkers": 500, "timestep_fs": 5.0, "equilibration_fs": 1000.0, "production_fs": 3000.0, "stride_fs": 200.0,
    "skin": 2.0, "thermostat": {"name": "langevin", "friction_per_ps": 10.0},
}  # fmt: skip


def spec() -> PotentialSpec:
    content = yaml.safe_load((EXAMPLE / "quick.yaml").read_text())
    return PotentialSpec.model_validate(content["model"]["spec"])


def test_target_is_the_formula() -> None:
    np.testing.assert_allclose(TARGET["values"], WELL["density"](WELL["energy"]), atol=1e-8)
    assert np.mean(TARGET["values"]) == pytest.approx(1.0, abs=1e-7)
    x = (np.arange(200_000) + 0.5) / 200_000
    weights = np.exp(-2500 * (x - 0.5) ** 6 + 10 * (x - 0.55) ** 2)
    midpoint = (weights / weights.mean()).reshape(WELL["BINS"], -1).mean(1)
    np.testing.assert_allclose(TARGET["values"], midpoint, atol=1e-7)


def test_prior_of_the_example_is_that_of_the_paper(tmp_path: Path) -> None:
    potential = potentials.build(spec())
    path = tmp_path / "potential.safetensors"
    potentials.save(path, potential, potential.init(jax.random.key(0)))
    x = np.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(WELL["learned"](path)(x), 75 * (x - 0.5) ** 2, rtol=1e-5)
    assert WELL["errors"](WELL["learned"](path))["density_mse"] == pytest.approx(1.927, abs=0.002)


def test_samples_the_exact_density() -> None:
    """The polynomial is the double well itself here."""
    hyperparameters = {"coefficients": (KT * np.array([-0.025, 1, -10, 0, 0, 0, 2500])).tolist()}
    term = {"architecture": "external_polynomial", "cutoff": 0.1, "hyperparameters": hyperparameters}
    potential = potentials.build(PotentialSpec.model_validate({"species": ["He"], "terms": [term]}))
    start = start_walkers(1000, read_structure(EXAMPLE / "cell.extxyz"), None)
    trajectory = simulate(
        potential, potential.init(jax.random.key(0)), start, temperature=WELL["TEMPERATURE"], seed=3,
        settings=SamplingSettings.model_validate({**SAMPLING, "walkers": 1000}), machine=Machine(),
    )  # fmt: skip
    found, _ = np.histogram(trajectory.positions[:, 0, 0], bins=10, range=(0, 1), density=True)
    expected = np.reshape(TARGET["values"], (10, 5)).mean(1)
    # Walkers are independent, so their number bounds the error from above.
    error = np.sqrt(np.maximum(expected, 0.01) * 10 / 1000)
    assert np.all(np.abs(found - expected) < 4 * error)
    assert np.abs(found - expected).max() < 0.1
    assert trajectory.temperatures.mean() == pytest.approx(300.0, rel=0.02)


@pytest.mark.slow
def test_learns_the_double_well(tmp_path: Path) -> None:
    potential = potentials.build(spec())
    potentials.save(tmp_path / "potential.safetensors", potential, potential.init(jax.random.key(0)))
    shutil.copy(EXAMPLE / "cell.extxyz", tmp_path / "structure.extxyz")
    update = {
        "loss": {"kind": "mse"}, "gate": 0.3, "max_steps": 40, "bootstrap": 10,
        "optimizer": {"options": {"b1": 0.9, "b2": 0.99}, "learning_rate": 0.004},
    }  # fmt: skip
    point = {"label": "well", "temperature": WELL["TEMPERATURE"], "targets": [TARGET]}
    job = RefineJob.model_validate(
        {"state_points": [point], "sampling": SAMPLING, "update": update, "max_iterations": 4, "seed": 1}
    )
    refine.run(job, tmp_path, Silent())
    before = WELL["errors"](WELL["prior"])
    after = WELL["errors"](WELL["learned"](tmp_path / "potential_out.safetensors"))
    assert after["density_mse"] < before["density_mse"] / 100
    assert after["potential_rms_kT"] < 0.2


@pytest.mark.parametrize(("ratio", "atoms", "limit"), [(3.0, 1, 27.32), (3.0, 64, 3.61), (1.2, 1000, 1.35)])
def test_hottest(ratio: float, atoms: int, limit: float) -> None:
    assert guards.hottest(ratio, atoms) == pytest.approx(limit, abs=0.01)
