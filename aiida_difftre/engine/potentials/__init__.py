"""Potentials: terms, and their sum."""
