"""The potential of this folder in ASE: python calculator.py structure.xyz"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read
from ase.units import GPa

from aiida_difftre.engine.calculator import DiffTReCalculator


def calculator(**options: Any) -> DiffTReCalculator:
    """A calculator of ASE; the options are those of ``DiffTReCalculator``."""
    return DiffTReCalculator(Path(__file__).with_name("potential.safetensors"), **options)


def main(structure: str) -> None:
    """Print energy, largest force and pressure of a structure."""
    atoms = read(structure)
    atoms.calc = calculator()
    print(f"energy        {atoms.get_potential_energy():.6f} eV")
    print(f"largest force {np.linalg.norm(atoms.get_forces(), axis=1).max():.6f} eV/Å")
    if atoms.pbc.all():
        print(f"pressure      {-atoms.get_stress()[:3].mean() / GPa:.4f} GPa, without that of the motion")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
