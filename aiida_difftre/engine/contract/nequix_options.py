"""The hyperparameters of ``nequix``, and what of them its own files say. Free of JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from ase.data import atomic_numbers, chemical_symbols
from pydantic import Field, field_validator

from aiida_difftre.engine.contract.bounds import Limits
from aiida_difftre.engine.contract.term_options import TermOptions

Width = Annotated[int, Limits(least=1, most=4096, reason="wider layers do not fit into memory")]


class NequixOptions(TermOptions):
    """Hyperparameters of ``nequix``: those of the package's own model, and the elements that its weights know."""

    elements: Annotated[list[str], Field(min_length=1)] | None = None
    hidden_irreps: Annotated[str, Field(max_length=200, pattern=r"^\s*\d{1,4}x\d[eo]\s*(\+\s*\d{1,4}x\d[eo]\s*)*$")] = (
        "32x0e + 32x1o + 32x2e"
    )
    lmax: Annotated[int, Limits(least=0, most=6, reason="the products of higher ranks take hours to compile")] = 2
    n_layers: Annotated[int, Limits(least=1, most=20, reason="an atom would see farther than any structure")] = 3
    radial_basis_size: Width = 8
    radial_mlp_size: Width = 64
    radial_mlp_layers: Annotated[int, Limits(least=1, most=20, reason="two or three are enough")] = 2
    radial_polynomial_p: Annotated[float, Limits(least=2, most=100, reason="forces would jump at the cutoff")] = 6.0
    mlp_init_scale: Annotated[float, Limits(above=0, most=1e3, reason="it is about 1 to 4")] = 4.0
    index_weights: bool = True
    layer_norm: bool = False
    scale: Annotated[float, Limits(above=0, most=1e6, unit="eV", reason="it is about 1 eV")] = 1.0
    avg_n_neighbors: Annotated[float, Limits(above=0, most=1e5, reason="it is about 10 to 100")] = 20.0

    @field_validator("elements")
    @classmethod
    def _known(cls, elements: list[str] | None) -> list[str] | None:
        if elements is not None:
            if unknown := [symbol for symbol in elements if symbol not in atomic_numbers]:
                raise ValueError(f"{unknown[0]!r} is no chemical symbol")
            if len(set(elements)) != len(elements):
                raise ValueError("elements repeat")
        return elements

    def complete(self, species: tuple[str, ...], cutoff: float) -> dict[str, Any]:
        """The fields of the term.

        Raises:
            ValueError: naming an element of the potential that the weights do not know.
        """
        elements = tuple(species if self.elements is None else self.elements)
        if missing := [symbol for symbol in species if symbol not in elements]:
            raise ValueError(f"elements: the weights do not know {', '.join(missing)}; they know {len(elements)}")
        return {**dict(self), "elements": elements}


def hyperparameters_of(config: Mapping[str, Any]) -> tuple[dict[str, Any], float, float]:
    """What the first line of a file of nequix says of its model.

    Args:
        config: That line, read as JSON.

    Returns:
        Hyperparameters; the cutoff, Å; and the energy that each atom has besides that of its element, eV.

    Raises:
        ValueError: naming what is missing, or out of range.
    """
    names = [name for name in NequixOptions.names() if name != "elements"]
    if missing := [name for name in (*names, "cutoff", "shift", "atomic_numbers") if name not in config]:
        raise ValueError(f"it does not say {missing[0]!r}, as a file of nequix does")
    numbers = config["atomic_numbers"]
    if not isinstance(numbers, list) or not all(isinstance(z, int) and 0 < z < len(chemical_symbols) for z in numbers):
        raise ValueError(f"atomic_numbers = {str(numbers)[:80]} are not those of elements")
    found = {name: config[name] for name in names} | {"elements": [chemical_symbols[z] for z in sorted(numbers)]}
    NequixOptions.read(found)
    return found, float(config["cutoff"]), float(config["shift"])
