"""The engine as a distribution of its own: nothing of it is left out, and nothing differs from the whole."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "aiida_difftre" / "engine"
FOLDER = ROOT / "packaging"
INTEGRATORS = {"absl-py", "jraph"}
"""What the integrators of jax-md import."""
JAX_MD = "'jax-md>=0.2.29,<0.3'"
MODULES = {"pyyaml": "yaml"}


def project(path: Path) -> dict[str, Any]:
    return tomllib.loads((path / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!\[]", requirement)[0]


WHOLE, ALONE = project(ROOT), project(FOLDER / "engine")


def imported() -> set[str]:
    """Packages that modules of the engine import."""
    found: set[str] = set()
    for path in ENGINE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"aiida_difftre"}


def test_dependencies_are_those_of_the_whole() -> None:
    whole = {name_of(one): one for one in WHOLE["dependencies"]}
    alone = {name_of(one): one for one in ALONE["dependencies"]}
    assert set(alone) - set(whole) == INTEGRATORS
    assert {name: whole[name] for name in set(alone) - INTEGRATORS} == {
        name: one for name, one in alone.items() if name not in INTEGRATORS
    }
    assert whole["jax-md"] == JAX_MD.strip("'")
    # Others are optional, and imported where they are used.
    needed = {name for name in whole if MODULES.get(name, name.replace("-", "_")) in imported()}
    assert needed - {"jax-md"} == set(alone) - INTEGRATORS - {"jaxlib"}


def test_the_rest_is_that_of_the_whole() -> None:
    assert ALONE["requires-python"] == WHOLE["requires-python"]
    assert ALONE["scripts"] == {"difftre": WHOLE["scripts"]["difftre"]}
    assert "entry-points" in ALONE["dynamic"]  # which hatch_build.py takes from the whole
    extras = {name: WHOLE["optional-dependencies"][name] for name in ("cuda12", "cuda13")}
    assert ALONE["optional-dependencies"] == extras


@pytest.mark.parametrize("recipe", ["containers/Dockerfile", "containers/difftre.def", "engine/README.md"])
def test_recipes_install_what_there_is(recipe: str) -> None:
    text = (FOLDER / recipe).read_text()
    assert re.search(rf"pip install (--no-cache-dir )?--no-deps {re.escape(JAX_MD)}", text)
    copied = re.findall(r"^(?:COPY|   ) (\S+) /src/(\S+)$", text, re.MULTILINE)
    assert [source for source, _ in copied] == [target for _, target in copied]
    assert all((ROOT / source).exists() for source, _ in copied)
    if recipe.startswith("containers"):
        assert len(copied) == 5
        included = tomllib.loads((FOLDER / "engine" / "pyproject.toml").read_text())
        wheel = included["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
        assert {name.removeprefix("../../") for name in wheel} < {source for source, _ in copied}
