"""What a run will take: the arithmetic, the costs that were measured, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aiida_difftre.engine.contract.sampling_settings import LangevinSpec, SamplingSettings
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.workchains.estimate import HOT_RUNS, check, jobs, lines, microseconds, sampling, thermostat_advice
from aiida_difftre.workchains.from_input import plan, read_plan, samplings
from aiida_difftre.workchains.inputs import example, read_input

TERM = {"architecture": "lennard_jones", "cutoff": 8.5}
LENNARD_JONES = PotentialSpec.model_validate({"species": ["Ar"], "terms": [TERM]})
LIQUID = {"atoms": 864, "volume": 864 / 0.0212}


def test_the_arithmetic() -> None:
    settings = SamplingSettings(
        walkers=4, timestep_fs=2.0, equilibration_fs=1000.0, production_fs=9000.0, stride_fs=30.0
    )
    part = sampling("refinement", "liquid", settings, LENNARD_JONES, times=3, **LIQUID)
    assert (part.steps, part.snapshots) == (5000, 1200)
    # Measured: 0.57 to 0.62 µs per atom and step of several walkers.
    assert part.core_hours == pytest.approx(3 * 4 * 864 * 5000 * 0.6e-6 / 3600)
    assert part.neighbours == pytest.approx(0.0212 * 4 / 3 * 3.14159 * 9.5**3, rel=1e-3)
    # Measured: 6.14 MB for 1000 snapshots of 500 atoms.
    assert part.disk_gib * 2**30 == pytest.approx(3 * 1200 * 864 * 6.14e6 / 500_000, rel=0.01)
    assert 0.5 < part.memory_gib < 1
    grown = sampling("refinement", "liquid", settings, LENNARD_JONES, growth=2.0, **LIQUID)
    assert (grown.steps, grown.snapshots) == (9500, 2400)


def test_costs_of_terms_add_up() -> None:
    terms = [{"architecture": name, "cutoff": 5.0} for name in ("moment_network", "stillinger_weber", "of_somebody")]
    assert microseconds(PotentialSpec.model_validate({"species": ["C"], "terms": terms})) == pytest.approx(9.6)


def test_a_base_is_part_of_the_cost() -> None:
    """As measured by tests/benchmarks/bases.py: EMT took 28.5 ms for 128 atoms, forty times what terms take."""
    assert microseconds(LENNARD_JONES, "emt") == pytest.approx(28.5e3 / 128, rel=0.02)
    assert microseconds(LENNARD_JONES, "lennard_jones") == pytest.approx(1.2)
    path = example("own_model/quick.yaml")
    parts = read_plan(path)
    assert {part.base for part in parts} == {"emt"}
    assert "cost was not measured" not in " ".join(lines(parts))
    unknown = [replace(part, base="mace") for part in parts]
    assert "and the base mace, whose cost was not measured" in lines(unknown)[-2]


@pytest.mark.parametrize(
    ("changes", "atoms", "message"),
    [
        ({"walkers": 65536, "production_fs": 1e9, "stride_fs": 1e8, "timestep_fs": 1.0}, 10_000, "core hours would be"),
        ({"walkers": 65536, "production_fs": 1000.0, "stride_fs": 500.0}, 100_000, "GiB of memory would be"),
    ],
)
def test_absurd_runs_are_refused(changes: dict[str, Any], atoms: int, message: str) -> None:
    part = sampling("refinement", "solid", SamplingSettings(**changes), LENNARD_JONES, atoms=atoms, volume=atoms / 0.02)
    with pytest.raises(
        ValueError, match=rf"some .* {message} needed, more than .*, for refinement at solid: {atoms} atoms, 65536"
    ):
        check([part])


@pytest.mark.parametrize("name", ["quick", "cpu", "paper"])
def test_the_plan_of_an_example(name: str) -> None:
    path = example(f"argon/{name}.yaml")
    run = read_input(path)
    assert run.model.spec is not None
    parts = plan(run, path.parent, run.model.spec)
    assert [part.stage for part in parts].count("refinement") == 1
    assert sum(part.stage == "validation" for part in parts) == len(run.state_points)
    check(parts)
    shown = lines(parts)
    assert len(shown) == len(parts) + 3
    assert "rough numbers" in shown[-2]
    assert "an update takes some 1 GiB of memory" in shown[-1]


def test_starts_of_jobs_are_part_of_the_estimate() -> None:
    """Which of small systems are most of the time: without them the estimate was several times too small."""
    settings = SamplingSettings(walkers=2, equilibration_fs=10.0, production_fs=100.0)
    small = {"atoms": 4, "volume": 150.0}
    points = [sampling("refinement", name, settings, LENNARD_JONES, times=10, **small) for name in ("cold", "warm")]
    hot = sampling(HOT_RUNS, "warm", settings, LENNARD_JONES, times=3, **small)
    started = jobs([*points, hot])
    # 20 jobs that sample, 10 updates of both, 3 hot runs; two, one and one of them are the first of a kind. And two.
    assert (started.number, started.kinds) == (35, 6)
    assert started.core_hours == pytest.approx((6 * 19 + 29 * 5) / 3600)
    assert "at most 35 jobs: 4.3 core minutes; 19 s of one core for the first" in lines([*points, hot])[-3]
    assert "sampling and starts take at most 4.3 core minutes of one core" in lines([*points, hot])[-2]


def test_the_friction_of_crystals_is_told_of_for_atoms_packed_at_random() -> None:
    """Which held up liquid krypton for 20 ps."""
    solid = read_input(example("diamond/quick.yaml"))
    assert thermostat_advice(solid, samplings(solid)) == []
    liquid = read_input(example("water/paper.yaml"))
    assert liquid.system.random is not None
    assert thermostat_advice(liquid, samplings(liquid)) == []
    del liquid.validation.sampling["thermostat"]
    found = samplings(liquid)
    (line,) = thermostat_advice(liquid, found)
    friction = found["validation.sampling"].thermostat.friction_per_ps  # type: ignore[union-attr]
    assert line.startswith(f"validation.sampling: the thermostat is that of the preset, whose friction of {friction:g}")
    weak = found["sampling"].model_copy(update={"thermostat": LangevinSpec(friction_per_ps=1.0)})
    assert thermostat_advice(liquid, {"validation.sampling": weak}) == []
