"""Strains: matrices from components in Voigt order, and deformations of a cell."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def voigt_matrix(voigt: Float[Array, " 6"]) -> Float[Array, "3 3"]:
    """Symmetric strain matrix from engineering strains (e1, e2, e3, e4 = 2 η_yz, e5 = 2 η_xz, e6 = 2 η_xy)."""
    e1, e2, e3, e4, e5, e6 = (voigt[..., k] for k in range(6))
    rows = [[e1, e6 / 2, e5 / 2], [e6 / 2, e2, e4 / 2], [e5 / 2, e4 / 2, e3]]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def deformation(voigt: Float[Array, " 6"]) -> Float[Array, "3 3"]:
    """Symmetric deformation gradient F with Lagrangian strain η = (FᵀF - 1)/2, to second order: F = 1 + η - η²/2.

    Second derivatives of the energy with respect to η at η = 0 are those of the exact square root of 1 + 2η.
    """
    strain = voigt_matrix(voigt)
    return jnp.eye(3, dtype=strain.dtype) + strain - strain @ strain / 2
