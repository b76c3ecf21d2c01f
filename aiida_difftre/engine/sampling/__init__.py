"""Molecular dynamics: trajectories of a potential."""
