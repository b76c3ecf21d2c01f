"""Generation of configurations for labelling: rattled and strained copies of one seed cell. Pure functions over ase."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from pydantic import Field, model_validator

from aiida_difftre.engine.targets import Strict

EQUILIBRIUM = "equilibrium"
RATTLED = "rattled"
STRAINED = "strained"
GIVEN = "given"

MAXIMUM_STRAIN = 0.2
MINIMUM_DISTANCE_RATIO = 0.6


class Rattle(Strict):
    """Copies of the seed cell with Gaussian displacements.

    Args:
        standard_deviation: of each Cartesian component, Å.
        count: number of copies.
    """

    standard_deviation: float = Field(gt=0, le=1.0)
    count: int = Field(ge=1)


class Strain(Strict):
    """Copies of the seed cell under random strains, with Gaussian displacements.

    Args:
        maximum: each of the six strain components is uniform in ±maximum (the engineering shears in ±2 maximum).
        standard_deviation: of the displacements that come on top, Å; 0 for none.
        count: number of copies.
        isotropic: one random number strains all directions alike.
    """

    maximum: float = Field(gt=0, le=MAXIMUM_STRAIN)
    standard_deviation: float = Field(default=0.0, ge=0, le=1.0)
    count: int = Field(ge=1)
    isotropic: bool = False


class Generation(Strict):
    """What to generate from a seed cell.

    Args:
        seed: of the random numbers; the same seed gives the same cells.
        equilibrium: whether the seed cell itself is one of them.
        isotropic: linear strains of cells that keep the symmetry of the seed cell, without displacements.
        rattles: displaced copies.
        strains: strained (and displaced) copies.
        elastic: adds the cells from which stress and stiffness of a cubic crystal follow.
        elastic_strain: size of the strain for them.
    """

    seed: int = Field(default=0, ge=0)
    equilibrium: bool = True
    isotropic: list[float] = Field(default_factory=list)
    rattles: list[Rattle] = Field(default_factory=list)
    strains: list[Strain] = Field(default_factory=list)
    elastic: bool = False
    elastic_strain: float = Field(default=0.005, gt=0, le=0.02)

    @model_validator(mode="after")
    def _sensible(self) -> Generation:
        for strain in self.isotropic:
            if not 0 < abs(strain) <= MAXIMUM_STRAIN:
                raise ValueError(f"isotropic strain {strain!r} must not be 0 and at most {MAXIMUM_STRAIN} in magnitude")
        if len(set(self.isotropic)) != len(self.isotropic):
            raise ValueError(f"isotropic strains {self.isotropic} repeat; each gives the same cell")
        if self.elastic and not self.equilibrium:
            raise ValueError("elastic: true needs the seed cell itself; set equilibrium: true")
        if not (self.equilibrium or self.isotropic or self.rattles or self.strains):
            raise ValueError("nothing is to be generated: give equilibrium, isotropic, rattles or strains")
        return self

    @property
    def count(self) -> int:
        """Number of cells from :func:`generate`; those of ``elastic`` come on top."""
        drawn = sum(rattle.count for rattle in self.rattles) + sum(strain.count for strain in self.strains)
        return int(self.equilibrium) + len(self.isotropic) + drawn


def rattled(atoms: Atoms, standard_deviation: float, rng: np.random.Generator) -> Atoms:
    """Displace every atom by Gaussian noise; the mean displacement is removed.

    Args:
        atoms: not changed.
        standard_deviation: of each Cartesian component, Å.
        rng: source of random numbers.
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
    """
    copy = atoms.copy()
    copy.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain), scale_atoms=True)
    return copy


def voigt_strain(components: NDArray[np.float64] | list[float]) -> NDArray[np.float64]:
    """The symmetric (3, 3) strain of six Voigt components (xx, yy, zz, yz, xz, xy) with engineering shears."""
    xx, yy, zz, yz, xz, xy = components
    return np.array([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])


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


def generate(atoms: Atoms, generation: Generation) -> dict[str, Atoms]:
    """Generate cells from a seed cell.

    Args:
        atoms: the seed cell; not changed.
        generation: what to generate.

    Returns:
        the cells by name, ``kind_number``; the kind is also in ``info['kind']``.

    Raises:
        ValueError: when displacements bring two atoms unphysically close together.
    """
    rng = np.random.default_rng(generation.seed)
    cells: list[tuple[str, Atoms]] = []
    if generation.equilibrium:
        cells.append((EQUILIBRIUM, atoms.copy()))
    cells += [(STRAINED, strained(atoms, size * np.eye(3))) for size in generation.isotropic]
    for rattle in generation.rattles:
        cells += [(RATTLED, rattled(atoms, rattle.standard_deviation, rng)) for _ in range(rattle.count)]
    for strain in generation.strains:
        for _ in range(strain.count):
            if strain.isotropic:
                tensor = rng.uniform(-strain.maximum, strain.maximum) * np.eye(3)
            else:
                scale = strain.maximum * np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
                tensor = voigt_strain(rng.uniform(-scale, scale))
            copy = strained(atoms, tensor)
            cells.append((STRAINED, rattled(copy, strain.standard_deviation, rng)))
    shortest = minimum_distance(atoms)
    named = {}
    for number, (kind, cell) in enumerate(cells):
        distance = minimum_distance(cell)
        if distance < MINIMUM_DISTANCE_RATIO * shortest:
            raise ValueError(
                f"configuration {number} ({kind}) has two atoms {distance:.2f} Å apart, where the seed cell has "
                f"{shortest:.2f} Å; lower the standard deviation of the rattles or the strains"
            )
        cell.info = {"kind": kind}
        cell.calc = None
        named[f"{kind}_{number:03d}"] = cell
    return named
