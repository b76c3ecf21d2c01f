"""Initial values of the pair spline: the potential of mean force of the target, less the prior.

w(r) = -kT ln g(r) (A. K. Soper, Chem. Phys. 202, 295 (1996)), a line where g falls below a threshold, and brought to
zero at the cutoff; from it the prior is subtracted, since the model is the sum of both. Prints eV at the knots::

    python examples/water/mean_force.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from aiida_difftre.engine.units import BOLTZMANN

TARGET = Path(__file__).parent / "targets" / "rdf.yaml"
TEMPERATURE = 296.15  # K
EPSILON, SIGMA = 0.0103643, 3.165  # of the prior, eV and Å
SMALLEST = 0.05
"""Of g: below it, its error exceeds it."""


def mean_force(distance: ArrayLike, grid: ArrayLike, g: ArrayLike, cutoff: float) -> NDArray[np.float64]:
    """The potential of mean force, eV; 0 at the cutoff, towards which it is switched off over the last ångström.

    Args:
        distance: where, Å.
        grid: Grid of g, Å.
        g: radial distribution function.
        cutoff: Å.
    """
    grid, g, distance = np.asarray(grid), np.asarray(g), np.asarray(distance)
    known = grid >= grid[g > SMALLEST][0]
    energy = -BOLTZMANN * TEMPERATURE * np.log(g[known])
    slope = (energy[1] - energy[0]) / (grid[known][1] - grid[known][0])
    line = energy[0] + slope * (distance - grid[known][0])
    t = np.clip(distance - (cutoff - 1), 0, 1)
    curve = np.interp(distance, grid[known], energy) * (1 - t**3 * (10 - t * (15 - 6 * t)))
    return np.where(distance < grid[known][0], line, curve)


def values(cutoff: float, inner: float, knots: int) -> NDArray[np.float64]:
    """The mean force less the prior at the knots of a pair spline, eV."""
    target = yaml.safe_load(TARGET.read_text())
    distances = np.linspace(inner, cutoff, knots + 2)[:knots]
    return mean_force(distances, target["grid"], target["values"], cutoff) - EPSILON * (SIGMA / distances) ** 12


def main() -> None:
    """Print the values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutoff", type=float, default=5.0)
    parser.add_argument("--inner", type=float, default=2.4)
    parser.add_argument("--knots", type=int, default=24)
    given = parser.parse_args()
    found = values(given.cutoff, given.inner, given.knots)
    print([round(float(value), 5) for value in found])


if __name__ == "__main__":
    main()
