"""Names that users and packages of others import: they stay where the documentation says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aiida_difftre.engine import calculator, feff, observable_specs
from aiida_difftre.engine.calculators import difftre
from aiida_difftre.engine.contract import observables

ROOT = Path(__file__).parents[2]
IMPORT = re.compile(r"^\s*from (aiida_difftre\.engine[\w.]*) import ([\w, ]+)$", re.MULTILINE)
PAGES = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if IMPORT.search(page.read_text())
]


def test_public_modules_hold_what_the_packages_hold() -> None:
    assert calculator.DiffTReCalculator is difftre.DiffTReCalculator
    assert observable_specs.ObservableSpec is observables.ObservableSpec
    assert observable_specs.ObservableRequest is observables.ObservableRequest
    assert feff.path_table.__module__ == "aiida_difftre.engine.observables.feff"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_the_pages_import_is_there(page: Path) -> None:
    for module, names in IMPORT.findall(page.read_text()):
        namespace: dict[str, object] = {}
        exec(f"from {module} import {names}", namespace)
        assert {name.split(" as ")[-1].strip() for name in names.split(",")} <= set(namespace)
