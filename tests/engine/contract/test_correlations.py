"""Errors that points share: chi² against NumPy, systematic errors against an explicit fit, and a known truth."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine.contract.correlations import Systematic, covariance
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.refinement.losses import TargetTerm, chi2, compared, noise, residuals, target_loss
from aiida_difftre.workchains.comparison import compare, decisive_points
from aiida_difftre.workchains.significance import significance
from aiida_difftre.workchains.verdict import target_verdicts
from tests.fixtures.engine import target as make_target

GRID = np.linspace(2.0, 6.0, 9)
VALUES = 1 + np.exp(2 - GRID) * np.sin(2 * GRID)
ERROR = 0.05


def curve(**fields: Any) -> Target:
    """A radial distribution function with errors."""
    return make_target("rdf", VALUES.tolist(), ERROR, grid=GRID.tolist(), **fields)


SHARED: list[dict[str, Any]] = [
    {"correlation_length": 0.8},
    {"systematic": {"scale": 0.03, "offset": 0.02, "slope": 0.05}},
    {"covariance": (ERROR**2 * np.exp(-(np.subtract.outer(GRID, GRID) ** 2))).tolist()},
]


@pytest.mark.parametrize("fields", SHARED)
def test_chi2_is_that_of_the_whole_matrix(fields: dict[str, Any]) -> None:
    target = curve(**fields)
    given = {"length": target.correlation_length, "systematic": target.systematic, "given": target.covariance}
    matrix = covariance(target.values, target.errors, target.grid, **given)
    prediction = VALUES + 0.1 * np.cos(3 * GRID)
    off = prediction - VALUES
    spread = np.geomspace(0.001, 0.1, len(GRID))  # of a simulation: it differs from point to point
    term, whole_matrix = TargetTerm(target, spread), matrix + np.diag(spread**2)
    expected = off @ np.linalg.solve(whole_matrix, off) / len(GRID)
    assert chi2(prediction, term) == pytest.approx(expected, rel=1e-10)
    whole = float(np.sum(np.square(residuals([jnp.asarray(prediction)], [term], "chi2"))))
    assert whole == pytest.approx(expected, rel=1e-10)
    assert np.mean(compared(prediction, term).points.squares()) == pytest.approx(expected, rel=1e-10)
    assert noise([term], "chi2") == pytest.approx(
        np.trace(np.linalg.solve(whole_matrix, np.diag(spread**2))) / len(GRID), rel=1e-10
    )
    slope = jax.grad(lambda at: target_loss([at], [term], "chi2"))(jnp.asarray(prediction))
    np.testing.assert_allclose(slope, 2 * np.linalg.solve(whole_matrix, off) / len(GRID), rtol=1e-8)


def test_a_systematic_error_that_is_next_to_nothing_changes_nothing() -> None:
    """Equal errors of the experiment have no principal axes of their own: any would mix those of the simulation."""
    spread, off = np.geomspace(0.001, 0.1, len(GRID)), 0.1 * np.cos(3 * GRID)
    alone, with_one = (
        compared(VALUES + off, TargetTerm(curve(**fields), spread)).points
        for fields in ({}, {"systematic": {"offset": 1e-7}})
    )
    assert np.mean(with_one.squares()) == pytest.approx(np.mean(alone.squares()), rel=1e-6)
    assert with_one.noise() == pytest.approx(alone.noise(), rel=1e-6)


def test_a_systematic_error_is_one_that_was_fitted_with_its_prior() -> None:
    """Explicitly: least squares in the unknown scale and offset, with their priors as two further points."""
    target = curve(systematic={"scale": 0.03, "offset": 0.02})
    off = 0.02 * VALUES - 0.05 + 0.03 * np.cos(5 * GRID)
    design = np.concatenate([np.stack([VALUES, np.ones(len(GRID))], 1) / ERROR, np.diag([1 / 0.03, 1 / 0.02])])
    aim = np.concatenate([off / ERROR, np.zeros(2)])
    best = np.linalg.lstsq(design, aim, rcond=None)[0]
    expected = np.sum((aim - design @ best) ** 2) / len(GRID)
    assert chi2(VALUES + off, TargetTerm(target, np.zeros(len(GRID)))) == pytest.approx(expected, rel=1e-10)


def test_fits_of_a_known_truth_scatter_by_their_stated_errors() -> None:
    """Of one factor on a line, with an offset that is unknown: without it the stated error is far too small."""
    rng, line = np.random.default_rng(0), np.linspace(1.0, 3.0, len(GRID))

    def fitted(fields: dict[str, Any]) -> tuple[float, float]:
        """Scatter of the factor over experiments, and its error by the weighted design."""
        term = TargetTerm(curve(**fields), np.zeros(len(GRID)))
        design = term.whitened(line)
        found = []
        for _ in range(400):
            data = line + 0.1 * rng.normal() + ERROR * rng.normal(size=len(GRID))
            found.append(design @ term.whitened(data) / (design @ design))
        return float(np.std(found)), float((design @ design) ** -0.5)

    scatter, stated = fitted({"systematic": {"offset": 0.1}})
    assert stated == pytest.approx(scatter, rel=0.12)
    naive, too_small = fitted({})
    assert too_small < 0.3 * naive
    assert scatter < naive


def test_the_work_chain_compares_alike_and_old_targets_are_written_as_before() -> None:
    target = curve(systematic={"offset": 0.02})
    values, errors = VALUES + 0.1, np.full(len(GRID), 0.01)
    numbers = {"grid": GRID.tolist(), "values": values.tolist(), "errors": errors.tolist()}
    prediction = Prediction(label="rdf", observable="rdf", unit=target.unit, labels=[], **numbers)
    found = compare(target, prediction)
    assert found["chi2"] == pytest.approx(float(chi2(values, TargetTerm(target, errors))))
    assert found["experiment_errors"] == pytest.approx([np.hypot(ERROR, 0.02)] * len(GRID))
    points = decisive_points(json.loads(json.dumps([found])))
    assert np.mean(points.squares()) == pytest.approx(found["chi2"])
    assert not {"correlation_length", "covariance", "systematic"} & set(curve().model_dump())
    assert Target.model_validate(target.model_dump(mode="json")) == target


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"covariance": [[1.0]]}, "covariance must have 9 rows of 9 numbers"),
        ({"covariance": (np.triu(np.ones((9, 9))) * ERROR**2).tolist()}, "covariance is not symmetric"),
        ({"covariance": np.eye(9).tolist()}, "errors are not the square roots of the diagonal"),
        (
            {"covariance": np.full((9, 9), ERROR**2).tolist()},
            "is not positive definite: its correlations have the eigenvalue",
        ),
        ({"correlation_length": -1.0}, "correlation_length"),
        ({"correlation_length": 0.0}, "correlation_length: must be above 0"),
        ({"correlation_length": 5.0}, r"correlation_length 5 is longer than the grid, 4; an error that all"),
        ({"correlation_length": 1.0, "grid": GRID[::-1].tolist()}, "grid"),
        ({"covariance": np.full((9, 9), np.nan).tolist()}, "covariance"),
        ({"covariance": np.full((9, 9), np.inf).tolist()}, "covariance"),
        ({"systematic": {"offset": float("nan")}}, "systematic.offset"),
        ({"systematic": {"offset": -0.1}}, "systematic.offset: must be above 0"),
        ({"systematic": {"offset": 1e8}}, "at most ten thousand times as wide"),
        ({"systematic": {"tilt": 0.1}}, "tilt"),
        ({"systematic": {}}, "systematic names no error"),
        ({"correlation_length": 1.0, "covariance": np.eye(9).tolist()}, "covariance or correlation_length, not both"),
        ({"systematic": {"scale": 0.0}}, "systematic.scale"),
    ],
)
def test_refused(fields: dict[str, Any], message: str) -> None:

    with pytest.raises(ValueError, match=message):
        validate(Target, {**curve().model_dump(), **fields})


def test_errors_of_different_sizes_are_no_singular_matrix() -> None:
    errors = np.geomspace(1e-8, 1.0, len(GRID))
    found = validate(Target, {**curve().model_dump(), "errors": errors.tolist(), "systematic": {"offset": 1e-8}})
    np.testing.assert_allclose(found.total_errors(), np.hypot(errors, 1e-8))


def test_a_change_within_a_shared_error_is_no_improvement() -> None:
    """An offset that is known to 0.2 only; by single points it would be a change of six standard errors each."""
    target = curve(systematic={"offset": 0.2})

    def found(offset: float, experiment: Target = target) -> dict[str, Any]:
        numbers = {"grid": GRID.tolist(), "values": (VALUES + offset).tolist(), "errors": [0.005] * len(GRID)}
        return compare(experiment, Prediction(label="rdf", observable="rdf", unit="1", labels=[], **numbers))

    assert abs(significance(found(0.3), found(0.0))) < 1.0
    assert significance(found(0.3, curve()), found(0.0, curve())) > 2.0
    assert significance(found(2.0), found(0.0)) > 2.0
    (told,) = target_verdicts({"liquid": {"rdf": {"before": found(0.3), "after": found(0.0)}}})
    assert told.change == "unchanged"


def test_significance_scatters_by_one_over_experiments() -> None:
    """Two predictions on either side of the truth, of experiments whose errors are drawn from the whole matrix."""
    rng, noise = np.random.default_rng(0), 1e-6
    target = curve(systematic={"offset": 0.2})
    root, found = np.linalg.cholesky(np.asarray(target.shared_errors())), []
    for _ in range(300):
        measured = (VALUES + root @ rng.normal(size=len(GRID))).tolist()
        before, after = (
            {**compare(target, Prediction(
                label="rdf", observable="rdf", unit="1", labels=[], grid=GRID.tolist(),
                values=(VALUES + sign * (0.3 + 0.1 * np.cos(3 * GRID))).tolist(), errors=[noise] * len(GRID),
            )), "experiment": measured}
            for sign in (1, -1)
        )  # fmt: skip
        found.append(significance(before, after))
    assert np.std(found) == pytest.approx(1.0, abs=0.13)
    assert np.mean(found) == pytest.approx(0.0, abs=0.2)


def test_what_needs_a_curve() -> None:
    for fields in ({"length": 1.0}, {"systematic": Systematic(slope=0.1)}):
        with pytest.raises(ValueError, match=r"grid of a curve"):
            covariance([1.0, 2.0], [0.1, 0.1], None, **fields)
    with pytest.raises(ValueError, match=r"all values are zero; give systematic\.offset"):
        covariance([0.0, 0.0], [0.1, 0.1], None, systematic=Systematic(scale=0.1))
