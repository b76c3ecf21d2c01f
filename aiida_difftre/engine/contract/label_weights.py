r"""Labels that count less the further their volume is from that of the state points. Free of JAX.

A label of volume V per atom counts in a matching loss with the weight

.. math:: w(V) = \exp\left(-\frac{d^2}{2 s^2}\right), \qquad d = \min_k \left|\ln\frac{V}{V_k}\right|,

where V_k are the volumes per atom of the state points and s is the width. Means of squared errors become weighted ones,
so that a label of weight zero is one that was left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Limits

if TYPE_CHECKING:
    from ase import Atoms

Floats = NDArray[np.floating[Any]]

QUANTITIES = ("energy", "force", "stress")
"""What labels tell, as weights and widths name it."""

Width = Annotated[
    float,
    Limits(least=1e-3, most=10, reason="it is of ln(V/V0): 0.05 is 5 % of the volume"),
]

Volume = Annotated[float, Limits(least=0.1, most=1e5, unit="Å³", reason="it is that of one atom, some 5 to 100 Å³")]


class DatasetWidths(Strict):
    """Within which distance from the volume of the state points labels count: a width of ln(V/V0); None for any.

    Args:
        energy: Width for energies.
        force: Width for forces.
        stress: Width for stresses.
        volumes: Volumes that count fully, Å³ per atom; in the input of a run those of its state points, where none is
            given.

    Example:
        >>> from aiida_difftre.engine.contract.label_weights import DatasetWidths
        >>> DatasetWidths(energy=0.05, volumes=[16.6]).given()
        {'energy': 0.05}
    """

    energy: Width | None = None
    force: Width | None = None
    stress: Width | None = None
    volumes: list[Volume] = Field(default_factory=list)

    def given(self) -> dict[str, float]:
        """The widths by quantity; empty where all labels count alike."""
        widths = {name: getattr(self, name) for name in QUANTITIES}
        return {name: width for name, width in widths.items() if width is not None}


class LabelWeights(NamedTuple):
    """How much each label counts, from 0 to 1.

    Args:
        energy: Of energies, (configurations,).
        force: Of forces, (configurations,).
        stress: Of stresses, (configurations,).
    """

    energy: Floats
    force: Floats
    stress: Floats


def check_widths(widths: DatasetWidths, weights: Mapping[str, float], name: str) -> None:
    """Refuse widths that nothing can use.

    Args:
        widths: The widths.
        weights: Weights of energy, force and stress in the loss.
        name: How the input calls the widths.

    Raises:
        ValueError: naming the value and the remedy.
    """
    given = widths.given()
    if not given:
        # A stage takes back a width of its run by null.
        if widths.volumes and not widths.model_fields_set & set(QUANTITIES):
            raise ValueError(f"{name}.volumes are given, but no width; give one, such as energy: 0.05")
        return
    for quantity, width in given.items():
        if weights[quantity] == 0:
            raise ValueError(
                f"{name}.{quantity} is {width:g}, but the weight of {quantity} is 0, so that no label of it counts; "
                "give it a weight, or leave its width out"
            )
    if not widths.volumes:
        raise ValueError(f"{name}: a distance from which volume? give {name}.volumes, Å³ per atom")


def volume_of(atoms: Atoms) -> float:
    """Compute the volume of one atom of a frame.

    Args:
        atoms: The frame.

    Returns:
        The volume, Å³; NaN where atoms do not fill space, such as those of a molecule alone.
    """
    return float(abs(atoms.cell.volume)) / len(atoms) if atoms.pbc.all() and atoms.cell.rank == 3 else float("nan")


def distance_weights(volumes: Sequence[float], widths: DatasetWidths) -> LabelWeights:
    """Compute how much labels count.

    Args:
        volumes: Volume of each label, (configurations,), Å³ per atom; NaN where there is none, whose labels count
            fully: an atom alone is no strained crystal.
        widths: The widths, and the volumes that count fully.

    Returns:
        The weights; 1 of quantities without a width.

    Example:
        At a distance of one width, and of two:

        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.label_weights import DatasetWidths, distance_weights
        >>> widths = DatasetWidths(energy=0.05, volumes=[16.0, 17.0])
        >>> volumes = [16.0, 17.0 * np.exp(0.05), 16.0 * np.exp(-0.1)]
        >>> distance_weights(volumes, widths).energy.round(3).tolist()
        [1.0, 0.607, 0.135]
    """
    logarithms = np.log(np.asarray(volumes, np.float64))
    weights = {name: np.ones(len(logarithms)) for name in QUANTITIES}
    if given := widths.given():
        distances = np.abs(logarithms[:, None] - np.log(widths.volumes)).min(axis=1)
        for name, width in given.items():
            weights[name] = np.where(np.isnan(distances), 1.0, np.exp(-0.5 * (distances / width) ** 2))
    return LabelWeights(**weights)


def check_counting(
    volumes: Sequence[float], widths: DatasetWidths, name: str, there: LabelWeights | None = None
) -> LabelWeights:
    """Compute how much labels count, and refuse widths that leave less than one label in all.

    Labels without a volume, which count fully, are not among these: atoms alone say nothing of a crystal.

    Args:
        volumes: Volume of each label, (configurations,), Å³ per atom; NaN where there is none.
        widths: The widths, and the volumes that count fully.
        name: How the input calls the widths.
        there: 1 where a configuration has an energy, forces and a stress, 0 where not; None where all have.

    Returns:
        The weights.

    Raises:
        ValueError: naming the width, the nearest label and the remedy.
    """
    weights = distance_weights(volumes, widths)
    for quantity, width in widths.given().items():
        has = np.ones(len(volumes), bool) if there is None else np.asarray(getattr(there, quantity)) > 0
        if not has.any():
            raise ValueError(f"{name}.{quantity} is {width:g}, but no label has a {quantity}; leave it out")
        has &= np.isfinite(volumes)
        if not has.any():
            raise ValueError(
                f"{name}.{quantity} is {width:g}, but no label of {quantity} has a volume, so that all count fully; "
                "leave it out"
            )
        total = float(getattr(weights, quantity)[has].sum())
        if total < 1:
            nearest = np.abs(np.log(np.asarray(volumes)[has, None] / np.asarray(widths.volumes))).min()
            raise ValueError(
                f"{name}.{quantity} = {width:g} leaves {total:.2g} labels in all: the nearest of {has.sum()} is "
                f"{nearest:.2g} away in ln V from {', '.join(f'{one:.2f}' for one in widths.volumes)} Å³ per atom; "
                f"take a wider one, or labels nearer to the state points"
            )
    return weights


def told(weights: LabelWeights, widths: DatasetWidths) -> dict[str, list[float]]:
    """The weights for results, of the quantities that have a width, in the order of the dataset."""
    return {name: [round(float(one), 4) for one in getattr(weights, name)] for name in widths.given()}
