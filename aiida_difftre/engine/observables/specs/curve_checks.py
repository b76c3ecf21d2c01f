"""What the values of a measured curve must do, by observable: limits at large arguments, signs, sizes. Free of JAX.

A curve in another normalisation or unit is a curve too; these checks tell it from what the observable is. They are for
targets of every origin. The tail is judged where a curve reaches far enough for one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

IMPORT = "`aiida-difftre target import`"

NEGATIVE = 0.25
"""By which ripples of a transform may take a density below zero."""

HIGHEST_RDF = 100.0
"""First peaks are 2 to 4 in liquids, and below 50 in cold crystals and for bonds."""

CLOSEST = 0.6
"""Å; the bond of H2, the shortest, is 0.74 Å long."""

FARTHEST_CONTACT = 30.0
"""Å, beyond which no pair of species begins to meet."""

RDF_TAIL_FROM = 6.0
"""Å, to which a radial distribution function must reach for a tail."""

STRUCTURE_FACTOR_TAIL_FROM = 4.0
"""1/Å, to which a structure factor must reach for a tail."""

PEAKS_BEFORE_TAIL = 1.8
"""Multiples of the position of the highest point, to which a curve must reach for a tail."""

TAIL_LOW, TAIL_HIGH = 0.4, 1.6
"""Between which the mean of the last third of g(r) lies, and that of S(q) where it is smooth."""

GROWN = 3.0
"""Mean of the last third of a curve that is highest at its end and can be no g(r)."""

HIGHEST_WAVE_NUMBER = 15.0
"""1/Å, of the highest peak of S(q); it would mean distances of 0.5 Å."""

LARGEST_K = 40.0
"""1/Å, to which fine structure is measured."""

LARGEST_CHI = 5.0
"""Of |χ(k)|, beyond 3 1/Å."""

OSCILLATING_RANGE = 3.0
"""1/Å; over a range as long χ(k) oscillates."""

NORM = (0.75, 1.25)
"""Of the integral of a density over all that it is a density of."""


def last_third(x: Floats, y: Floats, power: int = 0) -> tuple[float, float]:
    """Mean of the last third of a curve, weighted by a power of x, and the distance between its extremes."""
    end = x >= x[-1] - (x[-1] - x[0]) / 3
    weights = x[end] ** power
    return float(np.average(y[end], weights=weights)), float(np.ptp(y[end]))


def check_rdf_tail(options: dict[str, Any], r: Floats, g: Floats) -> None:
    """Refuse what does not tend to 1.

    Args:
        options: Options of the observable.
        r: Å.
        g: the values.

    Raises:
        ValueError: naming the limit, and the quantities that have it.
    """
    has_tail = r[-1] >= max(RDF_TAIL_FROM, PEAKS_BEFORE_TAIL * r[np.argmax(g)])
    grows = r[-1] >= RDF_TAIL_FROM and np.argmax(g) > 0.8 * len(g)
    if not (has_tail or grows):
        return
    mean, _ = last_third(r, g, 2)
    if mean < TAIL_LOW:
        raise ValueError(
            f"the values tend to {mean:.2g} at large r, where g(r) tends to 1: G(r) = 4πρr (g - 1) and g - 1 tend to "
            f"0; convert them with {IMPORT} --quantity G --number-density RHO, or --quantity g-1"
        )
    if mean > (TAIL_HIGH if has_tail else GROWN):
        raise ValueError(
            f"the values reach {mean:.3g} at large r, where g(r) tends to 1: 4πr²ρg and 4πrρg grow; convert them with "
            f"{IMPORT} --quantity R or T and --number-density RHO, or say --units g=% for per cent"
        )


def check_rdf(options: dict[str, Any], r: Floats, g: Floats, errors: Floats) -> None:
    """Refuse what is no radial distribution function over r in Å.

    Args:
        options: Options of the observable.
        r: Å.
        g: the values.
        errors: their standard errors.

    Raises:
        ValueError: naming the value, and the quantity or unit that it may be.
    """
    risen = r[g > 0.5]
    if r[-1] < 1 or (len(risen) and risen[0] < CLOSEST):
        where = f"ends at {r[-1]:g} Å" if r[-1] < 1 else f"has g = {g[r == risen[0]][0]:.3g} at {risen[0]:g} Å"
        raise ValueError(
            f"the curve {where}, where no two atoms are: distances in nm are said with --units r=nm to {IMPORT}, and "
            "ripples of a transform at small r are left out with --range or --grid"
        )
    if len(risen) and risen[0] > FARTHEST_CONTACT:
        raise ValueError(
            f"g(r) rises above 0.5 at {risen[0]:g} Å first, where atoms meet at a few Å: distances in pm are said with "
            f"--units r=pm to {IMPORT}"
        )
    check_rdf_tail(options, r, g)
    _check_sign(r, g, errors, "g", "Å", "G(r) = 4πρr (g - 1) and g - 1 are, and --quantity G or g-1 converts them")
    if g.max() > HIGHEST_RDF:
        at = int(np.argmax(g))
        raise ValueError(
            f"g({r[at]:g} Å) is {g[at]:.4g}, above {HIGHEST_RDF:g}: counts and 4πr²ρg are no g(r), and per cent are "
            f"said with --units g=%; {IMPORT} converts them (--quantity R)"
        )


def _check_sign(x: Floats, y: Floats, errors: Floats, name: str, unit: str, remedy: str) -> None:
    below = (y < -NEGATIVE) & ((y < -3 * errors) | (y < -1))
    if below.any():
        at = int(np.argmin(np.where(below, y, np.inf)))
        raise ValueError(
            f"{name}({x[at]:g} {unit}) is {y[at]:.4g}, and a density is not negative: {remedy}; ripples of a transform "
            f"are left out with --range or --grid of {IMPORT}"
        )


def check_structure_factor_tail(options: dict[str, Any], q: Floats, s: Floats) -> None:
    """Refuse what does not tend to 1.

    Where the tail still oscillates widely, as it does for scattering lengths of both signs, only a mean of zero is.

    Args:
        options: Options of the observable.
        q: 1/Å.
        s: the values.

    Raises:
        ValueError: naming the limit, and the quantities that have it.
    """
    if options["partial"] in ("NC", "CC"):
        return  # of concentrations, which tend to 0 and to c₁c₂
    if q[-1] < max(STRUCTURE_FACTOR_TAIL_FROM, PEAKS_BEFORE_TAIL * q[np.argmax(s)]):
        return
    mean, extent = last_third(q, s)
    if abs(mean) < TAIL_LOW and extent < 3:
        raise ValueError(
            f"the values tend to {mean:.2g} at large q, where S(q) tends to 1: S - 1, Q(S - 1) and F(q) = <b>² (S - 1) "
            f"tend to 0; convert them with {IMPORT} --quantity S-1, --quantity 'Q(S-1)', or --quantity F with "
            "--composition"
        )
    if not TAIL_LOW <= mean <= TAIL_HIGH and extent < 1:
        raise ValueError(
            f"the values tend to {mean:.3g} at large q, where S(q) tends to 1; a cross-section per atom is converted "
            f"with {IMPORT} --quantity DCS --composition FORMULA"
        )


def check_structure_factor(options: dict[str, Any], q: Floats, s: Floats, errors: Floats) -> None:
    """Refuse what is no structure factor over q in 1/Å.

    Args:
        options: Options of the observable.
        q: 1/Å.
        s: the values.
        errors: their standard errors.

    Raises:
        ValueError: naming the value, and the quantity or unit that it may be.
    """
    at = int(np.argmax(s))
    if q[at] > HIGHEST_WAVE_NUMBER and s[at] > 1.2:
        raise ValueError(
            f"S(q) is highest at {q[at]:g} 1/Å, which would be distances of {2 * math.pi / q[at]:.2g} Å: wave numbers "
            f"in 1/nm are said with --units q=1/nm to {IMPORT}"
        )
    check_structure_factor_tail(options, q, s)


def check_adf(options: dict[str, Any], theta: Floats, p: Floats, errors: Floats) -> None:
    """Refuse what is no probability density per radian.

    Args:
        options: Options of the observable.
        theta: degrees.
        p: the values.
        errors: their standard errors.

    Raises:
        ValueError: naming the integral, and the unit that it may be.
    """
    _check_sign(theta, p, errors, "p", "degrees", "counts less a background are no distribution")
    width = math.radians(float(theta[1] - theta[0]))
    norm = float(p.sum()) * width
    whole = theta[0] < 10 and theta[-1] > 170
    if norm > NORM[1] or (whole and norm < NORM[0]):
        remedy = "give values whose integral over the angle in radians is 1"
        if NORM[0] < norm * math.degrees(1) < NORM[1]:
            remedy = f"a density per degree is said with --units value=1/deg to {IMPORT}"
        raise ValueError(f"the values have the integral {norm:.3g} over the angle, and a probability has 1: {remedy}")


def check_density_profile(options: dict[str, Any], x: Floats, p: Floats, errors: Floats) -> None:
    """Refuse what is no probability density over the cell.

    Args:
        options: Options of the observable.
        x: fractional coordinate.
        p: the values.
        errors: their standard errors.

    Raises:
        ValueError: naming the value or the integral.
    """
    _check_sign(x, p, errors, "p", "of the cell", "a profile less its mean is no distribution")
    norm = float(p.sum()) * float(x[1] - x[0])
    whole = x[-1] - x[0] > 0.95
    if norm > NORM[1] or (whole and norm < NORM[0]):
        raise ValueError(
            f"the values have the integral {norm:.3g} over the cell, and a probability has 1: divide them by it"
        )


def check_vdos(options: dict[str, Any], frequency: Floats, g: Floats, errors: Floats) -> None:
    """Refuse what is no density of states per THz.

    Args:
        options: Options of the observable.
        frequency: THz.
        g: the values.
        errors: their standard errors.

    Raises:
        ValueError: naming the value or the integral.
    """
    _check_sign(frequency, g, errors, "g", "THz", "counts less a background are no density of states")
    norm = float(g.sum()) * float(frequency[1] - frequency[0])
    if norm > NORM[1]:
        raise ValueError(
            f"the values have the integral {norm:.3g} over the frequency, and all vibrations together have 1: divide "
            f"them by it; a density per meV or per 1/cm is said with --units value=1/meV (or cm) to {IMPORT}"
        )


def check_fine_structure(options: dict[str, Any], k: Floats, values: Floats, errors: Floats | None = None) -> None:
    """Refuse what is no k^n χ(k) over k in 1/Å.

    Args:
        options: Options of the observable; ``k_weight`` is n.
        k: 1/Å.
        values: k^n χ(k).
        errors: their standard errors; not looked at.

    Raises:
        ValueError: naming the value, and what it may be.
    """
    if k[-1] > LARGEST_K:
        raise ValueError(
            f"the curve goes to {k[-1]:g} 1/Å: an absorption μ(E) over the energy is no χ(k), of which Athena or Larch "
            "takes the background away; wave numbers in 1/nm are said with --units k=1/nm"
        )
    far = k >= 3
    if not far.any():
        return
    chi = values[far] / k[far] ** options["k_weight"]
    at = int(np.argmax(np.abs(chi)))
    if abs(chi[at]) > LARGEST_CHI:
        raise ValueError(
            f"χ({k[far][at]:g} 1/Å) is {chi[at]:.3g}, and fine structure is less than 1: say with --units chi=1, 1/A, "
            "1/A^2 or 1/A^3 by which power of k the values are multiplied, and see option k_weight"
        )
    part = values[far]
    if k[-1] - k[far][0] >= OSCILLATING_RANGE and abs(part.mean()) > 1.5 * part.std():
        raise ValueError(
            f"the values lie around {part.mean():.3g} and do not oscillate around 0 as χ(k) does: choose the column of "
            "χ(k), or take the background of μ(E) away first (Athena, Larch)"
        )
