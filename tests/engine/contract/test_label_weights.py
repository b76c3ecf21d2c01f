"""Labels that count by the distance of their volume: weights, and widths that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_difftre.engine.contract.jobs import LossSettings, PretrainJob
from aiida_difftre.engine.contract.label_weights import (
    DatasetWidths,
    LabelWeights,
    check_counting,
    distance_weights,
    told,
    volume_of,
)
from aiida_difftre.engine.contract.validation import validate


def test_weights_fall_with_the_distance_from_the_nearest_volume() -> None:
    crystal = bulk("Ti", "hcp", a=2.95, c=4.68)
    volumes = [volume_of(crystal.repeat(2)), volume_of(Atoms("Ti2", positions=[[0, 0, 0], [2, 0, 0]]))]
    assert volumes[0] == pytest.approx(np.sqrt(3) / 4 * 2.95**2 * 4.68)
    volumes += [0.86 * volumes[0], 1.04 * volumes[0]]
    widths = DatasetWidths(energy=0.05, stress=1e-3, volumes=[17.7, volumes[0]])
    found = distance_weights(volumes, widths)
    expected = [1.0, 1.0, np.exp(-0.5 * (np.log(0.86) / 0.05) ** 2), np.exp(-0.5 * (np.log(1.04) / 0.05) ** 2)]
    nearest = abs(np.log(volumes[3] / 17.7))
    expected[3] = np.exp(-0.5 * (nearest / 0.05) ** 2)
    np.testing.assert_allclose(found.energy, expected, rtol=1e-12)
    assert found.force.tolist() == [1.0] * 4
    assert found.stress[2] == 0.0
    assert told(found, widths) == {"energy": [1.0, 1.0, 0.0106, round(expected[3], 4)], "stress": [1.0, 1.0, 0.0, 0.0]}


def test_widths_that_leave_less_than_one_label_are_refused() -> None:
    widths = DatasetWidths(energy=0.01, volumes=[16.0])
    with pytest.raises(ValueError, match=r"widths\.energy = 0\.01 leaves .* of 2 is 0\.049 away in ln V from 16\.00"):
        check_counting([16.8, 18.0], widths, "widths")
    # The label at this volume has no stress, and none has forces.
    there = LabelWeights(np.ones(3), np.zeros(3), np.array([0.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match=r"leaves 6\.8e-06 labels in all: the nearest of 1 is 0\.049 away"):
        check_counting([16.0, 16.8, 18.0], DatasetWidths(stress=0.01, volumes=[16.0]), "widths", there)
    with pytest.raises(ValueError, match="no label has a force"):
        check_counting([16.0, 16.8, 18.0], DatasetWidths(force=0.01, volumes=[16.0]), "widths", there)
    # An atom alone counts fully, and is no label of the crystal; volumes of whole cells are a usual mistake.
    with pytest.raises(ValueError, match=r"leaves 0 labels in all: the nearest of 2 is 2\.1 away in ln V from 134\.40"):
        check_counting([float("nan"), 16.8, 17.0], DatasetWidths(energy=0.05, volumes=[134.4]), "widths")
    with pytest.raises(ValueError, match="no label of energy has a volume, so that all count fully"):
        check_counting([float("nan")] * 2, DatasetWidths(energy=0.05, volumes=[16.8]), "widths")
    assert check_counting([16.8, 18.0], DatasetWidths(energy=1.0, volumes=[16.0]), "widths").energy.sum() > 1


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"energy": 0.05}, "a distance from which volume? give"),
        ({"volumes": [16.0]}, "volumes are given, but no width"),
        ({"stress": 0.05, "volumes": [16.0]}, "stress is 0.05, but the weight of stress is 0"),
        ({"energy": 0.0, "volumes": [16.0]}, "0.001"),
        ({"energy": -0.05, "volumes": [16.0]}, "0.001"),
        ({"energy": 0.05, "volumes": [-16.0]}, "Å³"),
        ({"energies": 0.05}, "energies"),
    ],
)
def test_senseless_widths_are_refused(widths: dict[str, Any], message: str) -> None:
    loss = {"dataset_weight": 1.0, "dataset_weights": {"stress": 0.0}, "dataset_widths": widths}
    pretraining = {"initial_potential": "p.safetensors", "weights": {"stress": 0.0}, "widths": widths}
    for model, content in ((LossSettings, loss), (PretrainJob, pretraining)):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (the test checks the message)
            validate(model, content)
        assert message in str(caught.value)


def test_a_stage_takes_back_the_widths_of_its_run() -> None:
    """Its null is merged into what the run gave, whose volumes stay."""
    merged = {"energy": None, "volumes": [16.0]}
    assert validate(LossSettings, {"dataset_widths": merged}).dataset_widths.given() == {}


def test_widths_without_labels_in_the_loss_are_refused() -> None:
    with pytest.raises(ValueError, match="dataset_weight: 0 leaves out"):
        validate(LossSettings, {"dataset_widths": {"energy": 0.05, "volumes": [16.0]}})
    new = {"potential": {"species": ["Ar"], "terms": [{"architecture": "pair_spline", "cutoff": 6.0}]}, "steps": 0}
    with pytest.raises(ValueError, match="steps: 0 does not look at"):
        validate(PretrainJob, {**new, "widths": {"energy": 0.05, "volumes": [16.0]}})
