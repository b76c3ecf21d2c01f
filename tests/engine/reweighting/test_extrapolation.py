"""Errors of reweighted averages against harmonic oscillators, whose averages are known at every temperature."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.reweighting import extrapolation
from aiida_difftre.engine.reweighting.weights import reliable_size

REPEATS = 2000


def carried(oscillators: int, ratio: float, snapshots: int) -> dict[str, np.ndarray]:
    """Mean energy of oscillators in units of kT, carried from T to T/ratio, in many repeated runs.

    The energy u is gamma distributed, and the weights are exp(-(ratio - 1) u).
    """
    rng = np.random.default_rng(0)
    u = rng.gamma(1.5 * oscillators, size=(REPEATS, snapshots))
    logarithm = -(ratio - 1) * u
    w = np.exp(logarithm - logarithm.max(1, keepdims=True))
    w /= w.sum(1, keepdims=True)
    mean = np.sum(w * u, axis=1)
    # What a bootstrap over independent snapshots tends to.
    error = np.sqrt(np.sum(w**2 * (u - mean[:, None]) ** 2, axis=1) * snapshots / (snapshots - 1))
    left = np.array([reliable_size(one) for one in w])
    deviation = mean - 1.5 * oscillators / ratio
    return {"deviation": deviation, "error": error, "left": left, "kish": 1 / np.sum(w**2, axis=1)}


NEAR = [
    (30, 1.0, 100), (30, 0.9, 100), (30, 1.12, 100), (30, 0.88, 300), (30, 1.2, 300), (10, 0.8, 300), (1, 2.0, 100),
    (30, 0.94, 40), (30, 1.06, 40), (30, 0.94, 20), (30, 1.06, 20), (30, 0.84, 1000), (30, 1.25, 1000),
]  # fmt: skip
FAR = [
    (30, 0.8, 100), (30, 0.75, 300), (30, 0.7, 1000), (30, 1.4, 100), (30, 1.5, 1000), (10, 0.7, 300), (30, 0.5, 20),
    (30, 0.85, 40), (1, 10.0, 100),
]  # fmt: skip


@pytest.mark.parametrize(("oscillators", "ratio", "snapshots"), NEAR)
def test_widened_errors_are_those_of_repeated_runs(oscillators: int, ratio: float, snapshots: int) -> None:
    """Where nearly all runs reach."""
    found = carried(oscillators, ratio, snapshots)
    kept = found["left"] >= extrapolation.least(snapshots, 1.0)
    assert kept.mean() > 0.9
    scatter = np.sqrt(np.mean(found["deviation"][kept] ** 2))
    assert 0.85 < np.sqrt(np.mean(stated(found, snapshots)[kept] ** 2)) / scatter < 1.5


@pytest.mark.parametrize(("oscillators", "ratio", "snapshots"), [*NEAR, *FAR])
def test_hardly_a_run_states_a_wrong_average_as_right(oscillators: int, ratio: float, snapshots: int) -> None:
    """Wherever one asks: by more than three errors, and not refused; the tail of few oscillators is longer."""
    found = carried(oscillators, ratio, snapshots)
    kept = found["left"] >= extrapolation.least(snapshots, 1.0)
    wrong = np.abs(found["deviation"]) > 3 * stated(found, snapshots)
    assert np.mean(kept & wrong) < (0.05 if oscillators >= 30 else 0.1)


def test_a_bootstrap_alone_does() -> None:
    """What all this is for: with less than a fifth of the samples, every fourth run, and sizes that look well."""
    found = carried(30, 0.75, 300)
    assert np.mean(np.abs(found["deviation"]) > 3 * found["error"]) > 0.25
    assert np.median(found["kish"]) > 20
    assert np.median(found["left"]) < 20


def stated(found: dict[str, np.ndarray], snapshots: int) -> np.ndarray:
    factors = np.array([extrapolation.widening(left, snapshots, 1.0) for left in found["left"]])
    return factors * found["error"]


def test_normal_size() -> None:
    """Of normal logarithms N exp(-s²), however far the snapshots are that do not matter."""
    x = np.random.default_rng(1).normal(size=20001)
    weight = np.exp(1.2 * x)
    expected = 20001 * np.exp(-(1.2**2))
    assert extrapolation.normal_size(weight / weight.sum()) == pytest.approx(expected, rel=0.05)
    weight[x < 0] = 0.0
    assert extrapolation.normal_size(weight / weight.sum()) < 1  # half of all weights vanish: there is no median
    weight = np.where(x < -0.3, 0.0, np.exp(1.2 * x))
    assert extrapolation.normal_size(weight / weight.sum()) == pytest.approx(expected, rel=0.05)
    assert extrapolation.normal_size(np.full(7, 1 / 7)) == 7


def test_widening() -> None:
    assert extrapolation.widening(100.0, 100, 5.0) == 1
    # Rounding makes effective sizes a little larger than the number.
    assert extrapolation.widening(100.0 + 1e-9, 100, 5.0) == 1
    assert extrapolation.widening(50.0, 100, 1.0) == pytest.approx(np.sqrt(1 + 30 * np.log(2) / 50))
    assert extrapolation.widening(50.0, 100, 2.0) == pytest.approx(np.sqrt(1 + 30 * np.log(2) / 25))


def test_how_many_are_needed() -> None:
    assert extrapolation.least(1000, 1.0) == 20
    assert extrapolation.least(1000, 20.0) == 20
    assert extrapolation.least(1000, 50.0) == 10
    assert extrapolation.least(20, 1.0) == 10
    assert extrapolation.least(8, 1.0) == extrapolation.least(1, 1.0) == 5


def test_refusal_names_the_numbers_and_the_remedy() -> None:
    extrapolation.check(40.0, 200, 2.0, "85 K", "90 K")
    with pytest.raises(EngineError) as caught:
        extrapolation.check(39.0, 200, 2.0, "85 K", "170 K")
    assert caught.value.status == ExitStatus.TOO_FEW_EFFECTIVE_SAMPLES
    assert caught.value.message == (
        "reweighting from 85 K to 170 K leaves 19.5 effective independent samples of 100 (200 snapshots), fewer than "
        "20; sample at 170 K, or ask for a state point nearer to the sampled one, or give more snapshots"
    )
    assert caught.value.diagnostics["n_eff_independent"] == 19.5


def test_a_weight_that_took_all_others_leaves_one_snapshot_and_a_finite_factor() -> None:
    """An update that goes far astray ends with weights that underflow; its predictions are poor, and are numbers."""
    weight = np.exp(-np.linspace(0.0, 5e4, 40))
    weight /= weight.sum()
    size = extrapolation.normal_size(weight)
    assert size == 0.0
    assert extrapolation.widening(size, len(weight), 2.0) == extrapolation.widening(1.0, len(weight), 2.0)
