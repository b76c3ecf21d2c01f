"""The machine: cache folder, description, self-check."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest

from aiida_difftre.engine import device, quantities
from aiida_difftre.engine.jobs import Machine
from tests.fixtures.engine import alloy, network


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DIFFTRE_CACHE", raising=False)
    assert device.cache_folder(Machine()) == Path.home() / ".cache" / "difftre"
    monkeypatch.setenv("DIFFTRE_CACHE", str(tmp_path))
    assert device.cache_folder(Machine()) == tmp_path
    assert device.cache_folder(Machine(compilation_cache="/elsewhere")) == Path("/elsewhere")


def test_description() -> None:
    found = device.description(Machine(precision="float64"))
    assert found["jax"] == jax.__version__
    assert found["platform"] == jax.default_backend()
    assert found["precision"] == "float64"
    assert device.mesh().shape["device"] == found["devices"]


def test_cores_where_the_system_does_not_tell_which(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= device.usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS
    assert device.usable_cores() == os.cpu_count()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_self_check_passes(precision: str) -> None:
    potential, parameters = network(("C", "O"))
    atoms = alloy()
    positions, cell = atoms.get_scaled_positions(), atoms.cell.array
    environment = quantities.environment(potential, positions, cell, atoms.get_chemical_symbols(), precision)
    assert device.self_check(potential, parameters, environment, precision) < device.SELF_CHECK_TOLERANCE[precision]
