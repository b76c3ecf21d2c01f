"""Samplers are found by name, and one of another package needs nothing but its entry point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aiida_difftre.engine.contract.jobs import SampleJob, SamplingSettings
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import sample
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.runtime.progress import Silent
from aiida_difftre.engine.sampling import protocol, run
from tests.fixtures.engine import argon, lennard_jones, simulate, start


def test_molecular_dynamics_is_the_sampler_unless_another_is_named() -> None:
    assert SamplingSettings().sampler == "jax_md"
    assert protocol.load("jax_md") is run.simulate


@pytest.mark.parametrize("name", ["jax-md", "", "monte_carlo"])
def test_an_unknown_sampler_is_refused_where_it_is_read(name: str) -> None:
    job = {"potential": "p", "structure": "s", "temperature": 60.0, "sampling": {"sampler": name}}
    with pytest.raises(ValueError, match=rf"sampling\.sampler: unknown sampler '{name}'; registered: .*jax_md"):
        validate(SampleJob, job)
    with pytest.raises(EngineError, match="unknown sampler") as caught:
        protocol.load(name)
    assert caught.value.status == ExitStatus.INVALID_INPUT


def test_a_sampler_of_another_package(plugin_sampler: str, tmp_path: Path) -> None:
    """From the setting to the results of a job, without a line of this package that knows it."""
    potential, parameters = lennard_jones()
    argon().write(tmp_path / "structure.extxyz")
    potentials.save(tmp_path / "potential.safetensors", potential, parameters)
    job = SampleJob(
        potential="potential.safetensors", structure="structure.extxyz", temperature=60.0,
        sampling=SamplingSettings(sampler=plugin_sampler, walkers=3),
    )  # fmt: skip
    results = sample.run(job, tmp_path, Silent())
    assert results.snapshots == 3
    assert results.mean_temperature == 60.0
    moved = simulate(potential, parameters, start(argon(), 2), temperature=60.0, settings=job.sampling)
    np.testing.assert_allclose(moved.positions, start(argon(), 2).positions, atol=1e-6)


def test_an_entry_that_cannot_be_called(plugin_sampler: str) -> None:
    with pytest.raises(EngineError, match="'nobody': difftre_gaussian:NOBODY is no function; register one with"):
        protocol.load("nobody")
