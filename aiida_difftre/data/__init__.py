"""Data nodes: potentials, datasets, trajectories and experimental targets."""
