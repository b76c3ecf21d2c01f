r"""Crystals at rest: the lattice translations of a cell, and the vibrations at every wave vector that fits into it.

The force constants of the atoms of one primitive cell against all atoms of the cell are central differences of forces,

.. math:: \Phi_{a\alpha, j\beta} = -\frac{\partial F_{j\beta}}{\partial u_{a\alpha}},

so that they cost 6 evaluations of forces for each atom of the primitive cell, however large the cell is. With the
translations t of the cell, the dynamical matrix of a commensurate wave vector q,

.. math:: D_{a\alpha, b\beta}(q) = \frac{1}{\sqrt{m_a m_b}} \sum_t \Phi_{a\alpha, t(b)\beta}\, e^{i q \cdot t},

is exact: all D(q) together have the eigenvalues of the force constants of the whole cell.

References:
    G. Kresse, J. Furthmüller and J. Hafner, Europhys. Lett. 32, 729 (1995), of the direct method.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from jaxtyping import Complex, Float, Int
from scipy.spatial import cKDTree

from aiida_difftre.engine.units import TIME_UNIT_IN_FS

TOLERANCE = 0.02
"""Å, within which an atom lies where a translation asks for one."""

FIRST = 8
"""Atoms that are looked at before all."""

DISPLACEMENT = 0.01
"""Å, of the central differences."""

THZ = 1e3 / (2 * math.pi * TIME_UNIT_IN_FS)
"""The root of 1 eV/(Å² amu) as a frequency, THz."""


@dataclass(frozen=True)
class Primitive:
    """How a cell is made of a primitive one.

    Args:
        vectors: Primitive lattice vectors in rows, fractional coordinates of the cell, (3, 3).
        images: Index of the atom to which each translation brings each atom, (translations, atoms); the first
            translation is none.
        translations: Fractional coordinates of the translations, (translations, 3).
        basis: Indices of the atoms of one primitive cell.

    Example:
        The corners and the centre of a body-centred cell hold the same atom:

        >>> from ase.build import bulk
        >>> from aiida_difftre.engine.calculators.crystal import primitive
        >>> iron = primitive(bulk("Fe", "bcc", 2.87, cubic=True))
        >>> iron.images.tolist(), iron.key([1, 0, 0]) == iron.key([0, 0, 0])
        ([[0, 1], [1, 0]], False)
    """

    vectors: Float[np.ndarray, "3 3"]
    images: Int[np.ndarray, "translations atoms"]
    translations: Float[np.ndarray, "translations 3"]
    basis: Int[np.ndarray, " basis"]

    def key(self, vector: Sequence[int] | np.ndarray) -> tuple[int, ...]:
        """Tell wave vectors apart by their waves: equal keys, equal waves at all lattice points.

        Args:
            vector: Whole multiples of the reciprocal vectors of the cell.

        Returns:
            The phases along the primitive vectors, in units of one over the number of translations.
        """
        number = len(self.translations)
        return tuple(int(part) for part in np.round(self.vectors @ np.array(vector) * number).astype(int) % number)

    def number_of(self, vector: Sequence[int]) -> int:
        """Find a wave vector among those of :func:`wave_vectors`.

        Args:
            vector: Whole multiples of the reciprocal vectors of the cell.

        Returns:
            Its number.
        """
        return [self.key(known) for known in wave_vectors(self)].index(self.key(vector))

    def origin(self) -> tuple[Int[np.ndarray, " atoms"], Int[np.ndarray, " atoms"]]:
        """Find for each atom the number of its atom of the basis, and of the translation that leads to it."""
        atoms = self.images.shape[1]
        number, translation = np.zeros(atoms, int), np.zeros(atoms, int)
        for index, atom in enumerate(self.basis):
            number[self.images[:, atom]] = index
            translation[self.images[:, atom]] = np.arange(len(self.images))
        return number, translation


def primitive(atoms: Atoms, tolerance: float = TOLERANCE) -> Primitive:
    """Find the translations that bring a crystal onto itself.

    Args:
        atoms: The crystal, periodic in all directions.
        tolerance: Within which an atom counts as being there, Å.

    Returns:
        How the cell is made of a primitive one; of a structure without order, of itself.

    Example:
        >>> from ase.build import bulk
        >>> from aiida_difftre.engine.calculators.crystal import primitive
        >>> found = primitive(bulk("C", "diamond", 3.57, cubic=True).repeat(2))
        >>> len(found.basis), len(found.translations)
        (2, 32)
    """
    fractions, cell = atoms.get_scaled_positions(wrap=False), atoms.cell.array
    numbers, counts = np.unique(atoms.numbers, return_counts=True)
    anchors = np.flatnonzero(atoms.numbers == numbers[np.argmin(counts)])
    candidates = fractions[anchors] - fractions[anchors[0]]
    # A fourth coordinate that is not periodic keeps species apart.
    kinds = 2.0 * np.searchsorted(numbers, atoms.numbers)
    periods = [1.0, 1.0, 1.0, 0.0]
    tree = cKDTree(np.column_stack([_wrapped(fractions), kinds]), boxsize=periods)
    images, kept = [], []
    for candidate in candidates:
        # Most candidates of a structure without order already fail with its first atoms.
        for part in (slice(0, FIRST), slice(None)):
            moved = fractions[part] + candidate
            _, found = tree.query(np.column_stack([_wrapped(moved), kinds[part]]))
            off = moved - fractions[found]
            is_there = np.linalg.norm((off - np.round(off)) @ cell, axis=1) < tolerance
            if not is_there.all():
                break
        else:
            if len(np.unique(found)) == len(atoms):
                images.append(found)
                kept.append(candidate - np.round(candidate))
    translations = _exact(np.array(kept))
    table = np.array(images)
    return Primitive(_shortest(translations, cell), table, translations, np.unique(table.min(axis=0)))


def _wrapped(fractions: Float[np.ndarray, "atoms 3"]) -> Float[np.ndarray, "atoms 3"]:
    wrapped = fractions % 1.0
    return np.where(wrapped >= 1.0, 0.0, wrapped)  # a tiny negative number is one after rounding


def _exact(translations: Float[np.ndarray, "translations 3"]) -> Float[np.ndarray, "translations 3"]:
    """Multiples of one over the number of translations, which those of a group are."""
    number = len(translations)
    return np.round(translations * number) / number


def _shortest(translations: Float[np.ndarray, "translations 3"], cell: Float[np.ndarray, "3 3"]) -> np.ndarray:
    """The shortest three lattice vectors that are independent: in three dimensions they are a basis."""
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3)), float)
    vectors = (translations[:, None] + shifts).reshape(-1, 3)
    lengths = np.linalg.norm(vectors @ cell, axis=1)
    chosen: list[np.ndarray] = []
    for index in np.argsort(lengths, kind="stable"):
        attempt = [*chosen, vectors[index]]
        scaled = np.array(attempt) @ cell
        scaled = scaled / max(np.abs(scaled).max(), 1e-12)
        if lengths[index] > 1e-6 and np.linalg.matrix_rank(scaled, tol=1e-4) == len(attempt):
            chosen = attempt
        if len(chosen) == 3:
            break
    return np.array(chosen)


def primitive_atoms(atoms: Atoms, found: Primitive) -> Atoms:
    """Make the primitive cell, with the axes where they are.

    Args:
        atoms: The crystal.
        found: Its translations.

    Returns:
        The atoms of the basis in the primitive cell.
    """
    made = atoms[found.basis.tolist()]
    made.set_cell(found.vectors @ atoms.cell.array)
    return made


def wave_vectors(found: Primitive) -> Int[np.ndarray, "vectors 3"]:
    """Find a representative of each wave vector that fits into a cell.

    Args:
        found: The translations of the cell.

    Returns:
        Whole multiples of the reciprocal vectors of the cell, (translations, 3), zero first.
    """
    steps = [sign * axis for axis in np.eye(3, dtype=int) for sign in (1, -1)]
    seen: dict[tuple[int, ...], np.ndarray] = {}
    border = [np.zeros(3, int)]
    while border:
        following = []
        for vector in border:
            if (key := found.key(vector)) not in seen:
                seen[key] = vector
                following += [vector + step for step in steps]
        border = following
    return np.array(list(seen.values()))


@dataclass(frozen=True)
class Vibrations:
    """Vibrations of a crystal at the wave vectors that fit into its cell.

    Args:
        wave_vectors: Cartesian, 1/Å, 2π included, (vectors, 3), the shortest of all equivalent ones; zero first.
        frequencies: THz, rising for each wave vector, negative for imaginary ones, (vectors, branches); of wave
            vector zero, the three uniform shifts come first, whatever they are.

    Example:
        >>> from ase.build import bulk
        >>> from ase.calculators.lj import LennardJones
        >>> from aiida_difftre.engine.calculators.crystal import vibrations
        >>> argon = bulk("Ar", "fcc", 5.26, cubic=True)
        >>> found = vibrations(argon, LennardJones(epsilon=0.0104, sigma=3.4, rc=8.0, smooth=True))
        >>> found.frequencies.shape, bool((found.frequencies[1:] > 0).all())
        ((4, 3), True)
    """

    wave_vectors: Float[np.ndarray, "vectors 3"]
    frequencies: Float[np.ndarray, "vectors branches"]


def force_constants(
    atoms: Atoms, calculator: Calculator, basis: Sequence[int], displacement: float = DISPLACEMENT
) -> Float[np.ndarray, "basis 3 atoms 3"]:
    """Compute the force constants of some atoms against all, by central differences of forces.

    Args:
        atoms: The crystal.
        calculator: Calculator of forces, in float64.
        basis: Indices of the atoms that are displaced.
        displacement: How far, Å.

    Returns:
        Force constants, (basis, 3, atoms, 3), eV/Å²: a shift of all atoms gives no force.
    """
    moved = atoms.copy()
    moved.calc = calculator
    constants = np.zeros((len(basis), 3, len(atoms), 3))
    for number, atom in enumerate(basis):
        for axis in range(3):
            pulled = []
            for sign in (1, -1):
                moved.positions = atoms.positions
                moved.positions[atom, axis] += sign * displacement
                pulled.append(moved.get_forces())
            constants[number, axis] = (pulled[1] - pulled[0]) / (2 * displacement)
        constants[number, :, atom] -= constants[number].sum(axis=1)
    return constants


def vibrations(atoms: Atoms, calculator: Calculator, found: Primitive | None = None) -> Vibrations:
    """Compute the vibrations of a crystal at rest at every wave vector that fits into its cell.

    Args:
        atoms: The crystal, with atoms on which no force acts.
        calculator: Calculator of forces, in float64.
        found: Its translations; None to look for them.

    Returns:
        The vibrations.

    Example:
        >>> from ase.build import bulk
        >>> from ase.calculators.emt import EMT
        >>> from aiida_difftre.engine.calculators.crystal import vibrations
        >>> waves = vibrations(bulk("Cu").repeat(2), EMT())
        >>> waves.frequencies.shape, bool(waves.frequencies[1:].min() > 0)
        ((8, 3), True)
    """
    found = found or primitive(atoms)
    multiples = wave_vectors(found)
    constants = force_constants(atoms, calculator, found.basis.tolist())
    roots = np.sqrt(atoms.get_masses()[found.basis])
    phases = np.exp(2j * np.pi * multiples @ found.translations.T)
    size = 3 * len(found.basis)
    # (basis, 3, translations, basis, 3)
    reached = constants[:, :, found.images[:, found.basis], :]
    blocks = np.einsum("qt,aitbj->qaibj", phases, reached) / (roots[:, None, None, None] * roots[:, None])
    matrices: Complex[np.ndarray, "vectors branches branches"] = blocks.reshape(len(multiples), size, size)
    values = np.linalg.eigvalsh((matrices + matrices.conj().swapaxes(1, 2)) / 2)
    frequencies = THZ * np.sign(values) * np.sqrt(np.abs(values))
    shifts = np.argsort(np.abs(frequencies[0]))[:3]
    frequencies[0] = np.concatenate([np.zeros(3), np.delete(frequencies[0], shifts)])
    return Vibrations(_shortest_waves(multiples, found, atoms), frequencies)


def _shortest_waves(multiples: np.ndarray, found: Primitive, atoms: Atoms) -> Float[np.ndarray, "vectors 3"]:
    """The Cartesian wave vectors, each within the first Brillouin zone or on its border."""
    reciprocal = np.linalg.inv(found.vectors @ atoms.cell.array).T
    waves = multiples @ np.linalg.inv(atoms.cell.array).T
    fractions = np.linalg.solve(reciprocal.T, waves.T).T
    fractions -= np.round(fractions)
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3)), float)
    choices = (fractions[:, None] + shifts) @ reciprocal
    nearest = np.argmin(np.round(np.linalg.norm(choices, axis=2), 9), axis=1)
    return 2 * np.pi * choices[np.arange(len(choices)), nearest]
