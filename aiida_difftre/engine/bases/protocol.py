"""What a base potential is to the engine: energies, forces and stresses of configurations, in batches.

U = U_base + ΔU_θ. In a reweighting exponent the base cancels, so that updates need only what it gave on the stored
snapshots (:mod:`aiida_difftre.engine.bases.base_pass`); dynamics calls it at every step
(:mod:`aiida_difftre.engine.bases.callback`), unless it is a function of JAX, which is compiled with the terms
(:mod:`aiida_difftre.engine.bases.traced`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.errors import EngineError, ExitStatus

Quantity: TypeAlias = Literal["energy", "forces", "stress"]

EVERYTHING: tuple[Quantity, ...] = ("energy", "forces", "stress")
PERIODIC = (True, True, True)


class Evaluation(NamedTuple):
    """What a base gives for W configurations of the same atoms.

    Args:
        energies: (W,), eV; None where they are not asked for.
        forces: (W, atoms, 3), eV/Å; None where they are not asked for.
        stresses: dU/dε/V, positive in tension, (W, 3, 3), eV/Å³; None where they are not asked for.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.bases.protocol import Evaluation
        >>> Evaluation(np.array([-1.0]), np.zeros((1, 2, 3)), None).stresses is None
        True
    """

    energies: NDArray[np.float64] | None
    forces: NDArray[np.float64] | None
    stresses: NDArray[np.float64] | None


@runtime_checkable
class BasePotential(Protocol):
    """A fixed potential of somebody else.

    A package registers one by a :class:`~aiida_difftre.engine.contract.known_bases.KnownBase` under the entry-point
    group ``difftre.bases``, whose ``implementation`` is a factory: a function of the chemical symbols of the potential
    and, by name, of the settings and the paths of the files. The factory returns, for the engine ``ase`` a calculator,
    for ``torch_sim`` a model, for ``jax`` a potential of this package with its parameters; or, for any of them, an
    object with the method below.

    Example:
        The base that is nothing:

        >>> import numpy as np
        >>> from aiida_difftre.engine.bases.protocol import BasePotential, Evaluation
        >>> class Nothing:
        ...     def evaluate(self, symbols, positions, cells, what=("energy", "forces", "stress"), *, pbc=(True,) * 3):
        ...         count = len(positions)
        ...         return Evaluation(np.zeros(count), np.zeros_like(positions), np.zeros((count, 3, 3)))
        >>> isinstance(Nothing(), BasePotential)
        True
    """

    def evaluate(
        self,
        symbols: Sequence[str],
        positions: NDArray[np.float64],
        cells: NDArray[np.float64],
        what: Sequence[Quantity] = EVERYTHING,
        *,
        pbc: tuple[bool, bool, bool] = PERIODIC,
    ) -> Evaluation:
        """Evaluate W configurations of the same atoms; nothing is kept that changes the next result.

        Args:
            symbols: Chemical symbol of each atom.
            positions: Cartesian positions, also outside of the cell, (W, atoms, 3), Å.
            cells: Lattice vectors in rows, (W, 3, 3), Å.
            what: What is wanted; more may be given.
            pbc: Whether the cells are periodic along each vector.

        Returns:
            Energies (eV), forces (eV/Å) and stresses dU/dε/V (eV/Å³).
        """


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Whatever a model of somebody else raises, as an error of the engine."""
    try:
        yield
    except (EngineError, MemoryError):
        raise
    except Exception as error:
        status = ExitStatus.INVALID_INPUT
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which nobody imports here
            status = ExitStatus.OUT_OF_MEMORY
        raise EngineError(status, f"the base potential failed: {type(error).__name__}: {error}") from error
