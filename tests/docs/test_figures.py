"""Every picture of the documentation is made by a command in the repository."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def figures() -> Any:
    spec = importlib.util.spec_from_file_location("docs_figures", ROOT / "docs" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_picture_has_its_command(figures: Any) -> None:
    assert {path.name for path in (ROOT / "docs" / "images").iterdir()} == set(figures.PICTURES)
    for name, picture in figures.PICTURES.items():
        assert (picture.make is None) == bool(picture.command), name
        for script in re.findall(r"\S+\.py", picture.command):
            assert (ROOT / script).is_file(), script


def test_every_picture_is_shown(figures: Any) -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    shown = {
        Path(link).name for page in pages for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text("utf-8"))
    }
    assert set(figures.PICTURES) <= shown


def test_what_is_missing_is_said() -> None:
    command = [sys.executable, str(ROOT / "docs" / "figures.py")]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "aiida-difftre run examples/copper/quick.yaml" in listed
    done = subprocess.run([*command, "demo.png"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "give the PK of one of `aiida-difftre demo` with --run" in done.stderr
