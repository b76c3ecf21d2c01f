"""The sections ``dft`` and ``model`` of a first input: where its first potential comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from aiida_difftre.data.base import engine_of
from aiida_difftre.engine.contract import known_bases
from aiida_difftre.workchains.paths import as_named

NETWORK_CUTOFF_A = 5.0

NO_METALS = frozenset(("H", "He", "B", "C", "N", "O", "F", "Ne", "Si", "P", "S", "Cl", "Ar", "Ge", "As", "Se", "Br",
                       "Kr", "Sb", "Te", "I", "Xe", "At", "Rn"))  # fmt: skip

KNOTS = 10
"""Of a correction by pairs."""

FEW_ATOMS = 4
"""Fewer atoms in a cell to label are not rattled into forces that teach something."""

SMEARING = "{SYSTEM: {occupations: smearing, smearing: mv, degauss: 0.05}}"

TETRAHEDRAL = 4
"""Neighbours in a lattice that pair energies do not hold."""


def origin(atoms: Atoms, start: str, given: str | None, nearest: float | None = None) -> list[str]:
    """The sections ``dft`` and ``model``; of a liquid, whose atoms have no places, with their nearest distance, Å."""
    species = f"[{', '.join(sorted(set(atoms.get_chemical_symbols())))}]"
    network = ["model:", "  spec:", f"    species: {species}", "    terms:", *_network(atoms)]
    if start == "potential":
        return ["model:", f"  potential: {quoted(str(given))} # file or node; nothing is labelled or pretrained"]
    if start == "base":
        return _on_a_base(atoms, str(given), nearest or _nearest(atoms))
    if start == "labels":
        return ["dft:", f"  dataset: {quoted(str(given))} # energies, forces and stresses that exist", "", *network]
    if start == "prior":
        return [
            "# No section dft: nothing is labelled, and the prior is all that the model knows at first.",
            "model:",
            "  spec:",
            f"    species: {species}",
            "    terms:",
            *_prior(atoms),
        ]
    cubic, few = _is_cubic(atoms), len(atoms) < FEW_ATOMS
    return [
        "dft: # labels by pw.x of this cell, rattled and strained",
        "  functional: LDA # of the pseudopotentials; `aiida-difftre setup --input FILE` makes or finds them",
        "  # pseudo_family: SSSP/1.3/PBE/efficiency # an installed family, in place of the one of the setup",
        "  kpoints_distance: 0.2 # 1/Å; or a mesh, kpoints: [4, 4, 4]",
        *(["  repeat: [2, 2, 2] # of the cell, for forces: so few atoms have hardly any"] if few else []),
        *([] if cubic else ["  generation: {elastic: false} # the elastic cells are for cubic cells"]),
        f"  {'' if _is_metal(atoms) else '# '}pw_parameters: {SMEARING} # Ry; for metals",
        "",
        *network,
    ]


def named_base(given: str, folder: Path, species: Sequence[str]) -> str:
    """The base that a person named, checked, with its file as the input will name it.

    Args:
        given: ``NAME``, or ``NAME=FILE`` for a base whose weights are a file.
        folder: Folder of the input.
        species: Chemical symbols of the system.

    Raises:
        ValueError: for a base that is not known, does not know the species, or lacks its file; naming the remedy.
    """
    name, _, file = given.partition("=")
    base = known_bases.known(engine_of(name), name)
    if base.files and not file:
        raise ValueError(
            f"base {name!r} needs its file, the {next(iter(base.files.values()))}: give --base {name}=FILE"
        )
    if file and not base.files:
        raise ValueError(f"base {name!r} has no file; give --base {name}")
    if base.check is not None:
        raise ValueError(
            f"base {name!r} has settings that nothing here tells: write model.base yourself, as in "
            "docs/howto/own-potential, or take its term as the model (--prior)"
        )
    if file and not Path(file).is_file():
        raise ValueError(f"there is no file {file!r} in {Path.cwd()}; give that of the base {name!r}")
    known_bases.check_species(base, species)
    return f"{name}={as_named(Path(file), folder)}" if file else name


def _on_a_base(atoms: Atoms, given: str, nearest: float) -> list[str]:
    """The section ``model`` of a correction to a base, which starts at zero."""
    name, _, file = given.partition("=")
    base = known_bases.known(engine_of(name), name)
    files = f", files: {{{next(iter(base.files))}: {quoted(file)}}}" if file else ""
    species = sorted(set(atoms.get_chemical_symbols()))
    knots = ", ".join(["0.0"] * KNOTS)
    cutoff, rank = (5.5, "rank: 0, ") if _is_metal(atoms) else (NETWORK_CUTOFF_A, "")
    trusted = ["  # Its file can run code when it is read: DIFFTRE_TRUSTED_MODELS has to list its SHA-256."]
    return [
        "# No section dft: nothing is labelled; the base stays as it is, and a correction to it is refined.",
        f"# Once: `aiida-difftre setup --no-dft{f' --base {name}' if base.package else ''}` makes what its jobs need.",
        "model:",
        *(trusted if base.runs_code else []),
        f"  base: {{name: {name}{files}}} # {base.description}",
        "  correction: # zero at first, so that the first trajectories are those of the base",
        f"    species: [{', '.join(species)}]",
        "    terms:",
        "      - architecture: moment_network # of the neighbours within the cutoff; a gain of 0 makes it zero",
        f"        cutoff: {cutoff} # Å",
        f"        hyperparameters: {{n_radial: 8, {rank}hidden: [16], output_scale: 0.0}}",
        "      - architecture: pair_spline # of all pairs; its first knot lies below the nearest neighbours",
        f"        cutoff: {cutoff}",
        f"        hyperparameters: {{inner: {0.7 * nearest:.3g}, knots: {KNOTS}, values: [{knots}]}} # Å, eV",
        "",
        f"pretraining: {{atomic_energies: {{{', '.join(f'{one}: 0.0' for one in species)}}}}} # eV, on top of the base",
    ]


def _is_metal(atoms: Atoms) -> bool:
    """Whether only metals are in it; what conducts besides, nobody can tell from a structure."""
    return NO_METALS.isdisjoint(atoms.get_chemical_symbols())


def _network(atoms: Atoms) -> list[str]:
    """Terms for labels to train: a network of moments; of metals an embedded atom, in effect."""
    if not _is_metal(atoms):
        return [f"      - {{architecture: moment_network, cutoff: {NETWORK_CUTOFF_A}}} # Å; some shells of neighbours"]
    inner = 0.7 * _nearest(atoms)
    return [
        "      # A function of densities, and pairs: keeps crystals of metals that networks of more freedom lose; Å.",
        "      - {architecture: moment_network, cutoff: 5.5, hyperparameters: {n_radial: 8, rank: 0, hidden: [16]}}",
        f"      - {{architecture: pair_spline, cutoff: 5.5, hyperparameters: {{inner: {inner:.3g}, knots: 10}}}}",
        "",
        "pretraining: {optimizer: {learning_rate: 0.02}}",
    ]


def _prior(atoms: Atoms) -> list[str]:
    """A term of the size of the atoms that holds their crystal, or a liquid.

    Raises:
        ValueError: for several species, whose pairs have sizes, and perhaps charges, that a structure does not tell.
    """
    species = sorted(set(atoms.get_chemical_symbols()))
    require_one(species)
    nearest = _nearest(atoms)
    sigma = nearest / 2 ** (1 / 6)
    if _neighbours(atoms) == TETRAHEDRAL:
        preset = "diamond" if species == ["C"] else "silicon"
        return [
            f"      - architecture: stillinger_weber # its minimum is at the nearest neighbours, {nearest:.3g} Å",
            f"        cutoff: {1.8 * sigma:.4g} # Å, 1.8 sigma",
            f"        hyperparameters: {{preset: {preset}, sigma: {sigma:.4g}}} # Å; its energies",
        ]
    return [
        "      # Pairs alone have C12 = C44 in a cubic crystal at rest; labels or a known potential can do more.",
        f"      - architecture: lennard_jones # its minimum is at the nearest neighbours, {nearest:.3g} Å",
        f"        cutoff: {2.5 * sigma:.3g} # Å",
        f"        hyperparameters: {{epsilon: 0.1, sigma: {sigma:.4g}}} # eV, Å; epsilon is a guess: change it",
    ]


def require_one(species: Sequence[str]) -> None:
    """Refuse a prior of several species.

    Raises:
        ValueError: naming them, and what there is instead.
    """
    if len(species) > 1:
        raise ValueError(
            f"--prior is for one element, and here are {' and '.join(species)}: what differs between their pairs, "
            "charges included, the structure does not tell; take --potential, --labels or DFT, or write the terms "
            "yourself, for ions as in examples/nacl/quick.yaml"
        )


def _nearest(atoms: Atoms) -> float:
    """Distance of the nearest neighbours, Å."""
    from ase.neighborlist import neighbor_list

    reach = 2.0 * (atoms.get_volume() / len(atoms)) ** (1 / 3)
    distances = neighbor_list("d", atoms, reach)
    if not len(distances):
        raise ValueError("the atoms of the structure are further apart than twice the edge of the volume per atom")
    return float(distances.min())


def _neighbours(atoms: Atoms) -> float:
    """How many neighbours an atom has within 1.2 times the shortest distance, on average."""
    from ase.neighborlist import neighbor_list

    return len(neighbor_list("i", atoms, 1.2 * _nearest(atoms))) / len(atoms)


def _is_cubic(atoms: Atoms) -> bool:
    from aiida_difftre.data.elasticity import check_cubic

    try:
        check_cubic(atoms)
    except ValueError:
        return False
    return True


def quoted(text: str) -> str:
    """A string as YAML takes it whatever it holds."""
    return json.dumps(text, ensure_ascii=False)
