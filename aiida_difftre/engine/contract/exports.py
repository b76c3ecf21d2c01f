"""What potentials are exported to. Free of JAX."""

from __future__ import annotations

FORMATS = ("ase", "ipi", "lammps", "lammps-jax", "tables")
"""Programs and formats, by the name that a command takes."""

PLATFORMS = ("cpu", "cuda")
"""Processors that a bundle of lammps-jax is compiled for."""
