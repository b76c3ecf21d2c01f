"""Labelled configurations: padding, neighbours, labels, refused files."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.engine.contract.label_names import LabelKeys
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.matching import configurations


def frames() -> list[Atoms]:
    crystal = bulk("C", "diamond", a=3.6, cubic=True)
    stress = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    crystal.calc = SinglePointCalculator(crystal, energy=-8.0, forces=np.ones((8, 3)), stress=stress)
    dimer = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]])
    dimer.calc = SinglePointCalculator(dimer, energy=-2.0)
    return [crystal, dimer]


def test_padding_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "dataset.extxyz"
    ase.io.write(path, frames())
    found = configurations.pad(configurations.read(path).frames, ["C", "O"], 2.6)
    environment, labels = found.environment, found.labels
    assert environment.displacements.shape == (2, 8, 16, 3)
    np.testing.assert_array_equal(found.sizes, [8, 2])
    np.testing.assert_array_equal(np.sum(environment.mask, axis=(1, 2)), [8 * 16, 2])
    vectors = np.asarray(environment.displacements)[1, :2][np.asarray(environment.mask)[1, :2]]
    np.testing.assert_allclose(vectors, [[0, 0, 1.1], [0, 0, -1.1]])
    assert environment.neighbor_species[1, 0, 0] == 1
    np.testing.assert_allclose(found.volume, [3.6**3, 1.0])
    np.testing.assert_array_equal(labels.has_forces, [1, 0])
    np.testing.assert_array_equal(labels.has_stress, [1, 0])
    np.testing.assert_allclose(labels.stress[0], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_unknown_species() -> None:
    with pytest.raises(EngineError, match="contains O, but the potential is for C only"):
        configurations.pad(frames(), ["C"], 2.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"dataset\.extxyz cannot be read"),
        ("", "holds no frame"),
        ("2\nbroken\nC 0 0\n", "has 1 lines of atoms where 2 are announced"),
        (
            '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 energy=nan\nC 0 0 0\n',
            "its energy is nan, which is not finite",
        ),
    ],
)
def test_refused_files(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "dataset.extxyz"
    if content is not None:
        path.write_text(content)
    with pytest.raises(EngineError, match=message) as caught:
        configurations.read(path)
    assert caught.value.status == ExitStatus.INVALID_INPUT


def test_missing_energy(tmp_path: Path) -> None:
    path = tmp_path / "dataset.extxyz"
    ase.io.write(path, [*frames(), Atoms("C")])
    with pytest.raises(EngineError, match=r"frame 2 of dataset\.extxyz has no energy") as caught:
        configurations.read_training(path, LabelKeys(missing_forces=True))
    assert caught.value.status == ExitStatus.INVALID_INPUT
