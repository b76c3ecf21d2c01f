"""What refinement needs of the snapshots of a trajectory, fast and within a budget of memory."""
