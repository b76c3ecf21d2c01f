r"""A prior of smooth pair splines: how large their curvature may be, as one more target of an update.

A spline that is fitted to a noisy g(r) takes its noise for ripples of the potential. The second derivative of a pair
spline at its knots, a linear function of its control points,

.. math:: u''(r_k) = \frac{c_{k-1} - 2 c_k + c_{k+1}}{h^2},

is therefore expected to be zero within a width that is stated for the cutoff and grows inwards,

.. math:: P = \frac{1}{n} \sum_k \left(\frac{u''(r_k)}{\sigma_k}\right)^2, \qquad
    \sigma_k = \sigma_c \left(\frac{r_c}{r_k}\right)^8,

as the curvature of a dispersion energy does; that of a repulsive core grows faster. The sum is over the knots of all
pairs and splines, and P counts in the loss as the chi² of a target with a weight of one. At the cutoff value, slope and
curvature are zero whatever the control points are, so that a small curvature before it leaves no kink there.

References:
    P. H. C. Eilers and B. D. Marx, Stat. Sci. 11, 89 (1996).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract.smoothness import check_curvature_width
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.pair_spline import PairSpline
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters

POWER = 8
"""With which the width grows inwards: the second derivative of 1/r⁶ falls as 1/r⁸."""

CONTROL_POINTS = "control_points"


@dataclass(frozen=True)
class CurvaturePrior:
    """Residuals of the curvature of the splines of a potential, whose squares add up to the penalty.

    Args:
        maps: By the name of the term, what takes the control points of a pair to its residuals, (knots, knots).

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.refinement.curvature import CurvaturePrior
        >>> prior = CurvaturePrior({"0_pair_spline": np.array([[-2.0, 1.0], [1.0, -2.0]])})
        >>> parameters = {"terms": {"0_pair_spline": {"control_points": np.array([[1.0, 1.0]])}}}
        >>> prior.residuals(parameters).tolist(), prior.penalty(parameters)
        ([-1.0, -1.0], 2.0)
    """

    maps: dict[str, Float[np.ndarray, "knots knots"]]

    def residuals(self, parameters: Parameters) -> NDArray[np.float64]:
        """Compute the residuals: curvatures over their widths, and over the square root of their number.

        Args:
            parameters: Parameters of the potential.

        Returns:
            Residuals, (residuals,).
        """
        points = {name: np.asarray(parameters["terms"][name][CONTROL_POINTS], np.float64) for name in self.maps}
        return np.concatenate([(points[name] @ matrix.T).ravel() for name, matrix in self.maps.items()])

    def penalty(self, parameters: Parameters) -> float:
        """Compute the penalty.

        Args:
            parameters: Parameters of the potential.

        Returns:
            Sum of the squares of the residuals: about one where the curvatures are as large as they may be.
        """
        return float(np.sum(self.residuals(parameters) ** 2))

    def derivatives(self, parameters: Parameters) -> Parameters:
        """Compute the derivatives of the residuals, which do not depend on the parameters.

        Args:
            parameters: Parameters of the potential, for their shapes.

        Returns:
            Arrays in the shape of the parameters, with the residuals as a leading axis.
        """
        count = len(self.residuals(parameters))
        tree: Parameters = jax.tree.map(lambda leaf: np.zeros((count, *np.shape(leaf))), parameters)
        start = 0
        for name, matrix in self.maps.items():
            slopes = tree["terms"][name][CONTROL_POINTS]
            for pair in range(slopes.shape[1]):
                slopes[start : start + len(matrix), pair] = matrix
                start += len(matrix)
        return tree

    def slope(self, parameters: Parameters) -> Parameters:
        """Compute the gradient of the penalty.

        Args:
            parameters: Parameters of the potential.

        Returns:
            Arrays in the shape of the parameters.
        """
        found = self.residuals(parameters)
        slopes: Parameters = jax.tree.map(
            lambda rows: np.tensordot(2 * found, rows, axes=1), self.derivatives(parameters)
        )
        return slopes


def curvature_prior(potential: Potential, width: float | None) -> CurvaturePrior | None:
    """Make the prior of the splines of a potential that an update moves.

    Args:
        potential: The potential.
        width: Standard deviation of the second derivative at the cutoff, eV/Å²; None for no prior.

    Returns:
        The prior, or None.

    Raises:
        EngineError: With status INVALID_INPUT, for a potential without such a spline.

    Example:
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> from aiida_difftre.engine.potentials.potential import build
        >>> from aiida_difftre.engine.refinement.curvature import curvature_prior
        >>> terms = [{"architecture": "pair_spline", "cutoff": 5.0, "hyperparameters": {"knots": 9}}]
        >>> prior = curvature_prior(build(PotentialSpec(species=["Ar"], terms=terms)), 0.01)
        >>> {name: matrix.shape for name, matrix in prior.maps.items()}
        {'0_pair_spline': (9, 9)}
    """
    if width is None:
        return None
    try:
        check_curvature_width(width, potential.spec)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None
    found = {
        name: (term, len(term.init(jax.random.key(0))[CONTROL_POINTS]))
        for name, term, spec in zip(potential.names(), potential.terms, potential.spec.terms, strict=True)
        if isinstance(term, PairSpline) and spec.trains(CONTROL_POINTS)
    }
    count = sum(pairs * term.knots for term, pairs in found.values())
    maps = {}
    for name, (term, _) in found.items():
        distances, curvatures = term.curvatures()
        widths = width * (term.cutoff / distances) ** POWER
        maps[name] = curvatures / (widths * np.sqrt(count))[:, None]
    return CurvaturePrior(maps)
