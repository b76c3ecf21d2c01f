"""The base potentials that are known, by engine and name: what they take, and what has to be installed. Free of JAX.

Those of this package are listed here; another package registers its own under the entry-point group ``difftre.bases``,
each a :class:`KnownBase`, which names the implementation. A file that travels names a base, and nothing to import.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal

from ase.data import chemical_symbols

from aiida_difftre.engine.contract.bases import BaseSpec, Engine
from aiida_difftre.engine.contract.bounds import is_number
from aiida_difftre.engine.contract.settings import LONGEST_CUTOFF, PotentialSpec
from aiida_difftre.engine.contract.term_registry import OPTIONS
from aiida_difftre.engine.errors import did_you_mean

ENTRY_POINT_GROUP = "difftre.bases"

Weights = Literal["none", "package", "file"]
"""Where the weights of a model come from: it has none, they are in its package, or the user gives a file."""

MATERIALS_PROJECT = tuple(s for s in chemical_symbols[1:95] if s not in {"Po", "At", "Rn", "Fr", "Ra"})
"""The 89 elements of the trajectories of the Materials Project, on which universal models were trained."""


@dataclass(frozen=True)
class KnownBase:
    """What a base potential is called, what it takes, and where its implementation is.

    Args:
        name: Name that an input gives.
        engine: What evaluates it: ``ase``, ``torch_sim`` or ``jax``.
        description: What it is, in one line.
        implementation: Where the implementation is, ``module:attribute``; a factory as
            ``aiida_difftre.engine.bases.protocol`` describes it.
        arguments: What the settings are, by name; a setting that is not listed here is refused.
        files: What the files are, by the name of the argument; all of them have to be given.
        species: Chemical symbols that it knows; None where its files say so.
        package: Distribution that has to be installed where jobs run; None for none.
        version: A version of that package that is known to work.
        weights: Where its weights come from.
        runs_code: Whether its files can run any code when they are read, as pickles can.
        check: Function that checks settings further, from arguments and species; raises ValueError with the value and
            the remedy.

    Example:
        >>> from aiida_difftre.engine.contract.known_bases import known
        >>> known("ase", "emt").species[:3]
        ('Al', 'Cu', 'Ag')
    """

    name: str
    engine: Engine
    description: str
    implementation: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    species: tuple[str, ...] | None = None
    package: str | None = None
    version: str | None = None
    weights: Weights = "none"
    runs_code: bool = False
    check: Callable[[Mapping[str, Any], tuple[str, ...]], None] | None = None

    def spec(self, arguments: Mapping[str, Any] | None = None, files: Mapping[str, Any] | None = None) -> BaseSpec:
        """The spec of this base, with the known version of the package that its weights come with."""
        version = self.version if self.weights == "package" else None
        given = {"arguments": dict(arguments or {}), "files": dict(files or {})}
        return BaseSpec.model_validate({"engine": self.engine, "name": self.name, "version": version, **given})


def _of_term(name: str) -> KnownBase:
    """A term of this package with fixed hyperparameters."""

    def check(arguments: Mapping[str, Any], species: tuple[str, ...]) -> None:
        cutoff = arguments.get("cutoff")
        if cutoff is None or not is_number(cutoff) or not 0 < cutoff <= LONGEST_CUTOFF:
            raise ValueError(f"cutoff = {cutoff!r} must be a number above 0 and at most {LONGEST_CUTOFF:g} Å")
        OPTIONS[name].read({key: value for key, value in arguments.items() if key != "cutoff"}).complete(
            species, float(cutoff)
        )

    arguments = {"cutoff": "Å"} | dict.fromkeys(OPTIONS[name].names(), f"as of the term {name}")
    return KnownBase(
        name, "jax", f"the term {name} of this package, fixed", f"aiida_difftre.engine.bases.traced:{name}",
        arguments, check=check,
    )  # fmt: skip


_ASE = "aiida_difftre.engine.bases.calculators:"
_TORCH_SIM = "aiida_difftre.engine.bases.torch_sim:"
_PICKLE = "model as its package writes it, a pickle"

_BUILT_IN = (
    KnownBase(
        "emt", "ase", "effective medium theory of ASE, for metals", f"{_ASE}emt",
        species=("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt"),
    ),
    KnownBase(
        "chgnet", "ase", "CHGNet, a universal model with magnetic moments", f"{_ASE}chgnet",
        {"model_name": "which of the models in the package, such as 0.3.0"},
        species=MATERIALS_PROJECT, package="chgnet", version="0.4.2", weights="package",
    ),
    KnownBase(
        "sevennet", "ase", "SevenNet-0, a universal equivariant model", f"{_ASE}sevennet",
        {"model": "which of the models in the package, such as 7net-0"},
        species=MATERIALS_PROJECT, package="sevenn", version="0.13.0", weights="package",
    ),
    KnownBase(
        "mace", "ase", "a MACE model", f"{_ASE}mace",
        {"default_dtype": "float32 or float64", "head": "of a model with several heads"},
        {"model": _PICKLE}, package="mace-torch", weights="file", runs_code=True,
    ),
    KnownBase(
        "nequip", "ase", "a compiled NequIP or Allegro model", f"{_ASE}nequip",
        files={"model": "model as nequip-compile writes it"}, package="nequip", weights="file", runs_code=True,
    ),
    KnownBase(
        "uma", "ase", "a model of fairchem, such as UMA", f"{_ASE}uma",
        {"task_name": "such as omat"}, {"model": _PICKLE}, package="fairchem-core", weights="file", runs_code=True,
    ),
    KnownBase(
        "lennard_jones", "torch_sim", "the Lennard-Jones model of torch-sim", f"{_TORCH_SIM}lennard_jones",
        {"sigma": "Å", "epsilon": "eV", "cutoff": "Å"}, package="torch-sim-atomistic",
    ),
    KnownBase(
        "mace", "torch_sim", "a MACE model, in batches", f"{_TORCH_SIM}mace",
        files={"model": _PICKLE}, package="torch-sim-atomistic", weights="file", runs_code=True,
    ),
    _of_term("lennard_jones"),
    _of_term("stillinger_weber"),
    KnownBase(
        "potential", "jax", "a potential of this package, fixed", "aiida_difftre.engine.bases.traced:of_file",
        files={"potential": "potential as this package writes it, .safetensors"}, weights="file",
    ),
)  # fmt: skip

BUILT_IN: Mapping[tuple[str, str], KnownBase] = {(base.engine, base.name): base for base in _BUILT_IN}
"""The base potentials that this package knows, by engine and name."""


@functools.cache
def registry() -> dict[tuple[str, str], KnownBase]:
    """All base potentials that are known here, by engine and name; those of this package win over others."""
    others = [point.load() for point in entry_points(group=ENTRY_POINT_GROUP)]
    return {(base.engine, base.name): base for base in others if isinstance(base, KnownBase)} | dict(BUILT_IN)


def known(engine: str, name: str) -> KnownBase:
    """The base potential of this name.

    Args:
        engine: What evaluates it.
        name: Its name.

    Returns:
        What is known of it.

    Raises:
        ValueError: For a name that is not known, with those that are.

    Example:
        >>> from aiida_difftre.engine.contract.known_bases import known
        >>> known("ase", "chgnet").package
        'chgnet'
    """
    found = registry().get((engine, name))
    if found is not None:
        return found
    if engines := [base.engine for base in registry().values() if base.name == name]:
        raise ValueError(f"base {name!r} is not evaluated by {engine!r}; give engine: {' or '.join(engines)}")
    names = sorted({base.name for base in registry().values()})
    raise ValueError(
        f"unknown base {name!r}; known: {', '.join(names)} (one of another package has to be installed here)"
        f"{did_you_mean(name, names)}"
    )


def check(spec: BaseSpec, species: Sequence[str]) -> KnownBase:
    """Refuse a base that is not known, does not know these species, or with settings or files that it does not take.

    Args:
        spec: The base.
        species: Chemical symbols of the potential.

    Returns:
        What is known of the base.

    Raises:
        ValueError: naming the value and the remedy.
    """
    base = known(spec.engine, spec.name)
    for what, given, taken in (("setting", spec.arguments, base.arguments), ("file", spec.files, base.files)):
        for name in given:
            if name not in taken:
                raise ValueError(f"base {spec.name!r} has no {what} {name!r}; it takes: {', '.join(taken) or 'none'}")
    if missing := [name for name in base.files if name not in spec.files]:
        raise ValueError(f"base {spec.name!r} needs the file {missing[0]!r}: {base.files[missing[0]]}; give it")
    if base.weights == "package" and spec.version is None:
        raise ValueError(
            f"base {spec.name!r} has its weights in the package {base.package}: give its version, such as "
            f"{base.version}"
        )
    if base.weights != "package" and spec.version is not None:
        raise ValueError(f"base {spec.name!r} has no weights in a package; leave out version = {spec.version!r}")
    check_species(base, species)
    if base.check is not None:
        try:
            base.check(spec.arguments, tuple(species))
        except ValueError as error:
            raise ValueError(f"base {spec.name!r}: {error}") from None
    return base


def check_species(base: KnownBase, species: Sequence[str]) -> None:
    """Refuse species that a base does not know.

    Raises:
        ValueError: naming them, and those that it is for.
    """
    if base.species is not None and (strange := [symbol for symbol in species if symbol not in base.species]):
        names = ", ".join(base.species) if len(base.species) <= 12 else f"{len(base.species)} elements"
        raise ValueError(f"base {base.name!r} does not know {', '.join(strange)}; it is for {names}")


def check_installed(spec: BaseSpec) -> None:
    """Refuse a base whose package is not installed in this environment, or not in the version that is asked for.

    Raises:
        ValueError: naming the package and the remedy.
    """
    base = known(spec.engine, spec.name)
    if base.package is None:
        return
    wanted = base.package if spec.version is None else f"{base.package}=={spec.version}"
    try:
        found = importlib.metadata.version(base.package)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            f"base {spec.name!r} needs the package {base.package}, which is not installed where this job runs: "
            f"pip install {wanted}"
        ) from None
    if spec.version is not None and found != spec.version:
        raise ValueError(
            f"base {spec.name!r} is of {wanted}, and version {found} is installed where this job runs, whose weights "
            f"may be others: pip install {wanted}"
        )


def check_potential(spec: PotentialSpec) -> PotentialSpec:
    """Refuse a potential whose base is refused by :func:`check`; one without a base is left alone."""
    if spec.base is not None:
        check(spec.base, spec.species)
    return spec
