"""A base potential as a node: which model, in which version, with which weights; to it a potential is a correction."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from aiida import orm
from aiida.common import exceptions

from aiida_difftre.engine.contract import known_bases
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.validation import read_stored, validate

SHA256 = re.compile("[0-9a-f]{64}")


class BasePotentialData(orm.Data):
    """A base potential as a node: a fixed model of somebody else, and its weights where they are files.

    Weights that come with the package of the model are named by its version. Files are kept in the repository, or stay
    where they are on a computer, with their SHA-256.

    Attributes to query: ``model``, ``version`` (of the package that has the weights; else None), ``engine``,
    ``digest`` (the same wherever files lie), ``arguments``, ``computer`` (label, where files stay there; else None) and
    ``spec``.

    Example:
        >>> from aiida_difftre.data.base import BasePotentialData
        >>> node = BasePotentialData.from_name("chgnet")
        >>> node.model, node.version, node.spec.label
        ('chgnet', '0.4.2', 'chgnet 0.4.2')
    """

    @classmethod
    def from_name(
        cls,
        model: str,
        *,
        engine: str | None = None,
        version: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        files: Mapping[str, str | Path] | None = None,
        computer: orm.Computer | None = None,
        digests: Mapping[str, str] | None = None,
        species: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> BasePotentialData:
        """Make an (unstored) node.

        Args:
            model: Name of a model that is known (``aiida_difftre.engine.contract.known_bases``).
            engine: What evaluates it; None where the name has one engine, or that of ASE.
            version: Version of the package with its weights; None for the one that is known to work.
            arguments: Settings of the model by name.
            files: Files of the model by argument: paths here, or with ``computer`` absolute paths there.
            computer: Computer on which the files stay; None keeps them in the repository.
            digests: SHA-256 of the files that stay on the computer, by argument.
            species: Chemical symbols that it is for, to check its settings against; None where they are not known yet.
            **kwargs: Label, description and the like.

        Returns:
            The node.

        Raises:
            ValueError: For a model that is not known, settings or files that it does not take, files that are missing.
        """
        given, stay = dict(files or {}), dict(digests or {})
        found = known_bases.known(engine or engine_of(model), model)
        described: dict[str, dict[str, str]] = {}
        for argument, path in given.items():
            if computer is None:
                described[argument] = {"path": file_name(argument), "sha256": _digest(Path(path), model, argument)}
            else:
                described[argument] = {"path": str(path), "sha256": _stated(stay, argument, str(path), computer)}
        spec = found.spec(arguments, described)
        if version is not None:
            spec = spec.model_copy(update={"version": version})
        node = cls(**kwargs)
        node.label = node.label or spec.label
        if species is not None or found.check is None:
            known_bases.check(spec, species if species is not None else found.species or ())
        if computer is None:
            for argument, path in given.items():
                node.base.repository.put_object_from_file(str(Path(path).resolve()), file_name(argument))
        node.base.attributes.set_many(
            {
                "model": spec.name,
                "version": spec.version,
                "engine": spec.engine,
                "digest": spec.digest,
                "arguments": spec.arguments,
                "computer": None if computer is None or not given else computer.label,
                "spec": spec.model_dump(mode="json"),
            }
        )
        return node

    def _validate(self) -> bool:
        super()._validate()
        if not self.base.attributes.get("spec", None):
            raise exceptions.ValidationError("a BasePotentialData is made by BasePotentialData.from_name")
        return True

    @property
    def spec(self) -> BaseSpec:
        """Which model, with which settings and files."""
        return read_stored(BaseSpec, self.base.attributes.get("spec"))

    def get_description(self) -> str:
        """Say what it is in one line, as lists of nodes show it.

        Returns:
            Model, version and digest.
        """
        known = self.base.attributes.all
        version = f" {known['version']}" if known.get("version") else ""
        return f"{known.get('model')}{version}, digest {str(known.get('digest'))[:12]}"

    def check(self) -> BaseSpec:
        """The same, where a job is to start with it.

        Raises:
            ValueError: naming the offending value, as for one that is made now.
        """
        return validate(BaseSpec, self.base.attributes.get("spec"))

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.base.attributes.get("model")

    @property
    def version(self) -> str | None:
        """Version of the package that has its weights; None where they are files, or there are none."""
        return self.base.attributes.get("version")

    @property
    def digest(self) -> str:
        """SHA-256 of what the base is, wherever its files lie."""
        return self.base.attributes.get("digest")

    @property
    def computer_label(self) -> str | None:
        """Label of the computer on which its files stay; None where they are in the repository, or there are none."""
        return self.base.attributes.get("computer")

    def job_files(self) -> dict[str, str]:
        """Where a job finds its files, by argument: plain names beside the job file, or paths on the computer."""
        return {argument: file.path for argument, file in self.spec.files.items()}

    def kept_files(self) -> list[str]:
        """Names of the files that are in the repository."""
        return sorted(self.base.repository.list_object_names())

    def to_folder(self, folder: str | Path) -> None:
        """Write the files that are in the repository to a folder.

        Args:
            folder: The folder, which exists.
        """
        for name in self.kept_files():
            with self.base.repository.open(name, "rb") as source, Path(folder, name).open("wb") as target:
                shutil.copyfileobj(source, target)


def file_name(argument: str) -> str:
    """The name beside a job file of the file that an argument of a base takes."""
    return f"base_{argument}"


def engine_of(model: str) -> str:
    """What evaluates a model where an input does not say it: ASE, where it can.

    Raises:
        ValueError: For a model that is not known.
    """
    engines = [engine for engine, name in known_bases.registry() if name == model]
    return "ase" if "ase" in engines or not engines else engines[0]


def _digest(path: Path, model: str, argument: str) -> str:
    if not path.is_file():
        raise ValueError(f"base {model!r}: there is no file {str(path)!r} for {argument}; give that of its weights")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stated(digests: Mapping[str, str], argument: str, path: str, computer: orm.Computer) -> str:
    if not PurePosixPath(path).is_absolute():
        raise ValueError(f"{argument}: {path!r} is no absolute path on {computer.label}")
    if SHA256.fullmatch(found := digests.get(argument, "")) is None:
        raise ValueError(
            f"{argument}: give the SHA-256 of {path} on {computer.label} (sha256sum), 64 hexadecimal digits; got "
            f"{found!r}"
        )
    return found
