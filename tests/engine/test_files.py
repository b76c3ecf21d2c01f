"""Files are written as a whole: what was there stays until the new content is on the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_difftre.engine import files
from tests.fixtures.nodes import make_trajectory

WRITERS = {
    "json": lambda path: files.write_json(path, {"a": 1}),
    "arrays": lambda path: files.write_arrays(path, {"a": np.ones(3)}),
    "npz": lambda path: files.write_npz(path, {"a": np.ones(3)}),
    "trajectory": lambda path: files.write_trajectory(path, make_trajectory()),
}


@pytest.mark.parametrize("kind", list(WRITERS))
def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def full(_: int) -> Any:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            WRITERS[kind](path)
    assert path.read_text() == "before"
    WRITERS[kind](path)
    assert path.read_bytes() != b"before"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
