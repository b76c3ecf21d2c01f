"""Base potentials: fixed models of others to which the terms of a potential are a correction."""
