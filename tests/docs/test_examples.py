"""The public names, which the pages of docs/reference/api list, say how they are called; their examples run."""

from __future__ import annotations

import doctest
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "reference" / "api"
sys.path.insert(0, str(FOLDER.parents[1] / "_ext"))

from difftre_reference import api  # noqa: E402 (found through the line above)
from difftre_reference.text import UndocumentedError  # noqa: E402

NAMES = api.listed(FOLDER)


def methods(documented: Any) -> list[Any]:
    """What a class defines itself, and might show an example of."""
    if not inspect.isclass(documented):
        return []
    own = (getattr(documented, name) for name in vars(documented) if not name.startswith("_"))
    return [one for one in own if inspect.isroutine(one) and inspect.getdoc(one)]


@pytest.mark.parametrize("name", NAMES)
def test_example_runs(name: str) -> None:
    found = api.found(name)
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    printed: list[str] = []
    for one in (found, *methods(found)):
        examples = parser.get_doctest(inspect.getdoc(one) or "", {"__name__": "example"}, name, None, 0)
        runner.run(examples, out=printed.append)
    assert runner.summarize(verbose=False).attempted, f"{name} has no example"
    assert not printed, "".join(printed)


def test_all_public_names_are_documented() -> None:
    api.check(FOLDER)


def test_what_is_missing_is_named() -> None:
    def half(length: float) -> float:
        """Halve a length."""
        return length / 2

    def whole(length: float) -> float:
        """Double a length.

        Args:
            length: In Å.

        Returns:
            Twice the length, Å.

        Example:
            >>> 2 * 1.5
            3.0
        """
        return 2 * length

    assert [re.sub(r"<.*>", "it", one) for one in api.complaints("half", half)] == [
        "half: it does not describe length",
        "half does not say what it returns",
        "half has no example",
    ]
    assert list(api.complaints("whole", whole)) == []
    assert list(api.complaints("nothing", lambda: None)) == ["nothing has no summary of one line"]


def test_the_build_fails_without_documentation(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(".. autofunction:: aiida_difftre.engine.errors.one_line\n", encoding="utf-8")
    with pytest.raises(UndocumentedError, match=r"one_line.*does not describe text"):
        api.check(tmp_path)
