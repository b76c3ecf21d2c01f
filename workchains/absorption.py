"""Targets of X-ray absorption: which of them still lack their table of scattering paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OBSERVABLE = "exafs"


def without_paths(state_points: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """State point and target label of every target without a table, by the link label of the job that makes it."""
    missing: dict[str, tuple[str, str]] = {}
    for label, point in sorted(state_points.items()):
        for name, node in sorted(point["targets"].items()):
            if node.target.observable == OBSERVABLE and node.target.options["paths"] is None:
                key = f"feff_{label}_{name}"  # as runs have it that are under way; a_b with c, and a with b_c, share it
                missing[f"feff_{label}__{name}" if key in missing else key] = (label, name)
    return missing


def check_paths(state_points: Mapping[str, Any]) -> str | None:
    """A message where a target lacks its table of scattering paths, or None."""
    missing = without_paths(state_points)
    if not missing:
        return None
    label, name = next(iter(missing.values()))
    return (
        f"target {name!r} of state point {label!r} has no table of scattering paths; make one with difftre.feff and "
        "attach it (aiida_difftre.calculations.feff.attach_paths)"
    )
