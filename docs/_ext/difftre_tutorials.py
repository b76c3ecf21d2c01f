"""Sphinx extension: tutorials run when the documentation is built, and are shown with what they print and draw.

Blocks that begin with ```` ```python run ```` or ```` ```bash run ```` are run, those of a page one after the other in
a process and a folder of their own. Of the shell there are `difftre`, which is called as a function, since each start
of it would take seconds, and `cp FILE .` of a file of the checkout. What fails, fails the build.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(python|bash) run\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
PICTURES = ".svg"

ENVIRONMENT = {"MPLBACKEND": "Agg", "XLA_FLAGS": "--xla_backend_optimization_level=0", "TF_CPP_MIN_LOG_LEVEL": "3"}
"""Jobs of a tutorial are so short that most of their time is XLA's, which optimizes for long ones."""

SECONDS = 900


class TutorialError(RuntimeError):
    """A block of a tutorial failed."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and source of the blocks of a page that are run."""
    return [(match[1], match[2]) for match in BLOCK.finditer(text)]


def run(page: str, text: str, pictures: Path) -> str:
    """The text of a page with what its blocks printed, and the pictures that they made.

    Args:
        page: Name of the page.
        text: MyST Markdown.
        pictures: Folder for the pictures; the page names them relative to its own folder's parent.

    Raises:
        TutorialError: with the end of what a block said when it failed.
    """
    with tempfile.TemporaryDirectory(prefix="difftre-tutorial-") as folder:
        done = subprocess.run(
            [sys.executable, __file__], input=json.dumps(blocks(text)), cwd=folder, capture_output=True, text=True,
            timeout=SECONDS, env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        if done.returncode:
            raise TutorialError(f"{page}: {done.stderr.strip()[-2000:]}")
        results = iter(json.loads(done.stdout.splitlines()[-1]))
        pictures.mkdir(parents=True, exist_ok=True)

        def shown(match: re.Match[str]) -> str:
            printed, drawn = next(results)
            parts = [f"```{match[1]}\n{match[2]}```\n"]
            if printed.strip():
                parts.append(f"\n```text\n{printed.rstrip()}\n```\n")
            for name in drawn:
                kept = f"{page.replace('/', '-')}-{name}"
                shutil.copy(Path(folder, name), pictures / kept)
                parts.append(f"\n![](../{pictures.name}/{kept})\n")
            return "".join(parts)

        return BLOCK.sub(shown, text)


def _shell(source: str) -> None:
    """The commands of a block.

    Raises:
        ValueError: for a command that tutorials do not have, or that failed.
    """
    for line in filter(None, (line.partition("#")[0].strip() for line in source.splitlines())):
        command, *words = shlex.split(line)
        if command == "cp":
            shutil.copy(ROOT / words[0], words[1])
        elif command == "difftre":
            from aiida_difftre.engine.cli import cli

            if cli(words):
                raise ValueError(f"{line!r} failed")
        else:
            raise ValueError(f"{line!r}: tutorials have difftre and cp alone")


def _run_all(given: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Run blocks in this folder: what each printed, and the pictures that it made."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    results = []
    for language, source in given:
        before = set(os.listdir())
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if language == "bash":
                _shell(source)
            else:
                exec(compile(source, "tutorial", "exec"), namespace)
        drawn = sorted(name for name in set(os.listdir()) - before if name.endswith(PICTURES))
        results.append((printed.getvalue(), drawn))
    return results


def _read(app: Any, page: str, source: list[str]) -> None:
    """Replace the text of a page that has blocks to run."""
    if blocks(source[0]):
        source[0] = run(page, source[0], Path(app.srcdir) / "_generated")


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    answer = json.dumps(_run_all(json.load(sys.stdin)))
    print(answer)
