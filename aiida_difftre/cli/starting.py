"""A first input file for a system of one's own, with comments."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.formula import Formula

from aiida_difftre import catalogue
from aiida_difftre.data.base import engine_of
from aiida_difftre.data.target import read_target
from aiida_difftre.engine.contract import known_bases
from aiida_difftre.engine.contract.frames import split_index
from aiida_difftre.engine.contract.observables import observable
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.workchains.estimate import LIQUID_FRICTION_PER_PS
from aiida_difftre.workchains.paths import as_named
from aiida_difftre.workchains.systems import read_structure

WIDTH_A = 10.0
"""Å; a simulation cell is repeated until none of its heights is smaller."""

SAME_TEMPERATURE_K = 0.5
"""State points that differ by less are labelled alike."""

MOST_ATOMS = 500
"""More are not proposed: a first run should end."""

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

EXAMPLE = f"such as {catalogue.PREFIX}Si/stiffness_298K"

BAROSTAT = "barostat: {relaxation_time_fs: 500.0}"

NODE = re.compile(r"[0-9]+|[0-9a-f]{4,8}(-[0-9a-f-]+)?")
"""A PK, or a UUID or how one begins."""

LIQUID_THERMOSTAT = f"thermostat: {{name: langevin, friction_per_ps: {LIQUID_FRICTION_PER_PS}}}"

VALIDATION_FACTOR = 4
"""The validation of a liquid is so much longer than a trajectory of its refinement."""

STARTS = ("dft", "labels", "potential", "base", "prior")
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
        return Measurement(target.name.replace(" ", "_"), as_named(path, folder), target)
    if not reference.startswith(catalogue.PREFIX) and (path.suffix or not catalogue.NAME.fullmatch(reference)):
        remedy = f"give a target file, or a name of the catalogue ({EXAMPLE})"
        raise ValueError(f"there is no file {reference!r} in {Path.cwd()}; {remedy}")
    entry = catalogue.find(reference)
    return Measurement(entry.target().observable, f"{catalogue.PREFIX}{entry.name}", entry.target())


def check_elements(measurements: Iterable[Measurement], atoms: Atoms) -> None:
    """Refuse measurements of the catalogue of a system that shares no element with the atoms; beads share one.

    Raises:
        ValueError: naming the measurement and the elements.
    """
    here = set(atoms.get_chemical_symbols())
    for one in measurements:
        if one.reference.startswith(catalogue.PREFIX):
            system = catalogue.find(one.reference).system
            try:
                measured = set(Formula(system))
            except ValueError:
                continue  # a name of its own, in a folder of the user
            if measured.isdisjoint(here):
                raise ValueError(
                    f"{one.reference} was measured of {system}, and the structure has {', '.join(sorted(here))}; "
                    f"`aiida-difftre target list --system {name_of(atoms)}` shows what there is of it"
                )


def named(given: str, folder: Path, has_label: Callable[[str], bool]) -> str:
    """How the input names labels or a potential that a person named: a file of the working folder, or a node.

    Args:
        given: What a person named.
        folder: Folder of the input.
        has_label: Whether a node has a label; asked for what is neither a file nor looks like a PK or a UUID.

    Raises:
        ValueError: for what is neither.
    """
    if split_index(Path(given))[0].is_file():
        return as_named(Path(given), folder)
    if NODE.fullmatch(given) or has_label(given):
        return given
    is_base = any(base.name == given for base in known_bases.registry().values())
    remedy = f"a model of another program is given as --base {given}" if is_base else "give a file, or a node"
    raise ValueError(f"there is no file {given!r} in {Path.cwd()}; {remedy}")


def formula(atoms: Atoms) -> str:
    """The reduced formula of a structure, by which the catalogue has its measurements."""
    return str(atoms.symbols.formula.reduce()[0].format("hill"))


def name_of(atoms: Atoms) -> str:
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
            node), ``base`` (a model of another program) or ``prior`` (a pair potential of the size of the atoms).
        given: The labels, the potential or the base (``NAME`` or ``NAME=FILE``), for the starts that need one.
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
    size = f"{len(atoms)} atom{'s' * (len(atoms) > 1)}"
    system = [f"  file: {_quoted(as_named(structure, folder))} # {size}; any file that ase reads"]
    return written(name_of(atoms), protocol, system, origin(atoms, start, given), measurements, atoms, {})


def written(
    name: str,
    protocol: str,
    system: list[str],
    first_potential: list[str],
    measurements: Sequence[Measurement],
    crystal: Atoms | None,
    times: Mapping[str, float],
) -> str:
    """The input; without a crystal a liquid, of which there is nothing to repeat, and no stiffness at rest."""
    lines = [
        f"# {name}, made by `aiida-difftre init`: read it, change it, then `aiida-difftre check` it.",
        "# What is not given comes from the preset; the reference of the input explains every key.",
        f"label: {name}",
        f"protocol: {protocol} # quick, cpu or paper: how long everything is sampled, and how large networks are",
        "seed: 1 # of everything random; another one repeats the run with other noise",
        "",
        "system:",
        *system,
        "",
        *first_potential,
        "",
        "state_points: # where something was measured; each is simulated by itself",
    ]
    for label, group in _state_points(measurements).items():
        lines += _state_point(label, group, crystal, _measured_density(group[0].target, measurements))
    lines += [
        "",
        "# refinement:",
        "#   settings: {max_iterations: 8, chi2_stop: 1.0} # when to stop",
        "#   update: {optimizer: {name: gauss_newton}} # how to move the parameters",
        *_sampling(times, barostat=any(one.at_constant_pressure for one in measurements), liquid=crystal is None),
    ]
    return "\n".join(lines) + "\n"


def _sampling(times: Mapping[str, float], *, barostat: bool, liquid: bool) -> list[str]:
    """The sections ``sampling`` and ``validation``, where the preset does not have all of it."""
    if not times and not barostat:
        return []
    longer = {**times, "production_fs": VALIDATION_FACTOR * times["production_fs"]} if times else {}
    lines = ["", "sampling:"]
    lines += ["  # The atoms have to forget how they were packed; the time step is for the lightest of them."] * bool(
        times
    )
    lines += [f"  {name}: {value:g}" for name, value in times.items()]
    lines += [
        f"  {LIQUID_THERMOSTAT} # weak: the friction of the preset, which is for crystals, holds a liquid up"
    ] * bool(times)
    lines += [f"  {BAROSTAT} # of the state points that have a pressure"] * barostat
    lines += ["validation:"]
    lines += ["  settings: {static_stiffness: false} # a liquid has none"] * liquid
    return [
        *lines,
        "  sampling:",
        *(f"    {name}: {value:g}" for name, value in longer.items()),
        *([f"    {LIQUID_THERMOSTAT}"] * bool(times)),
        *([f"    {BAROSTAT}"] * barostat),
    ]


def origin(atoms: Atoms, start: str, given: str | None, nearest: float | None = None) -> list[str]:
    """The sections ``dft`` and ``model``; of a liquid, whose atoms have no places, with their nearest distance, Å."""
    species = f"[{', '.join(sorted(set(atoms.get_chemical_symbols())))}]"
    network = ["model:", "  spec:", f"    species: {species}", "    terms:", *_network(atoms)]
    if start == "potential":
        return ["model:", f"  potential: {_quoted(str(given))} # file or node; nothing is labelled or pretrained"]
    if start == "base":
        return _on_a_base(atoms, str(given), nearest or _nearest(atoms))
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
    files = f", files: {{{next(iter(base.files))}: {_quoted(file)}}}" if file else ""
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


def _state_points(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    """Measurements by state point: those of one temperature and one ensemble belong together."""
    found: dict[str, list[Measurement]] = {}
    for one in measurements:
        label = f"T{one.target.conditions.temperature:.0f}K" + ("_npt" if one.at_constant_pressure else "")
        found.setdefault(label, []).append(one)
    return found


def _measured_density(target: Target, measurements: Iterable[Measurement]) -> float | None:
    """The density that was measured at the temperature and the pressure of another target, kg/m³; None for none."""
    wanted = target.conditions
    for one in measurements:
        found = one.target.conditions
        same = abs(found.temperature - wanted.temperature) < SAME_TEMPERATURE_K
        if one.target.observable == "density" and same and wanted.pressure in (None, found.pressure):
            return float(one.target.values[0])
    return None


def _state_point(label: str, group: Sequence[Measurement], atoms: Atoms | None, density: float | None) -> list[str]:
    conditions = group[0].target.conditions
    lines = [f"  {label}:", f"    temperature: {conditions.temperature:g} # K"]
    if any(one.at_constant_pressure for one in group):
        pressure = conditions.pressure if conditions.pressure is not None else 1e-4
        lines.append(f"    pressure: {pressure:g} # GPa, held by the barostat below; the cell changes its size")
    elif conditions.density is not None or density is not None:
        fixed = density if conditions.density is None else conditions.density
        lines.append(f"    density: {fixed:g} # kg/m³, to which the cell is scaled; its size is fixed")
    else:
        lines.append("    # density: # kg/m³, to scale the cell to; without it the cell is that of the file")
    if atoms is not None:
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
