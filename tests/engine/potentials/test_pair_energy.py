"""The pair energies of the argon example: published properties of the references, and a learned one that is known."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from aiida_difftre.engine.potentials import potential as potentials
from tests.fixtures.engine import lennard_jones

SCRIPT = Path(__file__).parents[3] / "examples" / "argon" / "pair_energy.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pair_energy", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_curves(example: ModuleType) -> None:
    # HFD-B2: published epsilon/k = 143.224 K, r_m = 3.7565 Å. Lennard-Jones: the minimum is at 2^(1/6) sigma.
    for function, depth, minimum in (
        (example.hfd_b2, 143.224, 3.7565),
        (example.rahman, 119.8, 2 ** (1 / 6) * 3.405),
    ):
        found = example.summary(function)
        assert found["depth_K"] == pytest.approx(depth, rel=1e-4)
        assert found["minimum_A"] == pytest.approx(minimum, abs=1e-3)
    assert example.summary(example.hfd_b2)["rms_from_HFD_B2_meV"] == 0


def test_learned(example: ModuleType, tmp_path: Path) -> None:
    potential, parameters = lennard_jones(cutoff=8.0)
    potentials.save(tmp_path / "lj.safetensors", potential, parameters)
    function = example.learned(tmp_path / "lj.safetensors")
    r = np.array([3.3, 3.8, 5.0])
    power = (3.4 / r) ** 6
    np.testing.assert_allclose(function(r), 4 * 10.4 * (power**2 - power), atol=0.3)
    assert function(np.array(9.0)) == pytest.approx(0.0, abs=1e-9)
