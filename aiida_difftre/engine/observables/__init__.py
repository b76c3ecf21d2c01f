"""Observables: what they are (``specs``, free of JAX), and how they follow from snapshots."""
