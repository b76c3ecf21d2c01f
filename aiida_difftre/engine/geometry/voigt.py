"""Voigt notation: the order of the six components of a symmetric tensor. Free of JAX."""

from __future__ import annotations

COMPONENTS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Axes of each component, in Voigt order."""

LABELS = tuple("xyz"[i] + "xyz"[j] for i, j in COMPONENTS)
"""Names of the components: xx, yy, zz, yz, xz, xy."""
