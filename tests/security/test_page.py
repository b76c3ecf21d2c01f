"""The page on security: each sentence has a test that exists, and each dependency its row."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
THREATS, DEPENDENCIES = PAGE.split("## Dependencies")
ROWS = [row for row in re.findall(r"^\| (.+) \|$", THREATS, re.MULTILINE) if row.strip() != "| test"]
LICENCES = {
    "MIT": "MIT", "BSD": "BSD", "Apache": "Apache", "LGPL": "LGPL|Lesser", "PSF": "PSF|Python Software|matplotlib",
    "public domain": "public.domain",
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_each_sentence_has_a_test(row: str) -> None:
    found = re.fullmatch(r".+ \| `(tests/[\w/]+\.py)::(test_\w+)`", row)
    assert found is not None, f"no test stands behind: {row}"
    path, name = found.groups()
    assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path} has no {name}"


def test_the_audit_has_all_dependencies() -> None:
    listed = dict(re.findall(r"^\| ([\w-]+) \| ([\w ]+) \|", DEPENDENCIES, re.MULTILINE))
    del listed["dependency"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(listed) == {re.split(r"[<>=!\[]", one)[0] for one in project["dependencies"]}
    for name, licence in listed.items():
        told = metadata(name)
        stated = [told.get("License-Expression"), told.get("License"), *told.get_all("Classifier", [])]
        text = " ".join(one for one in stated if one and ("License ::" in one or "::" not in one))
        assert re.search(LICENCES[licence], text, re.IGNORECASE), f"{name} is {text[:100]!r}, not {licence}"
