"""Labelled configurations, and the fit of a potential to their energies, forces and stresses."""
