"""Parsers: what the engine left becomes nodes, and each failure one exit code."""
