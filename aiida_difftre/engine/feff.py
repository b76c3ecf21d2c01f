"""Tables of scattering paths from files of FEFF, under the name that users import."""

from __future__ import annotations

from aiida_difftre.engine.observables.feff import cluster, path_table, read_folder

__all__ = ["cluster", "path_table", "read_folder"]
