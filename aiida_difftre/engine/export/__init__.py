"""Potentials for other programs: tables, and folders that LAMMPS, ASE and i-PI run as they are."""
