"""The verdict in words, of what is known by construction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiida_difftre.cli.report import hot_notes
from aiida_difftre.engine.contract.hot import BlowUp, HotRun, HotSettings
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.contract.verdict import Arrangement, Branches, Dimer, Lattice, MeasuredPhonon, Mode
from aiida_difftre.workchains.significance import significance
from aiida_difftre.workchains.validate_checks import ValidateSettings
from aiida_difftre.workchains.verdict import Sampled, hole, instabilities, of_report, verdict


def comparison(value: float, error: float, experiment: float = 10.0, experiment_error: float = 1.0) -> dict[str, Any]:
    chi2 = (value - experiment) ** 2 / (error**2 + experiment_error**2)
    return {
        "observable": "pressure", "labels": ["P"], "unit": "GPa", "role": "training", "weight": 1.0, "grid": None,
        "experiment": [experiment], "experiment_errors": [experiment_error], "values": [value], "errors": [error],
        "chi2": chi2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [(20.0, 10.5, "improved"), (10.5, 20.0, "worse"), (11.0, 10.8, "unchanged"), (20.0, 0.0, "unchanged")],
)
def test_changes(before: float, after: float, change: str) -> None:
    points = {"solid": {"pressure": {"before": comparison(before, 0.5), "after": comparison(after, 0.5)}}}
    (found,) = verdict(points).targets
    assert found.change == change
    assert found.is_met is (abs(after - 10.0) < 2.2)


def test_significance_is_the_difference_over_its_combined_error() -> None:
    """Of two potentials that differ from experiment by as much, in repeated simulations."""
    random = np.random.default_rng(1)
    found = [
        significance(comparison(13.0 + random.normal(), 1.0), comparison(13.0 + random.normal(), 1.0))
        for _ in range(2000)
    ]
    assert np.std(found) == pytest.approx(1.0, abs=0.12)
    assert np.mean(found) == pytest.approx(0.0, abs=0.1)


R = np.geomspace(0.25, 6.0, 120)


def dimer(energy: Any) -> Dimer:
    return Dimer(pair=("Ar", "Ar"), distances=R.tolist(), energies=energy(R).tolist())


def test_holes() -> None:
    def wall(r: Any) -> Any:
        return 0.01 * ((3.8 / r) ** 12 - 2 * (3.8 / r) ** 6)

    assert hole(dimer(wall), 3.3) is None
    assert hole(dimer(lambda r: wall(r + 1.0)), 3.3) is None, "a bond shorter than the closest approach"
    found = hole(dimer(lambda r: 2.0 * np.exp(-(((r - 2.3) / 0.3) ** 2))), 3.3)
    assert found is not None
    assert found.distance == pytest.approx(2.3, abs=0.06)
    assert found.barrier == pytest.approx(2.0, abs=0.03)
    buckingham = hole(dimer(lambda r: 2000 * np.exp(-r / 0.3) - 40 / r**6), 1.8)
    assert buckingham is not None, "exp-6 falls to minus infinity"
    never = hole(dimer(lambda r: -1.0 / r), 3.3)
    assert (never.barrier, never.distance) == (0.0, 3.3)


def test_distances_at_which_a_base_fails_leave_the_others() -> None:
    """What is not known is told where it counts, and is no hole."""

    def found(upto: float, energy: Any = lambda r: 1.0 / r) -> Any:
        known = dimer(energy)
        cut = int(np.sum(upto >= R))
        reason = "the base potential failed: ValueError: too dense"
        made = known.model_copy(
            update={
                "distances": known.distances[cut:], "energies": known.energies[cut:], "failed": known.distances[:cut],
                "reason": reason,
            }
        )  # fmt: skip
        sampled = {"cold": Sampled(300.0, Arrangement(displacement=0.1, spacing=3.0, closest={"Ar-Ar": 3.0}))}
        return verdict({}, sampled, {}, [made])

    assert not found(1.4).holes
    assert not found(1.4).unchecked
    for upto in (2.0, 3.5):
        told = found(upto, lambda r: r)  # which attract each other, as far as one knows
        assert not told.holes
        assert "Ar-Ar at 1.5 to " in told.unchecked[0]
        assert "too dense" in told.unchecked[0]
    assert found(1.4, lambda r: r).holes[0].barrier == 0.0


def lattice(soft: float, frequency: float) -> Lattice:
    return Lattice(
        formula="C8", atoms=8, primitive=2, pressure=0.0, rigidities=[soft, 900.0, 1300.0],
        softest=[0, 0, 0, 0, 0, 1], lowest=[Mode(wave_vector=[0, 0.9, 0.9], frequency=frequency)], highest=40.0,
    )  # fmt: skip


def test_a_potential_that_meets_its_targets_at_a_saddle() -> None:
    points = {"ambient": {"stiffness": {"after": comparison(10.0, 0.5)}}}
    sampled = {"ambient": Sampled(298.0, Arrangement(closest={"Ar-Ar": 3.3}, displacement=0.1, spacing=1.8))}
    found = verdict(points, sampled, {"ambient": lattice(-394.0, -5.2)}, [])
    assert not found.is_sound
    assert "May be used for stiffness at ambient; not for the crystal at rest (ambient): a shear (C44)" in found.line
    assert "-394 GPa" in found.line
    assert "5.2i THz at q = (0, 0.9, 0.9)" in found.line
    good = verdict(points, sampled, {"ambient": lattice(100.0, 5.2)}, [])
    assert good.is_sound
    assert good.line == "May be used for stiffness at ambient; not for what is not among its targets."
    assert instabilities(lattice(100.0, -0.1)) == [], "an error of finite differences"
    melted = {"ambient": Sampled(298.0, Arrangement(displacement=1.1, spacing=1.8))}
    found = verdict(points, melted, {"ambient": lattice(-394.0, -5.2)}, [])
    assert "left their sites (1.1 Å)" in found.line
    assert not found.unstable


def test_the_verdict_on_a_report_of_an_earlier_version() -> None:
    points = {"solid": {"pressure": {"before": comparison(20.0, 0.5), "after": comparison(25.0, 0.5)}}}
    found = of_report({"state_points": points, "chi2": {}})
    assert found.line.startswith("Meets none of its targets")
    assert "Not looked at: lattices at rest" in found.line
    assert found.targets[0].change == "worse"
    assert of_report({"state_points": points, "verdict": found.content()}) == found


def test_measured_phonons() -> None:
    """Of diamond's Raman line, 1332.4 1/cm, and of a branch that there is not."""
    line = {"value": 1332.4, "error": 10.0, "unit": "1/cm", "citation": "a test"}
    measured = {
        "ambient": {
            "Raman line": MeasuredPhonon(wave_vector=(0, 0, 0), **line),
            "seventh": MeasuredPhonon(wave_vector=(0, 0, 0), branch=6, **line),
            "another": MeasuredPhonon(wave_vector=(1, 0, 0), branch="lowest", **line),
        }
    }
    crystal = lattice(100.0, 5.2)
    crystal.branches = [Branches(wave_vector=(0, 0, 0), frequencies=[39.9446] * 3)]
    points = {"ambient": {"stiffness": {"after": comparison(10.0, 0.5)}}}
    found = verdict(points, {}, {"ambient": crystal}, [], measured)
    raman, seventh, another = found.phonons
    assert raman.value == pytest.approx(1332.4, abs=0.1)
    assert seventh.value is another.value is None
    assert of_report({"state_points": points, "verdict": found.content()}).phonons == found.phonons


def test_a_potential_that_blows_up_where_it_is_hot() -> None:
    points = {"liquid": {"pressure": {"after": comparison(10.0, 0.5)}}}
    held = HotRun(factor=1.5, temperature=127.5, time_fs=1000.0, walkers=4, closest=3.0, drift=0.0003)
    gone = BlowUp(walker=2, time_fs=240.0, reason="two atoms 0.9 Å apart (limit 2 Å)", closest=0.9)
    hot = HotRun(factor=2.0, temperature=170.0, time_fs=1000.0, walkers=4, closest=2.7, blown_up=[gone])
    skipped = HotRun(factor=3.0, temperature=255.0, time_fs=1000.0, walkers=4, skipped="it is for 85 K alone")
    found = verdict(points, {"liquid": Sampled(85.0, None, (held,))}, {}, [])
    assert found.is_sound
    assert found.line == "May be used for pressure at liquid; not for what is not among its targets."
    found = verdict(points, {"liquid": Sampled(85.0, None, (held, hot, skipped))}, {}, [])
    assert not found.is_sound
    assert (
        "not for liquid at 170 K (2 T), where 1 of 4 walkers blew up, the first after 240 fs (two atoms 0.9 Å apart"
        in found.line
    )
    assert "Not looked at: liquid at 255 K: it is for 85 K alone." in found.line
    stored = of_report({"state_points": points, "verdict": found.content()})
    assert stored.hot == found.hot
    assert hot_notes(stored.hot) == [
        "liquid at 127.5 K (1.5 T), 4 walkers of 1000 fs: all held; closest approach 3 Å; drift 0.3 meV/atom",
        "liquid at 170 K (2 T), 4 walkers of 1000 fs: walker 2 blew up after 240 fs: two atoms 0.9 Å apart (limit 2 "
        "Å); closest approach 2.7 Å",
        "liquid at 255 K (3 T), 4 walkers of 1000 fs: it is for 85 K alone",
    ]


def test_settings_of_hot_runs() -> None:
    assert validate(ValidateSettings, {}).hot is None
    assert validate(ValidateSettings, {"hot": False}).hot is None
    assert validate(ValidateSettings, {"hot": True}).hot == HotSettings()
    assert validate(ValidateSettings, {"hot": {"factors": [3.0]}}).hot == HotSettings(factors=[3.0])
    with pytest.raises(ValueError, match=r"^hot\.factors\.0: must be above 1 and at most 100"):
        validate(ValidateSettings, {"hot": {"factors": [0.5]}})


def test_settings_of_an_ensemble() -> None:
    assert validate(ValidateSettings, {"assessment": True, "members": 3}).members == 3
    with pytest.raises(ValueError, match="members = 3 are drawn by the assessment; set assessment to true"):
        validate(ValidateSettings, {"members": 3})


def test_settings_of_phonons() -> None:
    line = {"wave_vector": [0, 0, 0], "value": 1332.4, "error": 10.0, "unit": "1/cm", "citation": "a test"}
    assert validate(ValidateSettings, {"phonons": {"ambient": {"Raman line": line}}}).phonons
    for settings, message in (
        ({"phonons": {"ambient": {"x": {**line, "wave_vector": [0.5, 0, 0]}}}}, "wave_vector"),
        ({"phonons": {"ambient": {"x": {**line, "unit": "Hz"}}}}, "unit"),
        ({"phonons": {"ambient": {"x": {**line, "error": 0}}}}, "error: must be above 0"),
        ({"phonons": {"ambient": {"x": {**line, "branch": -1}}}}, "branch"),
        ({"phonons": {"ambient": {"x": {**line, "citation": ""}}}}, "citation"),
        ({"phonons": {"ambient": {"x": line}}, "verdict": False}, "leave verdict true"),
    ):
        with pytest.raises(ValueError, match=message):
            validate(ValidateSettings, settings)
