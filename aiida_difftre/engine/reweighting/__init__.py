"""Averages over a trajectory for a potential that differs a little, and their errors."""
