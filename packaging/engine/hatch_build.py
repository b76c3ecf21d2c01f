"""What the engine registers is said once, in the pyproject.toml of the whole."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class EntryPoints(MetadataHookInterface):
    """The groups ``difftre.*`` of entry points."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Take them over."""
        whole = tomllib.loads((Path(self.root).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
        groups = whole["project"]["entry-points"]
        metadata["entry-points"] = {name: group for name, group in groups.items() if name.startswith("difftre.")}
