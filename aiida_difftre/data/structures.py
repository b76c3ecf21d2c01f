"""Generation of configurations for labelling: displaced, strained, scaled copies of one seed cell, and dimers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Annotated

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from aiida_difftre.engine.contract.base import Seed, Strict
from aiida_difftre.engine.contract.bounds import Limits, Repeat
from aiida_difftre.engine.geometry.lattice import strain_matrix

EQUILIBRIUM = "equilibrium"
RATTLED = "rattled"
STRAINED = "strained"
SCALED = "scaled"
DIMER = "dimer"
GIVEN = "given"

MAXIMUM_STRAIN = 0.2
MINIMUM_DISTANCE_RATIO = 0.6


class Rattle(Strict):
    """Copies of the seed cell with Gaussian displacements.

    Args:
        standard_deviation: Standard deviation of each Cartesian component of the displacements, Å.
        count: number of copies.
        repeat: Repetitions of the seed cell, before the displacement.
    """

    standard_deviation: Annotated[
        float, Limits(above=0, most=1, unit="Å", reason="atoms are displaced by less than their distance")
    ]
    count: Annotated[int, Limits(least=1, most=10_000, reason="each is a calculation from first principles")]
    repeat: Repeat = (1, 1, 1)


class Strain(Strict):
    """Copies of the seed cell under random strains, with Gaussian displacements.

    Args:
        maximum: each of the six strain components is uniform in ±maximum (the engineering shears in ±2 maximum).
        standard_deviation: Standard deviation of the displacements that come on top, Å; 0 for none.
        count: number of copies.
        isotropic: one random number strains all directions alike.
        repeat: Repetitions of the seed cell, before the strain.
    """

    maximum: Annotated[float, Limits(above=0, most=MAXIMUM_STRAIN, reason="a larger strain breaks the crystal")]
    standard_deviation: Annotated[
        float, Limits(least=0, most=1, unit="Å", reason="atoms are displaced by less than their distance")
    ] = 0.0
    count: Annotated[int, Limits(least=1, most=10_000, reason="each is a calculation from first principles")]
    isotropic: bool = False
    repeat: Repeat = (1, 1, 1)


class Volumes(Strict):
    """Copies of the seed cell at evenly spaced volumes, with Gaussian displacements: for liquids and soft solids.

    Args:
        minimum: smallest volume over that of the seed cell.
        maximum: largest one.
        count: number of copies, one per volume.
        standard_deviation: Standard deviation of the displacements that come on top, Å; 0 for none.
        repeat: Repetitions of the seed cell, before the scaling.
    """

    minimum: Annotated[float, Limits(least=0.5, most=2, reason="it is over the volume of the seed cell")]
    maximum: Annotated[float, Limits(least=0.5, most=2, reason="it is over the volume of the seed cell")]
    count: Annotated[int, Limits(least=2, most=10_000, reason="each is a calculation from first principles")]
    standard_deviation: Annotated[
        float, Limits(least=0, most=1, unit="Å", reason="atoms are displaced by less than their distance")
    ] = 0.0
    repeat: Repeat = (1, 1, 1)

    @model_validator(mode="after")
    def _ordered(self) -> Volumes:
        if not self.minimum < self.maximum:
            raise ValueError(f"the minimum volume, {self.minimum:g}, must be below the maximum, {self.maximum:g}")
        return self


class Dimers(Strict):
    """Two atoms alone, for every pair of the species in the seed cell; their k-point is Γ.

    Args:
        distances: Å.
        box: edge of the cubic cell, Å; each atom has to be nearer to its partner than to the image of that one.
    """

    distances: list[
        Annotated[
            float,
            Limits(
                above=0.3, most=50, unit="Å", reason="closer nuclei fuse pseudopotentials, farther atoms feel nothing"
            ),
        ]
    ] = Field(min_length=1)
    box: Annotated[float, Limits(above=0, most=100, unit="Å", reason="plane waves fill the whole box")]

    @model_validator(mode="after")
    def _apart(self) -> Dimers:
        longest = max(self.distances)
        if self.box <= 2 * longest:
            raise ValueError(
                f"a dimer of {longest:g} Å in a box of {self.box:g} Å is as close to its periodic image; "
                f"take a box above {2 * longest:g} Å"
            )
        if len(set(self.distances)) != len(self.distances):
            raise ValueError(f"distances {self.distances} repeat; each gives the same dimer")
        return self


class Generation(Strict):
    """What to generate from a seed cell.

    Args:
        seed: Seed of the random numbers; the same seed gives the same cells.
        equilibrium: whether the seed cell itself is one of them.
        isotropic: linear strains of cells that keep the symmetry of the seed cell, without displacements.
        rattles: displaced copies.
        strains: strained (and displaced) copies.
        volumes: copies at other volumes (and displaced).
        dimers: pairs of atoms in a box.
        elastic: adds the cells from which stress and stiffness of a cubic crystal follow.
        elastic_strain: size of the strain for them.
    """

    seed: Seed = 0
    equilibrium: bool = True
    isotropic: list[
        Annotated[
            float, Limits(least=-MAXIMUM_STRAIN, most=MAXIMUM_STRAIN, reason="a larger strain breaks the crystal")
        ]
    ] = Field(default_factory=list)
    rattles: list[Rattle] = Field(default_factory=list)
    strains: list[Strain] = Field(default_factory=list)
    volumes: list[Volumes] = Field(default_factory=list)
    dimers: Dimers | None = None
    elastic: bool = False
    elastic_strain: Annotated[float, Limits(above=0, most=0.02, reason="the stiffness is that of small strains")] = (
        0.005
    )

    @model_validator(mode="after")
    def _sensible(self) -> Generation:
        for strain in self.isotropic:
            if not 0 < abs(strain) <= MAXIMUM_STRAIN:
                raise ValueError(f"isotropic strain {strain!r} must not be 0 and at most {MAXIMUM_STRAIN} in magnitude")
        if len(set(self.isotropic)) != len(self.isotropic):
            raise ValueError(f"isotropic strains {self.isotropic} repeat; each gives the same cell")
        if self.elastic and not self.equilibrium:
            raise ValueError("elastic: true needs the seed cell itself; set equilibrium: true")
        if not (self.equilibrium or self.isotropic or self.rattles or self.strains or self.volumes or self.dimers):
            raise ValueError(
                "nothing is to be generated: give equilibrium, isotropic, rattles, strains, volumes or dimers"
            )
        return self


MOST_LABELLED_ATOMS = 512
"""Of a cell to label: a calculation from first principles of more takes days."""

MOST_LABELS = 20_000


def check_generation(atoms: Atoms, generation: Generation) -> None:
    """Refuse cells that are too large, or too many, to label; nothing is made.

    Raises:
        ValueError: naming the repeat or the count.
    """
    copies: list[Rattle | Strain | Volumes] = [*generation.rattles, *generation.strains, *generation.volumes]
    repeats = [(1, 1, 1), *(part.repeat for part in copies)]
    largest = max(repeats, key=math.prod)
    if (number := len(atoms) * math.prod(largest)) > MOST_LABELLED_ATOMS:
        raise ValueError(
            f"repeat {list(largest)} of the seed cell of {len(atoms)} atoms makes {number} atoms; at most "
            f"{MOST_LABELLED_ATOMS} are labelled: repeat less"
        )
    pairs = len(list(combinations_with_replacement(sorted(set(atoms.get_chemical_symbols())), 2)))
    dimers = 0 if generation.dimers is None else pairs * len(generation.dimers.distances)
    if (labels := sum(part.count for part in copies) + len(generation.isotropic) + dimers) > MOST_LABELS:
        raise ValueError(f"{labels} cells would be generated; at most {MOST_LABELS} are labelled: lower the counts")


def rattled(atoms: Atoms, standard_deviation: float, rng: np.random.Generator) -> Atoms:
    """Displace every atom by Gaussian noise; the mean displacement is removed.

    Args:
        atoms: not changed.
        standard_deviation: Standard deviation of each Cartesian component of the displacements, Å.
        rng: source of random numbers.

    Returns:
        The structure, a copy.
    """
    copy = atoms.copy()
    displacements = rng.normal(scale=standard_deviation, size=(len(atoms), 3))
    copy.positions += displacements - displacements.mean(axis=0)
    return copy


def strained(atoms: Atoms, strain: NDArray[np.float64]) -> Atoms:
    """Strain the cell, atoms at fixed fractional coordinates: h -> h (1 + strain), rows of h being lattice vectors.

    Args:
        atoms: not changed.
        strain: (3, 3), symmetric.

    Returns:
        The structure, a copy.
    """
    copy = atoms.copy()
    copy.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain), scale_atoms=True)
    return copy


def supercell_mesh(mesh: Sequence[int], cell: ArrayLike, supercell: ArrayLike) -> tuple[int, int, int]:
    """The k-point mesh of a supercell that is at least as dense as that of the cell, and as dense where it divides.

    Args:
        mesh: Mesh of the cell.
        cell: (3, 3) lattice vectors, Å.
        supercell: (3, 3), repeated along the vectors of the cell; each strained by less than half a vector of the cell.

    Returns:
        Numbers of k-points along the three reciprocal lattice vectors.
    """
    lengths = [np.linalg.norm(np.asarray(vectors), axis=1) for vectors in (cell, supercell)]
    repeats = np.maximum(1, np.rint(lengths[1] / lengths[0])).astype(int)
    first, second, third = (-(-number // repeat) for number, repeat in zip(mesh, repeats.tolist(), strict=True))
    return first, second, third


def minimum_distance(atoms: Atoms) -> float:
    """Shortest distance between two atoms or an atom and its periodic image, in Å.

    The 27 nearest cells are enough for the compact cells that are labelled here.
    """
    vectors = atoms.positions[None, :, :] - atoms.positions[:, None, :]
    steps = [np.array([-1, 0, 1]) if periodic else np.array([0]) for periodic in atoms.pbc]
    shifts = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3) @ np.asarray(atoms.cell)
    distances = np.linalg.norm(vectors[None] + shifts[:, None, None, :], axis=-1)
    distances[distances < 1e-8] = np.inf
    return float(distances.min())


def dimer(first: str, second: str, distance: float, box: float) -> Atoms:
    """Two atoms on the x axis of a cubic cell.

    Args:
        first: chemical symbol.
        second: chemical symbol.
        distance: Å.
        box: edge of the cell, Å.

    Returns:
        The structure, periodic.
    """
    return Atoms([first, second], positions=[[0, 0, 0], [distance, 0, 0]], cell=[box, box, box], pbc=True)


def generate(atoms: Atoms, generation: Generation) -> dict[str, Atoms]:
    """Generate cells from a seed cell.

    Args:
        atoms: the seed cell; not changed.
        generation: what to generate.

    Returns:
        the cells by name, ``kind_number``; the kind is also in ``info['kind']``.

    Raises:
        ValueError: for cells that are too large or too many, and when displacements bring two atoms unphysically
            close together.
    """
    check_generation(atoms, generation)
    cells = _copies(atoms, generation)
    shortest = minimum_distance(atoms)
    for number, (kind, cell) in enumerate(cells):
        distance = minimum_distance(cell)
        if distance < MINIMUM_DISTANCE_RATIO * shortest:
            raise ValueError(
                f"configuration {number} ({kind}) has two atoms {distance:.2f} Å apart, where the seed cell has "
                f"{shortest:.2f} Å; lower the standard deviation of the rattles, strains or volumes, or the strain"
            )
    if generation.dimers is not None:
        species = sorted(set(atoms.get_chemical_symbols()))
        cells += [
            (DIMER, dimer(first, second, distance, generation.dimers.box))
            for first, second in combinations_with_replacement(species, 2)
            for distance in generation.dimers.distances
        ]
    named = {}
    for number, (kind, cell) in enumerate(cells):
        cell.info = {"kind": kind}
        cell.calc = None
        named[f"{kind}_{number:03d}"] = cell
    return named


def _copies(atoms: Atoms, generation: Generation) -> list[tuple[str, Atoms]]:
    """What is made of the seed cell, with its kind; the order decides what each draws from the random numbers."""
    rng = np.random.default_rng(generation.seed)
    cells: list[tuple[str, Atoms]] = []
    if generation.equilibrium:
        cells.append((EQUILIBRIUM, atoms.copy()))
    cells += [(STRAINED, strained(atoms, size * np.eye(3))) for size in generation.isotropic]
    for rattle in generation.rattles:
        seed = atoms.repeat(rattle.repeat)
        cells += [(RATTLED, rattled(seed, rattle.standard_deviation, rng)) for _ in range(rattle.count)]
    for strain in generation.strains:
        seed = atoms.repeat(strain.repeat)
        for _ in range(strain.count):
            if strain.isotropic:
                tensor = rng.uniform(-strain.maximum, strain.maximum) * np.eye(3)
            else:
                scale = strain.maximum * np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
                tensor = strain_matrix(rng.uniform(-scale, scale))
            cells.append((STRAINED, rattled(strained(seed, tensor), strain.standard_deviation, rng)))
    for volumes in generation.volumes:
        seed = atoms.repeat(volumes.repeat)
        for ratio in np.linspace(volumes.minimum, volumes.maximum, volumes.count):
            copy = strained(seed, (ratio ** (1 / 3) - 1) * np.eye(3))
            cells.append((SCALED, rattled(copy, volumes.standard_deviation, rng)))
    return cells
