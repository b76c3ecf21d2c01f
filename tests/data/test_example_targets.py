"""The targets that come with the examples: valid, cited, and close to what their publications say."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from aiida_difftre.data.target import TargetData
from aiida_difftre.engine.contract.targets import Target

EXAMPLES = Path(__file__).parents[2] / "examples"
TARGETS = sorted(EXAMPLES.glob("*/targets/*.yaml"))


def target_at(path: Path) -> Target:
    return TargetData.from_yaml(path).target


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_valid_and_cited(path: Path) -> None:
    target = target_at(path)
    assert any(digit in target.citation for digit in "0123456789"), "a citation has a volume or a year"
    if target.grid is not None:
        # Equal bins, made from a table.
        steps = np.diff(target.grid)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-5)
        assert target.source is not None
    assert "/" not in (target.source.file if target.source is not None else "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["values"].pop(), "59 values where 60 are expected"),
        (lambda content: content["grid"].reverse(), "grid of 'rdf' must increase strictly"),
        (lambda content: content["errors"].__setitem__(3, 0.0), r"errors\[3\]"),
        (lambda content: content.pop("citation"), "citation"),
        (lambda content: content["source"].update(sha256="abc"), "sha256"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, change, message: str) -> None:
    content = yaml.safe_load((EXAMPLES / "argon/targets/rdf.yaml").read_text())
    change(content)
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=rf"bad\.yaml.*{message}"):
        target_at(path)


def peak(target: Target) -> tuple[float, float]:
    at = int(np.argmax(target.values))
    return (target.grid or [])[at], target.values[at]


@pytest.mark.parametrize(
    ("name", "position", "height"),
    [
        # Yarnell et al. 1973; Soper & Benmore 2008; Skinner et al. 2013, 2.80(1) Å and 2.57(5).
        ("argon/targets/rdf.yaml", 3.70, 3.05),
        ("water/targets/rdf.yaml", 2.75, 2.59),
        ("water/targets/rdf_skinner2013.yaml", 2.80, 2.57),
    ],
)
def test_first_peaks(name: str, position: float, height: float) -> None:
    target = target_at(EXAMPLES / name)
    found = peak(target)
    assert found[0] == pytest.approx(position, abs=0.05)
    assert found[1] == pytest.approx(height, abs=0.06)
    assert target.values[0] == pytest.approx(0.0, abs=0.15)


def test_coordination_number_of_argon() -> None:
    target = target_at(EXAMPLES / "argon/targets/rdf.yaml")
    r, g = np.array(target.grid), np.array(target.values)
    first_shell = r < 5.4
    # Twelve to thirteen neighbours up to the first minimum.
    assert 12 < np.sum(4 * np.pi * 0.02125 * 0.1 * (r**2 * g)[first_shell]) < 13.5


def test_structure_factor_of_argon() -> None:
    target = target_at(EXAMPLES / "argon/targets/structure_factor.yaml")
    # The first maximum of the table, averaged over 0.1 1/Å.
    assert peak(target) == (pytest.approx(2.0, abs=0.06), pytest.approx(2.6, abs=0.1))
    assert np.mean(target.values[-20:]) == pytest.approx(1, abs=0.01)


def test_angles_of_water() -> None:
    target = target_at(EXAMPLES / "water/targets/adf.yaml")
    assert np.sum(target.values) * np.radians(180 / 200) == pytest.approx(1, abs=1e-3)
    assert peak(target)[0] == pytest.approx(100, abs=4)
    assert target.options["cutoff"] == 3.18


@pytest.mark.parametrize(
    ("temperature", "values", "role"),
    [
        (323, [160.9, 92.5, 69.1, 179.5, 46.2], "training"),
        (523, [149.5, 96.1, 69.2, 171.5, 42.4], "test"),
        (623, [144.2, 97.3, 69.1, 167.8, 40.3], "test"),
        (923, [129.9, 99.2, 68.8, 157.6, 33.7], "training"),
    ],
)
def test_stiffness_of_titanium(temperature: float, values: list[float], role: str) -> None:
    target = target_at(EXAMPLES / f"titanium/targets/stiffness_{temperature}K.yaml")
    assert target.component_labels() == ["C11", "C12", "C13", "C33", "C44"]
    assert target.values == values
    assert target.conditions.temperature == temperature
    assert target.role == role
