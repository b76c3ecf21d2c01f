"""The verdict on a potential: for what it may be used, and for what not. Pure functions of what a validation found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aiida_difftre.engine.contract.hot import HotRun
from aiida_difftre.engine.contract.records import read
from aiida_difftre.engine.contract.verdict import (
    PER_THZ,
    Arrangement,
    Dimer,
    Hole,
    Lattice,
    MeasuredPhonon,
    PhononVerdict,
    TargetVerdict,
    Verdict,
)
from aiida_difftre.engine.units import BOLTZMANN
from aiida_difftre.workchains.comparison import Comparison
from aiida_difftre.workchains.significance import significance

MET = 4.0
"""Reduced chi² of two standard errors."""

SIGNIFICANT = 2.0
"""Combined errors by which a target has to come nearer to be improved."""

LEFT = 0.25
"""Displacement of the atoms, in units of the cube root of the volume of one, from which a crystal is none any more: at
melting it is some 0.15."""

SOFT_STRAIN, SOFT_MODE = 1e-3, 1e-2
"""Parts of the largest rigidity and frequency, below which a negative one is of finite differences."""

DEEPEST = 0.5
"""Part of the closest approach down to which two atoms have to repel each other."""

RIPPLE = 0.01
"""eV, by which the energy has to fall again."""

HIGH_BARRIER = 100.0
"""In kT: what lies behind a higher one is not reached."""

STRAINS = ("xx", "yy", "zz", "yz", "xz", "xy")


class Sampled(NamedTuple):
    """What a run at a state point tells of its atoms.

    Args:
        temperature: Temperature, K.
        arrangement: Where the atoms were; None where an earlier version did not tell.
        hot: Hot runs after it.
    """

    temperature: float
    arrangement: Arrangement | None = None
    hot: tuple[HotRun, ...] = ()


def target_verdicts(state_points: Mapping[str, Mapping[str, Mapping[str, Comparison]]]) -> list[TargetVerdict]:
    """What became of each target.

    Args:
        state_points: State point -> target -> comparison before and after.

    Returns:
        A verdict for each.
    """
    found = []
    for label, targets in state_points.items():
        for name, potentials in targets.items():
            after = {"grid": None, **potentials["after"]}
            role = {"held_out": "test"}.get(after["role"], after["role"])  # of earlier versions
            made = TargetVerdict(state_point=label, target=name, role=role, is_met=after["chi2"] <= MET)
            if "before" in potentials:
                made.significance = significance(potentials["before"], after)
                sign = np.sign(made.significance) if abs(made.significance) >= SIGNIFICANT else 0
                made.change = {1: "improved", 0: "unchanged", -1: "worse"}[int(sign)]  # type: ignore[assignment]
            found.append(made)
    return found


def instabilities(lattice: Lattice) -> list[str]:
    """What is unstable of a crystal at rest, in words."""
    found = []
    if lattice.rigidities and lattice.rigidities[0] < -SOFT_STRAIN * max(map(abs, lattice.rigidities)):
        strain = _strain(lattice.softest or [])
        found.append(f"{strain} lowers its energy (stiffness {lattice.rigidities[0]:.3g} GPa)")
    if lattice.lowest and lattice.highest is not None:
        softest = lattice.lowest[0]
        if softest.frequency < -SOFT_MODE * max(abs(lattice.highest), abs(softest.frequency)):
            vector = ", ".join(f"{part:.3g}" for part in softest.wave_vector)
            found.append(f"imaginary phonon of {-softest.frequency:.3g}i THz at q = ({vector}) 1/Å")
    return found


def _strain(strain: Sequence[float]) -> str:
    """The softest strain in words: of what kind it is."""
    parts = np.array(strain) / np.sqrt([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
    if not len(parts):
        return "a strain"
    normal = parts[:3] - parts[:3].mean()
    sizes = {
        "a change of volume": 3 * parts[:3].mean() ** 2,
        "a strain of the axes at constant volume (C11 - C12)": float(normal @ normal),
        "a shear (C44)": float(parts[3:] @ parts[3:]),
    }
    return max(sizes, key=lambda name: sizes[name])


def hole(dimer: Dimer, closest: float) -> Hole | None:
    """Find where two atoms attract each other below the closest approach that was seen.

    Going inwards from there the energy may fall to the bond of the two, but then has to rise, down to half of that
    distance. There is a hole where it falls again, and where it does not rise at all.

    Args:
        dimer: The energy of two atoms alone.
        closest: The closest approach, Å.

    Returns:
        The hole; None where there is none.
    """
    distances, energies = np.array(dimer.distances), np.array(dimer.energies)
    if not dimer.distances or distances[0] >= closest:
        return None
    below = (distances >= DEEPEST * closest) & (distances < closest)
    inwards = np.append(closest, distances[below][::-1])
    energy = np.append(np.interp(closest, distances, energies), energies[below][::-1])
    rises = np.flatnonzero(np.diff(energy) > 0)
    if not len(rises):
        if any(DEEPEST * closest <= distance < closest for distance in dimer.failed):
            return None  # it may rise where it is not known
        return Hole(pair="-".join(dimer.pair), distance=closest, barrier=0.0, closest=closest)
    behind = energy[rises[0] :]
    fall = np.maximum.accumulate(behind) - behind
    deepest = int(np.argmax(fall))
    if fall[deepest] <= RIPPLE:
        return None
    top = int(rises[0]) + int(np.argmax(behind[: deepest + 1]))
    barrier = max(float(energy[top] - energy[0]), 0.0)
    return Hole(pair="-".join(dimer.pair), distance=float(inwards[top]), barrier=barrier, closest=closest)


def holes(dimers: Iterable[Dimer], sampled: Mapping[str, Sampled]) -> list[Hole]:
    """The holes of all pairs, below the closest approaches of all runs."""
    found = []
    for dimer in dimers:
        closest = _closest(dimer, sampled)
        if dimer.skipped is None and closest is not None and (made := hole(dimer, closest)) is not None:
            found.append(made)
    return found


def _closest(dimer: Dimer, sampled: Mapping[str, Sampled]) -> float | None:
    """The closest approach of a pair in all runs, Å; None where none tells of it."""
    name = "-".join(sorted(dimer.pair))
    seen = [
        run.arrangement.closest[name]
        for run in sampled.values()
        if run.arrangement is not None and name in run.arrangement.closest
    ]
    return min(seen, default=None)


def _not_told(dimers: Iterable[Dimer], sampled: Mapping[str, Sampled]) -> list[str]:
    """Pairs of which there are no energies, or none at distances that count, in words."""
    told = []
    for dimer in dimers:
        name, deepest = "-".join(dimer.pair), DEEPEST * (_closest(dimer, sampled) or 0.0)
        if dimer.skipped is not None:
            told.append(f"{name} at short distances: {dimer.skipped}")
        elif missing := [distance for distance in dimer.failed if distance >= deepest]:
            told.append(f"{name} at {missing[0]:.2g} to {missing[-1]:.2g} Å: {dimer.reason}")
    return told


Measured = Mapping[str, Mapping[str, MeasuredPhonon]]
"""Measured frequencies by state point and name."""


def phonon_verdicts(measured: Measured, lattices: Mapping[str, Lattice]) -> list[PhononVerdict]:
    """Put measured frequencies beside those of a potential at rest.

    Args:
        measured: What was measured.
        lattices: Crystals at rest, by state point.

    Returns:
        A verdict for each.
    """
    found = []
    for label, named in measured.items():
        lattice = lattices.get(label)
        known = {} if lattice is None else {one.wave_vector: one.frequencies for one in lattice.branches}
        for name, phonon in named.items():
            frequencies = known.get(phonon.wave_vector, [])
            number = {"highest": len(frequencies) - 1, "lowest": 0}.get(str(phonon.branch), phonon.branch)
            is_there = isinstance(number, int) and 0 <= number < len(frequencies)
            found.append(
                PhononVerdict(
                    state_point=label,
                    name=name,
                    value=frequencies[number] * PER_THZ[phonon.unit] if is_there else None,  # type: ignore[index]
                    measured=phonon.value,
                    error=phonon.error,
                    unit=phonon.unit,
                )
            )
    return found


def verdict(
    state_points: Mapping[str, Mapping[str, Mapping[str, Comparison]]],
    sampled: Mapping[str, Sampled] | None = None,
    lattices: Mapping[str, Lattice] | None = None,
    dimers: Sequence[Dimer] | None = None,
    measured: Measured | None = None,
) -> Verdict:
    """Judge a potential by all that a validation found.

    Args:
        state_points: State point -> target -> comparison before and after.
        sampled: What the runs of the refined potential tell, by state point.
        lattices: Crystals at rest, by state point; None where they were not looked at.
        dimers: Energies of two atoms alone; None where they were not looked at.
        measured: Measured frequencies; None for none.

    Returns:
        The verdict.
    """
    sampled = sampled or {}
    targets = target_verdicts(state_points)
    unstable, unchecked = {}, []
    for label, lattice in (lattices or {}).items():
        run = sampled.get(label)
        arrangement = None if run is None else run.arrangement
        if lattice.skipped is not None:
            unchecked.append(f"the lattice of {label}: {lattice.skipped}")
        if lattice.primitive is None:
            continue
        if arrangement is not None and arrangement.displacement > LEFT * arrangement.spacing:
            unchecked.append(
                f"the lattice of {label}: its atoms left their sites ({arrangement.displacement:.2g} Å), as those of a "
                "liquid do; of a crystal it says that the potential does not hold it"
            )
        elif words := instabilities(lattice):
            unstable[label] = words
    hot = {label: list(run.hot) for label, run in sampled.items() if run.hot}
    unchecked += [
        f"{label} at {one.temperature:.4g} K: {one.skipped}"
        for label, runs in hot.items()
        for one in runs
        if one.skipped
    ]
    if lattices is None:
        unchecked.append("lattices at rest and short distances")
    unchecked += _not_told(dimers or [], sampled)
    found = holes(dimers or [], sampled)
    hottest = max((run.temperature for run in sampled.values()), default=math.nan)
    near = [one for one in found if not one.barrier > HIGH_BARRIER * BOLTZMANN * hottest]
    return Verdict(
        line=_line(targets, unstable, near, unchecked, hottest, hot),
        is_sound=bool(targets)
        and all(one.is_met for one in targets)
        and not (unstable or near or any(one.blown_up for runs in hot.values() for one in runs)),
        targets=targets,
        lattices=dict(lattices or {}),
        unstable=unstable,
        holes=found,
        unchecked=unchecked,
        phonons=phonon_verdicts(measured or {}, lattices or {}),
        hot=hot,
    )


def _line(
    targets: Sequence[TargetVerdict],
    unstable: Mapping[str, Sequence[str]],
    found: Sequence[Hole],
    unchecked: Sequence[str],
    temperature: float,
    hot: Mapping[str, Sequence[HotRun]],
) -> str:
    met, failed = ([one for one in targets if one.is_met is wanted] for wanted in (True, False))
    if met:
        said = f"May be used for {_named(met)}"
    else:
        said = "Meets none of its targets" if targets else "No target tells what it may be used for"
    against = [f"{_named(failed)} (not met)"] if failed and met else []
    against += [f"the crystal at rest ({label}): {' and '.join(words)}" for label, words in unstable.items()]
    for one in found:
        way = "without a barrier" if one.barrier == 0 else f"behind {one.barrier:.2g} eV"
        heat = f" ({one.barrier / (BOLTZMANN * temperature):.0f} kT)" if one.barrier and temperature > 0 else ""
        against.append(f"{one.pair} closer than {one.distance:.2g} Å, where they attract {way}{heat}")
    against += [f"{label} at {words}" for label, runs in hot.items() if (words := blown_up(runs)) is not None]
    against += ["what is not among its targets"] if met else []
    line = f"{said}; not for {'; '.join(against)}." if against else f"{said}."
    return line + (f" Not looked at: {'; '.join(unchecked)}." if unchecked else "")


def blown_up(runs: Sequence[HotRun]) -> str | None:
    """The coolest of the hot runs of a state point in which walkers blew up, in words; None where all held."""
    gone = [one for one in runs if one.blown_up]
    if not gone:
        return None
    coolest = min(gone, key=lambda one: one.temperature)
    first = min(coolest.blown_up, key=lambda one: one.time_fs)
    return (
        f"{coolest.temperature:.4g} K ({coolest.factor:g} T), where {len(coolest.blown_up)} of {coolest.walkers} "
        f"walkers blew up, the first after {first.time_fs:g} fs ({first.reason})"
    )


def _named(targets: Iterable[TargetVerdict]) -> str:
    """Targets by state point: ``rdf, pressure at liquid and density at solid``."""
    places: dict[str, list[str]] = {}
    for one in targets:
        places.setdefault(one.state_point, []).append(one.target.replace("_", " "))
    return " and ".join(f"{', '.join(names)} at {label}" for label, names in places.items())


def of_report(report: Mapping[str, Any]) -> Verdict:
    """The verdict in a report; of a report of an earlier version, what its targets tell."""
    stored = report.get("verdict")
    return verdict(report["state_points"]) if stored is None else read(Verdict, stored)
