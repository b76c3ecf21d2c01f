"""Assessments: advice is what the measurement would really leave, and input that tells nothing is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine.contract.assess_job import AssessJob
from aiida_difftre.engine.contract.assessment import AssessResults
from aiida_difftre.engine.contract.jobs import POTENTIAL_IN, TRAJECTORY
from aiida_difftre.engine.contract.trajectories import write_trajectory
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import assess
from aiida_difftre.engine.potentials.potential import load, save
from aiida_difftre.engine.runtime.progress import Silent
from tests.fixtures.engine import argon, build, lennard_jones, rattled, target

TEMPERATURE = 85.0
CENTRES = np.arange(3.05, 5.0, 0.1).tolist()
POTENTIAL = build("pair_spline", ["Ar"], 5.0, inner=2.8, knots=8)
MACHINE = {"precision": "float64", "threads": 1}


def spline(scale: float = 1.0) -> dict[str, Any]:
    points = 0.02 * scale * np.array([3.0, 1.0, -0.2, -0.6, -0.5, -0.3, -0.1, -0.05])[None]
    start = POTENTIAL.init(jax.random.key(0))
    return {**start, "terms": {"0_pair_spline": {"control_points": jnp.asarray(points)}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assess")
    save(folder / POTENTIAL_IN, POTENTIAL, spline())
    save(folder / "start.safetensors", POTENTIAL, spline(0.5))
    snapshots = rattled(POTENTIAL, spline(), argon(2), snapshots=100, amplitude=0.2, temperature=TEMPERATURE, walkers=4)
    write_trajectory(folder / TRAJECTORY, snapshots)
    return folder


def assessed(folder: Path, targets: list[Any], **given: Any) -> AssessResults:
    point = {"label": "cold", "temperature": TEMPERATURE, "targets": [one.model_dump() for one in targets]}
    job = validate(AssessJob, {"state_points": [point], "machine": MACHINE, **given})
    return assess.run(job, folder, Silent())


def curve(values: list[float] | None = None) -> Any:
    return target("rdf", values or [1.0] * len(CENTRES), error=0.05, grid=CENTRES)


def test_a_candidate_leaves_what_it_leaves_once_measured(folder: Path) -> None:
    unmeasured = target("pressure", [0.0], error=0.1, role="test")
    candidates = [
        {"name": "the pressure", "state_point": "cold", "observable": "pressure", "error": 0.02},
        {"name": "a coarse pressure", "state_point": "cold", "observable": "pressure", "error": 200.0},
    ]
    # A curve that is met, so that its errors are taken as stated.
    met = assessed(folder, [curve(), unmeasured]).state_points["cold"][0].values
    found = assessed(folder, [curve(met), unmeasured], candidates=candidates, start="start.safetensors")
    gr, pressure = found.state_points["cold"]
    assert found.chi2 < 1
    assert np.all(np.array(gr.model_errors) <= np.array(gr.prior_errors) * (1 + 1e-9))
    assert [one.name for one in found.advice] == ["the pressure", "a coarse pressure"]
    assert found.advice[1].mean_left == pytest.approx(1, abs=0.01)
    # Of one number the posterior is elementary.
    open_before, error = pressure.model_errors[0], 0.02
    left = found.advice[0].left["cold/pressure"]
    assert left == pytest.approx(1 / math.sqrt(1 + (open_before / error) ** 2), rel=1e-6)
    assert found.advice[0].information == pytest.approx(math.log(1 + (open_before / error) ** 2) / 2)

    # Measured, with the same error after that of sampling is taken off, it leaves that.
    measured_error = (
        math.sqrt(error**2 - pressure.sampling_errors[0] ** 2) if error > pressure.sampling_errors[0] else 0
    )
    assert measured_error > 0
    then = assessed(folder, [curve(met), target("pressure", pressure.values, error=measured_error)])
    assert then.state_points["cold"][1].model_errors[0] == pytest.approx(left * open_before, rel=1e-3)
    assert then.effective > found.effective

    (band,) = found.pairs
    assert band.pair == ("Ar", "Ar")
    assert band.energies[-1] == pytest.approx(0, abs=1e-12)
    assert band.well is not None
    lowest = int(np.argmin(band.energies))
    assert band.well.depth == -band.energies[lowest] > 0
    assert any("well of Ar-Ar" in sentence for sentence in found.sentences)
    assert any("the pressure at cold would tell most" in sentence for sentence in found.sentences)
    assert found.prior.suggested is not None


def test_two_parameters_and_the_curve_of_a_pair(folder: Path, tmp_path: Path) -> None:
    potential, parameters = lennard_jones()
    energies = assess.pair_energies(potential, parameters, (0, 0), jnp.array([3.4 * 2 ** (1 / 6), 4.5]))
    assert float(energies[0]) == pytest.approx(-0.0104, rel=0.35)  # the cutoff of 5 Å takes a part of the well
    save(tmp_path / POTENTIAL_IN, potential, parameters)
    write_trajectory(
        tmp_path / TRAJECTORY,
        rattled(potential, parameters, argon(2), snapshots=50, amplitude=0.1, temperature=TEMPERATURE),
    )
    found = assessed(tmp_path, [target("potential_energy", [0.0]), target("pressure", [0.0], error=1e-3)])
    assert found.parameters == 2
    assert len(found.gains) == 2
    assert found.state_points["cold"][0].role == "training"


def test_members_spread_as_far_as_the_targets_leave_open(tmp_path: Path) -> None:
    """Reweighted to first order and beyond, of parameters that the targets determine; else members are not reached."""
    potential, parameters = lennard_jones()
    save(tmp_path / POTENTIAL_IN, potential, parameters)
    write_trajectory(
        tmp_path / TRAJECTORY,
        rattled(potential, parameters, argon(2), snapshots=200, amplitude=0.1, temperature=TEMPERATURE, walkers=4),
    )
    energy, pressure = (
        one.values
        for one in assessed(tmp_path, [target("potential_energy", [0.0]), target("pressure", [0.0])]).state_points[
            "cold"
        ]
    )
    tight = [target("potential_energy", energy, error=1e-4), target("pressure", pressure, error=1e-3)]
    found = assessed(tmp_path, tight, members=60, seed=2)
    assert found.chi2 == pytest.approx(0)
    assert [member.held for member in found.members] == [["cold"]] * 60
    for one in found.state_points["cold"]:
        # The error of a standard deviation of 60 is 9 %.
        assert one.member_errors == pytest.approx(one.model_errors, rel=0.3)
        assert 0 < one.model_errors[0] < 2 * one.measured_errors[0]
    assert any("stands for 60 of 60 members of the ensemble; their spread is" in one for one in found.sentences)
    leaves = [jax.tree.leaves(load(tmp_path / one.file)[1]) for one in found.members]
    changed = sum(
        np.std([np.asarray(leaf) for leaf in column], axis=0).max() > 0 for column in zip(*leaves, strict=True)
    )
    assert changed == 2, "well and distance, and no reference energy"

    wide = assessed(tmp_path, [target("pressure", pressure, error=1e3)], members=4)
    assert all(member.held == [] and member.effective["cold"] < 0.2 for member in wide.members)
    assert wide.state_points["cold"][0].member_errors is None
    assert any("0 of 4 members of the ensemble, too few for a spread: sample with" in one for one in wide.sentences)


def test_what_tells_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing determines anything"):
        assessed(folder, [target("pressure", [0.0], role="test")])
    elsewhere = {"name": "hot", "state_point": "hot", "observable": "pressure", "error": 0.1}
    with pytest.raises(ValueError, match="'hot', of which there is no trajectory; there are cold"):
        assessed(folder, [target("pressure", [0.0])], candidates=[elsewhere])
    with pytest.raises(ValueError, match="no measurement is exact"):
        assessed(folder, [target("pressure", [0.0])], candidates=[{**elsewhere, "state_point": "cold", "error": 0.0}])
    with pytest.raises(ValueError, match="'nothing'"):
        assessed(folder, [target("pressure", [0.0])], candidates=[{**elsewhere, "observable": "nothing"}])
    save(folder / "other.safetensors", *lennard_jones())
    with pytest.raises(EngineError, match="a potential of another form") as caught:
        assessed(folder, [target("pressure", [0.0])], start="other.safetensors")
    assert caught.value.status == ExitStatus.INVALID_INPUT
