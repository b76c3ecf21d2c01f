"""A first input for a liquid: atoms packed at random at a measured density, pairs by corresponding states."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ase import Atoms, units
from ase.formula import Formula

from aiida_difftre.cli.starting import Measurement, name_of, written
from aiida_difftre.cli.starting_models import origin, require_one
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.units import AMU_PER_A3_IN_KG_PER_M3

LEAST_ATOMS = 100
"""Of a cell of a liquid."""

MOST_ATOMS = 500
"""Of a cell that is proposed: a first run should end."""

LIQUID_FS = 4000.0
"""Of equilibration, and of production."""

IN_SPACE = ("rdf",)
"""Observables whose grid has to end at half of the cell."""

TRIPLE_POINT = {"temperature": 0.69, "density": 0.845}
"""Of the Lennard-Jones liquid, in units of epsilon and sigma (M. Mastny and J. J. de Pablo, J. Chem. Phys. 127, 104504
(2007)): where a liquid is measured, its own triple point is not far."""

FEMTOSECONDS = 0.6
"""Time step of an atom of 1 u, fs; it grows with the root of the mass."""


def liquid_document(
    composition: str, measurements: Sequence[Measurement], *, start: str, given: str | None = None, protocol: str
) -> str:
    """An input file for a liquid and measurements of it, with comments: atoms packed at random.

    Args:
        composition: Formula of the liquid.
        measurements: What was measured.
        start: Where the first potential comes from: ``labels``, ``potential``, ``base`` or ``prior``.
        given: The labels, the potential or the base, for the starts that need one.
        protocol: Name of the preset.

    Returns:
        YAML.

    Raises:
        ValueError: where the density is not known, where a cell is too small for a curve, or something is missing.
    """
    if start == "dft":
        raise ValueError(
            "a liquid is too large for labels by DFT, which come from small crystals and dimers (docs/howto/own-system"
            "): give --prior, --potential, --base or --labels"
        )
    targets = [one.target for one in measurements]
    density = density_of(targets)
    numbers = composition_of(composition, density, targets)
    atoms = Atoms("".join(f"{symbol}{number}" for symbol, number in numbers.items()))
    step = timestep_fs(numbers)
    system = [
        f"  random: {{composition: {{{', '.join(f'{s}: {n}' for s, n in numbers.items())}}}, density: {density:g}}}"
        " # kg/m³; packed at random"
    ]
    if start == "prior":
        first = _liquid_prior(numbers, density, targets[0].conditions.temperature)
    else:
        volume = float(atoms.get_masses().sum()) / density * AMU_PER_A3_IN_KG_PER_M3
        first = origin(atoms, start, given, nearest=(volume / len(atoms)) ** (1 / 3))
    times = {"timestep_fs": step, "equilibration_fs": LIQUID_FS, "production_fs": LIQUID_FS, "stride_fs": 25 * step}
    return written(name_of(atoms), protocol, system, first, measurements, None, times)


def composition_of(text: str, density: float, targets: Iterable[Target]) -> dict[str, int]:
    """How many atoms of each element: as many formula units as hold the curves that were measured.

    Args:
        text: Formula, such as ``Ar`` or ``GeO2``.
        density: kg/m³.
        targets: What was measured.

    Raises:
        ValueError: for what is no formula, and for curves that no cell of a first run holds.
    """
    unit = formula_unit(text)
    mass, in_unit = float(unit.get_masses().sum()), len(unit)
    volume = mass / density * AMU_PER_A3_IN_KG_PER_M3  # of a formula unit, Å³
    wanted = math.ceil(LEAST_ATOMS / in_unit)
    for target in targets:
        if target.observable not in IN_SPACE or not target.grid:
            continue
        end = target.grid[-1] + (target.grid[-1] - target.grid[-2]) / 2 if len(target.grid) > 1 else target.grid[-1]
        wanted = max(wanted, math.ceil((2 * end) ** 3 / volume))
        if wanted * in_unit > MOST_ATOMS:
            fits = (MOST_ATOMS // in_unit * volume) ** (1 / 3) / 2
            raise ValueError(
                f"{target.observable} reaches {end:g} Å, for which a cell needs {wanted * in_unit} atoms; one of "
                f"{MOST_ATOMS} ends at {fits:.3g} Å, and a cheap one of 100 at "
                f"{(LEAST_ATOMS / in_unit * volume) ** (1 / 3) / 2:.3g} Å: cut the curve, by `aiida-difftre target "
                f"import --range {target.grid[0]:g}:{0.98 * fits:.3g}`"
            )
    return {symbol: number * wanted for symbol, number in unit.symbols.formula.count().items()}


def formula_unit(text: str) -> Atoms:
    """The atoms of a formula unit, without places.

    Args:
        text: Formula, such as ``Ar`` or ``GeO2``.

    Raises:
        ValueError: for what is no formula.
    """
    try:
        return Atoms("".join(f"{symbol}{number}" for symbol, number in Formula(text).count().items()))
    except (ValueError, KeyError):
        raise ValueError(f"--liquid is {text!r}; give the formula of the liquid, such as Ar or GeO2") from None


def density_of(targets: Iterable[Target]) -> float:
    """The density that a target states in its conditions, or that one of them is, kg/m³.

    Raises:
        ValueError: where none tells.
    """
    for target in targets:
        if target.conditions.density is not None:
            return target.conditions.density
        if target.observable == "density":
            return float(target.values[0])
    raise ValueError(
        "nothing tells the density of the liquid: give it with the conditions of a target (conditions.density, kg/m³; "
        "--density of `aiida-difftre target import`), or a target `density`"
    )


def lennard_jones(composition: Mapping[str, int], density: float, temperature: float) -> dict[str, float]:
    """The Lennard-Jones parameters whose liquid would be at its triple point: eV and Å.

    Args:
        composition: Numbers of atoms, of one element.
        density: kg/m³.
        temperature: K.
    """
    mass = float(Atoms(next(iter(composition))).get_masses()[0])
    number_density = density / mass / AMU_PER_A3_IN_KG_PER_M3
    return {
        "epsilon": units.kB * temperature / TRIPLE_POINT["temperature"],
        "sigma": (TRIPLE_POINT["density"] / number_density) ** (1 / 3),
    }


def _liquid_prior(composition: Mapping[str, int], density: float, temperature: float) -> list[str]:
    """A pair potential whose liquid is near its triple point.

    Raises:
        ValueError: for several species.
    """
    require_one(sorted(composition))
    found = lennard_jones(composition, density, temperature)
    return [
        "# No section dft: nothing is labelled, and the prior is all that the model knows at first.",
        "model:",
        "  spec:",
        f"    species: [{next(iter(composition))}]",
        "    terms:",
        "      # By corresponding states: its triple point is at this temperature and density.",
        "      # A g(r) tells sigma better than epsilon; an energy of evaporation, or a pressure, tells epsilon.",
        "      - architecture: lennard_jones",
        f"        cutoff: {2.5 * found['sigma']:.3g} # Å",
        f"        hyperparameters: {{epsilon: {found['epsilon']:.4g}, sigma: {found['sigma']:.4g}}} # eV, Å",
    ]


def timestep_fs(composition: Iterable[str]) -> float:
    """A time step for the lightest atom, fs."""
    lightest = min(float(Atoms(symbol).get_masses()[0]) for symbol in composition)
    return round(FEMTOSECONDS * math.sqrt(lightest), 1)
