"""Run LAMMPS with the potential of this folder: python run_lammps.py [run.in]

LAMMPS moves the atoms; at each step its `fix external` asks this program for energy, forces and virial. The potential
is added to the `pair_style` of system.in, which is `zero`: another one there is a potential below this one.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from lammps import lammps

from aiida_difftre.engine.calculator import DiffTReCalculator

FOLDER = Path(__file__).resolve().parent
FIX = "difftre"


def structure(lmp: Any, species: list[str], tags: Any, positions: Any) -> tuple[Atoms, Any]:
    """Atoms of LAMMPS in the order of their numbers, and where each of them stands in the arrays of LAMMPS."""
    order = np.argsort(tags)
    low, high, xy, yz, xz, periodic, _ = lmp.extract_box()
    cell = np.diag(np.subtract(high, low))
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    types = np.ctypeslib.as_array(lmp.extract_atom("type"), (len(tags),))
    symbols = [species[kind - 1] for kind in types[order]]
    return Atoms(symbols, np.array(positions[order]) - low, cell=cell, pbc=np.array(periodic, bool)), order


def attach(lmp: Any, calculator: Any, species: list[str]) -> None:
    """Let a calculator of ASE give energy, forces and virial to `fix external`.

    Args:
        lmp: LAMMPS after system.in, in units `metal`.
        calculator: The calculator.
        species: Elements of the atom types 1, 2, ...
    """
    if lmp.extract_setting("world_size") > 1:
        sys.exit("this program runs on one process of MPI: start it without mpirun; JAX takes all cores or the GPU")

    def evaluate(_: Any, step: int, count: int, tags: Any, positions: Any, forces: Any) -> None:
        atoms, order = structure(lmp, species, tags[:count].ravel(), positions[:count])
        calculator.calculate(atoms, ["energy", "forces", "stress"])
        found = calculator.results
        forces[order] = found["forces"]
        lmp.fix_external_set_energy_global(FIX, found["energy"])
        if "stress" in found:
            xx, yy, zz, yz, xz, xy = -atoms.get_volume() * found["stress"]
            lmp.fix_external_set_virial_global(FIX, [xx, yy, zz, xy, xz, yz])

    def evaluate_or_end(*arguments: Any) -> None:
        try:
            evaluate(*arguments)
        except BaseException:
            # ctypes would drop the error, and LAMMPS go on with the forces of the step before.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    lmp.set_fix_external_callback(FIX, evaluate_or_end, None)


def main(script: str = "run.in") -> None:
    """Set up the system, attach the potential and run a script of LAMMPS."""
    calculator = DiffTReCalculator(FOLDER / "potential.safetensors")
    try:
        lmp = lammps()
    except OSError as error:
        sys.exit(f"{error}; name the folder of this library of LAMMPS, or of MPI, in LD_LIBRARY_PATH")
    lmp.file(str(FOLDER / "system.in"))
    attach(lmp, calculator, calculator.potential.spec.species)
    lmp.file(script)
    lmp.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
