"""A first input file for a system of one's own, with comments."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.formula import Formula

from aiida_difftre import catalogue
from aiida_difftre.cli.starting_models import origin, quoted
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

EXAMPLE = f"such as {catalogue.PREFIX}Si/stiffness_298K"

BAROSTAT = "barostat: {relaxation_time_fs: 500.0}"

NODE = re.compile(r"[0-9]+|[0-9a-f]{4,8}(-[0-9a-f-]+)?")
"""A PK, or a UUID or how one begins."""

LIQUID_THERMOSTAT = f"thermostat: {{name: langevin, friction_per_ps: {LIQUID_FRICTION_PER_PS}}}"

VALIDATION_FACTOR = 4
"""The validation of a liquid is so much longer than a trajectory of its refinement."""


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
    system = [f"  file: {quoted(as_named(structure, folder))} # {size}; any file that ase reads"]
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
        lines.append(f"      {name}: {quoted(one.reference)} # {one.target.citation}")
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
