"""The term nequix: with the weights of a file of the package it is the model of the package."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ase.build import bulk

from aiida_difftre.engine import cli
from aiida_difftre.engine.calculator import DiffTReCalculator
from aiida_difftre.engine.contract.nequix_options import NequixOptions

MODEL = {
    "hidden_irreps": "4x0e + 4x1o", "lmax": 1, "n_layers": 2, "radial_basis_size": 4, "radial_mlp_size": 6,
    "radial_mlp_layers": 2, "radial_polynomial_p": 6.0, "mlp_init_scale": 4.0, "index_weights": True,
    "layer_norm": False, "shift": -0.5, "scale": 1.5, "avg_n_neighbors": 12.0, "cutoff": 3.0,
}  # fmt: skip
NUMBERS = [8, 6, 14]
"""As a file may list them, in any order."""


def test_a_converted_file_is_the_model_of_the_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = pytest.importorskip("nequix.model", reason="nequix is not installed")
    calculators = pytest.importorskip("nequix.calculator", reason="nequix is installed without its calculator")
    energies = [-1.0, 2.0, -3.0]  # of C, O and Si
    with jax.enable_x64(False):
        model = package.Nequix(jax.random.key(1), len(NUMBERS), atom_energies=energies, **MODEL)
        package.save_model(tmp_path / "model.nqx", model, {**MODEL, "atomic_numbers": NUMBERS})
        atoms = bulk("C", "diamond", a=3.6, cubic=True)
        atoms.symbols[::2] = "O"
        atoms.rattle(0.1, seed=1)
        atoms.calc = calculators.NequixCalculator(model_path=tmp_path / "model.nqx", use_kernel=False)
        expected = [atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()]
    words = ["convert", str(tmp_path / "model.nqx"), "-o", str(tmp_path / "potential.safetensors"), "--species"]
    assert cli.cli([*words, "O,C", "--trainable", "readout"]) == 0
    found = DiffTReCalculator(tmp_path / "potential.safetensors")
    found.calculate(atoms)
    assert found.results["energy"] == pytest.approx(expected[0], abs=1e-5)
    np.testing.assert_allclose(found.results["forces"], expected[1], atol=1e-5)
    np.testing.assert_allclose(found.results["stress"], expected[2], atol=1e-6)
    assert np.abs(expected[1]).max() > 0.05
    free = found.potential.trainable(found._parameters)["terms"]["0_nequix"]
    assert all(jax.tree.leaves(free["readout"]))
    assert not any(jax.tree.leaves(free["layers"]))

    # What is refused: other elements, a file that is there, a damaged one, parameters that are not there.
    assert cli.cli([*words, "Fe", "--force"]) == 1
    assert "do not know Fe" in capsys.readouterr().err
    assert cli.cli([*words, "C"]) == 1
    assert "--force" in capsys.readouterr().err
    content = (tmp_path / "model.nqx").read_bytes()
    (tmp_path / "model.nqx").write_bytes(content[:-100])
    assert cli.cli([*words, "C", "--force"]) == 1
    assert "model.nqx is not a readable file of nequix" in capsys.readouterr().err
    (tmp_path / "model.nqx").write_bytes(content)
    assert cli.cli([*words, "C", "--force", "--trainable", "head"]) == 1
    assert "no parameters 'head'; it has: layers, readout" in capsys.readouterr().err


def test_without_the_package_and_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="elements: the weights do not know Fe"):
        NequixOptions.read({"elements": ["C"]}).complete(("C", "Fe"), 3.0)
    with pytest.raises(ValueError, match="hidden_irreps = '32 scalars'"):
        NequixOptions.read({"hidden_irreps": "32 scalars"})
    (tmp_path / "other.nqx").write_text(json.dumps({"cutoff": 5.0}) + "\n")
    words = ["convert", str(tmp_path / "other.nqx"), "--species", "C", "-o", str(tmp_path / "made.safetensors")]
    assert cli.cli(words) == 1
    assert "it does not say 'avg_n_neighbors'" in capsys.readouterr().err
    assert not (tmp_path / "made.safetensors").exists()
