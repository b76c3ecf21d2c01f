"""Input and output of FEFF 6: a cluster of a crystal, and its single-scattering paths as a table. Free of JAX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from aiida_difftre.engine.observables.specs.absorption import EDGES, PathTable, Shell

PATH_FILE = re.compile(r"feff\d{4}\.dat")
COLUMNS = ("k", "real[2*phc]", "mag[feff]", "phase[feff]", "red factor", "lambda", "real[p]@#")

MARGIN = 2.0
"""By which the cluster that makes the potentials reaches beyond the paths, Å."""

SAME_SHELL = 0.05
"""Paths to the same species whose lengths differ by less are one shell, Å."""

MAX_ATOMS = 500
"""In FEFF 6."""

FINISHED = "Feff done"
"""What FEFF says at the end."""


@dataclass(frozen=True)
class Cluster:
    """Atoms around an absorber.

    Args:
        symbols: chemical symbols, the absorber first, then by distance.
        positions: relative to the absorber, (atoms, 3), Å.
        radius: Radius of the paths, Å.
        cutoff: midway between the last shell within the radius and the next one, Å.
    """

    symbols: tuple[str, ...]
    positions: NDArray[np.float64]
    radius: float
    cutoff: float


def cluster(atoms: Atoms, absorber: str, radius: float, site: int | None = None) -> Cluster:
    """Cut the cluster around an absorbing atom out of a crystal, for FEFF.

    Args:
        atoms: The ideal crystal, periodic; FEFF merges neighbours at the same distance.
        absorber: Chemical symbol of the absorbing atom.
        radius: Distance up to which neighbours scatter, Å.
        site: Index of the absorbing atom; None for the first one of the species.

    Returns:
        The cluster, with the absorber at the origin.

    Raises:
        ValueError: Where there is no such atom, no neighbour within the radius, or more atoms than FEFF takes.

    Example:
        >>> from ase.build import bulk
        >>> from aiida_difftre.engine.feff import cluster
        >>> copper = cluster(bulk("Cu", "fcc", 3.61), "Cu", 3.0)
        >>> round(copper.cutoff, 3)  # between the first shell, 2.55 Å, and the second, 3.61 Å
        3.081
    """
    symbols = atoms.get_chemical_symbols()
    if absorber not in symbols:
        raise ValueError(f"the absorber is {absorber!r}; the structure has {', '.join(sorted(set(symbols)))}")
    center = symbols.index(absorber) if site is None else site
    if not 0 <= center < len(symbols) or symbols[center] != absorber:
        raise ValueError(
            f"site {center} is no {absorber}; leave it out, or give the index of one of {len(symbols)} atoms"
        )
    i, j, vectors, distances = neighbor_list("ijDd", atoms, radius + 2 * MARGIN)
    chosen = i == center
    order = np.argsort(distances[chosen], kind="stable")
    j, vectors, distances = (array[chosen][order] for array in (j, vectors, distances))
    within = distances <= radius
    if not within.any():
        nearest = f"the nearest is at {distances[0]:.2f} Å" if len(distances) else "there is none nearby"
        raise ValueError(f"no neighbour of {absorber} lies within {radius:g} Å; {nearest}")
    if within.sum() >= MAX_ATOMS:
        raise ValueError(
            f"{within.sum()} neighbours lie within {radius:g} Å; FEFF takes {MAX_ATOMS - 1}: a radius must be "
            f"less than {distances[MAX_ATOMS - 1]:.2f} Å here"
        )
    beyond = distances[~within]
    last = float(distances[within][-1])
    kept = np.flatnonzero(distances <= radius + MARGIN)[: MAX_ATOMS - 1]
    return Cluster(
        symbols=(absorber, *(symbols[index] for index in j[kept])),
        positions=np.vstack([np.zeros(3), vectors[kept]]),
        radius=radius,
        cutoff=(last + float(beyond[0])) / 2 if len(beyond) else last + MARGIN,
    )


def input_text(found: Cluster, edge: str, title: str) -> str:
    """The file ``feff.inp`` for all single-scattering paths within the radius.

    Every species has one potential, the absorber one of its own. No path is left out for a small amplitude.

    Args:
        found: the cluster.
        edge: K, L1, L2 or L3.
        title: one line.

    Returns:
        The content of the file.
    """
    species = sorted(set(found.symbols[1:]))
    numbers = {symbol: number for number, symbol in enumerate(species, start=1)}
    lines = [
        f"TITLE {' '.join(title.split())[:70]}",
        f"HOLE {EDGES.index(edge) + 1} 1.0",
        "CONTROL 1 1 1 1",
        "PRINT 0 0 0 3",
        f"RMAX {found.radius:.4f}",
        "NLEG 2",
        "CRITERIA 0 0",
        "POTENTIALS",
        f" 0 {atomic_numbers[found.symbols[0]]} {found.symbols[0]}",
        *(f" {number} {atomic_numbers[symbol]} {symbol}" for symbol, number in numbers.items()),
        "ATOMS",
    ]
    for index, (symbol, position) in enumerate(zip(found.symbols, found.positions, strict=True)):
        x, y, z = position
        lines.append(f" {x:12.6f} {y:12.6f} {z:12.6f} {numbers[symbol] if index else 0}")
    return "\n".join([*lines, "END", ""])


@dataclass(frozen=True)
class ScatteringPath:
    """One file ``feffNNNN.dat``.

    Args:
        symbols: Chemical symbols of its atoms, the absorber first.
        degeneracy: number of such paths.
        distance: half of its length, Å.
        columns: Values by name of the column.
    """

    symbols: tuple[str, ...]
    degeneracy: float
    distance: float
    columns: dict[str, NDArray[np.float64]]


def read_path(text: str, name: str) -> ScatteringPath:
    """Read a file ``feffNNNN.dat``.

    Args:
        text: its content.
        name: Name of the file, for messages.

    Returns:
        The path.

    Raises:
        ValueError: for anything else.
    """
    lines = text.splitlines()
    try:
        geometry = next(index for index, line in enumerate(lines) if "nleg, deg, reff" in line)
        table = next(index for index, line in enumerate(lines) if "real[p]@#" in line)
        legs, degeneracy, distance = lines[geometry].split()[:3]
        atoms = [line.split() for line in lines[geometry + 2 : table]]
        symbols = tuple(chemical_symbols[int(words[4])] for words in atoms)
        numbers = np.array([[float(word) for word in line.split()] for line in lines[table + 1 :] if line.strip()])
        if numbers.shape[1] != len(COLUMNS) or len(symbols) != int(legs) or not np.isfinite(numbers).all():
            raise ValueError(f"{numbers.shape[1]} columns and {len(symbols)} atoms")
    except (StopIteration, ValueError, IndexError) as error:
        raise ValueError(f"{name} is no path of FEFF: {error or 'its header is missing'}") from None
    return ScatteringPath(symbols, float(degeneracy), float(distance), dict(zip(COLUMNS, numbers.T, strict=True)))


def path_table(paths: Sequence[ScatteringPath], found: Cluster, edge: str, source: str) -> PathTable:
    """Make the table of scattering paths that an EXAFS target carries, one shell for each species and distance.

    Args:
        paths: All paths of a run of FEFF; those with more than one scattering are left out.
        found: The cluster that the run was for.
        edge: Absorption edge, K, L1, L2 or L3.
        source: What made the paths, and for what, in words.

    Returns:
        The table.

    Raises:
        ValueError: Where there is no single-scattering path.

    Example:
        >>> import numpy as np
        >>> from ase.build import bulk
        >>> from aiida_difftre.engine.feff import cluster, path_table
        >>> from aiida_difftre.engine.observables.feff import COLUMNS, ScatteringPath
        >>> copper = cluster(bulk("Cu", "fcc", 3.61), "Cu", 3.0)
        >>> columns = {name: np.linspace(1.0, 2.0, 60) for name in COLUMNS} | {"k": np.linspace(0.0, 20.0, 60)}
        >>> table = path_table([ScatteringPath(("Cu", "Cu"), 12.0, 2.5527, columns)], copper, "K", "made up")
        >>> [(shell.scatterer, shell.distance) for shell in table.shells]
        [('Cu', 2.5527)]
    """
    single = sorted((path for path in paths if len(path.symbols) == 2), key=lambda path: path.distance)
    if not single:
        raise ValueError(f"FEFF found no single-scattering path within {found.radius:g} Å; raise the radius")
    groups: list[list[ScatteringPath]] = []
    for path in single:
        for group in groups:
            if group[0].symbols == path.symbols and path.distance - group[-1].distance < SAME_SHELL:
                group.append(path)
                break
        else:
            groups.append([path])
    common = single[0].columns
    return PathTable(
        source=source,
        absorber=found.symbols[0],
        edge=edge,  # type: ignore[arg-type]  # pydantic checks
        cutoff=found.cutoff,
        k=common["k"].tolist(),
        momentum=common["real[p]@#"].tolist(),
        mean_free_path=common["lambda"].tolist(),
        shells=[_shell(group) for group in groups],
    )


def _shell(group: Sequence[ScatteringPath]) -> Shell:
    """The path of a group that is nearest to its mean distance."""
    weights = [path.degeneracy for path in group]
    mean = float(np.average([path.distance for path in group], weights=weights))
    path = min(group, key=lambda one: abs(one.distance - mean))
    columns = path.columns
    return Shell(
        scatterer=path.symbols[1],
        distance=path.distance,
        amplitude=_rounded(columns["mag[feff]"] * columns["red factor"]),
        phase=_rounded(columns["real[2*phc]"] + columns["phase[feff]"]),
    )


def _rounded(values: NDArray[np.float64]) -> list[float]:
    """Round to the digits that FEFF writes, and one more."""
    return [float(f"{value:.6g}") for value in values]


def read_folder(folder: Path) -> list[ScatteringPath]:
    """Read all scattering paths of a folder in which FEFF ran.

    Args:
        folder: The folder, with files ``feffNNNN.dat``.

    Returns:
        The paths, in the order of their files.

    Raises:
        ValueError: For a file that is no path; the message names it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from aiida_difftre.engine.feff import read_folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_folder(Path(folder))
        []
    """
    files = sorted(path for path in folder.iterdir() if PATH_FILE.fullmatch(path.name))
    return [read_path(path.read_text(encoding="ascii", errors="replace"), path.name) for path in files]
