r"""What targets determine of the parameters, and how far that leaves open what a potential predicts.

Near the parameters that a refinement found, residuals in units of their errors are linear in a change δ of the
parameters, r + Jδ, and before the experiment the change was normal with the standard deviations w. The posterior is
then normal too, with

.. math:: \mathrm{Cov}(\theta)^{-1} = J^\mathsf{T} J / s^2 + W^{-2}, \qquad W = \mathrm{diag}(w),

where s² ≥ 1 is the reduced chi² of the targets: where they are not met within their errors, these are too small, or the
model too stiff. With the singular values of J W / s, λ are the squared ones: how many times better a direction is known
after the experiment than before it. Directions with λ > 1 are determined; those with λ ≪ 1 are as open as they were. An
average with derivatives g = ∂⟨O⟩/∂θ has the variance gᵀ Cov g.

A further measurement of an average, with the standard error σ, would leave

.. math:: \mathrm{Cov} - \frac{\mathrm{Cov}\,g\,g^\mathsf{T}\,\mathrm{Cov}}{\sigma^2 + g^\mathsf{T}\,\mathrm{Cov}\,g},

which does not depend on what it would find.

References:
    W. H. Press et al., Numerical Recipes, 3rd ed. (Cambridge, 2007), section 15.6; D. J. C. MacKay, Neural Comput. 4,
    415 and 590 (1992), of evidence and of the information of a measurement that is still to be made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Rows = Float[np.ndarray, "rows parameters"]


@dataclass(frozen=True)
class Posterior:
    """A normal distribution of the parameters, in the directions that the data tell and all others.

    Args:
        widths: Standard deviation w of each parameter before the experiment, (parameters,).
        directions: Orthonormal directions in units of the widths, (parameters, directions).
        gains: λ of each direction, (directions,), falling: its variance before over that after, less one.

    Example:
        Two parameters of width 1, of which a measurement with the error 0.5 tells the first:

        >>> import numpy as np
        >>> from aiida_difftre.engine.refinement.posterior import posterior
        >>> found = posterior(np.array([[2.0, 0.0]]), np.ones(2))
        >>> found.gains.round(6).tolist(), found.determined
        ([4.0], 1)
        >>> found.deviations(np.eye(2)).round(4).tolist()
        [0.4472, 1.0]
    """

    widths: Float[np.ndarray, " parameters"]
    directions: Float[np.ndarray, "parameters directions"]
    gains: Float[np.ndarray, " directions"]

    @property
    def determined(self) -> int:
        """Number of directions that the data tell better than the prior does."""
        return int(np.sum(self.gains > 1))

    @property
    def effective(self) -> float:
        """Effective number of parameters that the data determine, Σ λ/(1 + λ)."""
        return float(np.sum(self.gains / (1 + self.gains)))

    def factor(self, rows: Rows) -> Float[np.ndarray, "rows columns"]:
        """Compute a factor L with L Lᵀ = G Cov Gᵀ.

        Args:
            rows: Derivatives G of averages by the parameters, (rows, parameters).

        Returns:
            The factor, (rows, directions + parameters): first what lies along the directions, then what is left.
        """
        scaled = rows * self.widths
        along = scaled @ self.directions
        # Explicitly, since 1 - λ/(1 + λ) loses all digits where the data tell nearly everything.
        across = scaled - along @ self.directions.T
        return np.concatenate([along / np.sqrt(1 + self.gains), across], axis=1)

    def draws(self, number: int, *, seed: int) -> Rows:
        """Draw changes of the parameters.

        Args:
            number: Number of changes.
            seed: Seed of the draws.

        Returns:
            Independent changes, (number, parameters), with the covariance of the posterior.

        Example:
            >>> import numpy as np
            >>> from aiida_difftre.engine.refinement.posterior import posterior
            >>> known = posterior(np.array([[2.0, 0.0]]), np.ones(2))
            >>> known.draws(100_000, seed=1).std(axis=0).round(2).tolist()
            [0.45, 1.0]
        """
        normal = np.random.default_rng(seed).standard_normal((number, len(self.widths)))
        along = normal @ self.directions
        across = normal - along @ self.directions.T
        return self.widths * ((along / np.sqrt(1 + self.gains)) @ self.directions.T + across)

    def deviations(self, rows: Rows) -> Float[np.ndarray, " rows"]:
        """Compute the standard deviations that the posterior leaves to averages.

        Args:
            rows: Derivatives of the averages by the parameters, (rows, parameters).

        Returns:
            Standard deviations, (rows,), in the units of the averages.
        """
        return np.asarray(np.linalg.norm(self.factor(rows), axis=1))

    def prior_deviations(self, rows: Rows) -> Float[np.ndarray, " rows"]:
        """Compute the standard deviations before the experiment.

        Args:
            rows: Derivatives of the averages by the parameters, (rows, parameters).

        Returns:
            Standard deviations, (rows,), in the units of the averages.
        """
        return np.asarray(np.linalg.norm(rows * self.widths, axis=1))

    def after(
        self, measured: Float[np.ndarray, "measured parameters"], errors: Float[np.ndarray, " measured"], asked: Rows
    ) -> Float[np.ndarray, " rows"]:
        """Compute the standard deviations that a further measurement would leave to averages.

        Args:
            measured: Derivatives of what would be measured, (measured, parameters).
            errors: Standard errors that the measurement would have, (measured,).
            asked: Derivatives of the averages that are asked for, (rows, parameters).

        Returns:
            Standard deviations, (rows,), whatever the measurement would find.

        Example:
            >>> import numpy as np
            >>> from aiida_difftre.engine.refinement.posterior import posterior
            >>> known = posterior(np.array([[2.0, 0.0]]), np.ones(2))
            >>> known.after(np.array([[0.0, 1.0]]), np.array([0.1]), np.eye(2)).round(4).tolist()
            [0.4472, 0.0995]
        """
        new, old = self.factor(measured) / errors[:, None], self.factor(asked)
        _, values, right = np.linalg.svd(new, full_matrices=False)
        along = old @ right.T
        across = old - along @ right
        return np.asarray(np.sqrt(np.sum(along**2 / (1 + values**2), axis=1) + np.sum(across**2, axis=1)))


def posterior(
    jacobian: Float[np.ndarray, "residuals parameters"],
    widths: Float[np.ndarray, " parameters"],
    chi2: float = 1.0,
) -> Posterior:
    """Compute what residuals tell of the parameters.

    Args:
        jacobian: Derivatives J of the residuals, in units of their standard errors, (residuals, parameters).
        widths: Standard deviations w of the parameters before the experiment, (parameters,), positive.
        chi2: Reduced chi² of the residuals; above one it widens their errors.

    Returns:
        The posterior, with one direction for each residual or parameter, whichever are fewer.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.refinement.posterior import posterior
        >>> posterior(np.array([[2.0, 0.0]]), np.ones(2), chi2=4.0).gains.tolist()
        [1.0]
    """
    scaled = jacobian * widths / np.sqrt(max(chi2, 1.0))
    _, values, directions = np.linalg.svd(scaled, full_matrices=False)
    return Posterior(widths, directions.T, values**2)


def prior_widths(
    metric: Float[np.ndarray, " parameters"],
    arrays: Int[np.ndarray, " parameters"],
    *,
    width: float,
    atoms: int,
) -> Float[np.ndarray, " parameters"]:
    r"""Compute how far the parameters may be expected to be off before the experiment.

    A change of the parameters changes the energies of snapshots by what fluctuates with the standard deviation
    sqrt(δᵀFδ) kT, where F is the metric of the ensemble (``aiida_difftre.engine.refinement.gauss_newton``). All
    parameters together are given t √N kT of that, each array of parameters the same share and each parameter of an
    array the same width,

    .. math:: w_a^2 = \frac{t^2 N}{A\, \sum_{i \in a} F_{ii}},

    for A arrays: t = 1 says that the energy of each atom is known to about kT, whatever the form of the potential.

    Args:
        metric: Diagonal of F, (parameters,).
        arrays: Index of the array to which each parameter belongs, (parameters,).
        width: The factor t.
        atoms: Number of atoms N.

    Returns:
        Widths, (parameters,); those of an array that no snapshot tells anything of are zero: it stays what it is.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.refinement.posterior import prior_widths
        >>> prior_widths(np.array([4.0, 1.0, 1.0]), np.array([0, 1, 1]), width=1.0, atoms=2).round(4).tolist()
        [0.5, 0.7071, 0.7071]
    """
    sums = np.bincount(arrays, metric, minlength=int(arrays.max()) + 1)
    told = sums > 0
    squares = np.zeros(len(sums))
    squares[told] = width**2 * atoms / (told.sum() * sums[told])
    return np.asarray(np.sqrt(squares[arrays]))


class Evidence(NamedTuple):
    """How wide a prior the way of a refinement speaks for.

    Args:
        factor: Factor on all widths with the largest evidence.
        effective: Effective number of parameters that the data then determine.
    """

    factor: float
    effective: float


def evidence(found: Posterior, moved: Float[np.ndarray, " parameters"]) -> Evidence | None:
    r"""Estimate by which factor the widths of a prior are too small or too large for a change of the parameters.

    .. math:: f^2 = \frac{\sum_i (\delta_i/w_i)^2}{\gamma(f)}, \qquad
        \gamma(f) = \sum_k \frac{f^2 \lambda_k}{1 + f^2 \lambda_k}

    Args:
        found: The posterior with the prior in question.
        moved: The change δ from where the refinement started to where it ended, (parameters,).

    Returns:
        The factor; None where the refinement did not move, or the data determine nothing.

    References:
        D. J. C. MacKay, Neural Comput. 4, 415 (1992), eq. 4.8.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.refinement.posterior import evidence, posterior
        >>> found = posterior(1e4 * np.eye(3), np.ones(3))
        >>> round(evidence(found, np.array([2.0, -2.0, 2.0])).factor, 3)
        2.0
    """
    told = found.widths > 0
    length = float(np.sum((moved[told] / found.widths[told]) ** 2))
    if length == 0 or not np.any(found.gains > 0):
        return None
    square = 1.0
    for _ in range(100):
        effective = float(np.sum(square * found.gains / (1 + square * found.gains)))
        square, before = length / max(effective, 1e-300), square
        if abs(square - before) <= 1e-10 * square:
            break
    return Evidence(float(np.sqrt(square)), effective)
