r"""Gauss-Newton steps whose length is measured in effective samples.

The loss is a sum of squares of residuals r, besides further terms with gradient 2e and second derivative 2HᵀH: labels
that are held on to, and the distance to the start. With J = ∂r/∂θ, below which the rows H stand with residuals of zero,
and with d the way that was already made on these snapshots, the step minimises

.. math::

    \|r + J\delta\|^2 + 2 e^\mathsf{T}\delta + \nu\,(d + \delta)^\mathsf{T} M (d + \delta)
    + \mu\,\delta^\mathsf{T} M \delta,
    \qquad M = F + \epsilon\,\overline{\mathrm{diag} F},
    \qquad F = \beta^2\,\mathrm{Cov}\left(\frac{\partial U}{\partial\theta}, \frac{\partial U}{\partial\theta}\right).

F is what a step costs: the snapshots keep N_eff ≈ N exp(-δᵀFδ) of their samples. μ is the smallest for which
δᵀMδ does not exceed the square of a radius, so that the step is the one that gets furthest for the samples it may
cost: that of Gauss and Newton near the targets, the natural gradient far from them.

ν keeps it from fitting noise. J is a covariance over snapshots, Cov(O, βδ·∂U/∂θ), whose standard error is that of the
average O times the standard deviation sqrt(δᵀFδ) of what it is the covariance with. The loss on a fresh trajectory is
therefore expected to exceed the one predicted by ν δᵀFδ, where ν is what the statistical errors of the predictions
contribute to the loss.

The bar is an average over each array of parameters: what the snapshots hardly tell, such as the energy of pairs that
are too close to occur, hardly moves, and the step does not depend on the units of different arrays. For a pair
potential and a radial distribution function, J and F hold the matrix of inverse Monte Carlo.

An observable of positions alone depends on the parameters through the weights only, so that its rows of J are
combinations of the derivatives of the energies that F is made of. Residuals of stress and stiffness take a
vector-Jacobian product each.

References:
    K. Levenberg, Q. Appl. Math. 2, 164 (1944); D. W. Marquardt, J. Soc. Indust. Appl. Math. 11, 431 (1963);
    S. Amari, Neural Comput. 10, 251 (1998); A. P. Lyubartsev and A. Laaksonen, Phys. Rev. E 52, 3730 (1995).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.refinement.curvature import CurvaturePrior
from aiida_difftre.engine.refinement.objective import Point, PreparedStatePoint, Quantities
from aiida_difftre.engine.refinement.sensitivities import columns, derivatives, products

LARGEST_BYTES = 2 << 30
"""Of the derivatives of the energies of all snapshots by all parameters."""

MOST_PRODUCTS = 64
"""Points of targets that take a vector-Jacobian product each."""

Vector = Float[np.ndarray, " parameters"]


class Linear(NamedTuple):
    """The residuals of a loss to first order in the parameters, and what a step costs in effective samples.

    Args:
        residuals: Residuals r, (residuals,).
        jacobian: Derivatives J = ∂r/∂θ, (residuals, parameters).
        rows: Rows X with F = Xᵀ X, (samples, parameters): a step δ keeps about exp(-δᵀ F δ) of the effective samples.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.refinement.gauss_newton import Linear
        >>> linear = Linear(np.array([2.0]), np.array([[1.0, 0.0]]), np.eye(2))
        >>> linear.jacobian.shape
        (1, 2)
    """

    residuals: Float[np.ndarray, " residuals"]
    jacobian: Float[np.ndarray, "residuals parameters"]
    rows: Float[np.ndarray, "samples parameters"]


class TrustRegion(NamedTuple):
    """How far a step may go, and what holds it back.

    Args:
        radius: Largest length of the step, sqrt(δᵀ M δ): the standard deviation of the change of U/kT.
        damping: ε, which keeps parameters that the snapshots hardly tell from moving far.
        noise: ν, what the statistical errors of the predictions contribute to the loss.

    Example:
        >>> from aiida_difftre.engine.refinement.gauss_newton import TrustRegion
        >>> TrustRegion(radius=0.1, damping=1e-6).noise
        0.0
    """

    radius: float
    damping: float
    noise: float = 0.0


def step(
    data: Sequence[PreparedStatePoint],
    point: Point,
    free: Parameters,
    region: TrustRegion,
    *,
    start: Parameters | None = None,
    prior: CurvaturePrior | None = None,
    held: Float[np.ndarray, "rows parameters"] | None = None,
) -> tuple[Parameters, float, bool]:
    """Compute the Gauss-Newton step of a loss over reference trajectories.

    Parameters that are fixed do not move; none does where a derivative is not finite, and the norm then is not either.

    Args:
        data: State points with their references and targets.
        point: The loss at the parameters at which the step starts, with the quantities of each snapshot there.
        free: Tree of booleans in the shape of the parameters: which of them may move.
        region: Largest length of the step, damping and noise.
        start: Parameters that sampled; None for those at which the step starts.
        prior: Further residuals, of the curvature of splines; None for none.
        held: Rows whose squares are half of the second derivative of the further terms of the loss, by the parameters
            that may move; None for none.

    Returns:
        The step in the shape of the parameters, the norm of the gradient of the loss, and whether the radius bounds the
        step.

    Raises:
        EngineError: With status INVALID_INPUT, where the derivatives do not fit into memory, or for too many points of
            targets that take a vector-Jacobian product each.
    """
    parameters, extra = point.parameters, point.extra_slope
    leaves, structure = jax.tree.flatten(parameters)
    movable = [bool(moves) for moves in jax.tree.leaves(free)]
    sizes = [leaf.size if moves else 0 for leaf, moves in zip(leaves, movable, strict=True)]
    _check_size(data, sum(sizes))
    quantities = point.evaluation.quantities
    parts = [_linear(prepared, parameters, quantities[prepared.label], movable) for prepared in data]
    if prior is not None:
        told = prior.residuals(parameters)
        slopes = columns(prior.derivatives(parameters), movable, len(told))
        parts.append(Linear(told, slopes, np.zeros((0, sum(sizes)))))
    if held is not None:
        parts.append(Linear(np.zeros(len(held)), held, np.zeros((0, sum(sizes)))))
    found = Linear(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    slope = np.zeros(sum(sizes)) if extra is None else columns(extra, movable)[0] / 2
    arrays = np.repeat(np.arange(len(leaves)), sizes)
    if not all(np.isfinite(array).all() for array in (*found, slope)):
        return jax.tree.map(jnp.zeros_like, parameters), float("nan"), False
    way = np.zeros(sum(sizes)) if start is None else columns(jax.tree.map(jnp.subtract, parameters, start), movable)[0]
    moved, is_bounded = solve(found, slope, arrays, region, way=way)
    ends = np.cumsum(sizes)
    shaped = [
        np.asarray(moved[end - size : end].reshape(leaf.shape), leaf.dtype)
        if size
        else np.zeros(leaf.shape, leaf.dtype)
        for leaf, size, end in zip(leaves, sizes, ends, strict=True)
    ]
    gradient = 2 * (found.jacobian.T @ found.residuals + slope)
    result: Parameters = jax.tree.unflatten(structure, shaped)
    return result, float(np.linalg.norm(gradient)), is_bounded


def solve(
    linear: Linear,
    extra: Vector,
    arrays: Int[np.ndarray, " parameters"],
    region: TrustRegion,
    *,
    way: Vector | None = None,
) -> tuple[Vector, bool]:
    r"""Compute the Gauss-Newton step whose length, in effective samples, does not exceed a radius.

    .. math::
        \min_\delta\ \|r + J\delta\|^2 + 2 e^\mathsf{T}\delta + \nu\,(d + \delta)^\mathsf{T} M (d + \delta)
        + \mu\,\delta^\mathsf{T} M \delta, \qquad M = X^\mathsf{T} X + \epsilon\,\overline{\mathrm{diag}\, X^\mathsf{T}
        X}

    where the bar is an average over each array of parameters, and μ the smallest for which δᵀ M δ does not exceed the
    square of the radius.

    Args:
        linear: Residuals r, their derivatives J, and rows X.
        extra: Half of the gradient of further terms of the loss, e, (parameters,).
        arrays: Index of the array to which each parameter belongs, (parameters,).
        region: Largest length of the step, damping ε and noise ν.
        way: The way d that was already made on these snapshots, (parameters,); None for none.

    Returns:
        The step δ, (parameters,), and whether the radius bounds it.

    References:
        K. Levenberg, Q. Appl. Math. 2, 164 (1944); D. W. Marquardt, J. Soc. Indust. Appl. Math. 11, 431 (1963).

    Example:
        A residual of 2 with slope 1 vanishes with a step of -2, which a radius of 0.5 shortens:

        >>> import numpy as np
        >>> from aiida_difftre.engine.refinement.gauss_newton import Linear, TrustRegion, solve
        >>> linear = Linear(np.array([2.0]), np.array([[1.0]]), np.array([[1.0]]))
        >>> for radius in (10.0, 0.5):
        ...     region = TrustRegion(radius, damping=1e-6)
        ...     step, is_bounded = solve(linear, np.zeros(1), np.zeros(1, int), region)
        ...     print(round(float(step[0]), 3), is_bounded)
        -2.0 False
        -0.5 True
    """
    radius, damping, noise = region
    size = np.maximum(np.bincount(arrays), 1)
    mean = np.bincount(arrays, np.sum(linear.rows**2, axis=0)) / size
    scale = np.sqrt(mean[arrays])
    active = scale > 0
    result = np.zeros_like(extra)
    if not active.any():
        return result, False
    j, x, e = (array[..., active] / scale[active] for array in (linear.jacobian, linear.rows, extra))
    solved = _inverse(x, damping, np.column_stack([j.T, e]))
    y, a = solved[:, :-1], solved[:, -1]
    if way is not None:
        pull = noise * way[active] * scale[active]
        a = a + pull
        e = e + x.T @ (x @ pull) + damping * pull
    values, vectors = np.linalg.eigh((j @ y + y.T @ j.T) / 2)
    values = np.maximum(values, 0)
    r, h, ea = vectors.T @ linear.residuals, vectors.T @ (j @ a), float(e @ a)

    def coefficients(weight: float) -> NDArray[np.float64]:
        return np.asarray((r - h / weight) / (values + weight))

    def excess(logarithm: float) -> float:
        weight = float(np.exp(logarithm))
        c = coefficients(weight)
        return float(values @ c**2 + 2 * (c @ h) / weight + ea / weight**2) - radius**2

    # Beyond the upper end any step is shorter than the radius; below the lower one rounding decides.
    largest = float(values.max())
    least = max(noise, 1e-10 * largest, 1e-300)
    upper = np.log(max(least, largest, (np.sqrt(values @ r**2) + np.sqrt(max(ea, 0.0))) / radius) * 1e3)
    lower = np.log(least)
    is_bounded = excess(lower) > 0
    weight = float(np.exp(_root(excess, lower, upper) if is_bounded else lower))
    result[active] = -(y @ (vectors @ coefficients(weight)) + a / weight) / scale[active]
    return result, is_bounded


def _inverse(
    x: Float[np.ndarray, "samples parameters"],
    damping: float,
    columns: Float[np.ndarray, "parameters columns"],
) -> Float[np.ndarray, "parameters columns"]:
    """M⁻¹ times columns, M = Xᵀ X + ε, through the smaller one of Xᵀ X and X Xᵀ."""
    if x.shape[0] < x.shape[1]:
        inner = np.linalg.solve(x @ x.T + damping * np.eye(len(x)), x @ columns)
        return np.asarray((columns - x.T @ inner) / damping)
    return np.asarray(np.linalg.solve(x.T @ x + damping * np.eye(x.shape[1]), columns))


def _root(decreasing: Callable[[float], float], lower: float, upper: float) -> float:
    """Where a function changes its sign, by bisection down to rounding.

    SciPy's root finders, and its linear algebra, would take longer to import than most updates to compute.
    """
    while lower < (middle := (lower + upper) / 2) < upper:
        lower, upper = (middle, upper) if decreasing(middle) > 0 else (lower, middle)
    return middle


def _linear(point: PreparedStatePoint, parameters: Parameters, values: Quantities, movable: Sequence[bool]) -> Linear:
    """One state point to first order."""
    cotangents, residuals = point.jacobian({key: jnp.asarray(value) for key, value in values.items()})
    if (count := len(products(cotangents))) > MOST_PRODUCTS:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"gauss_newton takes a gradient for each of the {count} points of stress and stiffness targets of "
            f"{point.label!r}, at most {MOST_PRODUCTS}; use another optimizer, such as adam",
        )
    jacobian, rows = derivatives(point.reference, parameters, values["energy"], cotangents, movable)
    return Linear(np.asarray(residuals, np.float64), jacobian, rows)


def _check_size(data: Sequence[PreparedStatePoint], size: int) -> None:
    count = sum(len(point.reference.energies) for point in data)
    if count * size * 8 > LARGEST_BYTES:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"gauss_newton with {size} parameters on {count} snapshots takes more than {LARGEST_BYTES >> 30} GiB; use "
            "another optimizer (optimizer: {name: adam}), train fewer parameters (trainable: [...] of a term), or take "
            "fewer snapshots",
        )
