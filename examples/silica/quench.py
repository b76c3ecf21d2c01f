"""Where the silica examples start: a melt of the published ions, cooled from 4000 K to 300 K at the measured density.

The potential of ``quick.yaml`` goes to LAMMPS as tables, so that the glass is one of that model. A glass takes two
minutes of one core::

    python examples/silica/quench.py --seed 1 --output examples/silica/glass_96_1.extxyz
    python examples/silica/quench.py --seed 2 --output examples/silica/glass_96_2.extxyz
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import jax
from ase import Atoms
from ase.io import read, write

from aiida_difftre.data.packing import packed
from aiida_difftre.engine.contract.documents import read_yaml
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.export.command import export
from aiida_difftre.engine.potentials.potential import build, save

FOLDER = Path(__file__).parent
VOLUME = 60.0843 * 1.66053907 / 2.200
"""Å³ of a formula unit at 2.200 g/cm³."""

COOLING = """\
include system.in
timestep 0.001
thermo 20000
minimize 1e-6 1e-4 500 2000
velocity all create 5000 {seed}
fix heat all nvt temp 5000 4000 0.1
run 20000
unfix heat
fix cool all nvt temp 4000 300 0.1
run {steps}
unfix cool
fix keep all nvt temp 300 300 0.1
run 10000
unfix keep
minimize 1e-10 1e-6 2000 10000
write_dump all custom glass.dump id type xu yu zu modify sort id
"""


def glass(formula_units: int, rate: float, seed: int) -> Atoms:
    """A glass at rest.

    Args:
        formula_units: Number of SiO2.
        rate: Cooling rate, K/ps.
        seed: Seed of the places and the velocities.

    Returns:
        The atoms in a cube at the measured density.
    """
    box = (formula_units * VOLUME) ** (1 / 3)
    symbols = ["Si"] * formula_units + ["O"] * 2 * formula_units
    start = Atoms(symbols, packed(len(symbols), box, seed=seed), cell=[box] * 3, pbc=True)
    potential = build(validate(PotentialSpec, read_yaml(FOLDER / "quick.yaml")["model"]["spec"]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder / "bks.safetensors", potential, potential.init(jax.random.key(0)))
        write(folder / "start.extxyz", start)
        files = [folder / "bks.safetensors", "--structure", folder / "start.extxyz", "-o", folder / "x"]
        if export(["--to", "lammps", *map(str, files)]):
            raise SystemExit(1)
        steps = round((4000 - 300) / rate / 0.001)
        (folder / "x" / "cool.in").write_text(COOLING.format(seed=seed + 1, steps=steps))
        subprocess.run(["lmp", "-in", "cool.in", "-log", "none", "-screen", "none"], cwd=folder / "x", check=True)
        positions = read(folder / "x" / "glass.dump", format="lammps-dump-text").get_positions()
    made = Atoms(symbols, positions, cell=[box] * 3, pbc=True)
    made.wrap()
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formula-units", type=int, default=32)
    parser.add_argument("--rate", type=float, default=10.0, help="K/ps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    write(given.output, glass(given.formula_units, given.rate, given.seed), columns=["symbols", "positions"])
