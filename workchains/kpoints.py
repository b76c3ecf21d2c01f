"""Which k-points a cell to label takes: the chain of labels asks for them, and the estimate before it counts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from aiida_difftre.data.structures import DIMER, GIVEN, supercell_mesh
from aiida_difftre.workchains.labels import kind_of


class Mesh(NamedTuple):
    """A mesh of k-points.

    Args:
        numbers: Numbers of k-points along the three reciprocal lattice vectors.
        offset: Offset of the mesh, in units of its step.
    """

    numbers: tuple[int, int, int]
    offset: tuple[float, float, float]


GAMMA = Mesh((1, 1, 1), (0.0, 0.0, 0.0))


def mesh_of(name: str, cell: ArrayLike, pw: Mapping[str, Any], seed: ArrayLike | None) -> Mesh | None:
    """Choose the mesh of a cell: Γ for a dimer, which is alone; a given mesh is that of the seed cell.

    Supercells that are made of the seed cell take as many fewer points as they hold cells; structures that the user
    gives take the mesh as it is.

    Args:
        name: Name of the cell, as the chain names it: its kind before the first underscore.
        cell: Lattice vectors, (3, 3), Å.
        pw: Inputs of PwBaseWorkChain, with ``kpoints`` or ``kpoints_distance``.
        seed: Lattice vectors of the seed cell, (3, 3), Å; None where there is none.

    Returns:
        The mesh; None where PwBaseWorkChain finds it by ``kpoints_distance``.
    """
    kind = kind_of(name)
    if kind == DIMER:
        return GAMMA
    if "kpoints" not in pw:
        return None
    numbers, offset = pw["kpoints"].get_kpoints_mesh()
    if seed is not None and kind != GIVEN:
        numbers = supercell_mesh(numbers, seed, cell)
    return Mesh(tuple(numbers), tuple(offset))
