"""Calculators of the Atomic Simulation Environment."""
