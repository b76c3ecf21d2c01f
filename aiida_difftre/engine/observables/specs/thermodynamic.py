"""Registry entries of the potential energy, and of what needs an ensemble. Free of JAX."""

from __future__ import annotations

from typing import Any

from aiida_difftre.engine.contract.observables import Ensemble, ObservableSpec

_MODULE = "aiida_difftre.engine.observables.thermodynamic"

HEAT_CAPACITIES: dict[str, Ensemble] = {"cv": "NVT", "cp": "NPT"}


def _check_heat_capacity(options: dict[str, Any]) -> None:
    if options["kind"] not in tuple(HEAT_CAPACITIES):
        known = ", ".join(HEAT_CAPACITIES)
        raise ValueError(f"option 'kind' of heat_capacity is {options['kind']!r}; known kinds: {known}")


HEAT_CAPACITY = ObservableSpec(
    "heat_capacity", "J/mol/K", f"{_MODULE}:HeatCapacity",
    "heat capacity per mole of atoms by fluctuations, kinetic term included: at constant pressure (kind cp, from NPT) "
    "or volume (cv, from NVT)",
    options={"kind": "cp"},
    labels=lambda options: ("C_P" if options["kind"] == "cp" else "C_V",),
    check=_check_heat_capacity,
    ensembles=lambda options: (HEAT_CAPACITIES[options["kind"]],),
)  # fmt: skip
VOLUME = ObservableSpec(
    "volume", "angstrom^3/atom", f"{_MODULE}:Volume", "mean volume per atom at constant pressure",
    labels=lambda options: ("V",), ensembles=lambda options: ("NPT",),
)  # fmt: skip
DENSITY = ObservableSpec(
    "density", "kg/m3", f"{_MODULE}:Density",
    "mass over mean volume at constant pressure",
    labels=lambda options: ("density",), ensembles=lambda options: ("NPT",),
)  # fmt: skip
THERMAL_EXPANSION = ObservableSpec(
    "thermal_expansion", "1/K", f"{_MODULE}:ThermalExpansion",
    "volumetric thermal expansion at constant pressure, by fluctuations of volume and enthalpy",
    labels=lambda options: ("alpha",), ensembles=lambda options: ("NPT",),
)  # fmt: skip
COMPRESSIBILITY = ObservableSpec(
    "compressibility", "1/GPa", f"{_MODULE}:Compressibility",
    "isothermal compressibility by fluctuations of the volume",
    labels=lambda options: ("kappa",), ensembles=lambda options: ("NPT",),
)  # fmt: skip
POTENTIAL_ENERGY = ObservableSpec(
    "potential_energy", "eV/atom", f"{_MODULE}:PotentialEnergy", "mean potential energy per atom",
    labels=lambda options: ("U",),
)  # fmt: skip
