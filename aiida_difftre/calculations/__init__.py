"""Calculation jobs: each writes a job file for the engine, and what it refers to."""
