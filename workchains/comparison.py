"""Predictions against experiment: what is compared, reduced chi², and the seeds of independent runs. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract import agreement
from aiida_difftre.engine.contract.agreement import Compared, Points
from aiida_difftre.engine.contract.correlations import Systematic, covariance, independent
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.targets import Target

Comparison = dict[str, Any]
"""One target and its prediction: labels, unit, role, experiment, experiment_errors, values, errors, chi2, rms, the grid
of a curve, errors that points share, what was fitted of the measurement, and the independent snapshots behind the
prediction."""


def compare(target: Target, prediction: Prediction) -> Comparison:
    """Put a prediction beside what was measured.

    chi² is the mean of (pred - exp)²/(σ_exp² + σ_sim²), with whole matrices where the points of the measurement share
    errors (``shared``: what they share, and the ``errors`` of single points without systematic ones);
    ``experiment_errors`` are all errors of single points, and ``rms`` is the root of the mean of (pred - exp)², in
    ``unit``.
    """
    measured, values = np.array(target.values), np.array(prediction.values)
    points, correlations = target.points(values, np.array(prediction.errors)), target.correlations()
    return {
        "observable": target.observable,
        # A curve is known by its grid.
        "labels": target.component_labels() if target.grid is None else [],
        "grid": target.grid,
        "unit": target.unit,
        "role": target.role,
        "weight": target.weight,
        "experiment": list(target.values),
        "experiment_errors": target.total_errors().tolist(),
        **({"shared": {"errors": list(target.errors), **correlations}} if correlations else {}),
        "values": list(prediction.values),
        "errors": list(prediction.errors),
        "chi2": float(np.mean(points.squares())),
        "rms": float(np.sqrt(np.mean((values - measured) ** 2))),
        # Parameters of the measurement, where the observable has some.
        **({"fitted": dict(prediction.fitted)} if prediction.fitted else {}),
        "effective_samples": prediction.effective_samples,
    }


def compare_all(targets: Mapping[str, Target], predictions: Iterable[Prediction]) -> dict[str, Comparison]:
    """Compare every target of a state point for which there is a prediction.

    Args:
        targets: Targets by the label under which they were predicted.
        predictions: Predictions of the state point.

    Returns:
        Comparisons by the label of the target.
    """
    predicted = {prediction.label: prediction for prediction in predictions}
    return {label: compare(target, predicted[label]) for label, target in targets.items() if label in predicted}


def shared_errors(item: Comparison) -> NDArray[np.float64] | None:
    """Covariance of the errors of the experiment, (points, points); None where the points are independent."""
    shared = item.get("shared")
    if shared is None:
        return None
    systematic = shared.get("systematic")
    return covariance(
        item["experiment"],
        shared["errors"],
        item["grid"],
        length=shared.get("correlation_length"),
        systematic=None if systematic is None else Systematic(**systematic),
        given=shared.get("covariance"),
    )


def _points(item: Comparison) -> Points:
    deviations, errors = np.subtract(item["values"], item["experiment"]), np.array(item["errors"])
    matrix = shared_errors(item)
    if matrix is None:
        return Points(deviations, np.array(item["experiment_errors"]), errors)
    return independent(deviations, matrix, errors)


def _compared(comparisons: Iterable[Comparison]) -> list[Compared]:
    return [
        Compared(item["role"], item["weight"], _points(item), item.get("effective_samples")) for item in comparisons
    ]


def decisive_points(comparisons: Iterable[Comparison]) -> Points:
    """The points that decide which of two potentials is better; see :mod:`aiida_difftre.engine.contract.agreement`."""
    return agreement.decisive_points(_compared(comparisons))


def noise(comparisons: Iterable[Comparison]) -> float:
    """The share of the simulation in the errors; see :func:`aiida_difftre.engine.contract.agreement.noise`."""
    return agreement.noise(_compared(comparisons))


def judgement(comparisons: Iterable[Comparison]) -> dict[str, Any]:
    """Reduced chi² of the targets of each role (None where there is none), and the criterion: the role that decides."""
    items = _compared(comparisons)
    return {
        **{role: agreement.reduced_chi2(items, role) for role in get_args(agreement.Role)},
        "criterion": agreement.criterion(items),
    }
