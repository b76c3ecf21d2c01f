"""Base potentials that are calculators of ASE; and how those of known packages are made.

The packages are imported where a base is made, and nowhere else: updates do without them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator
from numpy.typing import NDArray

from aiida_difftre.engine.bases.protocol import EVERYTHING, PERIODIC, Evaluation, Quantity
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import voigt


class CalculatorBase:
    """Any calculator of ASE as a base potential; one configuration after the other.

    Args:
        calculator: The calculator.

    Example:
        >>> from ase.build import bulk
        >>> from ase.calculators.emt import EMT
        >>> from aiida_difftre.engine.bases.calculators import CalculatorBase
        >>> copper = bulk("Cu", "fcc", 3.6)
        >>> found = CalculatorBase(EMT()).evaluate(["Cu"], copper.positions[None], copper.cell.array[None])
        >>> [round(float(x), 3) for x in (found.energies[0], found.stresses[0, 0, 0])]
        [-0.007, 0.007]
    """

    def __init__(self, calculator: BaseCalculator) -> None:
        self.calculator = calculator

    def evaluate(
        self,
        symbols: Sequence[str],
        positions: NDArray[np.float64],
        cells: NDArray[np.float64],
        what: Sequence[Quantity] = EVERYTHING,
        *,
        pbc: tuple[bool, bool, bool] = PERIODIC,
    ) -> Evaluation:
        """Evaluate configurations, as :class:`~aiida_difftre.engine.bases.protocol.BasePotential` says."""
        count, atoms = len(positions), Atoms(list(symbols), positions[0], cell=cells[0], pbc=pbc)
        energies = np.empty(count) if "energy" in what else None
        forces = np.empty(positions.shape) if "forces" in what else None
        stresses = np.empty((count, 3, 3)) if "stress" in what else None
        for number in range(count):
            atoms.cell[:] = cells[number]
            atoms.positions[:] = positions[number]
            results = self._results(atoms, what)
            for array, name in ((energies, "energy"), (forces, "forces")):
                if array is not None:
                    array[number] = results[name]
            if stresses is not None:
                stresses[number] = full_stress(results["stress"])
        return Evaluation(energies, forces, stresses)

    def _results(self, atoms: Atoms, what: Sequence[Quantity]) -> dict[str, Any]:
        calculator = self.calculator
        if not isinstance(calculator, Calculator):
            return {name: calculator.get_property(name, atoms) for name in what}
        # All at once, where get_property would compute them one by one.
        if changes := calculator.check_state(atoms):
            calculator.reset()
        if changes or any(name not in calculator.results for name in what):
            calculator.calculate(atoms, list(what), changes)
        results: dict[str, Any] = calculator.results
        if missing := [name for name in what if name not in results]:
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                f"the calculator {type(calculator).__name__} gives no {' and no '.join(missing)}, which a base needs; "
                "take another one",
            )
        return results


def full_stress(stress: Any) -> NDArray[np.float64]:
    """A stress as a matrix, (3, 3): calculators give six components, nine, or a matrix."""
    array = np.asarray(stress, np.float64)
    if array.size == 9:
        return array.reshape(3, 3)
    full = np.empty((3, 3))
    for value, (i, j) in zip(array, voigt.COMPONENTS, strict=True):
        full[i, j] = full[j, i] = value
    return full


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What packages print while they load belongs to no result."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def emt(species: tuple[str, ...]) -> BaseCalculator:
    """Effective medium theory, of ASE."""
    from ase.calculators.emt import EMT

    return EMT()


def surrounded(atoms: Atoms, *, vacuum: float) -> Atoms:
    """A copy for models that take all cells as periodic, with vacuum where the structure is not.

    Args:
        atoms: The structure.
        vacuum: Thickness on each side, Å; atoms do not see each other across twice as much.

    Returns:
        The copy, whose atoms may be moved together.
    """
    copy = atoms.copy()
    copy.center(vacuum=vacuum, axis=tuple(axis for axis in range(3) if not atoms.pbc[axis]))
    copy.pbc = True
    return copy


def chgnet(species: tuple[str, ...], *, model_name: str = "0.3.0") -> BaseCalculator:
    """CHGNet with weights from its package; without the magnetic moments, which nobody asks for."""
    from chgnet.model import CHGNet
    from chgnet.model.dynamics import CHGNetCalculator

    class WithoutMoments(CHGNetCalculator):
        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
            task = "efs" if properties is None or "stress" in properties else "ef"
            if atoms is not None and not atoms.pbc.all():
                atoms = surrounded(atoms, vacuum=float(self.model.graph_converter.atom_graph_cutoff))
            super().calculate(atoms, properties, system_changes, task=task)

    with _silent():
        return WithoutMoments(CHGNet.load(model_name=model_name, verbose=False), on_isolated_atoms="ignore")


def sevennet(species: tuple[str, ...], *, model: str = "7net-0") -> BaseCalculator:
    """SevenNet with weights from its package."""
    from sevenn.calculator import SevenNetCalculator

    with _silent():
        return SevenNetCalculator(model)


def mace(
    species: tuple[str, ...], *, model: Path, default_dtype: str = "float64", head: str | None = None
) -> BaseCalculator:
    """A MACE model from a file."""
    from mace.calculators import MACECalculator

    with _silent():
        return MACECalculator(
            model_paths=str(model), device=_device(), default_dtype=default_dtype, **({"head": head} if head else {})
        )


def nequip(species: tuple[str, ...], *, model: Path) -> BaseCalculator:
    """A compiled NequIP or Allegro model from a file."""
    from nequip.ase import NequIPCalculator

    with _silent():
        return NequIPCalculator.from_compiled_model(str(model), device=_device())


def uma(species: tuple[str, ...], *, model: Path, task_name: str = "omat") -> BaseCalculator:
    """A model of fairchem, such as UMA, from a file."""
    from fairchem.core import FAIRChemCalculator
    from fairchem.core.units.mlip_unit import load_predict_unit

    with _silent():
        return FAIRChemCalculator(load_predict_unit(str(model), device=_device()), task_name=task_name)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
