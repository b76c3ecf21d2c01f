"""The hyperparameters of the terms of potentials: types, bounds, and what they are for given species and cutoff.

One definition serves both sides: an input is refused where it is read, and a term takes its values from here. Free of
JAX.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, ValidationError, create_model, model_validator
from pydantic_core import CoreSchema, core_schema

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Limits, is_number
from aiida_difftre.engine.contract.settings import LONGEST_CUTOFF
from aiida_difftre.engine.errors import did_you_mean, one_line, shown

SAME_TEMPERATURE = 0.01
"""Relative difference of temperatures that are the same to a correction of quantum nuclei."""

ACTIVATIONS = ("silu", "tanh", "softplus")

STILLINGER_WEBER_PRESETS = {
    "silicon": {"epsilon": 2.1683, "sigma": 2.0951},
    # 200 kJ/mol and 1.4 Å: the prior of Thaler & Zavadlav, Nat. Commun. 12, 6884 (2021).
    "diamond": {"epsilon": 200e3 / (1.602176634e-19 * 6.02214076e23), "sigma": 1.4},
}
STILLINGER_WEBER_REDUCED = {
    "A": 7.049556277, "B": 0.6022245584, "lambda": 21.0, "gamma": 1.2, "a": 1.8, "p": 4.0, "q": 0.0,
}  # fmt: skip
"""Table I of Stillinger & Weber, Phys. Rev. B 31, 5262 (1985)."""

_DEPTH = Limits(above=0, most=1000, unit="eV", reason="bonds have some eV")
_DISTANCE = Limits(above=0, most=LONGEST_CUTOFF, unit="Å", reason="potentials are short-ranged")
_INNER = Limits(least=0, most=LONGEST_CUTOFF, unit="Å", reason="it lies below the cutoff")
_TEMPERATURE = Limits(above=0, most=1e5, unit="K", reason="it is that at which the potential is used")
_FIELD = Limits(least=-1e6, most=1e6, unit="eV", reason="bonds have some eV")


def pair_labels(species: Sequence[str]) -> list[str]:
    """Labels of the unordered pairs of species, such as ``C-C``, ``C-O``, ``O-O`` for C and O."""
    return [f"{a}-{b}" for a, b in combinations_with_replacement(species, 2)]


def label_of(pair: Any, labels: Sequence[str]) -> str | None:
    """The label of a pair that may be written in either order; None for another pair."""
    reverse = "-".join(reversed(str(pair).split("-")))
    return pair if pair in labels else reverse if reverse in labels else None


class TermOptions(Strict):
    """The hyperparameters of a term."""

    model_config = ConfigDict(frozen=True, populate_by_name=False)

    @classmethod
    def names(cls) -> list[str]:
        """Names of the hyperparameters as an input writes them, sorted."""
        return sorted(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def read(cls, hyperparameters: Mapping[str, Any]) -> Self:
        """Check hyperparameters by themselves.

        Raises:
            ValueError: naming the value, and what is wanted.
        """
        for name in hyperparameters:
            if name not in cls.names():
                near = did_you_mean(name, cls.names())
                raise ValueError(f"unknown hyperparameter {shown(name)}; known: {', '.join(cls.names())}{near}")
        try:
            return cls.model_validate(dict(hyperparameters))
        except ValidationError as error:
            raise ValueError(_explained(error)) from None

    def complete(self, species: tuple[str, ...], cutoff: float) -> dict[str, Any]:
        """The fields of the term, for these species and this cutoff (Å).

        Raises:
            ValueError: naming the value that does not fit them.
        """
        return dict(self)

    def check_composition(self, symbols: Sequence[str]) -> None:
        """Refuse a structure, given as the symbol of each atom, for which the term is not made.

        Raises:
            ValueError: naming what the structure holds, and what is wanted.
        """

    def check_temperature(self, temperature: float) -> None:
        """Refuse a temperature (K) for which the term is not made.

        Raises:
            ValueError: naming it, and that for which it is.
        """


def _explained(error: ValidationError) -> str:
    # Where there is a choice of types, the one that was meant is the one that fits the farthest.
    problem = max(error.errors(include_url=False), key=lambda one: len(one["loc"]))
    place = [part for part in problem["loc"] if not str(part).startswith(("list[", "dict["))]
    name = str(place[0] if place else "") + "".join(f"[{part}]" for part in place[1:])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{name} is missing; give a value"
    return one_line(f"{name} = {shown(problem['input'])}: {message}" if name else message)


@dataclass(frozen=True)
class PerPair:
    """Metadata of a hyperparameter that is a number, or a mapping from pairs of species such as ``{"C-O": 3.1}``."""

    limits: Limits

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """What pydantic makes of the annotation."""

        def checked(value: Any) -> Any:
            for pair, number in value.items() if isinstance(value, Mapping) else ((None, value),):
                of_pair = "" if pair is None else f"the value of {shown(pair)} "
                if not is_number(number):
                    raise ValueError(f"{of_pair}must be a number, or a mapping from pairs of species to numbers")
                try:
                    self.limits.check(number)
                except ValueError as error:
                    raise ValueError(f"{of_pair}{error}") from None
            return value

        return core_schema.no_info_plain_validator_function(checked)


def of_pairs(name: str, value: float | Mapping[str, float], species: tuple[str, ...]) -> tuple[float, ...]:
    """Numbers for each pair of species, from one number or from a mapping such as ``{"C-O": 1.2}``.

    Raises:
        ValueError: naming the pair that is missing or unknown.
    """
    labels = pair_labels(species)
    if not isinstance(value, Mapping):
        return (float(value),) * len(labels)
    ordered: dict[str, float] = {}
    for pair, number in value.items():
        label = label_of(pair, labels)
        if label is None:
            raise ValueError(f"{name} has a value for the pair {shown(pair)}; pairs of this potential: {_some(labels)}")
        if label in ordered:
            raise ValueError(f"{name} has two values for the pair {label!r}; give one")
        ordered[label] = float(number)
    missing = [label for label in labels if label not in ordered]
    if missing:
        raise ValueError(f"{name} has no value for the pair {missing[0]!r}; give one, or one number for all pairs")
    return tuple(ordered[label] for label in labels)


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")


class SwitchedPairOptions(TermOptions):
    """Hyperparameters of a sum over pairs that a factor takes to zero between an onset and the cutoff."""

    per_pair: ClassVar[tuple[str, ...]]

    onset: Annotated[float, _DISTANCE] | None = None
    tail: bool = False
    feynman_hibbs: Annotated[float, _TEMPERATURE] | None = None

    def complete(self, species: tuple[str, ...], cutoff: float) -> dict[str, Any]:
        """The fields of the term; the onset is at 0.9 of the cutoff where it is not given."""
        onset = 0.9 * cutoff if self.onset is None else self.onset
        if onset >= cutoff:
            raise ValueError(f"onset = {onset} Å must lie between 0 and the cutoff, {cutoff} Å")
        pairs = {name: of_pairs(name, getattr(self, name), species) for name in self.per_pair}
        return {**dict(self), **pairs, "onset": onset}

    def check_temperature(self, temperature: float) -> None:
        """The correction of quantum nuclei is that of one temperature."""
        made_for = self.feynman_hibbs
        if made_for is not None and abs(temperature - made_for) > SAME_TEMPERATURE * made_for:
            raise ValueError(
                f"feynman_hibbs = {made_for:g} K is the correction of quantum nuclei at that temperature, not at "
                f"{temperature:g} K; give each temperature a potential of its own"
            )


Depths = Annotated[Any, PerPair(_DEPTH)]
Distances = Annotated[Any, PerPair(_DISTANCE)]
Coefficients = Annotated[
    Any, PerPair(Limits(above=0, most=1e6, unit="eV Å⁶", reason="atoms have some 1 to 4000 eV Å⁶"))
]


@functools.cache
def positive_pairs(name: str, per_pair: tuple[str, ...]) -> type[SwitchedPairOptions]:
    """Options of a term of another package, whose hyperparameters are positive numbers for each pair."""
    limits = Limits(above=0, most=1e12, reason="hyperparameters of pairs are positive")
    fields: dict[str, Any] = {one: (Annotated[Any, PerPair(limits)], ...) for one in per_pair}
    model = create_model(f"{name}Options", __base__=SwitchedPairOptions, **fields)
    model.per_pair = per_pair
    return model


class LennardJonesOptions(SwitchedPairOptions):
    """Hyperparameters of ``lennard_jones``: depth of the well (eV) and diameter (Å) of each pair."""

    per_pair: ClassVar[tuple[str, ...]] = ("epsilon", "sigma")

    epsilon: Depths
    sigma: Distances


class RepulsionOptions(SwitchedPairOptions):
    """Hyperparameters of ``repulsion``: energy (eV) at a length (Å) of each pair, and the exponent."""

    per_pair: ClassVar[tuple[str, ...]] = ("epsilon", "sigma")

    epsilon: Depths
    sigma: Distances
    exponent: Annotated[int, Limits(least=1, most=24, reason="a steeper wall needs shorter steps of time")] = 12


class DispersionOptions(SwitchedPairOptions):
    """Hyperparameters of ``dispersion``: C₆ (eV Å⁶) and the radius of the damping (Å) of each pair."""

    per_pair: ClassVar[tuple[str, ...]] = ("c6", "radius")

    c6: Coefficients
    radius: Distances


class PairSplineOptions(TermOptions):
    """Hyperparameters of ``pair_spline``: the first knot (Å), the number of knots, energies at them (eV)."""

    inner: Annotated[float, _INNER] | None = None
    knots: Annotated[int, Limits(least=2, most=1000, reason="control points are some hundredths of an Å apart")] = 40
    values: list[Annotated[float, _FIELD]] | dict[str, list[Annotated[float, _FIELD]]] | None = None

    def complete(self, species: tuple[str, ...], cutoff: float) -> dict[str, Any]:
        """The fields of the term; the first knot is at 0.2 of the cutoff where it is not given."""
        inner = 0.2 * cutoff if self.inner is None else self.inner
        if inner >= cutoff:
            raise ValueError(f"inner = {inner} Å must lie between 0 and the cutoff, {cutoff} Å")
        return {"inner": inner, "knots": self.knots, "values": self._values(species)}

    def _values(self, species: tuple[str, ...]) -> tuple[tuple[float, ...], ...] | None:
        """Energies at the knots for each pair of species; zero for a pair that a mapping does not name."""
        if self.values is None:
            return None
        labels = pair_labels(species)
        ordered = dict.fromkeys(labels, (0.0,) * self.knots)
        given = self.values if isinstance(self.values, dict) else dict.fromkeys(labels, self.values)
        for pair, energies in given.items():
            label = label_of(pair, labels)
            if label is None:
                raise ValueError(
                    f"values has some for the pair {shown(pair)}; pairs of this potential: {_some(labels)}"
                )
            if len(energies) != self.knots:
                raise ValueError(
                    f"values of {label} must list {self.knots} energies (eV), one for each knot; got {len(energies)} "
                    "of them"
                )
            ordered[label] = tuple(energies)
        return tuple(ordered[label] for label in labels)


Axis = Annotated[int, Limits(least=0, most=2, reason="the lattice vector along which the field varies is 0, 1 or 2")]


class ExternalPolynomialOptions(TermOptions):
    """Hyperparameters of ``external_polynomial``: coefficients of the powers 0, 1, ... (eV), axis and centre."""

    coefficients: list[Annotated[float, _FIELD]] = Field(min_length=1, max_length=32)
    axis: Axis = 0
    center: Annotated[float, Limits(least=-1, most=1, reason="it is a fractional coordinate")] = 0.5

    def complete(self, species: tuple[str, ...], cutoff: float) -> dict[str, Any]:
        """The fields of the term."""
        return {**dict(self), "coefficients": tuple(self.coefficients)}


class ExternalSplineOptions(TermOptions):
    """Hyperparameters of ``external_spline``: the number of knots, and the axis."""

    knots: Annotated[int, Limits(least=4, most=1000, reason="a cubic spline has four, and data tell of some ten")] = 50
    axis: Axis = 0


class MomentNetworkOptions(TermOptions):
    """Hyperparameters of ``moment_network``: the invariants and the network over them."""

    n_radial: Annotated[int, Limits(least=2, most=32, reason="invariants grow with its square")] = 8
    rank: Annotated[int, Limits(least=0, most=3, reason="higher moments are not implemented")] = 2
    hidden: list[Annotated[int, Limits(least=1, most=4096, reason="widths of the hidden layers; 48 is usual")]] = Field(
        default=[48, 48], min_length=1, max_length=16
    )
    activation: Literal["silu", "tanh", "softplus"] = "silu"
    output_scale: Annotated[float, Limits(least=0, most=1, reason="0 makes a zero residual, 1 a random one")] = 0.1

    def complete(self, species: tuple[str, ...], cutoff: float) -> dict[str, Any]:
        """The fields of the term."""
        return {**dict(self), "hidden": tuple(self.hidden)}


_RATIO = Limits(above=0, most=1e4, reason="it is relative to epsilon or sigma, and of the order of 1 to 20")


class StillingerWeberOptions(TermOptions):
    """Hyperparameters of ``stillinger_weber``: a preset, and what differs from it; one set for all species."""

    preset: Literal["silicon", "diamond"] = "silicon"
    epsilon: Annotated[float, _DEPTH] | None = None
    sigma: Annotated[float, _DISTANCE] | None = None
    repulsion: Annotated[float, _RATIO] | None = Field(default=None, alias="A")
    attraction: Annotated[float, _RATIO] | None = Field(default=None, alias="B")
    angles: Annotated[float, _RATIO] | None = Field(default=None, alias="lambda")
    gamma: Annotated[float, _RATIO] | None = None
    a: Annotated[float, _RATIO] | None = None
    p: Annotated[float, Limits(above=0, most=24, reason="a steeper wall needs shorter steps of time")] | None = None
    q: Annotated[float, Limits(least=0, most=24, reason="it is below p")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_set(cls, given: Any) -> Any:
        for name, value in given.items():
            if isinstance(value, Mapping):
                raise ValueError(
                    f"{name} = {shown(value)}: stillinger_weber has one set of parameters for all species; give one "
                    "number, or take stillinger_weber_alloy, which has sets by species"
                )
        return given

    def complete(self, species: tuple[str, ...], cutoff: float) -> dict[str, Any]:
        """The fields of the term."""
        stated = self.model_dump(by_alias=True, exclude_none=True, exclude={"preset"})
        values = {**STILLINGER_WEBER_REDUCED, **STILLINGER_WEBER_PRESETS[self.preset], **stated}
        p, q = values["p"], values["q"]
        if not q < p:
            raise ValueError(f"p = {p} and q = {q} must satisfy 0 <= q < p")
        end = values["a"] * values["sigma"]
        if abs(cutoff - end) > 1e-3 * end:
            raise ValueError(f"cutoff = {cutoff} Å must be a·sigma = {end:.6g} Å, where the potential ends")
        names = ("epsilon", "sigma", "A", "B", "lambda", "gamma")
        return {"initial": tuple((name, float(values[name])) for name in names), "p": p, "q": q}
