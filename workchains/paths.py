"""Paths in an input: they begin in the folder of the input, wherever a command is typed."""

from __future__ import annotations

from pathlib import Path

from aiida_difftre.engine.contract.frames import split_index
from aiida_difftre.engine.errors import did_you_mean, shown


def beside(folder: Path, name: str | Path) -> Path:
    """The path of a file that an input names, with the index of a frame (``FILE@3``) where it has one.

    Args:
        folder: Folder of the input.
        name: As the input names it.

    Raises:
        ValueError: for a file that is not there; the message says where it was looked for.
    """
    path = folder / name
    if not split_index(path)[0].is_file():
        raise ValueError(missing(folder, name))
    return path


def missing(folder: Path, name: str | Path) -> str:
    """That a file is not there, where it was looked for, and the nearest name there."""
    path = Path(name)
    if path.is_absolute():
        return f"there is no file {shown(str(path))}"
    there = (folder / path).parent
    near = did_you_mean(path.name, [one.name for one in there.iterdir()]) if there.is_dir() else ""
    return (
        f"there is no file {shown(str(path))} in {folder.resolve()}, the folder of the input, in which its paths begin"
        f"{near}"
    )


def as_named(path: Path, folder: Path) -> str:
    """How an input in a folder names a file: from there where the file is below it, else by its whole path.

    Args:
        path: The file, from the working folder.
        folder: Folder of the input.
    """
    place, start = path.resolve(), folder.resolve()
    return str(place.relative_to(start) if place.is_relative_to(start) else place)
