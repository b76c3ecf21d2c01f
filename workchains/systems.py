"""The cell of a run: read from a file, a crystal, or atoms packed at random."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from aiida_difftre.data.packing import packed
from aiida_difftre.engine.contract import structure_files
from aiida_difftre.engine.contract.base import Seed, Strict
from aiida_difftre.engine.contract.bounds import MOST_ATOMS, Density, Length, Limits, Mass, Spacing
from aiida_difftre.engine.contract.documents import check_regular
from aiida_difftre.engine.contract.frames import not_periodic, read_frame, read_frames, split_index
from aiida_difftre.engine.units import AMU_PER_A3_IN_KG_PER_M3
from aiida_difftre.workchains.paths import beside

if TYPE_CHECKING:
    from ase import Atoms


DENSEST = 1e5
"""kg/m³; osmium has 22 600."""

MOST_PACKED = 20_000
"""Atoms of a random cell: packing takes seconds up to there."""


class Bulk(Strict):
    """A crystal built by ase.

    Args:
        element: chemical symbol, or formula of a compound that ``ase.build.bulk`` knows.
        structure: ase's name of the crystal structure, such as ``diamond`` or ``fcc``.
        lattice_constant: Å; or
        density: kg/m³, from which the cell follows.
        c_over_a: Ratio c/a of hexagonal structures.
        cubic: the conventional cubic cell; hexagonal structures have none, so set it to false.
    """

    element: str
    structure: str
    lattice_constant: (
        Annotated[
            float,
            Limits(least=1, most=100, unit="Å", reason="crystals that ase builds by name have constants of 2 to 10 Å"),
        ]
        | None
    ) = None
    density: Density | None = None
    c_over_a: Annotated[float, Limits(least=0.1, most=20, reason="hexagonal metals have 1.5 to 1.9")] | None = None
    cubic: bool = True

    @model_validator(mode="after")
    def _one_size(self) -> Bulk:
        if (self.lattice_constant is None) == (self.density is None):
            raise ValueError("give either lattice_constant (Å) or density (kg/m³)")
        return self

    def atoms(self, masses: Mapping[str, float]) -> Atoms:
        """Build the cell.

        Args:
            masses: those that are not standard atomic weights, u.

        Returns:
            The structure.

        Raises:
            ValueError: for what ase cannot build.
        """
        from ase.build import bulk

        try:
            cell = bulk(
                self.element,
                self.structure,
                a=self.lattice_constant or 4.0,
                covera=self.c_over_a,
                cubic=self.cubic,
            )
        except (ValueError, KeyError, RuntimeError) as error:
            raise ValueError(f"ase cannot build {self.element!r} as {self.structure!r}: {error}") from None
        cell = with_masses(cell, masses)
        return with_density(cell, self.density) if self.density is not None else cell


class Random(Strict):
    """Atoms at random in a cubic box, none close to another: the start of a liquid.

    Args:
        composition: number of atoms of each chemical symbol.
        density: kg/m³, from which the box follows; or
        box: edge, Å.
        min_distance: Å; None takes 0.9 of the edge of the volume per atom.
        seed: Seed of the random numbers.
    """

    composition: dict[
        str,
        Annotated[
            int, Limits(least=1, most=MOST_PACKED, reason="more atoms take longer to pack than a crystal takes to melt")
        ],
    ] = Field(min_length=1)
    density: Density | None = None
    box: Length | None = None
    min_distance: Spacing | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_size(self) -> Random:
        if (number := sum(self.composition.values())) > MOST_PACKED:
            raise ValueError(f"composition has {number} atoms; at most {MOST_PACKED} are packed: repeat a smaller cell")
        if (self.density is None) == (self.box is None):
            raise ValueError("give either density (kg/m³) or box (Å)")
        return self

    def atoms(self, masses: Mapping[str, float]) -> Atoms:
        """Pack the atoms.

        Args:
            masses: those that are not standard atomic weights, u.

        Returns:
            The structure.

        Raises:
            ValueError: for an unknown element, and where they do not fit.
        """
        from ase import Atoms

        try:
            atoms = Atoms([symbol for symbol, number in self.composition.items() for _ in range(number)], pbc=True)
        except KeyError as error:
            raise ValueError(f"{error} is no chemical symbol; composition maps symbols to numbers of atoms") from None
        atoms = with_masses(atoms, masses)
        mass = float(atoms.get_masses().sum())
        box = self.box or (mass / (self.density or 1.0) * AMU_PER_A3_IN_KG_PER_M3) ** (1 / 3)
        atoms.set_cell([box, box, box])
        atoms.positions = packed(len(atoms), box, min_distance=self.min_distance, seed=self.seed)
        return atoms


class System(Strict):
    """A cell; those that are labelled and those that are simulated are made from it by repetition.

    Args:
        file: any structure file that ase reads, relative to the YAML; one of several frames with the number of one, as
            in ``md.extxyz@-1``; or
        bulk: a crystal; or
        random: atoms at random.
        masses: Masses by chemical symbol, u, where they are not the standard atomic weights: isotopes, or beads that
            stand for molecules; densities are those of these masses.
        vacuum: Vacuum in Å, around what ``file`` holds, along each direction in which it is not periodic: a molecule or
            a slab is then simulated in a periodic box, as far from its images as twice this.
    """

    file: Path | None = None
    bulk: Bulk | None = None
    random: Random | None = None
    masses: dict[str, Mass] = Field(default_factory=dict)
    vacuum: (
        Annotated[float, Limits(above=0, most=100, unit="Å", reason="images feel nothing beyond a cutoff of 3 to 8 Å")]
        | None
    ) = None

    @model_validator(mode="after")
    def _one(self) -> System:
        if sum(one is not None for one in (self.file, self.bulk, self.random)) != 1:
            raise ValueError("give one of file, bulk and random")
        if self.vacuum is not None and self.file is None:
            raise ValueError("vacuum is for what a file holds; bulk and random are periodic")
        return self

    def atoms(self, folder: Path) -> Atoms:
        """The cell.

        Args:
            folder: Folder to which ``file`` is relative.

        Returns:
            The structure.

        Raises:
            ValueError: for what cannot be read or built.
        """
        made = self.bulk or self.random
        atoms = (
            made.atoms(self.masses)
            if made is not None
            else with_masses(read_structure(beside(folder, self.file or ""), vacuum=self.vacuum), self.masses)
        )
        _check_dense(atoms)
        return atoms


def with_masses(atoms: Atoms, masses: Mapping[str, float]) -> Atoms:
    """A copy with other masses.

    Args:
        atoms: not changed.
        masses: Masses by chemical symbol, u; the others stay.

    Returns:
        The structure.

    Raises:
        ValueError: for a symbol that is not there.
    """
    copy = atoms.copy()
    symbols = copy.get_chemical_symbols()
    for symbol, mass in masses.items():
        if symbol not in symbols:
            raise ValueError(f"masses names {symbol!r}; the cell has {', '.join(sorted(set(symbols)))}")
        copy.set_masses([mass if one == symbol else old for one, old in zip(symbols, copy.get_masses(), strict=True)])
    return copy


def repeated(atoms: Atoms, repeat: tuple[int, int, int]) -> Atoms:
    """A cell repeated along its vectors.

    Raises:
        ValueError: for more atoms than can be simulated.
    """
    if (number := len(atoms) * math.prod(repeat)) > MOST_ATOMS:
        raise ValueError(
            f"repeat {list(repeat)} of a cell of {len(atoms)} atoms makes {number} atoms; at most {MOST_ATOMS} are "
            "simulated: repeat less"
        )
    return atoms.repeat(repeat)


def with_density(atoms: Atoms, density: float) -> Atoms:
    """A copy, scaled isotropically to a density in kg/m³."""
    scaled = atoms.copy()
    present = float(atoms.get_masses().sum()) / atoms.get_volume() * AMU_PER_A3_IN_KG_PER_M3
    scaled.set_cell(atoms.cell.array * (present / density) ** (1 / 3), scale_atoms=True)
    return scaled


LARGEST_STRUCTURE = 256 * 2**20
"""Bytes of a structure file; a frame of the most atoms takes a tenth of it."""


def padded(atoms: Atoms, vacuum: float) -> Atoms:
    """A copy that is periodic in three directions, with vacuum along those in which the original is not.

    Args:
        atoms: A molecule, a wire or a slab.
        vacuum: Vacuum in Å, on both sides of the atoms.

    Raises:
        ValueError: for atoms that are periodic in all three directions.
    """
    if atoms.pbc.all():
        raise ValueError("it is periodic in three directions and takes no vacuum; leave out vacuum")
    copy = atoms.copy()
    copy.set_cell(atoms.cell.complete())
    copy.center(vacuum=vacuum, axis=[axis for axis in range(3) if not atoms.pbc[axis]])
    copy.pbc = True
    return copy


def _check_dense(atoms: Atoms) -> None:
    """Refuse a cell as dense as no matter is, as one is whose lengths are in another unit."""
    found = float(atoms.get_masses().sum()) / atoms.get_volume() * AMU_PER_A3_IN_KG_PER_M3
    if found > DENSEST:
        raise ValueError(f"the cell has {found:.4g} kg/m³, more than {DENSEST:g}; give its lengths in Å")


def read_structure(path: Path, *, vacuum: float | None = None) -> Atoms:
    """Read the one structure of a file: isotopes by their names, and no site that is occupied in part.

    One of several frames needs an index behind its name (``md.extxyz@-1``).

    Args:
        path: A file that ase reads.
        vacuum: Vacuum in Å to put around what is not periodic; None refuses it.

    Returns:
        The structure.

    Raises:
        ValueError: naming the file and the frame, and what is wrong.
    """
    check_regular(split_index(path)[0], largest=LARGEST_STRUCTURE)
    atoms = read_frame(path)
    if vacuum is not None:
        try:
            atoms = padded(atoms, vacuum)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    _check_simulated(atoms, str(path))
    return atoms


def read_structures(path: Path) -> list[Atoms]:
    """Read all structures of a file, or those of an index behind its name (``md.extxyz@::5``).

    Args:
        path: A file that ase reads.

    Returns:
        The structures.

    Raises:
        ValueError: naming the file and the frame, and what is wrong.
    """
    check_regular(split_index(path)[0], largest=LARGEST_STRUCTURE)
    frames = read_frames(path)
    for atoms in frames:
        _check_simulated(atoms, f"frame {atoms.info['frame']} of {path}")
    return frames


def _check_simulated(atoms: Atoms, where: str) -> None:
    if len(atoms) > MOST_ATOMS:
        raise ValueError(f"{where} has {len(atoms)} atoms; at most {MOST_ATOMS} are simulated")
    if problem := not_periodic(atoms):
        raise ValueError(f"{where}: {problem}")
    try:
        structure_files.check_apart(atoms)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
