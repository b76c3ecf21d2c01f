"""Blocks of tutorials are run, and shown with what they print and draw; what fails is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = """# Title

```python run
from pathlib import Path

number = 6
Path("drawn.svg").write_text("<svg/>")
```

```bash run
cp LICENSE .
```

```python run
print(number * 7, Path("LICENSE").exists())
```

```python
not run
```
"""


@pytest.fixture
def tutorials(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    import difftre_tutorials

    return difftre_tutorials


def test_blocks_are_run_and_shown(tutorials: Any, tmp_path: Path) -> None:
    shown = tutorials.run("tutorial/page", PAGE, tmp_path / "_generated")
    assert "```text\n42 True\n```" in shown
    assert "![](../_generated/tutorial-page-drawn.svg)" in shown
    assert (tmp_path / "_generated" / "tutorial-page-drawn.svg").read_text() == "<svg/>"
    assert "```python run" not in shown
    assert "```python\nnot run\n```" in shown


@pytest.mark.parametrize(
    ("block", "told"),
    [("python run\n1 / 0", "ZeroDivisionError"), ("bash run\nrm file", "tutorials have difftre and cp alone")],
)
def test_what_fails_is_told(tutorials: Any, tmp_path: Path, block: str, told: str) -> None:
    with pytest.raises(tutorials.TutorialError, match=f"page: (.|\n)*{told}"):
        tutorials.run("page", f"```{block}\n```\n", tmp_path)


def test_every_tutorial_but_the_quickstart_is_run(tutorials: Any) -> None:
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "tutorial").glob("*.md")}
    assert {name for name, text in pages.items() if tutorials.blocks(text)} == set(pages) - {"quickstart"}
