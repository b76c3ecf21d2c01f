"""Folders for LAMMPS: its own pair styles where they can say the same, else a program that computes the forces."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import ase.io
import numpy as np
from ase import Atoms

from aiida_difftre.engine.export import texts
from aiida_difftre.engine.export.folder import Files, Options, program
from aiida_difftre.engine.export.pair_functions import Table, energies_alone, functions, pair_cutoff, shortest, tabulate
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.stillinger_weber import StillingerWeber
from aiida_difftre.engine.potentials.term import Kind, Parameters

TABLE = "pairs.table"


class Style(NamedTuple):
    """A pair style of LAMMPS.

    Args:
        name: Its name with its arguments.
        coefficients: What follows ``pair_coeff``: types, and what follows the name of the style.
        files: Contents of the files that it reads, by name.
    """

    name: str
    coefficients: list[tuple[str, str]]
    files: Files


def export(potential: Potential, parameters: Parameters, atoms: Atoms | None, options: Options) -> Files:
    """Make the files for LAMMPS.

    Args:
        potential: The potential.
        parameters: Its parameters.
        atoms: The structure for the data file; None for none.
        options: Settings of tables.

    Returns:
        Contents by name; without the potential's own file.
    """
    found = styles(potential, parameters, options)
    if found is None:
        pair = f"pair_style zero {potential.cutoff!r}\npair_coeff * *\n" + texts.FIX_EXTERNAL
        files: Files = {"run_lammps.py": program("run_lammps"), "run.in": texts.RUN}
        how = texts.LAMMPS_DRIVER
    else:
        tables, chosen = found
        pair = commands(chosen)
        files = {name: text for style in chosen for name, text in style.files.items()}
        files["in.lammps"] = f"include system.in\n{texts.RUN}"
        how = texts.LAMMPS_NATIVE + texts.precision(tables)
    types = "\n".join(f"# type {number}: {symbol}" for number, symbol in enumerate(potential.spec.species, 1))
    files["system.in"] = texts.SYSTEM.format(types=types, pair=pair)
    if atoms is not None:
        files["structure.data"] = data_file(atoms, potential.spec.species)
    else:
        how += texts.NO_DATA
    lacking = None if found is None else energies_alone(potential, parameters)
    files["README.md"] = texts.readme(potential, parameters, how, lacking=lacking)
    return files


def styles(potential: Potential, parameters: Parameters, options: Options) -> tuple[list[Table], list[Style]] | None:
    """The pair styles of LAMMPS whose sum is a potential; None where it has no such styles, a base, or a tail."""
    if potential.spec.base is not None or any(term.has_tail for term in potential.terms):
        return None
    chosen: list[Style] = []
    has_pairs = False
    for name, term in zip(potential.names(), potential.terms, strict=True):
        if term.kind is Kind.PAIRWISE:
            has_pairs = True
            continue
        style = stillinger_weber(name, term, parameters["terms"][name]) if isinstance(term, StillingerWeber) else None
        if style is None:
            return None
        chosen.append(style)
    if not has_pairs:
        return [], chosen
    tables = tables_of(potential, parameters, options)
    return tables, [table_style(tables, potential.spec.species), *chosen]


def tables_of(potential: Potential, parameters: Parameters, options: Options) -> list[Table]:
    """Tables of all pairs of species, all of the same length."""
    chosen, cutoff = functions(potential, parameters), pair_cutoff(potential)
    inner = shortest(chosen, cutoff) if options.inner is None else options.inner
    tables = [tabulate(function, inner, cutoff, options.points) for function in chosen]
    longest = max(len(table.distances) for table in tables)
    return [
        table if len(table.distances) == longest else tabulate(function, inner, cutoff, longest)
        for function, table in zip(chosen, tables, strict=True)
    ]


def table_style(tables: Sequence[Table], species: Sequence[str]) -> Style:
    """``pair_style table`` of some tables."""
    text = io.StringIO()
    text.write("# UNITS: metal\n# energies in eV, forces in eV/Angstrom by distance in Angstrom\n")
    coefficients = []
    for table in tables:
        keyword, points = table.label.replace("-", "_"), len(table.distances)
        inner, cutoff = (float(table.distances[end]) for end in (0, -1))
        text.write(f"\n{keyword}\nN {points} RSQ {inner!r} {cutoff!r} FPRIME {table.ends[0]!r} {table.ends[1]!r}\n\n")
        columns = np.column_stack([np.arange(1, points + 1), table.distances, table.energies, table.forces])
        np.savetxt(text, columns, fmt=("%d", "%.15g", "%.16e", "%.16e"))
        first, second = (species.index(symbol) + 1 for symbol in table.label.split("-"))
        coefficients.append((f"{first} {second}", f"{TABLE} {keyword} {cutoff!r}"))
    return Style(f"table spline {len(tables[0].distances)}", coefficients, {TABLE: text.getvalue()})


def stillinger_weber(name: str, term: StillingerWeber, parameters: Parameters) -> Style | None:
    """``pair_style sw`` of a term; None for parameters that LAMMPS refuses."""
    value = {key: float(parameter) for key, parameter in parameters.items()}
    value |= {"a": term.cutoff / value["sigma"], "cos": -1 / 3, "p": term.p, "q": term.q, "tol": 0.0}
    order = ("epsilon", "sigma", "a", "lambda", "gamma", "cos", "A", "B", "p", "q", "tol")
    if any(value[key] < 0 for key in order if key != "cos"):
        return None
    numbers = " ".join(repr(value[key]) for key in order)
    triplets = [
        f"{first} {second} {third} {numbers}\n"
        for first in term.species
        for second in term.species
        for third in term.species
    ]
    text = "# UNITS: metal\n# elements, " + " ".join(order).replace("cos", "cos(theta_0)") + "\n" + "".join(triplets)
    return Style("sw", [("* *", f"{name}.sw {' '.join(term.species)}")], {f"{name}.sw": text})


def commands(chosen: Sequence[Style]) -> str:
    """``pair_style`` and ``pair_coeff`` of one style, or of the sum of several."""
    if len(chosen) == 1:
        lines = [f"pair_style {chosen[0].name}"]
        lines += [f"pair_coeff {types} {arguments}" for types, arguments in chosen[0].coefficients]
        return "\n".join(lines) + "\n"
    lines = [f"pair_style hybrid/overlay {' '.join(style.name for style in chosen)}"]
    names = [style.name.split()[0] for style in chosen]
    for number, style in enumerate(chosen):
        name = names[number]
        if names.count(name) > 1:
            name = f"{name} {names[: number + 1].count(name)}"
        lines += [f"pair_coeff {types} {name} {arguments}" for types, arguments in style.coefficients]
    return "\n".join(lines) + "\n"


def data_file(atoms: Atoms, species: Sequence[str]) -> str:
    """A structure as a data file of LAMMPS, atom types in the order of the species.

    Raises:
        ValueError: where atoms of one element have different masses, which are those of types in LAMMPS.
    """
    for symbol in species:
        masses = np.unique(atoms.get_masses()[atoms.symbols == symbol])
        if len(masses) > 1:
            raise ValueError(
                f"atoms of {symbol} have different masses ({masses[0]:g} and {masses[1]:g} amu), and LAMMPS has one "
                "for each type of atoms; give them one mass"
            )
    text = io.StringIO()
    ase.io.write(
        text, atoms, format="lammps-data", specorder=list(species), masses=True, units="metal", atom_style="atomic"
    )
    return text.getvalue()
