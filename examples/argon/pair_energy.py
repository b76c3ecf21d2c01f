"""The pair energy of learned argon potentials beside accepted ones, as a table, JSON and a figure.

    python pair_energy.py PBE.safetensors refined.safetensors -o pair_energy

The legend has the names of the files.

HFD-B2 is the energy of two argon atoms alone, from spectroscopy, scattering and the dilute gas; in a liquid, three-body
terms add a few per cent of the opposite sign. Rahman's Lennard-Jones is an effective pair potential of the liquid.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.units import kB
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar

Energy = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Distances in Å -> energies in meV."""

DISTANCES = (3.3, 3.4, 3.5, 3.6, 3.7, 3.8, 3.9, 4.0, 4.25, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0)
"""Å; of the table."""
RANGE = (3.4, 8.0)
"""Å, where the liquid at 85 K has pairs and the potential has not been switched off."""


def hfd_b2(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """R. A. Aziz and M. J. Slaman, J. Chem. Phys. 92, 1030 (1990)."""
    x = np.asarray(r, np.float64) / 3.7565
    repulsion = 2.26210716e5 * np.exp(-10.77874743 * x - 1.8122004 * x**2)
    damping = np.where(x < 1.36, np.exp(-((1.36 / x - 1) ** 2)), 1.0)
    dispersion = 1.10785136 / x**6 + 0.56072459 / x**8 + 0.34602794 / x**10
    return np.asarray(1e3 * kB * 143.224 * (repulsion - damping * dispersion))


def rahman(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lennard-Jones with epsilon/k = 119.8 K and sigma = 3.405 Å, A. Rahman, Phys. Rev. 136, A405 (1964)."""
    power = (3.405 / np.asarray(r, np.float64)) ** 6
    return np.asarray(4e3 * kB * 119.8 * (power**2 - power))


def learned(path: Path) -> Energy:
    """The energy of two atoms by a potential file."""
    from aiida_difftre.engine.calculators.difftre import DiffTReCalculator

    calculator = DiffTReCalculator(path)

    def total(positions: list[list[float]]) -> float:
        atoms = Atoms("Ar" * len(positions), positions, calculator=calculator)
        return float(atoms.get_potential_energy())

    alone = total([[0.0, 0.0, 0.0], [1e3, 0.0, 0.0]])

    def function(r: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = np.ravel(np.asarray(r, np.float64))
        found = [1e3 * (total([[0.0, 0.0, 0.0], [float(x), 0.0, 0.0]]) - alone) for x in flat]
        return np.reshape(found, np.shape(r))

    return function


def summary(function: Energy) -> dict[str, Any]:
    """Depth (meV and K) and position (Å) of the minimum, zero of the energy (Å), rms deviation from HFD-B2 (meV)."""

    def at(r: float) -> float:
        return float(function(np.array(r)))

    grid = np.arange(3.2, 5.0, 0.05)
    start = float(grid[np.argmin(function(grid))])
    found = minimize_scalar(at, bounds=(start - 0.1, start + 0.1), method="bounded", options={"xatol": 1e-5})
    inside = np.arange(float(found.x), 2.8, -0.05)
    wall = float(inside[np.argmax(function(inside) > 0)])
    between = np.linspace(*RANGE, 93)
    return {
        "depth_meV": -float(found.fun),
        "depth_K": -float(found.fun) / (1e3 * kB),
        "minimum_A": float(found.x),
        "zero_A": float(brentq(at, wall, float(found.x), xtol=1e-5)),
        "rms_from_HFD_B2_meV": float(np.sqrt(np.mean((function(between) - hfd_b2(between)) ** 2))),
        "energies_meV": dict(zip(map(str, DISTANCES), function(np.array(DISTANCES)).tolist(), strict=True)),
    }


def draw(functions: dict[str, Energy], path: Path) -> None:
    """The figure, in the look of `aiida-difftre plot`: accepted energies are broad and pale, or dotted."""
    from aiida_difftre.cli.look import Look

    look = Look(columns=1)
    r = np.linspace(3.2, 8.5, 400)
    accepted: dict[str, dict[str, Any]] = {
        "HFD-B2": {"color": "0.25", "linewidth": 3.6, "alpha": 0.3},
        "Lennard-Jones": {"color": "0.25", "linestyle": ":"},
    }
    with look.applied():
        figure, (axis,) = look.panels(1, 2.4)
        axis.axhline(0, color="0.85", linewidth=0.6, zorder=0)
        for name in [*accepted, *(name for name in functions if name not in accepted)]:
            axis.plot(r, functions[name](r), label=name, **accepted.get(name, {}))
        axis.set(xlabel="r / Å", ylabel="u / meV", ylim=(-14, 20))
        axis.legend(title="Ar, two atoms", alignment="left")
        look.save(figure, path.parent, path.stem)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potentials", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("pair_energy"), help="without suffix")
    given = parser.parse_args()
    functions = {path.stem: learned(path) for path in given.potentials}
    functions |= {"HFD-B2": hfd_b2, "Lennard-Jones": rahman}
    found = {name: summary(function) for name, function in functions.items()}
    given.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(functions, given.output.with_suffix(".png"))
    rows = ["depth_meV", "depth_K", "minimum_A", "zero_A", "rms_from_HFD_B2_meV"]
    print(" | ".join(["", *found]))
    for row in rows:
        print(" | ".join([row, *(f"{item[row]:.3f}" for item in found.values())]))
    for distance in map(str, DISTANCES):
        print(
            " | ".join([f"u({distance}) / meV", *(f"{item['energies_meV'][distance]:.2f}" for item in found.values())])
        )


if __name__ == "__main__":
    main()
