r"""Fourier filters of fine structure: the part of k^n χ(k) that comes from a range of distances. Free of JAX.

.. math:: y_f(k) = \frac{2}{\pi} \int_0^\infty w(R) \int W(k')\, y(k') \cos[2 (k - k') R]\, dk'\, dR

is a transform to R with a window W(k), a window w(R), and the transform back: one matrix on the values of y. R is not
corrected for the phase of scattering, so that a shell lies some 0.3 to 0.5 Å below its distance.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

R_STEP = 0.01
"""Of the quadrature over R, Å; the windows are smooth, and it converges fast."""


def hanning(x: Floats, low: float, high: float, taper: float) -> Floats:
    """A window that rises like sin² over ``taper`` around ``low``, and falls likewise around ``high``."""
    up = np.clip((x - low + taper / 2) / taper, 0, 1)
    down = np.clip((high + taper / 2 - x) / taper, 0, 1)
    return np.asarray(np.sin(np.pi / 2 * up) ** 2 * np.sin(np.pi / 2 * down) ** 2)


def spacing(k: Floats) -> float:
    """Distance of equidistant points.

    Raises:
        ValueError: where they are not equidistant.
    """
    step = float(k[-1] - k[0]) / (len(k) - 1)
    deviation = np.abs(np.diff(k) - step)
    if deviation.max() > 1e-3 * step:
        index = int(np.argmax(deviation))
        raise ValueError(
            f"a Fourier filter needs equidistant k; {k[index]:g} and {k[index + 1]:g} 1/Å are not {step:.4g} apart as "
            "the others are: give a grid of equal steps"
        )
    return step


def fourier_filter(k: Floats, r_range: tuple[float, float], k_taper: float, r_taper: float) -> Floats:
    r"""Make the matrix of a Fourier filter, which keeps the part of a fine structure from a range of distances.

    .. math:: y_f(k) = \frac{2}{\pi} \int_0^\infty w(R) \int W(k')\, y(k') \cos[2 (k - k') R]\, dk'\, dR

    Args:
        k: Wave numbers in equal steps, (points,), 1/Å; the window W falls to zero at both ends.
        r_range: Middles of the tapers of the window w, Å; not corrected for the phase of scattering.
        k_taper: Width over which W rises and falls, 1/Å.
        r_taper: Width over which w rises and falls, Å.

    Returns:
        The matrix, (points, points); times the values y it gives the filtered ones.

    Raises:
        ValueError: For points that are not equidistant or too far apart, or windows without room for their tapers.

    References:
        Sayers, Stern & Lytle, Phys. Rev. Lett. 27, 1204 (1971).

    Example:
        A wave from 2 Å passes a filter for 1 to 3 Å, one from 5 Å does not:

        >>> import numpy as np
        >>> from aiida_difftre.engine.observables.filters import fourier_filter
        >>> k = np.arange(3, 15.01, 0.05)
        >>> matrix = fourier_filter(k, (1.0, 3.0), 1.0, 0.5)
        >>> [round(float(np.abs(matrix @ np.sin(2 * k * r))[80:160].max()), 1) for r in (2.0, 5.0)]
        [1.0, 0.0]
    """
    step, (low, high) = spacing(k), r_range
    if k[-1] - k[0] < 2 * k_taper:
        raise ValueError(f"k from {k[0]:g} to {k[-1]:g} 1/Å has no room for two tapers of {k_taper:g} 1/Å")
    if not r_taper / 2 <= low < high - r_taper:
        raise ValueError(
            f"r_range from {low:g} to {high:g} Å has no room for tapers of {r_taper:g} Å around its ends: begin at "
            f"{r_taper / 2:g} Å or above and end more than {r_taper:g} Å later"
        )
    if high + r_taper / 2 > math.pi / (2 * step):
        raise ValueError(
            f"points of k {step:.4g} 1/Å apart resolve distances up to {math.pi / (2 * step):.3g} Å; r_range ends at "
            f"{high:g} Å: take a finer grid"
        )
    count = math.ceil((high - low + r_taper) / R_STEP)
    r = np.linspace(low - r_taper / 2, high + r_taper / 2, count + 1)
    # The kernel depends on k - k' alone.
    offsets = step * np.arange(len(k))
    kernel = 2 / math.pi * (r[1] - r[0]) * np.cos(2 * np.outer(offsets, r)) @ hanning(r, low, high, r_taper)
    index = np.arange(len(k))
    window = hanning(k, k[0] + k_taper / 2, k[-1] - k_taper / 2, k_taper)
    return np.asarray(kernel[np.abs(index[:, None] - index[None])] * window * step)


def independent_points(k: Floats, r_range: tuple[float, float], k_taper: float) -> float:
    r"""Count the independent numbers in a filtered fine structure.

    .. math:: N = \frac{2 \Delta k\, \Delta R}{\pi} + 1

    Args:
        k: Wave numbers, (points,), 1/Å; Δk is between the middles of the tapers at their ends.
        r_range: Middles of the tapers of the window over distances, Å.
        k_taper: Width of the tapers at the ends of k, 1/Å.

    Returns:
        The number, not rounded.

    References:
        Stern, Phys. Rev. B 48, 9825 (1993), who argues for one more.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.observables.filters import independent_points
        >>> round(independent_points(np.arange(3, 15.01, 0.05), (1.0, 3.0), 1.0), 1)
        15.0
    """
    return 2 * float(k[-1] - k[0] - k_taper) * (r_range[1] - r_range[0]) / math.pi + 1
