"""Targets from tables of measured values. Free of JAX."""
