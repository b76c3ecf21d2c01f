"""Sphinx extension: reference pages made from the code itself, before Sphinx looks for files.

Processes come from their specs, file formats from the pydantic models, observables and potentials from their
registries, commands from click. What has no description fails the build, and so does a public name without an example.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from difftre_reference import api, commands, models, processes, registries

FOLDER = "_generated"

PAGES = {
    "processes.md": processes.page,
    "input.md": models.input_page,
    "jobs.md": models.jobs_page,
    "results.md": models.results_page,
    "observables.md": registries.observables_page,
    "potentials.md": registries.potentials_page,
    "commands.md": commands.page,
}


def write(folder: Path) -> list[Path]:
    """Write all pages that changed; returns the paths of all."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in PAGES.items():
        path, text = folder / name, make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def _generate(app: Any) -> None:
    """Write the pages with a profile in memory: the user's own ones are not touched."""
    with tempfile.TemporaryDirectory(prefix="difftre-docs-") as home:
        os.environ["AIIDA_PATH"] = home
        from aiida.common.warnings import AiidaDeprecationWarning
        from aiida.manage.configuration import load_profile, reset_config
        from aiida.storage.sqlite_temp import SqliteTempBackend

        reset_config()
        load_profile(SqliteTempBackend.create_profile("docs"), allow_switch=True)
        warnings.filterwarnings("ignore", category=AiidaDeprecationWarning)  # autodoc looks at all that a node has
        write(Path(app.srcdir) / FOLDER)
        api.check(Path(app.srcdir) / "reference" / "api")


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", _generate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
