"""An interatomic potential as a node: one safetensors file, what it is as queryable attributes."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

from aiida import orm
from aiida.common import exceptions
from numpy.typing import NDArray

from aiida_difftre.data import display
from aiida_difftre.engine.contract.files import ordered, read_potential
from aiida_difftre.engine.contract.jobs import POTENTIAL_IN, PotentialSpec
from aiida_difftre.engine.contract.validation import read_stored, validate
from aiida_difftre.engine.errors import EngineError


class PotentialData(orm.SinglefileData):
    """An interatomic potential as a node: its parameters in one file, and what it is as attributes.

    Attributes to query: ``architecture`` (the terms joined by ``+``), ``architectures``, ``species``, ``cutoff`` (Å),
    ``number_of_parameters``, ``digest`` (SHA-256 of the file, the same for the same content), ``spec``
    (architectures with hyperparameters) and, of a correction to a base, ``base`` (``model``, ``version``, ``digest``).

    Args:
        file: A potential file, or a stream of its content; refused where it is corrupt or not finite.
        filename: Accepted as its base class does; the file is always kept under one name.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from aiida_difftre.data.potential import PotentialData
        >>> from aiida_difftre.engine.contract.files import write_potential
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> spec = PotentialSpec(species=["Ar"], terms=[{"architecture": "lennard_jones", "cutoff": 8.5}])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "argon.safetensors")
        ...     write_potential(path, spec, {"terms/0_lennard_jones/sigma": np.array([3.4])})
        ...     node = PotentialData.from_file(path, label="argon")
        >>> node.species, node.cutoff, node.base.attributes.get("number_of_parameters")
        (['Ar'], 8.5, 1)
    """

    DEFAULT_FILENAME = POTENTIAL_IN

    @classmethod
    def from_file(cls, path: str | Path, **kwargs: Any) -> PotentialData:
        """Make an (unstored) node from a potential's file.

        Args:
            path: A ``.safetensors`` file that the engine wrote; may be relative.
            **kwargs: Label, description and the like.

        Returns:
            The node.

        Raises:
            ValueError: With the file and what is wrong with it.
        """
        return cls(Path(path).resolve(), **kwargs)

    def set_file(self, file: str | Path | IO, filename: str | Path | None = None) -> None:
        """Check the potential, then keep its file and fill the attributes.

        Args:
            file: A potential file, or a stream of its content.
            filename: Accepted as its base class does; the file is always kept under one name.

        Raises:
            ValueError: For a file that is missing, is not a potential, or holds numbers that are not finite.
        """
        content = Path(file).read_bytes() if isinstance(file, str | Path) and Path(file).is_file() else None
        if content is None and isinstance(file, str | Path):
            raise ValueError(f"there is no potential file {str(file)!r}")
        if content is None:
            content = file.read()  # type: ignore[union-attr]
        if not isinstance(content, bytes):
            raise ValueError("a potential is a binary file; open it with mode 'rb'")
        name = str(file) if isinstance(file, str | Path) else POTENTIAL_IN
        spec, number = _read(content, name)
        content = ordered(content)
        super().set_file(io.BytesIO(content), POTENTIAL_IN)
        self.base.attributes.set_many(
            {
                "architecture": "+".join(term.architecture for term in spec.terms),
                "architectures": [term.architecture for term in spec.terms],
                "species": spec.species,
                "cutoff": spec.cutoff,
                "number_of_parameters": number,
                "digest": hashlib.sha256(content).hexdigest(),
                "spec": spec.model_dump(mode="json"),
            }
        )
        if (base := spec.base) is not None:
            described = {"model": base.name, "version": base.version, "digest": base.digest}
            self.base.attributes.set("base", described)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        known = self.base.attributes.all
        rows = [
            ("terms", " + ".join(known.get("architectures", []))),
            ("species", ", ".join(known.get("species", []))),
            ("cutoff", f"{known['cutoff']:g} Å" if "cutoff" in known else None),
            ("parameters", known.get("number_of_parameters")),
            ("SHA-256", known.get("digest")),
        ]
        return display.table(self, "potential", rows)

    def _validate(self) -> bool:
        super()._validate()
        if not self.base.attributes.get("spec", None):
            raise exceptions.ValidationError("a PotentialData is made from a file: PotentialData.from_file(path)")
        return True

    @property
    def spec(self) -> PotentialSpec:
        """Everything about the potential but its parameters."""
        return read_stored(PotentialSpec, self.base.attributes.get("spec"))

    def check(self) -> PotentialSpec:
        """The same, where a job is to start with it; :attr:`spec` reads what is stored.

        Raises:
            ValueError: naming the offending value, as for a potential that is made now.
        """
        return validate(PotentialSpec, self.base.attributes.get("spec"))

    @property
    def species(self) -> list[str]:
        """Chemical symbols that the potential knows."""
        return list(self.base.attributes.get("species"))

    @property
    def cutoff(self) -> float:
        """The largest cutoff of its terms, Å."""
        return self.base.attributes.get("cutoff")

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return self.base.attributes.get("digest")

    def get_description(self) -> str:
        """Say what it is in one line, as lists of nodes show it.

        Returns:
            Species, architecture, cutoff and number of parameters.
        """
        known = self.base.attributes.all
        return (
            f"{'-'.join(known.get('species', []))} {known.get('architecture')}, cutoff {known.get('cutoff')} Å, "
            f"{known.get('number_of_parameters')} parameters"
        )

    def get_parameters(self) -> dict[str, NDArray[Any]]:
        """Read the parameters.

        Returns:
            Arrays by their path in the parameter tree, such as ``terms/0_lennard_jones/sigma``.
        """
        with self.as_path() as path:
            return read_potential(path)[1]

    def to_file(self, path: str | Path) -> None:
        """Write the potential to a file, for the engine or for another program.

        Args:
            path: The file, which is replaced where it exists.
        """
        with self.open(mode="rb") as source, Path(path).open("wb") as target:
            shutil.copyfileobj(source, target)


def _read(content: bytes, name: str) -> tuple[PotentialSpec, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(name).name)
        path.write_bytes(content)
        try:
            spec, parameters = read_potential(path)
        except EngineError as error:
            raise ValueError(f"cannot use {name!r} as a potential: {error.message}") from None
    return spec, sum(array.size for array in parameters.values())
