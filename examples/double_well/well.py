"""The double well of Thaler & Zavadlav, Nat. Commun. 12, 6884 (2021): its exact density, and how well it was learned.

U(x)/kT = 2500 (x - 0.5)⁶ - 10 (x - 0.55)², 0 <= x <= 1; the prior of the model is 75 (x - 0.5)² kT.

    python well.py                                 writes target.yaml
    python well.py refined.safetensors [...]       prints the errors of learned potentials
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

BINS = 50
TEMPERATURE = 300.0
"""K; it only sets the scale of energies."""
RANGE = (0.2, 0.82)
"""Where the learned potential is compared; beyond, the density is small."""
ASSUMED_ERROR = 0.01
CITATION = "S. Thaler and J. Zavadlav, Nat. Commun. 12, 6884 (2021); density of the double well by quadrature"
DOI = "10.1038/s41467-021-27241-4"
TARGET = Path(__file__).with_name("target.yaml")

Energy = Callable[[NDArray[np.float64]], ArrayLike]
"""Coordinates -> energies in kT."""


def energy(x: ArrayLike) -> NDArray[np.float64]:
    """U/kT of the double well."""
    x = np.asarray(x, np.float64)
    return 2500 * (x - 0.5) ** 6 - 10 * (x - 0.55) ** 2


def prior(x: ArrayLike) -> NDArray[np.float64]:
    """The prior of the model, in kT."""
    return 75 * (np.asarray(x, np.float64) - 0.5) ** 2


def density(function: Energy, bins: int = BINS) -> NDArray[np.float64]:
    """The Boltzmann density of an energy, averaged over equal bins between 0 and 1 (Gauss-Legendre in each)."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    edges = np.linspace(0, 1, bins + 1)
    x = edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1) / 2
    parts = np.exp(-np.asarray(function(x))) @ weights
    return parts / np.sum(parts) * bins


def target() -> dict[str, Any]:
    """The content of ``target.yaml``."""
    return {
        "observable": "density_profile",
        "grid": ((np.arange(BINS) + 0.5) / BINS).round(10).tolist(),
        "values": density(energy).round(8).tolist(),
        "errors": [ASSUMED_ERROR] * BINS,
        "unit": "1",
        "error_source": "assumed",
        "conditions": {"temperature": TEMPERATURE},
        "citation": CITATION,
        "doi": DOI,
    }


def learned(path: Path) -> Energy:
    """The energy of a potential file along x, in kT."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    from aiida_difftre.engine import units
    from aiida_difftre.engine.potentials.potential import load
    from aiida_difftre.engine.potentials.term import Environment

    potential, parameters = load(path)

    def function(x: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = jnp.asarray(np.ravel(x))
        nobody = jnp.zeros((len(flat), 1), bool)
        environment = Environment(
            jnp.zeros((len(flat), 1, 3)), nobody, jnp.zeros(len(flat), int), jnp.zeros((len(flat), 1), int),
            jnp.stack([flat] * 3, -1),
        )  # fmt: skip
        found = potential.energies(parameters, environment) / (units.BOLTZMANN * TEMPERATURE)
        return np.asarray(found).reshape(np.shape(x))

    return function


def errors(function: Energy) -> dict[str, float]:
    """Root-mean-square deviation of an energy from the double well up to a constant (kT), and that of its density."""
    x = np.linspace(*RANGE, 1001)
    difference = np.asarray(function(x)) - energy(x)
    return {
        "potential_rms_kT": float(np.std(difference)),
        "density_mse": float(np.mean((density(function) - density(energy)) ** 2)),
    }


def main(arguments: list[str]) -> None:
    """Command line."""
    if not arguments:
        text = yaml.safe_dump(target(), sort_keys=False, default_flow_style=None, width=120)
        TARGET.write_text(f"# Made by `python {Path(__file__).name}`.\n{text}", encoding="utf-8")
        return
    for name, function in [("prior", prior), *((name, learned(Path(name))) for name in arguments)]:
        found = errors(function)
        print(f"{name}: {found['potential_rms_kT']:.4f} kT, density MSE {found['density_mse']:.2e}")


if __name__ == "__main__":
    main(sys.argv[1:])
