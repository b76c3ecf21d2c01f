"""Base potentials that are models of torch-sim: all configurations of a call in one batch, on a GPU where there is one.

torch-sim is imported where a base is made, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_difftre.engine.bases.protocol import EVERYTHING, PERIODIC, Evaluation, Quantity


class ModelBase:
    """A model of torch-sim as a base potential.

    Args:
        model: The model, which must be able to give stresses.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

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
        from torch_sim.io import atoms_to_state

        frames = [Atoms(list(symbols), place, cell=cell, pbc=pbc) for place, cell in zip(positions, cells, strict=True)]
        found = self.model(atoms_to_state(frames, device=self.model.device, dtype=self.model.dtype))
        arrays = {
            name: found[name].detach().cpu().numpy().astype(np.float64)
            for name in ("energy", "forces", "stress")
            if name in what
        }
        forces = arrays["forces"].reshape(positions.shape) if "forces" in arrays else None
        return Evaluation(arrays.get("energy"), forces, arrays.get("stress"))


def lennard_jones(species: tuple[str, ...], *, sigma: float = 3.4, epsilon: float = 0.0104, cutoff: float = 8.5) -> Any:
    """The Lennard-Jones model of torch-sim, without a shift."""
    import torch
    from torch_sim.models.lennard_jones import LennardJonesModel

    return LennardJonesModel(
        sigma=sigma, epsilon=epsilon, cutoff=cutoff, device=_device(), dtype=torch.float64,
        compute_forces=True, compute_stress=True,
    )  # fmt: skip


def mace(species: tuple[str, ...], *, model: Path) -> Any:
    """A MACE model from a file, in float64."""
    import torch
    from torch_sim.models.mace import MaceModel

    return MaceModel(model=model, device=_device(), dtype=torch.float64, compute_forces=True, compute_stress=True)


def _device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
