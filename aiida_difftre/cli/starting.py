"""A first input file for a system of one's own, with comments; and every reason why an input would be refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_difftre import catalogue
from aiida_difftre.data.target import read_target
from aiida_difftre.engine.contract.observables import observable
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.workchains.systems import read_structure

if TYPE_CHECKING:
    from ase import Atoms

WIDTH_A = 10.0
"""Å; a simulation cell is repeated until none of its heights is smaller."""

MOST_ATOMS = 500
"""More are not proposed: a first run should end."""

NETWORK_CUTOFF_A = 5.0

NO_METALS = frozenset(("H", "He", "B", "C", "N", "O", "F", "Ne", "Si", "P", "S", "Cl", "Ar", "Ge", "As", "Se", "Br",
                       "Kr", "Sb", "Te", "I", "Xe", "At", "Rn"))  # fmt: skip

FEW_ATOMS = 4
"""Fewer atoms in a cell to label are not rattled into forces that teach something."""

SMEARING = "{SYSTEM: {occupations: smearing, smearing: mv, degauss: 0.05}}"

TETRAHEDRAL = 4
"""Neighbours in a lattice that pair energies do not hold."""

STARTS = ("dft", "labels", "potential", "prior")
"""Where the first potential comes from."""


@dataclass(frozen=True)
class Measurement:
    """A measurement as the input will name it.

    Args:
        name: Label in the input.
        reference: ``catalogue:SYSTEM/NAME``, or the path of a file.
        target: What it holds.
    """

    name: str
    reference: str
    target: Target

    @property
    def at_constant_pressure(self) -> bool:
        """Whether only a cell that changes its size gives it."""
        ensembles = observable(self.target.observable).ensembles
        return ensembles is not None and tuple(ensembles(self.target.options)) == ("NPT",)


def measurement(reference: str, folder: Path) -> Measurement:
    """Find what a person names: of the catalogue, with or without its prefix, or a target file.

    Args:
        reference: What was given.
        folder: Folder of the input that will name it.

    Raises:
        ValueError: naming it, and what is wrong.
    """
    path = Path(reference)
    if not reference.startswith(catalogue.PREFIX) and path.is_file():
        target = read_target(path)
        relative = path.resolve()
        if relative.is_relative_to(folder.resolve()):
            relative = relative.relative_to(folder.resolve())
        return Measurement(target.name.replace(" ", "_"), str(relative), target)
    entry = catalogue.find(reference)
    return Measurement(entry.target().observable, f"{catalogue.PREFIX}{entry.name}", entry.target())


def formula(atoms: Atoms) -> str:
    """The reduced formula of a structure, by which the catalogue has its measurements."""
    return str(atoms.symbols.formula.reduce()[0].format("hill"))


def _name(atoms: Atoms) -> str:
    """The reduced formula as chemists write it: KCl."""
    return str(atoms.symbols.formula.reduce()[0].format("metal"))


def known_of(atoms: Atoms) -> list[str]:
    """What the catalogue has of a structure."""
    try:
        return [entry.name for entry in catalogue.entries(formula(atoms))]
    except ValueError:
        return []


def document(
    structure: Path,
    measurements: Sequence[Measurement],
    *,
    folder: Path,
    start: str = "dft",
    given: str | None = None,
    protocol: str = "quick",
) -> str:
    """An input file for a structure and measurements of it, with comments.

    Args:
        structure: File of the structure.
        measurements: What was measured.
        folder: Folder of the input.
        start: Where the first potential comes from: ``dft``, ``labels`` (a file or node), ``potential`` (a file or
            node) or ``prior`` (a pair potential of the size of the atoms).
        given: The labels or the potential, for the starts that need one.
        protocol: Name of the preset.

    Returns:
        YAML.

    Raises:
        ValueError: where the structure cannot be read, or something is missing.
    """
    if not measurements:
        raise ValueError("no measurement was given: nothing to refine towards; `aiida-difftre target list` shows some")
    if start in ("labels", "potential") and not given:
        raise ValueError(f"a start from {start} needs the file or the node: give --{start}")
    atoms = read_structure(structure)
    place = structure.resolve()
    if place.is_relative_to(folder.resolve()):
        place = place.relative_to(folder.resolve())
    barostat = any(one.at_constant_pressure for one in measurements)
    lines = [
        f"# {_name(atoms)}, made by `aiida-difftre init`: read it, change it, then `aiida-difftre check` it.",
        "# What is not given comes from the preset; the reference of the input explains every key.",
        f"label: {_name(atoms)}",
        f"protocol: {protocol} # quick, cpu or paper: how long everything is sampled, and how large networks are",
        "seed: 1 # of everything random; another one repeats the run with other noise",
        "",
        "system:",
        f"  file: {_quoted(str(place))} # {len(atoms)} atom{'s' * (len(atoms) > 1)}; any file that ase reads",
        "",
        *_origin(atoms, start, given),
        "",
        "state_points: # where something was measured; each is simulated by itself",
    ]
    for label, group in _state_points(measurements).items():
        lines += _state_point(label, group, atoms)
    lines += [
        "",
        "# refinement:",
        "#   settings: {max_iterations: 8, chi2_stop: 1.0} # when to stop",
        "#   update: {optimizer: {name: gauss_newton}} # how to move the parameters",
    ]
    if barostat:
        lines += [
            "",
            "sampling: # of the state points that have a pressure",
            "  barostat: {relaxation_time_fs: 500.0}",
            "validation:",
            "  sampling: {barostat: {relaxation_time_fs: 500.0}}",
        ]
    return "\n".join(lines) + "\n"


def _origin(atoms: Atoms, start: str, given: str | None) -> list[str]:
    """The sections ``dft`` and ``model``."""
    species = f"[{', '.join(sorted(set(atoms.get_chemical_symbols())))}]"
    network = ["model:", "  spec:", f"    species: {species}", "    terms:", *_network(atoms)]
    if start == "potential":
        return ["model:", f"  potential: {_quoted(str(given))} # file or node; nothing is labelled or pretrained"]
    if start == "labels":
        return ["dft:", f"  dataset: {_quoted(str(given))} # energies, forces and stresses that exist", "", *network]
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
    if len(species) > 1:
        raise ValueError(
            f"--prior is for one element, and here are {' and '.join(species)}: what differs between their pairs, "
            "charges included, the structure does not tell; take --potential, --labels or DFT, or write the terms "
            "yourself, for ions as in examples/nacl/quick.yaml"
        )
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


def _state_points(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    """Measurements by state point: those of one temperature and one ensemble belong together."""
    found: dict[str, list[Measurement]] = {}
    for one in measurements:
        label = f"T{one.target.conditions.temperature:.0f}K" + ("_npt" if one.at_constant_pressure else "")
        found.setdefault(label, []).append(one)
    return found


def _state_point(label: str, group: Sequence[Measurement], atoms: Atoms) -> list[str]:
    conditions = group[0].target.conditions
    lines = [f"  {label}:", f"    temperature: {conditions.temperature:g} # K"]
    if any(one.at_constant_pressure for one in group):
        pressure = conditions.pressure if conditions.pressure is not None else 1e-4
        lines.append(f"    pressure: {pressure:g} # GPa, held by the barostat below; the cell changes its size")
    elif conditions.density is not None:
        lines.append(f"    density: {conditions.density:g} # kg/m³, to which the cell is scaled; its size is fixed")
    else:
        lines.append("    # density: # kg/m³, to scale the cell to; without it the cell is that of the file")
    repeat = repeats(atoms)
    lines.append(f"    repeat: {repeat} # {len(atoms) * math.prod(repeat)} atoms")
    lines.append("    targets:")
    names: set[str] = set()
    for one in group:
        name = one.name if one.name not in names else f"{one.name}_{len(names) + 1}"
        names.add(name)
        lines.append(f"      {name}: {_quoted(one.reference)} # {one.target.citation}")
    return lines


def repeats(atoms: Atoms) -> list[int]:
    """Repetitions along each vector that make a cell of :data:`WIDTH_A`, or as much as :data:`MOST_ATOMS` allows."""
    heights = atoms.get_volume() / [
        _area(atoms.cell[1], atoms.cell[2]), _area(atoms.cell[2], atoms.cell[0]), _area(atoms.cell[0], atoms.cell[1])
    ]  # fmt: skip
    wanted = [max(1, math.ceil(WIDTH_A / height)) for height in heights]
    while len(atoms) * math.prod(wanted) > MOST_ATOMS and max(wanted) > 1:
        wanted[wanted.index(max(wanted))] -= 1
    return wanted


def _area(first: Any, second: Any) -> float:
    import numpy as np

    return float(np.linalg.norm(np.cross(first, second)))


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


def _quoted(text: str) -> str:
    """A string as YAML takes it whatever it holds."""
    return json.dumps(text, ensure_ascii=False)


def refusals(file: Path, seed: int | None = None) -> list[str]:
    """Every reason why an input would be refused, each once; those that hide behind others come after these are mended.

    Args:
        file: The input; a profile has to be loaded.
        seed: Seed in place of that of the file.

    Returns:
        The messages; empty for an input that is right.
    """
    from aiida_difftre.workchains import codes, estimate, from_input
    from aiida_difftre.workchains.cells import elements_to_label
    from aiida_difftre.workchains.inputs import read_input

    try:
        run = read_input(file)
    except ValueError as error:
        return [str(error)]
    found: dict[str, None] = {}

    def attempt(step: object, *arguments: object) -> None:
        try:
            step(*arguments)  # type: ignore[operator] # each is a function
        except ValueError as error:
            found[str(error)] = None

    attempt(lambda: estimate.check(from_input.read_plan(file)))
    kinds = [kind for kind in codes.CHAIN_OF if kind not in ("dft", "feff", "pretraining")]
    kinds += ["dft"] if elements_to_label(run, file.parent) else []
    kinds += [] if run.model.potential is not None else ["pretraining"]
    for kind in kinds:
        attempt(codes.load_code, kind, getattr(run.machines, kind))
    attempt(lambda: from_input.read_builder(file, seed=seed))
    return list(found)
