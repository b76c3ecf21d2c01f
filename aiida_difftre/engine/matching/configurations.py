"""Labelled configurations: read from extended XYZ, checked, padded to common shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jaxtyping import Array
from numpy.typing import NDArray

from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.term import Environment, species_index

Floats = NDArray[np.floating[Any]]


class Labels(NamedTuple):
    """What a configuration is matched to, NaN-free; ``has_...`` says where there is a label at all.

    Args:
        energy: (configurations,), eV.
        forces: (configurations, atoms, 3), eV/Å.
        stress: (configurations, 6), eV/Å³, Voigt order xx yy zz yz xz xy, positive in tension.
        has_energy: (configurations,), 1 or 0.
        has_forces: (configurations,), 1 or 0.
        has_stress: (configurations,), 1 or 0.
    """

    energy: Floats
    forces: Floats
    stress: Floats
    has_energy: Floats
    has_forces: Floats
    has_stress: Floats


class Configurations(NamedTuple):
    """Configurations of different sizes, padded to the same number of atoms and neighbours.

    Args:
        environment: with leading axes (configurations, atoms).
        neighbors: (configurations, atoms, neighbors), atom index of each neighbour.
        real: (configurations, atoms), 1 for atoms, 0 for padding.
        volume: (configurations,), Å³; 1 where there is no cell.
        labels: energies, forces, stresses.
    """

    environment: Environment
    neighbors: NDArray[np.int32]
    real: Floats
    volume: Floats
    labels: Labels

    @property
    def sizes(self) -> Floats:
        """Atoms of each configuration."""
        return self.real.sum(axis=1)


@dataclass(frozen=True)
class _Frame:
    index: NDArray[np.int64]
    neighbor: NDArray[np.int64]
    vectors: NDArray[np.float64]
    slot: NDArray[np.int64]


def read(path: Path) -> list[Atoms]:
    """Read an extended XYZ file.

    Raises:
        EngineError: where it is missing, unreadable, empty, or holds a number that is not finite.
    """
    import ase.io  # late, with SciPy behind it: an update without a dataset does without them

    try:
        frames = ase.io.read(path, index=":", format="extxyz")
    except (OSError, ValueError, KeyError, IndexError, StopIteration, ase.io.extxyz.XYZError) as error:
        raise EngineError(ExitStatus.INVALID_INPUT, f"{path.name} is not readable extended XYZ: {error}") from None
    if not frames:
        raise EngineError(ExitStatus.INVALID_INPUT, f"{path.name} holds no configuration")
    for number, atoms in enumerate(frames):
        arrays = {"positions": atoms.positions, "cell": atoms.cell.array, **_results(atoms)}
        for name, values in arrays.items():
            if not np.isfinite(values).all():
                raise EngineError(
                    ExitStatus.INVALID_INPUT, f"{name} of configuration {number} in {path.name} is not finite"
                )
    return list(frames)


def require_energies(frames: list[Atoms], name: str) -> None:
    """Refuse configurations without an energy.

    Raises:
        EngineError: naming the first.
    """
    for number, atoms in enumerate(frames):
        if "energy" not in _results(atoms):
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                f"configuration {number} in {name} has no energy; give every frame one (energy=... in its header)",
            )


def _results(atoms: Atoms) -> dict[str, Any]:
    results = {} if atoms.calc is None else atoms.calc.results
    return {key: np.asarray(results[key]) for key in ("energy", "forces", "stress") if results.get(key) is not None}


def pad(
    frames: list[Atoms], species: list[str], cutoff: float, atoms: int | None = None, neighbors: int | None = None
) -> Configurations:
    """Neighbours, volumes and labels of configurations, as padded arrays.

    Args:
        frames: configurations; periodic in any directions, cells of any size.
        species: of the potential.
        cutoff: Å.
        atoms: atoms to pad to; the largest configuration by default.
        neighbors: neighbours to pad to; the most that an atom has by default.

    Raises:
        EngineError: naming an element that the potential does not know.
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
    environment = Environment(vectors, masked, own, others, fractional)
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


def _neighbors(frame: Atoms, cutoff: float) -> _Frame:
    from ase.neighborlist import neighbor_list  # as late as ase.io

    index, neighbor, vectors = neighbor_list("ijD", frame, cutoff)
    order = np.argsort(index, kind="stable")
    index, neighbor, vectors = index[order], neighbor[order], vectors[order]
    counts = np.bincount(index, minlength=len(frame))
    slot = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    return _Frame(index, neighbor, vectors, slot)


def labels_of(frames: list[Atoms], n_atoms: int) -> Labels:
    """Labels of configurations, with forces padded to ``n_atoms``; stresses count where all directions are periodic."""
    count = len(frames)
    labels = Labels(
        np.zeros(count), np.zeros((count, n_atoms, 3)), np.zeros((count, 6)), *(np.zeros(count) for _ in range(3))
    )
    for number, frame in enumerate(frames):
        results = _results(frame)
        if "energy" in results:
            labels.energy[number], labels.has_energy[number] = results["energy"], 1
        if "forces" in results:
            labels.forces[number, : len(frame)], labels.has_forces[number] = results["forces"], 1
        if "stress" in results and frame.pbc.all():
            stress = results["stress"]
            labels.stress[number] = stress if stress.shape == (6,) else stress.reshape(9)[[0, 4, 8, 5, 2, 1]]
            labels.has_stress[number] = 1
    return labels
