"""Strains: matrices from components in Voigt order, and deformations of a cell."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def voigt_matrix(voigt: Float[Array, " 6"]) -> Float[Array, "3 3"]:
    """Make the symmetric strain matrix of six Voigt components.

    Args:
        voigt: Engineering strains (η_xx, η_yy, η_zz, 2 η_yz, 2 η_xz, 2 η_xy), (6,).

    Returns:
        The matrix η, (3, 3).

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.geometry.strain import voigt_matrix
        >>> voigt_matrix(jnp.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.5])).tolist()
        [[1.0, 0.25, 0.0], [0.25, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    e1, e2, e3, e4, e5, e6 = (voigt[..., k] for k in range(6))
    rows = [[e1, e6 / 2, e5 / 2], [e6 / 2, e2, e4 / 2], [e5 / 2, e4 / 2, e3]]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def deformation(voigt: Float[Array, " 6"]) -> Float[Array, "3 3"]:
    r"""Make the symmetric deformation gradient of a Lagrangian strain, to second order.

    .. math:: F = 1 + \eta - \tfrac12 \eta^2, \qquad \eta = \tfrac12 (F^\mathsf{T} F - 1)

    Second derivatives of the energy with respect to η at η = 0 are those of the exact square root of 1 + 2η.

    Args:
        voigt: Engineering strains (η_xx, η_yy, η_zz, 2 η_yz, 2 η_xz, 2 η_xy), (6,).

    Returns:
        F, (3, 3); lattice vectors in rows become ``cell @ F``.

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.geometry.strain import deformation
        >>> [round(x, 5) for x in deformation(jnp.array([0.1, 0.0, 0.0, 0.0, 0.0, 0.0])).diagonal().tolist()]
        [1.095, 1.0, 1.0]
    """
    strain = voigt_matrix(voigt)
    return jnp.eye(3, dtype=strain.dtype) + strain - strain @ strain / 2
