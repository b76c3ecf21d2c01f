"""What an exported folder is: settings of exports, files by name, and how they get to the disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import TypeAlias

from aiida_difftre.engine.contract.writing import write_atomically
from aiida_difftre.engine.potentials.potential import Potential, save
from aiida_difftre.engine.potentials.term import Parameters

Files: TypeAlias = dict[str, str]
"""Texts by the names of their files."""

POTENTIAL = "potential.safetensors"
"""The potential's own file, which is in every folder."""


@dataclass(frozen=True)
class Options:
    """Settings of exports.

    Args:
        inner: Shortest distance of tables, Å; None to choose.
        points: Number of points of tables; None to choose.
        atoms: Number of atoms, ghosts included, that a compiled program has room for.
        neighbors: Number of neighbours of an atom that it has room for.
        platform: Processor that it is compiled for, ``cpu`` or ``cuda``.
    """

    inner: float | None = None
    points: int | None = None
    atoms: int = 4096
    neighbors: int = 128
    platform: str = "cuda"


def program(name: str) -> str:
    """The text of a program that is exported as it is."""
    return (resources("aiida_difftre.engine.export") / "programs" / f"{name}.py").read_text()


def write(
    folder: Path,
    contents: Mapping[str, str],
    potential: Potential,
    parameters: Parameters,
    others: Sequence[Path] = (),
    *,
    force: bool = False,
) -> None:
    """Write a folder.

    Args:
        folder: The folder, which is made where it does not exist.
        contents: Texts by the names of their files.
        potential: The potential, whose own file is written, too.
        parameters: Its parameters.
        others: Further files, which are copied.
        force: Whether files that exist are replaced.

    Raises:
        ValueError: for a folder that holds something, unless ``force``, or is none.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the name of a folder")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; give another folder, or --force to replace its files")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_atomically(folder / name, text)
    for path in others:
        shutil.copyfile(path, folder / path.name)
    save(folder / POTENTIAL, potential, parameters)
