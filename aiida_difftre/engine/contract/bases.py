"""What a base potential is: a fixed model of somebody else, to which the terms of a potential are a correction.

U = U_base + ΔU_θ. A base is named, and never imported by a path that a file gives: the names are those of
:mod:`aiida_difftre.engine.contract.known_bases`. Free of JAX.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from aiida_difftre.engine.contract.base import Sha256, Strict

Engine = Literal["ase", "torch_sim", "jax"]
"""What evaluates a base: a calculator of ASE, a model of torch-sim, or a function of JAX."""


def _file_of_a_base(path: str) -> str:
    name = PurePath(path)
    if not path.isprintable() or "\\" in path or ".." in name.parts or name.name in {"", "."}:
        raise ValueError(f"{path!r} is neither a plain file name nor an absolute path without '..'")
    if not name.is_absolute() and name.name != path:
        raise ValueError(f"{path!r} is a relative path; give the name of a file beside the job file, or a whole path")
    return path


BasePath = Annotated[str, AfterValidator(_file_of_a_base)]
"""A plain name of a file beside the job file, or an absolute path on the computer that runs the job."""


class BaseFile(Strict):
    """A file of a base potential, such as weights.

    Args:
        path: Plain file name, of a file beside the job file, or an absolute path on the computer that runs the job; a
            job may say otherwise (``base_files``).
        sha256: SHA-256 of its content; a file with another one is refused.
    """

    path: BasePath
    sha256: Sha256


class BaseSpec(Strict):
    """A base potential: which model, with which settings and files. Its weights are not in the potential's file.

    Args:
        engine: What evaluates it: ``ase``, ``torch_sim`` or ``jax``.
        name: Name of the model, built in or registered by another package (entry points ``difftre.bases``).
        version: Version of the package that the weights come with; None where they come from files, or there are none.
        arguments: Settings of the model by name: numbers, text, lists.
        files: Files of the model, by the name of the argument that takes them.

    Example:
        >>> from aiida_difftre.engine.contract.bases import BaseSpec
        >>> here = BaseSpec(engine="jax", name="potential", files={"potential": {"path": "a.st", "sha256": 64 * "0"}})
        >>> there = BaseSpec(engine="jax", name="potential", files={"potential": {"path": "/b.st", "sha256": 64 * "0"}})
        >>> here.digest == there.digest, BaseSpec(engine="ase", name="chgnet", version="0.4.2").label
        (True, 'chgnet 0.4.2')
    """

    engine: Engine
    name: str = Field(min_length=1, max_length=100)
    version: str | None = Field(default=None, min_length=1, max_length=100)
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    files: dict[str, BaseFile] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of what the base is, wherever its files lie: 64 hexadecimal digits."""
        content = self.model_dump(mode="json", exclude={"files"})
        content["files"] = {argument: file.sha256 for argument, file in self.files.items()}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def label(self) -> str:
        """Name and version, for people."""
        return self.name if self.version is None else f"{self.name} {self.version}"

    def at(self, paths: Mapping[str, str]) -> BaseSpec:
        """The same base with its files elsewhere; the digest stays.

        Args:
            paths: Paths by argument; files that are not named stay where they are.

        Returns:
            The spec with these paths.

        Raises:
            ValueError: For an argument that takes no file.
        """
        for argument in paths:
            if argument not in self.files:
                known = ", ".join(self.files) or "none"
                raise ValueError(f"base {self.name!r} has no file {argument!r}; its files: {known}")
        moved = {
            argument: BaseFile(path=paths.get(argument, file.path), sha256=file.sha256)
            for argument, file in self.files.items()
        }
        return self.model_copy(update={"files": moved})
