"""Data nodes: potentials, datasets, trajectories and experimental targets."""

from aiida_difftre import sqlite

sqlite.wait_for_locks()
