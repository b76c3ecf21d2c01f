"""Labelled configurations: read from a file, checked, padded to common shapes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jaxtyping import Array
from numpy.typing import NDArray

from aiida_difftre.engine.contract import labels
from aiida_difftre.engine.contract.label_names import LabelKeys
from aiida_difftre.engine.contract.label_weights import DatasetWidths, LabelWeights, check_counting, told, volume_of
from aiida_difftre.engine.contract.labels import Labelled
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.term import Environment, species_index

Floats = NDArray[np.floating[Any]]


class Labels(NamedTuple):
    """Energies, forces and stresses to match; zero where ``has_energy`` and its like say that there is none.

    Args:
        energy: Energies, (configurations,), eV.
        forces: Forces, (configurations, atoms, 3), eV/Å.
        stress: Stresses, (configurations, 6), eV/Å³, Voigt order xx yy zz yz xz xy, positive in tension.
        has_energy: Whether there is an energy, (configurations,), 1 or 0.
        has_forces: Whether there are forces, (configurations,), 1 or 0.
        has_stress: Whether there is a stress, (configurations,), 1 or 0.
        weights: How much each counts, 1 in the mean; None where all count alike.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.matching.configurations import Labels
        >>> one, none = np.ones(1), np.zeros(1)
        >>> labels = Labels(np.array([-5.2]), np.zeros((1, 2, 3)), np.zeros((1, 6)), one, none, none)
        >>> labels.energy.tolist(), labels.has_forces.tolist()
        ([-5.2], [0.0])
    """

    energy: Floats
    forces: Floats
    stress: Floats
    has_energy: Floats
    has_forces: Floats
    has_stress: Floats
    weights: LabelWeights | None = None

    def counts(self) -> tuple[Any, Any, Any]:
        """How much the energy, the forces and the stress of each configuration count, each (configurations,)."""
        there = (self.has_energy, self.has_forces, self.has_stress)
        if self.weights is None:
            return there
        energy, force, stress = (has * weight for has, weight in zip(there, self.weights, strict=True))
        return energy, force, stress


class Configurations(NamedTuple):
    """Configurations of different sizes, padded to the same number of atoms and of neighbours.

    Args:
        environment: Neighbours of all atoms; arrays begin with the axes (configurations, atoms).
        neighbors: Index of each neighbour, (configurations, atoms, neighbors).
        real: 1 for atoms, 0 for padding, (configurations, atoms).
        volume: Volumes, (configurations,), Å³; 1 where there is no cell.
        labels: Energies, forces and stresses.

    Example:
        >>> from ase import Atoms
        >>> from aiida_difftre.engine.matching.configurations import pad
        >>> pad([Atoms("Ar"), Atoms("Ar2", positions=[[0, 0, 0], [3.8, 0, 0]])], ["Ar"], 8.5).sizes.tolist()
        [1.0, 2.0]
    """

    environment: Environment
    neighbors: NDArray[np.int32]
    real: Floats
    volume: Floats
    labels: Labels

    @property
    def sizes(self) -> Floats:
        """Number of atoms of each configuration, (configurations,)."""
        return self.real.sum(axis=1)


@dataclass(frozen=True)
class _Frame:
    index: NDArray[np.int64]
    neighbor: NDArray[np.int64]
    vectors: NDArray[np.float64]
    slot: NDArray[np.int64]


def read(path: Path, keys: LabelKeys | None = None) -> Labelled:
    """Read configurations, with labels as far as they have some.

    Args:
        path: A file that ase reads; an index of its frames may stand behind the name (``md.extxyz@::5``).
        keys: Names of the labels, where these are not the usual ones; else None.

    Returns:
        The configurations, with labels in calculators of ase.

    Raises:
        EngineError: With file, frame and value, and the remedy.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from ase import Atoms
        >>> from aiida_difftre.engine.matching.configurations import read
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Atoms("Ar2", positions=[[0, 0, 0], [3.8, 0, 0]]).write(Path(folder, "dimer.extxyz"))
        ...     read(Path(folder, "dimer.extxyz")).species()
        ['Ar']
    """
    with explained():
        return labels.read_labelled(path, keys)


def read_training(path: Path, keys: LabelKeys | None = None) -> Labelled:
    """Read configurations to train with: all with an energy, and with forces where going without is not allowed.

    Args:
        path: A file that ase reads; an index of its frames may stand behind the name (``md.extxyz@::5``).
        keys: Names of the labels, where these are not the usual ones, and whether forces may be missing; else None.

    Returns:
        The configurations, with labels in calculators of ase.

    Raises:
        EngineError: With file, frame and value, and the remedy.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from ase import Atoms
        >>> from ase.calculators.singlepoint import SinglePointCalculator
        >>> from aiida_difftre.engine.matching.configurations import read_training
        >>> dimer = Atoms("Ar2", positions=[[0, 0, 0], [3.8, 0, 0]])
        >>> dimer.calc = SinglePointCalculator(dimer, energy=-0.01, forces=np.zeros((2, 3)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dimer.write(Path(folder, "dimer.extxyz"))
        ...     read_training(Path(folder, "dimer.extxyz")).describe()
        'energies from energy; forces from forces'
    """
    found = read(path, keys)
    with explained():
        labels.require(found, keys)
    return found


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What is wrong with input, as an error of the engine."""
    try:
        yield
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None


def _results(atoms: Atoms) -> dict[str, Any]:
    results = {} if atoms.calc is None else atoms.calc.results
    return {key: np.asarray(results[key]) for key in ("energy", "forces", "stress") if results.get(key) is not None}


def pad(
    frames: list[Atoms], species: list[str], cutoff: float, atoms: int | None = None, neighbors: int | None = None
) -> Configurations:
    """Make padded arrays of configurations: neighbours, volumes and labels.

    Args:
        frames: Configurations, periodic in any directions, with cells of any size.
        species: Chemical symbols of the potential.
        cutoff: Cutoff, Å.
        atoms: Number of atoms to pad to; None for that of the largest configuration.
        neighbors: Number of neighbours to pad to; None for the most that an atom has.

    Returns:
        The arrays.

    Raises:
        EngineError: For an element that the potential does not know.

    Example:
        >>> from ase.build import bulk
        >>> from aiida_difftre.engine.matching.configurations import pad
        >>> pad([bulk("Cu", "fcc", 3.61, cubic=True)], ["Cu"], 3.0).neighbors.shape  # twelve nearest neighbours
        (1, 4, 12)
    """
    kinds = [species_index(frame.get_chemical_symbols(), species) for frame in frames]
    listed = [_neighbors(frame, cutoff) for frame in frames]
    n_atoms = atoms or max(len(frame) for frame in frames)
    n_neighbors = neighbors or max(1, *(int(each.slot.max(initial=0)) + 1 for each in listed))
    shape = (len(frames), n_atoms, n_neighbors)

    displacements, mask = np.zeros((*shape, 3)), np.zeros(shape, bool)
    index = np.zeros(shape, np.int32)
    index[:] = np.arange(n_atoms)[:, None]
    kind = np.zeros(shape[:2], np.int32)
    real = np.zeros(shape[:2])
    fractional = _fractional(frames, n_atoms)
    for number, (frame, each) in enumerate(zip(frames, listed, strict=True)):
        kind[number, : len(frame)] = kinds[number]
        real[number, : len(frame)] = 1
        displacements[number, each.index, each.slot] = each.vectors
        mask[number, each.index, each.slot] = True
        index[number, each.index, each.slot] = each.neighbor
    neighbor_kind = np.take_along_axis(kind[:, :, None], index.reshape(len(frames), -1, 1), axis=1).reshape(shape)
    vectors, masked, own, others = (jnp.asarray(array) for array in (displacements, mask, kind, neighbor_kind))
    around = _densities(frames, kinds, species, n_atoms)
    environment = Environment(vectors, masked, own, others, fractional, neighbors=jnp.asarray(index), densities=around)
    volume = np.array([abs(frame.cell.volume) if frame.cell.rank == 3 else 1.0 for frame in frames])
    return Configurations(environment, index, real, volume, labels_of(frames, n_atoms))


def _fractional(frames: list[Atoms], n_atoms: int) -> Array | None:
    """Fractional positions, padded with zeros; None where a frame has no three-dimensional cell."""
    if any(frame.cell.rank < 3 for frame in frames):
        return None
    found = np.zeros((len(frames), n_atoms, 3))
    for number, frame in enumerate(frames):
        found[number, : len(frame)] = frame.get_scaled_positions(wrap=False)
    return jnp.asarray(found)


def _densities(frames: list[Atoms], kinds: list[NDArray[np.int32]], species: list[str], n_atoms: int) -> Array:
    """Number densities of the species, 1/Å³; zero where a frame does not fill space."""
    found = np.zeros((len(frames), n_atoms, len(species)))
    for number, (frame, kind) in enumerate(zip(frames, kinds, strict=True)):
        if frame.cell.rank == 3 and frame.pbc.all():
            found[number] = np.bincount(kind, minlength=len(species)) / abs(frame.cell.volume)
    return jnp.asarray(found)


def _neighbors(frame: Atoms, cutoff: float) -> _Frame:
    from ase.neighborlist import neighbor_list  # as late as ase.io

    index, neighbor, vectors = neighbor_list("ijD", frame, cutoff)
    order = np.argsort(index, kind="stable")
    index, neighbor, vectors = index[order], neighbor[order], vectors[order]
    counts = np.bincount(index, minlength=len(frame))
    slot = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    return _Frame(index, neighbor, vectors, slot)


def labels_of(frames: list[Atoms], n_atoms: int) -> Labels:
    """Labels of configurations, with forces padded to ``n_atoms``."""
    count = len(frames)
    shapes = (count,), (count, n_atoms, 3), (count, 6), (count,), (count,), (count,)
    energy, forces, stress, has_energy, has_forces, has_stress = map(np.zeros, shapes)
    found = Labels(energy, forces, stress, has_energy, has_forces, has_stress)
    for number, frame in enumerate(frames):
        results = _results(frame)
        if "energy" in results:
            found.energy[number], found.has_energy[number] = results["energy"], 1
        if "forces" in results:
            found.forces[number, : len(frame)], found.has_forces[number] = results["forces"], 1
        if "stress" in results:
            found.stress[number], found.has_stress[number] = results["stress"], 1
    return found


def weighted(
    labels: Labels, frames: list[Atoms], widths: DatasetWidths, name: str
) -> tuple[Labels, dict[str, list[float]]]:
    """Let labels count by the distance of their volume from those of the state points.

    Args:
        labels: Labels of the frames.
        frames: The configurations.
        widths: The widths; none lets all labels count alike.
        name: How the input calls them.

    Returns:
        The labels with weights whose means over all energies, force components and stresses are one, so that the mean
        over a batch of them is that over all labels on the average; and the weights between 0 and 1, to be told.

    Raises:
        EngineError: For widths that leave less than one label.
    """
    if not widths.given():
        return labels, {}
    with explained():
        there = LabelWeights(labels.has_energy, labels.has_forces, labels.has_stress)
        weights = check_counting([volume_of(atoms) for atoms in frames], widths, name, there)
    sizes = np.array([len(atoms) for atoms in frames])
    numbers = there._replace(force=there.force * sizes)
    pairs = zip(weights, numbers, strict=True)
    means = [np.average(weight, weights=number) if number.any() else 1.0 for weight, number in pairs]
    scaled = LabelWeights(*(weight / mean for weight, mean in zip(weights, means, strict=True)))
    return labels._replace(weights=scaled), told(weights, widths)
