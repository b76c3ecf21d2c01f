"""Trajectories of other programs: their formats, whether they can be averaged over, and what they become. JAX-free."""
