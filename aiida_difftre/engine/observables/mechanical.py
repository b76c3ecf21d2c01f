r"""Pressure, stress and stiffness.

Stress, positive in tension, σ = <dU/dη>/V - N k T/V δ. Stiffness by stress fluctuations (Squire, Holt & Hoover,
Physica 42, 388 (1969); Lutsko, J. Appl. Phys. 65, 2991 (1989)), with η the Lagrangian strain:

    C_ijkl = <C^B_ijkl> - V/kT [<σ^B_ij σ^B_kl> - <σ^B_ij><σ^B_kl>] + N k T/V (δ_ik δ_jl + δ_il δ_jk),

C^B = d²U/dη²/V. What is reported are the stress-strain coefficients B (Wallace, Thermodynamics of Crystals, 1972, eq.
2.36; Barron & Klein, Proc. Phys. Soc. 85, 523 (1965)), which finite strains and sound velocities measure,

    B_ijkl = C_ijkl + (δ_ik σ_jl + δ_jk σ_il + δ_il σ_jk + δ_jl σ_ik - 2 δ_kl σ_ij)/2;

at zero stress B = C. Covariances of weighted samples carry the factor 1/(1 - Σ w²).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.geometry import voigt
from aiida_difftre.engine.geometry.strain import voigt_matrix
from aiida_difftre.engine.observables.protocol import Macrostate
from aiida_difftre.engine.observables.specs.mechanical import strained_plane
from aiida_difftre.engine.snapshots.snapshots import Directions


def mean_stress(inputs: Mapping[str, Array], weights: Array, point: Macrostate) -> Float[Array, " 6"]:
    """Average the stress with its kinetic term.

    Args:
        inputs: ``stress``, (snapshots, 6), GPa, without the kinetic term, and ``volume``, (snapshots,), Å³.
        weights: Weights of the snapshots, (snapshots,), with the sum 1.
        point: Thermodynamic state of the averages.

    Returns:
        Stress in Voigt order xx, yy, zz, yz, xz, xy, (6,), GPa; positive in tension.
    """
    ideal = point.ideal_pressure * (weights @ (point.volume / inputs["volume"]))
    return weights @ inputs["stress"] - ideal * jnp.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])


class _OfStress:
    """What observables of the mean stress share: no options, nothing but the stress."""

    quantities = ("stress",)
    static = False

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Nothing to check."""
        return cls()


@dataclass(frozen=True)
class Stress(_OfStress):
    """The six components of the stress, GPa."""

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " 6"]:
        """See :func:`mean_stress`."""
        return mean_stress(inputs, weights, point)


@dataclass(frozen=True)
class Pressure(_OfStress):
    """P = -(σ_xx + σ_yy + σ_zz)/3, GPa."""

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " 1"]:
        """Minus the mean of the diagonal of the stress."""
        return -jnp.mean(mean_stress(inputs, weights, point)[:3], keepdims=True)


@dataclass(frozen=True)
class Stiffness:
    """Isothermal stiffness tensor, GPa.

    Args:
        symmetry: ``cubic``: C11, C12, C44, averaged over the cubic axes; ``hexagonal``: C11, C12, C13, C33, C44,
            averaged over rotations about the c axis, which is along z, with C66 = (C11 - C12)/2; ``general``: the upper
            triangle of the 6x6 matrix.
        stride: every ``stride``-th snapshot has a Born term, which fluctuates little.
    """

    symmetry: str
    stride: int

    quantities = ("stress", "born")
    static = False

    @classmethod
    def from_request(
        cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]
    ) -> Stiffness | StrainedStiffness:
        """Options were checked by the registry; with a strain it is that of a strained cell."""
        if request.options["strain"] is not None:
            return StrainedStiffness(tuple(request.options["strain"]))
        return cls(request.options["symmetry"], request.options["born_stride"])

    def directions(self, snapshots: int) -> Directions:
        """Strain directions of the Born terms.

        Cubic: per snapshot one cube axis in turn (C11), the volume (3 C11 + 6 C12) and one shear in turn (C44).
        Hexagonal: the basal area (2 C11 + 2 C12), a basal shear along or between the axes in turn (C66), the c axis
        (C33), the volume (2 C11 + 2 C12 + C33 + 4 C13), one shear of the c axis in turn (C44).
        General: the six unit strains and the fifteen sums of two.
        """
        count = -(-snapshots // self.stride)
        unit = np.eye(6)
        if self.symmetry == "cubic":
            axis = np.arange(count) % 3
            volume = np.tile([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], (count, 1))
            return Directions(self.stride, np.stack([unit[axis], volume, unit[3 + axis]], 1))
        if self.symmetry == "hexagonal":
            turn = np.arange(count) % 2
            shears = np.stack([(unit[0] - unit[1]) / 2, unit[5]])
            area, axis, volume = (np.tile(v, (count, 1)) for v in (unit[0] + unit[1], unit[2], unit[:3].sum(0)))
            return Directions(self.stride, np.stack([area, shears[turn], axis, volume, unit[3 + turn]], 1))
        pairs = [unit[a] + unit[b] for a in range(6) for b in range(a + 1, 6)]
        return Directions(self.stride, np.tile(np.array([*unit, *pairs]), (count, 1, 1)))

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " values"]:
        """The stress-fluctuation formula, averaged over the symmetry."""
        matrix = fluctuation_term(inputs["stress"], weights, point) + kinetic_term(point)
        matrix = matrix + stress_correction(mean_stress(inputs, weights, point))
        subset = weights[:: self.stride]
        born = subset @ inputs["born"] / jnp.sum(subset)
        if self.symmetry == "cubic":
            c11, c12, c44 = cubic_average(matrix)
            return jnp.array([c11 + born[0], c12 + (born[1] - 3 * born[0]) / 6, c44 + born[2]])
        if self.symmetry == "hexagonal":
            c66 = born[1]
            c13 = (born[3] - born[0] - born[2]) / 4
            terms = jnp.stack([born[0] / 4 + c66, born[0] / 4 - c66, c13, born[2], born[4]])
            return jnp.stack(hexagonal_average(matrix)) + terms
        upper = np.triu_indices(6)
        full = jnp.diag(born[:6])
        row, column = np.triu_indices(6, 1)
        mixed = (born[6:] - born[row] - born[column]) / 2
        full = full.at[row, column].set(mixed)
        return (full + (matrix + matrix.T) / 2)[upper]


@dataclass(frozen=True)
class StrainedStiffness:
    r"""Isothermal stiffness of a cubic crystal from the mean stress in one cell that is sheared, GPa.

    With ε along axis i, -ε along axis j and the angle γ between both,

        C11 - C12 = (σ_ii - σ_jj)/(2 ε),    C44 = σ_ij/γ:

    first moments, without Born terms. Exchanging i and j turns ε around, and a mirror γ, so that a pressure of the
    crystal and all terms of second order drop out; as above, they are B, and C at zero stress.

    Args:
        strain: Strain of the cell, Voigt order, with engineering shears, (6,).
    """

    strain: tuple[float, ...]

    quantities = ("stress",)
    static = False

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " values"]:
        """C11 - C12 where an axis is stretched, and C44 where an angle is changed."""
        first, second, angle = strained_plane(self.strain)
        stress = mean_stress(inputs, weights, point)
        found = []
        if self.strain[first]:
            found.append((stress[first] - stress[second]) / (2 * self.strain[first]))
        if self.strain[angle]:
            found.append(stress[angle] / self.strain[angle])
        return jnp.stack(found)


def fluctuation_term(stress: Float[Array, "snapshots 6"], weights: Array, point: Macrostate) -> Float[Array, "6 6"]:
    """Compute -V/kT times the covariance of the configurational stress.

    Args:
        stress: Stress without its kinetic term, (snapshots, 6), GPa.
        weights: Weights of the snapshots, (snapshots,), with the sum 1.
        point: Thermodynamic state of the averages.

    Returns:
        What fluctuations add to the stiffness, (6, 6), GPa.
    """
    deviation = stress - weights @ stress
    covariance = (deviation * weights[:, None]).T @ deviation / (1 - jnp.sum(weights**2))
    return -point.volume_over_thermal_energy * covariance


def kinetic_term(point: Macrostate) -> Float[Array, "6 6"]:
    """N k T/V (δ_ik δ_jl + δ_il δ_jk) in Voigt notation: 2, 2, 2, 1, 1, 1 on the diagonal; GPa."""
    return point.ideal_pressure * jnp.diag(jnp.array([2.0, 2.0, 2.0, 1.0, 1.0, 1.0]))


def stress_correction(stress: Float[Array, " 6"]) -> Float[Array, "6 6"]:
    """Compute B - C, what stress adds to the stress-strain coefficients.

    Args:
        stress: Stress in Voigt order, (6,), GPa.

    Returns:
        The difference in Voigt notation, (6, 6), GPa.
    """
    # voigt_matrix halves the shear components, as engineering strains want it; stresses are not halved.
    sigma = voigt_matrix(stress * jnp.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0]))
    one = jnp.eye(3, dtype=stress.dtype)
    rows = []
    for i, j in voigt.COMPONENTS:
        row = [
            (one[i, k] * sigma[j, m] + one[j, k] * sigma[i, m] + one[i, m] * sigma[j, k] + one[j, m] * sigma[i, k]) / 2
            - one[k, m] * sigma[i, j]
            for k, m in voigt.COMPONENTS
        ]
        rows.append(jnp.stack(row))
    return jnp.stack(rows)


def cubic_average(matrix: Float[Array, "6 6"]) -> tuple[Array, Array, Array]:
    """Average a stiffness matrix over the cubic axes.

    Args:
        matrix: Stiffness in Voigt notation, (6, 6), in any unit.

    Returns:
        C11, C12 and C44, in the same unit.
    """
    c11 = (matrix[0, 0] + matrix[1, 1] + matrix[2, 2]) / 3
    c12 = (matrix[0, 1] + matrix[0, 2] + matrix[1, 2] + matrix[1, 0] + matrix[2, 0] + matrix[2, 1]) / 6
    c44 = (matrix[3, 3] + matrix[4, 4] + matrix[5, 5]) / 3
    return c11, c12, c44


def hexagonal_average(matrix: Float[Array, "6 6"]) -> tuple[Array, Array, Array, Array, Array]:
    """C11, C12, C13, C33, C44 of a stiffness matrix averaged over all rotations about z.

    For a hexagonal crystal with its c axis along z these rotations change nothing. C66 is (C11 - C12)/2.
    """
    basal = (matrix[0, 0] + matrix[1, 1]) / 4 + (matrix[0, 1] + matrix[1, 0]) / 4
    c66 = (matrix[0, 0] + matrix[1, 1] - matrix[0, 1] - matrix[1, 0]) / 8 + matrix[5, 5] / 2
    c13 = (matrix[0, 2] + matrix[2, 0] + matrix[1, 2] + matrix[2, 1]) / 4
    return basal + c66, basal - c66, c13, matrix[2, 2], (matrix[3, 3] + matrix[4, 4]) / 2
