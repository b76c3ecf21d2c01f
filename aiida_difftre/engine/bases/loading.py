"""From what a potential says of its base to the base: checked, and its files compared with their digests, first."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.bases.protocol import BasePotential, explained
from aiida_difftre.engine.bases.traced import TracedBase
from aiida_difftre.engine.contract import files, known_bases
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.known_bases import KnownBase
from aiida_difftre.engine.contract.reading import reading
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.errors import EngineError, ExitStatus, UnreadableFileError

TRUSTED = "DIFFTRE_TRUSTED_MODELS"
"""Environment variable with the SHA-256 of model files, separated by commas, that may run code when they are read."""


def of_potential(
    spec: PotentialSpec, folder: Path, base_files: Mapping[str, str] | None = None
) -> BasePotential | None:
    """Load the base of a potential.

    Args:
        spec: The potential.
        folder: Folder beside whose job file the base's files lie, where they are plain names.
        base_files: Where these files are, by argument, if not where the potential says.

    Returns:
        The base; None for a potential without one.

    Raises:
        EngineError: As :func:`load`.
    """
    if spec.base is None:
        if base_files:
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                f"base_files has {next(iter(base_files))!r}, but the potential has no base; leave it out",
            )
        return None
    try:
        base = spec.base.at(base_files or {})
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, f"base_files: {error}") from None
    return load(base, spec.species, folder)


def load(spec: BaseSpec, species: Sequence[str], folder: Path) -> BasePotential:
    """Load a base potential.

    Args:
        spec: What the base is.
        species: Chemical symbols of the potential.
        folder: Folder of files with plain names.

    Returns:
        The base.

    Raises:
        EngineError: With status INVALID_INPUT, for a base that is not known or does not know the species, a package
            that is not installed, or a file that may run code and is not trusted; CORRUPT_FILE, for a file that is
            missing or has another digest.

    Example:
        >>> from pathlib import Path
        >>> from aiida_difftre.engine.bases.loading import load
        >>> from aiida_difftre.engine.contract.bases import BaseSpec
        >>> load(BaseSpec(engine="ase", name="emt"), ["Si"], Path("."))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        aiida_difftre.engine.errors.EngineError: base 'emt' does not know Si; it is for Al, Cu, Ag, Au, Ni, Pd, Pt
    """
    try:
        known = known_bases.check(spec, species)
        known_bases.check_installed(spec)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None
    paths = {argument: _checked(spec, known, argument, folder) for argument in spec.files}
    module, _, attribute = known.implementation.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
        made = factory(tuple(species), **spec.arguments, **paths)
    except EngineError as error:
        raise EngineError(error.status, f"base {spec.label!r}: {error.message}", error.diagnostics) from None
    except Exception as error:  # whatever a package of somebody else raises
        raise EngineError(
            ExitStatus.INVALID_INPUT, f"base {spec.label!r} cannot be made: {type(error).__name__}: {error}"
        ) from error
    _share_cores()
    return _wrapped(spec, made)


def _share_cores() -> None:
    """Leave PyTorch, if a base has loaded it, the cores of the job: more threads would wait for each other."""
    torch = sys.modules.get("torch")
    if torch is not None and jax.default_backend() == "cpu":
        torch.set_num_threads(jax.device_count())


def _checked(spec: BaseSpec, known: KnownBase, argument: str, folder: Path) -> Path:
    """The path of a file of a base, whose content is what it should be and may be read."""
    file = spec.files[argument]
    path = folder / file.path  # an absolute path stays as it is
    with reading(path, f"file of the base {spec.name!r}"):
        found = files.digest(path)
    if found != file.sha256:
        raise UnreadableFileError(
            f"{file.path} is not the {argument} of the base {spec.name!r} that the potential is made for: its SHA-256 "
            f"is {found}, and not {file.sha256}; give that file (base_files says where it is)"
        )
    trusted = [digest.strip() for digest in os.environ.get(TRUSTED, "").split(",")]
    if known.runs_code and found not in trusted:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"{file.path}, the {argument} of the base {spec.name!r}, can run any code when it is read; if you trust "
            f"where it comes from, set the environment variable {TRUSTED}={found} where this job runs",
        )
    return path.absolute()


def _wrapped(spec: BaseSpec, made: Any) -> BasePotential:
    if isinstance(made, BasePotential):
        return made
    if spec.engine == "torch_sim":
        from aiida_difftre.engine.bases.torch_sim import ModelBase

        return ModelBase(made)
    if spec.engine == "ase":
        from aiida_difftre.engine.bases.calculators import CalculatorBase  # calculators of ASE take a while to import

        return CalculatorBase(made)
    return TracedBase(*made)


def check_configuration(
    base: BasePotential, symbols: Sequence[str], positions: NDArray[np.float64], cell: NDArray[np.float64]
) -> None:
    """Evaluate one configuration before anything long starts, and refuse a base that fails or gives no numbers there.

    Args:
        base: The base.
        symbols: Chemical symbol of each atom.
        positions: Cartesian positions, (atoms, 3), Å.
        cell: Lattice vectors in rows, (3, 3), Å.

    Raises:
        EngineError: With status INVALID_INPUT for a failure, NOT_FINITE for numbers that are not finite.
    """
    with explained():
        found = base.evaluate(symbols, positions[None], np.asarray(cell)[None])
    count = len(symbols)
    shapes = {"energy": (1,), "forces": (1, count, 3), "stress": (1, 3, 3)}
    for (name, shape), array in zip(shapes.items(), found, strict=True):
        if array is None or np.shape(array) != shape:
            shown = "nothing" if array is None else f"the shape {np.shape(array)}"
            raise EngineError(ExitStatus.INVALID_INPUT, f"the base gives {shown} for the {name}, not {shape}")
        if not np.isfinite(array).all():
            raise EngineError(
                ExitStatus.NOT_FINITE,
                f"the {name} that the base gives of the first configuration is not finite; check the structure, and "
                "whether the base is meant for it",
            )
