"""The command ``difftre export``: a potential file to a folder for another program."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import jax
from ase import Atoms

from aiida_difftre.engine.contract.exports import FORMATS, PLATFORMS
from aiida_difftre.engine.contract.frames import not_periodic, read_frame
from aiida_difftre.engine.errors import EngineError, one_line
from aiida_difftre.engine.export import lammps, others, texts
from aiida_difftre.engine.export.folder import Options, write
from aiida_difftre.engine.potentials.potential import Potential, load
from aiida_difftre.engine.potentials.term import species_index

EXPORTS = dict(zip(FORMATS, (others.ase, others.ipi, lammps.export, others.bundle, others.tables), strict=True))
"""By the name of the program or format: (potential, parameters, structure or None, options) -> texts of files."""


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    found = argparse.ArgumentParser(
        prog="difftre export",
        description="Write a folder with which another program uses a potential. lammps: its own pair styles for pair "
        "terms and Stillinger-Weber, else a program that computes forces for LAMMPS; ase: a calculator; ipi: a client "
        "for i-PI; tables: energy and force of pairs by distance; lammps-jax: a bundle for that plugin.",
    )
    found.add_argument("file", type=Path, help="potential file (.safetensors)")
    found.add_argument("--to", choices=FORMATS, required=True, help="for which program, or in which format")
    found.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    found.add_argument("-f", "--force", action="store_true", help="replace files of a folder that is not empty")
    found.add_argument("--structure", type=Path, help="structure to simulate; lammps and ipi read it as it is written")
    found.add_argument("--inner", type=float, help="shortest distance of tables, Å (default: where pairs have 1000 eV)")
    found.add_argument("--points", type=int, help="points of a table (default: as many as make forces right to 2e-10)")
    found.add_argument("--atoms", type=int, default=Options.atoms, help="lammps-jax: room for atoms with ghosts")
    found.add_argument("--neighbors", type=int, default=Options.neighbors, help="lammps-jax: room for neighbours")
    found.add_argument("--platform", choices=PLATFORMS, default=Options.platform, help="lammps-jax: processor")
    found.add_argument("--without-base", action="store_true", help="the correction alone, to add to its base elsewhere")
    return found


def export(arguments: list[str]) -> int:
    """Run the command; returns 0, or 1 with a message on standard error."""
    given = parser().parse_args(arguments)
    try:
        with jax.enable_x64(True):
            whole, parameters = load(given.file)
        options = Options(given.inner, given.points, given.atoms, given.neighbors, given.platform)
        potential = based(whole, without=given.without_base)
        check(options, potential)
        atoms = None if given.structure is None else structure(given.structure, potential)
        contents = EXPORTS[given.to](potential, parameters, atoms, options)
        if whole.spec.base is not None:
            contents["README.md"] = texts.CORRECTION.format(base=whole.spec.base.label) + contents["README.md"]
        write(given.output, contents, potential, parameters, force=given.force)
    except (ValueError, EngineError, OSError) as error:
        print(f"difftre export: {one_line(str(error))}", file=sys.stderr)
        return 1
    print(f"wrote {given.output}")
    return 0


def based(potential: Potential, *, without: bool) -> Potential:
    """The potential to export: that of the file, or the correction alone where this is asked for.

    Raises:
        ValueError: for a potential with a base, which a correction alone is not.
    """
    base = potential.spec.base
    if base is None:
        if without:
            raise ValueError("--without-base: the potential has no base")
        return potential
    if not without:
        raise ValueError(
            f"the potential is a correction to the base {base.label}, and would be another potential without it; "
            "--without-base exports the correction alone, to add to the base in the other program"
        )
    return Potential(potential.spec.model_copy(update={"base": None}), potential.terms)


def check(options: Options, potential: Potential) -> None:
    """Refuse settings out of range.

    Raises:
        ValueError: naming the value and what is possible.
    """
    if options.inner is not None and not (math.isfinite(options.inner) and 0 < options.inner < potential.cutoff):
        raise ValueError(f"--inner {options.inner:g}: give a distance between 0 and the cutoff, {potential.cutoff:g} Å")
    if options.points is not None and not 10 <= options.points <= 1_000_000:
        raise ValueError(f"--points {options.points}: give a number from 10 to 1000000")
    for name in ("atoms", "neighbors"):
        if not 1 <= getattr(options, name) <= 10_000_000:
            raise ValueError(f"--{name} {getattr(options, name)}: give a number from 1 to 10000000")


def structure(path: Path, potential: Potential) -> Atoms:
    """Read a structure that a potential describes, and that is periodic.

    Raises:
        ValueError: with what is wrong with it.
        EngineError: naming elements that the potential does not know.
    """
    atoms = read_frame(path)
    if reason := not_periodic(atoms):
        raise ValueError(f"{path.name}: {reason}")
    species_index(atoms.get_chemical_symbols(), potential.spec.species)
    return atoms
