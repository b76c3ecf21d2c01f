"""What speaks for a potential besides its targets: crystals at rest, and pairs that come closer than any that was seen.

A potential can meet every target at room temperature while the perfect lattice is unstable at rest: averages over a
trajectory do not tell. Nothing here ends a job: what cannot be looked at is told with its reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from jaxtyping import Float

from aiida_difftre.engine.calculators.crystal import Primitive, primitive, primitive_atoms, vibrations
from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.calculators.elasticity import relaxed, static_stiffness
from aiida_difftre.engine.contract.verdict import Branches, Dimer, Lattice, Mode, WaveVector
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.runtime.progress import Reporter, Silent

LARGEST_PRIMITIVE = 40
"""Atoms of a cell without translations up to which it may be a crystal by itself."""

MODES = 3
"""The softest vibrations that are told."""

DISTANCES = 80
"""At which the energies of pairs are told."""

CLOSEST = 0.25
"""Å, the least of them."""

FAR = 1e3
"""Times the cutoff, where two atoms do not see each other."""

MANDEL = np.sqrt([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])


def lattices(
    frames: Sequence[Atoms],
    calculator: DiffTReCalculator,
    progress: Reporter,
    asked: Sequence[WaveVector] = (),
) -> list[Lattice]:
    """Look at crystals at rest.

    Args:
        frames: The crystals, in cells of any size.
        calculator: A calculator in float64.
        progress: Takes the number of crystals that are done.
        asked: Wave vectors of which all frequencies are told.

    Returns:
        What was found of each.
    """
    found: list[Lattice] = []
    for number, atoms in enumerate(frames):
        same = next((index for index in range(number) if frames[index] == atoms), None)
        found.append(_lattice(atoms, calculator, asked) if same is None else found[same])
        progress.report("stability", number + 1, len(frames))
    return found


def _lattice(atoms: Atoms, calculator: DiffTReCalculator, asked: Sequence[WaveVector]) -> Lattice:
    made = Lattice(formula=atoms.get_chemical_formula(), atoms=len(atoms))
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        return _without(made, "it is not periodic in all directions")
    if calculator.potential.has_external:
        return _without(made, "the potential holds an external field")
    cell = primitive(atoms)
    if len(cell.translations) == 1 and len(atoms) > LARGEST_PRIMITIVE:
        return _without(made, "its structure has no lattice translations, as a perfect crystal has")
    made.primitive = len(cell.basis)
    try:
        _at_rest(made, atoms, cell, calculator, asked)
    except EngineError as error:
        return _without(made, error.message)
    return made


def _without(made: Lattice, reason: str) -> Lattice:
    made.skipped = reason
    return made


def _at_rest(
    made: Lattice, atoms: Atoms, cell: Primitive, calculator: DiffTReCalculator, asked: Sequence[WaveVector]
) -> None:
    """Relax the basis in the cell as it is; then vibrations, which always exist, and then strains."""
    small = primitive_atoms(atoms, cell)
    rest = relaxed(small, np.zeros(6), calculator)
    number, _ = cell.origin()
    whole = atoms.copy()
    whole.positions += (rest.positions - small.positions)[number]
    waves = vibrations(whole, calculator, cell)
    # Uniform shifts, the first three of wave vector zero, are no vibrations.
    softest = waves.frequencies[:, 0].copy()
    softest[0] = waves.frequencies[0, 3] if waves.frequencies.shape[1] > 3 else np.inf
    # A wave and the one against it are the same.
    forward = [tuple(wave) >= tuple(-wave) for wave in waves.wave_vectors.round(6)]
    is_told = np.isfinite(softest) & np.array(forward)
    made.wave_vectors = len(softest)
    made.lowest = [
        Mode(wave_vector=waves.wave_vectors[index].round(6).tolist(), frequency=float(softest[index]))
        for index in [index for index in np.argsort(softest, kind="stable") if is_told[index]][:MODES]
    ]
    made.highest = float(waves.frequencies.max())
    made.optical = waves.frequencies[0, 3:].tolist()
    for vector in asked:
        index = cell.number_of(vector)
        frequencies = waves.frequencies[index, 3:] if index == 0 else waves.frequencies[index]
        made.branches.append(Branches(wave_vector=vector, frequencies=frequencies.tolist()))
    static = static_stiffness(rest, calculator, Silent())
    made.pressure = -sum(static["stress"][:3]) / 3
    made.tensor = static["tensor"]
    made.rigidities, made.softest = rigidities(np.array(static["tensor"]))


def rigidities(tensor: Float[np.ndarray, "6 6"]) -> tuple[list[float], list[float]]:
    """Compute the eigenvalues of stress-strain coefficients: a crystal is stable where all are positive.

    Args:
        tensor: Stress-strain coefficients, Voigt order, GPa; under pressure these, and not the second derivatives of
            the energy, decide.

    Returns:
        Eigenvalues in Mandel's notation, rising, GPa; the normalised engineering strain, Voigt order, of the lowest.

    References:
        J. Wang, J. Li, S. Yip, S. Phillpot and D. Wolf, Phys. Rev. B 52, 12627 (1995).

    Example:
        Of a cubic crystal 2 C44, C11 - C12 and C11 + 2 C12:

        >>> import numpy as np
        >>> from aiida_difftre.engine.jobs.stability import rigidities
        >>> cubic = np.diag([3.0, 3.0, 3.0, -1.0, -1.0, -1.0])
        >>> rigidities(cubic)[0]
        [-2.0, -2.0, -2.0, 3.0, 3.0, 3.0]
    """
    symmetric = (tensor + tensor.T) / 2 * MANDEL[:, None] * MANDEL
    values, vectors = np.linalg.eigh(symmetric)
    strain = vectors[:, 0] * MANDEL
    strain = strain / np.linalg.norm(strain)
    return values.round(9).tolist(), (strain * np.sign(strain[np.argmax(np.abs(strain))])).round(6).tolist()


def dimers(calculator: DiffTReCalculator) -> list[Dimer]:
    """Compute the energy of two atoms alone, for each pair of species, from the cutoff to far below any approach.

    Args:
        calculator: A calculator in float64.

    Returns:
        Energies of each pair; none of potentials with external fields.
    """
    potential = calculator.potential
    if potential.has_external or not potential.has_neighbors:
        return []
    distances = np.geomspace(CLOSEST, potential.cutoff, DISTANCES)
    return [
        _dimer(pair, distances, calculator)
        for pair in itertools.combinations_with_replacement(potential.spec.species, 2)
    ]


def _dimer(pair: tuple[str, str], distances: Float[np.ndarray, " distances"], calculator: DiffTReCalculator) -> Dimer:
    """A base may fail where no atoms ever are, or where two do not see each other: the other distances remain."""
    found: dict[float, float] = {}
    failed: dict[float, str] = {}
    for distance in [*distances.tolist(), FAR * float(distances[-1])]:
        atoms = Atoms(pair, positions=[[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])
        atoms.calc = calculator
        try:
            found[distance] = atoms.get_potential_energy()
        except EngineError as error:
            failed[distance] = error.message
    kept = [distance for distance in distances.tolist() if distance in found]
    missing = [distance for distance in distances.tolist() if distance in failed]
    if not kept:
        return Dimer(pair=pair, skipped=failed[missing[-1]])
    zero = found[max(found)]
    return Dimer(
        pair=pair,
        distances=kept,
        energies=[found[distance] - zero for distance in kept],
        failed=missing,
        reason=failed[missing[-1]] if missing else None,
    )
