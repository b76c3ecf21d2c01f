"""Hot runs: a potential without a core collapses, and tells how; one with a core holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import jax
import pytest

from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.engine.contract.hot import BLOWN_UP
from aiida_difftre.engine.contract.jobs import POTENTIAL_IN, STRUCTURE, SampleJob
from aiida_difftre.engine.contract.records import read
from aiida_difftre.engine.contract.results import SampleResults
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.jobs import sample
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.runtime.progress import Silent
from aiida_difftre.engine.sampling import hot as hot_runs
from tests.fixtures.engine import argon, build, lennard_jones

SAMPLING = {
    "walkers": 2, "timestep_fs": 4.0, "equilibration_fs": 0.0, "production_fs": 80.0, "stride_fs": 40.0,
    "min_distance": 1.5, "thermostat": {"name": "langevin", "friction_per_ps": 10.0},
}  # fmt: skip


def sampled(folder: Path, model: Any, **hot: Any) -> SampleResults:
    potentials.save(folder / POTENTIAL_IN, *model)
    ase.io.write(folder / STRUCTURE, argon())
    content = {"temperature": 10.0, "seed": 3, "sampling": SAMPLING, "hot": hot}
    return sample.run(validate(SampleJob, content), folder, Silent())


def test_a_pair_without_a_core_collapses_where_it_is_hot(tmp_path: Path) -> None:
    """Buckingham's -C6/r⁶ wins at short distances, behind a barrier of some 200 K."""
    coreless = build("buckingham", ["Ar"], 5.0, amplitude=1e5, rho=0.25, c6=64.2)
    parameters = coreless.init(jax.random.key(0))
    # As a refinement may end: such a potential to begin with would be refused.
    (name,) = parameters["terms"]
    pair = parameters["terms"][name]
    parameters["terms"][name] = {**pair, "amplitude": 0 * pair["amplitude"] + 70.4, "rho": 0 * pair["rho"] + 0.45}
    results = sampled(tmp_path, (coreless, parameters), factors=[40.0], walkers=4, time_fs=400.0)
    (hot,) = read(SampleResults, results.content()).hot or []
    assert hot.temperature == 400.0
    assert sorted(one.walker for one in hot.blown_up) == [0, 1, 2, 3]
    assert hot.closest is None, "none held"
    frames = ase.io.read(tmp_path / BLOWN_UP, ":")
    assert {atoms.info["walker"] for atoms in frames} == {0, 1, 2, 3}
    for one in hot.blown_up:
        last = max((atoms for atoms in frames if atoms.info["walker"] == one.walker), key=lambda a: a.info["time_fs"])
        assert 0 < one.time_fs - last.info["time_fs"] <= 12.0, "the snapshot before"
        distances = last.get_all_distances(mic=True)
        assert distances[distances > 0].min() >= 1.5, "which is whole"
    dataset = DatasetData.from_file(tmp_path / BLOWN_UP)
    assert (len(dataset.get_ase()), dataset.labelled) == (len(frames), False)


def test_a_pair_with_a_core_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """But for a walker that starts with two atoms in one place: the others go on as if it were not there."""
    whole = hot_runs.perturbed

    def crowded(*arguments: Any) -> Any:
        start = whole(*arguments)
        start.positions[1, 0] = start.positions[1, 1] + 0.02
        return start

    monkeypatch.setattr(hot_runs, "perturbed", crowded)
    results = sampled(tmp_path, lennard_jones(), factors=[40.0], walkers=3, time_fs=400.0)
    (found,) = results.hot or []
    assert (found.walkers, found.skipped) == (3, None)
    assert [one.walker for one in found.blown_up] == [1]
    assert found.closest is not None
    assert 2.5 < found.closest < 3.5
    assert found.hottest is not None
    assert 200.0 < found.hottest < 900.0
    assert found.drift is not None
    assert abs(found.drift) < 0.02
    assert results.timings.hot_s is not None


def test_two_species_of_other_masses_from_one_snapshot_in_a_cell_of_the_cutoff(tmp_path: Path) -> None:
    """Each at the temperature that was asked for; and what displaces atoms too far is named beside their distance."""
    mixed = lennard_jones()
    spec = mixed[0].spec.model_copy(update={"species": ["Ar", "He"]})
    potential = potentials.build(spec)
    atoms = argon(1)
    atoms.symbols[::2] = "He"
    potentials.save(tmp_path / POTENTIAL_IN, potential, potential.init(jax.random.key(0)))
    ase.io.write(tmp_path / STRUCTURE, atoms)
    short = {**SAMPLING, "walkers": 1, "timestep_fs": 2.0, "production_fs": 40.0}
    content = {"temperature": 10.0, "seed": 3, "sampling": short, "hot": {"factors": [4.0], "walkers": 8}}
    (found,) = sample.run(validate(SampleJob, content), tmp_path, Silent()).hot or []
    assert (found.walkers, found.skipped, found.blown_up) == (8, None, [])
    assert found.hottest is not None
    assert 40.0 < found.hottest < 200.0
    content["hot"] = {"factors": [4.0], "rattle": 1.0}
    (crowded,) = sample.run(validate(SampleJob, content), tmp_path, Silent()).hot or []
    assert crowded.skipped is not None
    assert crowded.skipped.endswith("walkers start displaced by rattle = 1 Å, which may be too much")


@pytest.mark.parametrize(
    ("hot", "message"),
    [
        ({"factors": []}, "must have 1 or more entries"),
        ({"factors": [0.9]}, "above 1"),
        ({"factors": [1.5, 2.0, 1.5]}, "1.5 stands twice, and the same run would be made twice"),
        ({"factors": [float("nan")]}, "finite number"),
        ({"walkers": 0}, "walkers"),
        ({"rattle": 2.0}, "rattle"),
        ({"time": 100.0}, "unknown key.*time_fs"),
    ],
)
def test_what_is_no_hot_run_is_refused(hot: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(SampleJob, {"temperature": 10.0, "sampling": SAMPLING, "hot": hot})
