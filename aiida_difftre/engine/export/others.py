"""Folders for ASE and i-PI, tables of pair energies, and bundles of lammps-jax."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jaxtyping import Array

from aiida_difftre.engine.contract.term_options import pair_labels
from aiida_difftre.engine.export import texts
from aiida_difftre.engine.export.folder import Files, Options, program
from aiida_difftre.engine.export.pair_functions import energies_alone, functions, pair_cutoff, shortest
from aiida_difftre.engine.potentials.parameters import without_references
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Environment, Kind, Parameters

POINTS = 1000
"""Of tables for reading and plotting."""

BUNDLE = "potential.lammps-jax.json"
SOCKET = "difftre"


def ase(potential: Potential, parameters: Parameters, atoms: Atoms | None, options: Options) -> Files:
    """A module that makes a calculator of ASE."""
    return {"calculator.py": program("calculator"), "README.md": texts.readme(potential, parameters, texts.ASE)}


def ipi(potential: Potential, parameters: Parameters, atoms: Atoms | None, options: Options) -> Files:
    """A program that answers i-PI over a socket, and an input of i-PI.

    Raises:
        ValueError: without a structure, which tells the elements that a socket does not.
    """
    if atoms is None:
        raise ValueError("i-PI sends positions and no elements: give the structure with --structure FILE")
    # i-PI wants the first lattice vector along x, and the second in the plane of x and y.
    cell, rotation = atoms.cell.standard_form()
    turned = Atoms(atoms.symbols, cell=cell, pbc=True, positions=atoms.positions @ rotation.T)
    text = io.StringIO()
    turned.write(text, format="extxyz", columns=["symbols", "positions"])
    return {
        "run_client.py": program("run_client"),
        "input.xml": texts.IPI_INPUT.format(address=SOCKET),
        "structure.extxyz": text.getvalue(),
        "README.md": texts.readme(potential, parameters, texts.IPI),
    }


def tables(potential: Potential, parameters: Parameters, atoms: Atoms | None, options: Options) -> Files:
    """Energy and force of each pair of species by distance, and the parameters of the terms.

    Raises:
        ValueError: naming the terms that are no sums over pairs.
    """
    _refuse_tails(potential)
    named = list(zip(potential.names(), potential.terms, potential.spec.terms, strict=True))
    others = [name for name, term, _ in named if term.kind is not Kind.PAIRWISE]
    if others:
        raise ValueError(
            f"{', '.join(others)}: no sum over pairs, which tables could not hold, and those of the rest would be "
            "another potential; export it --to lammps or ase"
        )
    chosen, cutoff = functions(potential, parameters), pair_cutoff(potential)
    inner = shortest(chosen, cutoff) if options.inner is None else options.inner
    distances = np.linspace(inner, cutoff, options.points or POINTS)
    files: Files = {}
    for function in chosen:
        text = io.StringIO()
        text.write(f"# {function.label}: distance (Angstrom), energy (eV), force (eV/Angstrom)\n")
        np.savetxt(text, np.column_stack([distances, *function(distances)[:2]]), fmt="%.16e")
        files[f"pair_{function.label}.txt"] = text.getvalue()
    described = [
        {
            "name": name,
            "architecture": spec.architecture,
            "cutoff": spec.cutoff,
            "hyperparameters": spec.hyperparameters,
            "parameters": jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), parameters["terms"][name]),
        }
        for name, _, spec in named
    ]
    content = {"pairs": pair_labels(potential.spec.species), "units": "angstrom, eV", "terms": described}
    files["terms.json"] = json.dumps(content, indent=1) + "\n"
    files["README.md"] = texts.readme(
        potential, parameters, texts.TABLES, lacking=energies_alone(potential, parameters)
    )
    return files


def _refuse_tails(potential: Potential) -> None:
    """Refuse tails beyond the cutoff, which depend on the volume.

    Raises:
        ValueError: naming the terms.
    """
    tails = [name for name, term in zip(potential.names(), potential.terms, strict=True) if term.has_tail]
    if tails:
        raise ValueError(
            f"{', '.join(tails)}: the tail beyond the cutoff depends on the volume, which this format does not know; "
            "export it --to lammps, ase or ipi, where the calculator adds it"
        )


def bundle(potential: Potential, parameters: Parameters, atoms: Atoms | None, options: Options) -> Files:
    """A compiled program for the plugin lammps-jax.

    Raises:
        ValueError: where lammps-jax is not installed, or for an external field, which the plugin does not know.
    """
    _refuse_tails(potential)
    if potential.is_message_passing:
        raise ValueError("messages between atoms go farther than a cutoff, which a bundle is for; use --to lammps")
    if potential.has_external:
        raise ValueError("an external field is a function of fractional positions, which lammps-jax does not give")
    try:
        from lammps_jax.export import LammpsNeighborMatrix, export_model
    except ImportError:
        raise ValueError("a bundle is written by the package lammps-jax; pip install lammps-jax") from None
    with jax.enable_x64(True), tempfile.TemporaryDirectory() as folder:
        fixed = without_references(parameters, jnp.float64)

        def energies(positions: Array, species: Array, graph: LammpsNeighborMatrix) -> Array:
            index = graph.neighbors.T
            mask = index < len(positions)
            index = jnp.where(mask, index, 0)
            vectors = jnp.where(mask[..., None], positions[index] - positions[: len(index), None], 0.0)
            return potential.energies(fixed, Environment(vectors, mask, species[: len(index)], species[index]))

        export_model(
            energy_fn=energies,
            path=Path(folder, BUNDLE),
            max_atoms=options.atoms,
            max_neighbors=options.neighbors,
            cutoff=potential.cutoff,
            unit_style="metal",
            precision="float64",
            newton="on",
            n_species=len(potential.spec.species),
            platform=options.platform,
        )
        text = Path(folder, BUNDLE).read_text()
    how = texts.BUNDLE.format(atoms=options.atoms, neighbors=options.neighbors, platform=options.platform)
    references = np.asarray(parameters["atomic_energies"], float)
    return {BUNDLE: text, "README.md": texts.readme(potential, parameters, how, lacking=references)}
