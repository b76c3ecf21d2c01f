"""The command ``difftre export``: a potential file to a folder for another program."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import jax
from ase import Atoms

from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.exports import FORMATS, PLATFORMS
from aiida_difftre.engine.contract.frames import not_periodic, read_frame
from aiida_difftre.engine.errors import EngineError, one_line
from aiida_difftre.engine.export import lammps, others, texts
from aiida_difftre.engine.export.folder import Options, write
from aiida_difftre.engine.potentials.potential import Potential, load
from aiida_difftre.engine.potentials.term import species_index

EXPORTS = dict(zip(FORMATS, (others.ase, others.ipi, lammps.export, others.bundle, others.tables), strict=True))
"""By the name of the program or format: (potential, parameters, structure or None, options) -> texts of files."""

WITH_BASE = ("ase", "ipi", "lammps")
"""Formats whose programs evaluate the potential through the calculator of ASE, which adds a base."""


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
        potential = based(whole, given.to, without=given.without_base)
        more = base_files(potential.spec.base, given.file.parent)
        check(options, potential)
        atoms = None if given.structure is None else structure(given.structure, potential)
        contents = EXPORTS[given.to](potential, parameters, atoms, options)
        if whole.spec.base is not None:
            said = texts.CORRECTION if potential.spec.base is None else texts.SUM
            contents["README.md"] = said.format(base=whole.spec.base.label) + contents["README.md"]
        write(given.output, contents, potential, parameters, more, force=given.force)
    except (ValueError, EngineError, OSError) as error:
        print(f"difftre export: {one_line(str(error))}", file=sys.stderr)
        return 1
    print(f"wrote {given.output}")
    return 0


def based(potential: Potential, to: str, *, without: bool) -> Potential:
    """The potential to export: that of the file, or the correction alone where this is asked for.

    Raises:
        ValueError: for a potential with a base in a format that cannot hold it: the correction alone is another one.
    """
    base = potential.spec.base
    if base is None:
        if without:
            raise ValueError("--without-base: the potential has no base")
        return potential
    if without:
        return Potential(potential.spec.model_copy(update={"base": None}), potential.terms)
    if to not in WITH_BASE:
        raise ValueError(
            f"the potential is a correction to the base {base.label}, and would be another potential without it; "
            f"--to {', '.join(WITH_BASE)} export the sum, and --without-base the correction alone, to add to the base "
            "in the other program"
        )
    return potential


def base_files(base: BaseSpec | None, folder: Path) -> list[Path]:
    """The files of a base that lie beside that of the potential; those elsewhere stay where they are.

    Raises:
        UnreadableFileError: for one that is missing, or another one.
    """
    if base is None:
        return []
    digests = {file.path: file.sha256 for file in base.files.values() if not Path(file.path).is_absolute()}
    files.check_digests(folder, digests)
    return [folder / name for name in digests]


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
