"""Which of two potentials is better, with errors of the simulation that differ."""

from __future__ import annotations

import numpy as np

from aiida_difftre.engine.agreement import Points, is_better

GOOD = Points(np.array([3.0, -2.0]), np.array([1.0, 1.0]), np.array([0.5, 0.5]))


def test_a_large_error_is_no_agreement() -> None:
    """A crystal about to melt: chi² of its own is lower, but only because its observables do not converge."""
    unstable = Points(np.array([100.0, 80.0]), GOOD.experiment_errors, np.array([300.0, 200.0]))
    own = [
        float(np.mean(p.deviations**2 / (p.experiment_errors**2 + p.simulation_errors**2))) for p in (GOOD, unstable)
    ]
    assert own[1] < own[0]
    assert not is_better(unstable, GOOD)
    assert is_better(GOOD, unstable)


def test_with_a_margin() -> None:
    closer = GOOD._replace(deviations=0.95 * GOOD.deviations)
    assert is_better(closer, GOOD)
    assert is_better(closer, GOOD, 0.09)
    assert not is_better(closer, GOOD, 0.1)
    assert not is_better(GOOD, GOOD)
