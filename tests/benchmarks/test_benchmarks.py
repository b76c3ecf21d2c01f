"""Each part of the benchmarks runs at a tiny size; what it measures there means nothing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


def tiny(part: str, folder: Path, *arguments: str) -> dict[str, Any]:
    output = folder / "results.json"
    command = [sys.executable, str(HERE / f"{part}.py"), "--tiny", "--runs", "1", "--output", str(output), *arguments]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return json.loads(output.read_text())


def test_species(tmp_path: Path) -> None:
    found = tiny("species", tmp_path)["species"]["Cu-Ag"]
    assert found["force_scatter_mev_per_angstrom"] > 0
    assert found["fits"][0]["parameters"] > 0
    assert found["fits"][0]["force_mev_per_angstrom"] > 0


def test_gradient(tmp_path: Path) -> None:
    (short,) = tiny("gradient", tmp_path)["lengths"]
    assert short["steps"] == 100
    assert short["backpropagation_cpu_s"] > 0
    # Both are finite over a hundred steps; that of backpropagation explodes later.
    assert math.isfinite(short["backpropagation_norm"])
    assert 0 < short["reweighting_norm"] < math.inf


def test_update_without_the_peer(tmp_path: Path) -> None:
    found = tiny("update", tmp_path, "--models", "lennard_jones")["lennard_jones"]
    assert found["engine"]["parameters"] == 2
    assert found["engine"]["resampled"] > found["engine"]["reused"] > 0
    assert "chemtrain" not in found


def test_dynamics(tmp_path: Path) -> None:
    found = tiny("md", tmp_path)
    assert found["lj-32"]["microseconds_per_atom_and_step"] > 0
    assert found["versions"]["command"]


@pytest.mark.slow
def test_scaling(tmp_path: Path) -> None:
    found = tiny("scaling", tmp_path, "--figure", str(tmp_path / "atoms.png"))
    assert [entry["walkers"] for entry in found["walkers"]] == [1, 2]
    assert (tmp_path / "atoms.png").stat().st_size > 0


@pytest.mark.slow
def test_snapshots(tmp_path: Path) -> None:
    pairs, network = tiny("snapshots", tmp_path)["cases"]
    assert pairs["parameters"] == 2 < network["parameters"]
    assert pairs["peak_above_import_mb"] > 0


@pytest.mark.slow
def test_stiffness(tmp_path: Path) -> None:
    found = tiny("stiffness", tmp_path, "--platform", "auto")
    assert found["snapshots"] == 5
    assert min(found["gradient_cpu_s"], found["gradient_wall_s"], found["prepare_cpu_s"]) > 0


@pytest.mark.slow
def test_errors_of_short_runs_of_a_liquid_are_their_scatter(tmp_path: Path) -> None:
    """Between 0.85 and 1.2, but for twice what the ratio itself is uncertain by."""
    output = tmp_path / "results.json"
    options = ["--runs", "30", "--segments", "1", "2", "--output", str(output)]
    subprocess.run([sys.executable, str(HERE / "errors.py"), *options], check=True, capture_output=True)
    lengths = json.loads(output.read_text())["lengths"]
    assert [found["runs"] for found in lengths.values()] == [120, 60]
    for length, found in lengths.items():
        for name in ("U", "P", "C_V", "g(r)", "S(q)", "C"):
            ratio, uncertainty = found[name]["rms_ratio"], found[name]["rms_uncertainty"]
            assert 0 < uncertainty < 0.2, (length, name)
            assert 0.85 - 2 * uncertainty < ratio < 1.2 + 2 * uncertainty, (length, name, ratio)


@pytest.mark.slow
def test_errors(tmp_path: Path) -> None:
    (short,) = tiny("errors", tmp_path, "--segments", "1")["lengths"].values()
    assert short["runs"] == 12
    assert short["independent_samples"] > 1
    assert min(short["g(r)"]["scatter"], short["g(r)"]["ratio"]) > 0


def test_walkers_on_the_device_that_there_is(tmp_path: Path) -> None:
    found = tiny("scaling", tmp_path, "--platform", "auto", "--parts", "walkers")
    assert [entry["wall_microseconds"] > 0 for entry in found["walkers"]] == [True, True]
    assert "atoms" not in found


def test_exploding_gradient(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "gradient_explosion.py"), "--walkers", "4", "--steps", "10", "1000"]
    subprocess.run([*command, "--output", str(tmp_path)], check=True, capture_output=True)
    (run,) = json.loads((tmp_path / "gradient_explosion.json").read_text())["runs"]
    assert (tmp_path / "gradient_explosion.png").stat().st_size > 0
    assert run["exact"] > 0
    assert run["lengths"][1]["backpropagated"] > run["lengths"][0]["backpropagated"]


def test_startup(tmp_path: Path) -> None:
    assert tiny("startup", tmp_path)["imports_cpu_s"]["numpy"] > 0


def test_trajectory(tmp_path: Path) -> None:
    found = tiny("trajectory", tmp_path)
    assert found["megabytes"] > 0
    assert found["store_cpu_s"] > 0


def test_all_parts_are_collected(tmp_path: Path) -> None:
    output = tmp_path / "all.json"
    command = [sys.executable, str(HERE / "run.py"), "--tiny", "--runs", "1", "--output", str(output)]
    subprocess.run([*command, "--parts", "startup", "trajectory"], check=True, capture_output=True)
    found = json.loads(output.read_text())
    assert set(found) == {"startup", "trajectory"}
    assert all("exit_status" not in part for part in found.values())


def test_questions_to_a_graph(tmp_path: Path) -> None:
    found = tiny("query", tmp_path)
    assert found["nodes"] >= 2000
    rows = {name: answer["rows"] for name, answer in found["questions"].items()}
    assert (rows["experiments_behind"], rows["calculations_behind"], rows["influenced_by"]) == (1, 40, 21)
    assert rows["costs_of_a_run"] == 81


def test_pool(tmp_path: Path) -> None:
    cases = tiny("pool", tmp_path, "--seeds", "1", "--systems", "argon")["systems"]["argon"]["cases"]
    assert cases["pooled"]["sampled_ps"] == 2 * cases["pooled, half as long"]["sampled_ps"] > 0
    # Two of three trajectories: the middle potential is left to what the first one sampled.
    assert (cases["pooled"]["samplings"], cases["pooled, short steps, sampled where needed"]["samplings"]) == (3, 2)


def test_fusion(tmp_path: Path) -> None:
    alone, held = tiny("fusion", tmp_path, "--weights", "0", "1e4", "--seeds", "1")["runs"]
    assert held["errors"]["stress_rmse"] < alone["errors"]["stress_rmse"]
    assert held["distance"]["of_labels"] > 0
    options = ("--alternate", "20", "--seeds", "1", "--iterations", "3")
    (by_turns,) = tiny("fusion", tmp_path, *options)["runs"]
    assert by_turns["errors"]["stress_rmse"] < alone["errors"]["stress_rmse"]
    assert len(by_turns["courses"]) == 3


def test_a_trajectory_that_repeats_itself_does_a_pool_no_harm(tmp_path: Path) -> None:
    """Counted by its snapshots it made deviations 1.5 to 1.7 times those of the newest trajectory alone; now 0.9."""
    output = tmp_path / "results.json"
    options = ["--runs", "30", "--pools", "mostly repetition", "--output", str(output)]
    subprocess.run([sys.executable, str(HERE / "pool_errors.py"), *options], check=True, capture_output=True)
    found = json.loads(output.read_text())["pools"]["mostly repetition"]
    assert set(found) == {"potential_energy", "rdf", "pressure"}
    assert all(0.7 < one["stated"] < 1.4 for one in found.values())
    assert sum(one["left"] for one in found.values()) / len(found) < 1.25


def test_truths_lie_within_the_bands_of_assessments(tmp_path: Path) -> None:
    """Six experiments: deviations in units of the bands have a root mean square near one, not of a half or two."""
    output = tmp_path / "results.json"
    options = ["--runs", "6", "--snapshots", "800", "--output", str(output)]
    subprocess.run([sys.executable, str(HERE / "coverage.py"), *options], check=True, capture_output=True)
    found = json.loads(output.read_text())["quantities"]
    assert {"potential_energy", "pressure", "u(3.82 Å)"} < set(found)
    assert 0.6 < math.sqrt(sum(one["rms"] ** 2 for one in found.values()) / len(found)) < 1.7
    assert all(one["left"] < 0.7 for one in found.values())
