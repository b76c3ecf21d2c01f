"""What is told of the fitness of a potential: lattices at rest, pairs that come close, and the verdict. Free of JAX."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from aiida_difftre.engine.contract.agreement import Role
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Limits
from aiida_difftre.engine.contract.hot import HotRun
from aiida_difftre.engine.contract.records import Record

Change = Literal["improved", "unchanged", "worse"]


Multiple = Annotated[
    int, Limits(least=-1000, most=1000, reason="wave vectors beyond the Brillouin zone are those within once more")
]

WaveVector = tuple[Multiple, Multiple, Multiple]
"""Whole multiples of the reciprocal vectors of the simulation cell."""

PER_THZ: dict[str, float] = {"THz": 1.0, "1/cm": 1e4 / 299.792458, "meV": 4.135667696}
"""Of each unit of a frequency, how many are 1 THz; c and h are exact."""


Frequency = Annotated[
    float, Limits(above=0, most=10_000, reason="hydrogen vibrates with 132 THz, 4400 1/cm or 546 meV")
]


class MeasuredPhonon(Strict):
    """A measured frequency of a crystal, with which the refined potential at rest is compared: nothing trains it.

    Args:
        wave_vector: Whole multiples of the reciprocal vectors of the simulation cell: in 2 x 2 x 2 cubic cells of an
            fcc crystal the point X is [2, 0, 0]; [0, 0, 0] is the zone centre, of whose branches the three of uniform
            shifts are none.
        branch: Which of the frequencies of this wave vector: the highest, the lowest, or its number from 0, rising.
        value: Measured frequency.
        error: Its standard error, with what thermal motion may add to a frequency at rest.
        unit: Unit of both.
        citation: Where it was measured.
        doi: DOI of that.
    """

    wave_vector: WaveVector
    branch: (
        Literal["highest", "lowest"]
        | Annotated[
            int, Limits(least=0, most=1000, reason="there are three branches for each atom of a primitive cell")
        ]
    ) = "highest"
    value: Frequency
    error: Frequency
    unit: Literal["THz", "1/cm", "meV"] = "THz"
    citation: Annotated[str, Field(min_length=1)]
    doi: str | None = None


class Arrangement(Record):
    """Where the atoms of a trajectory are.

    Args:
        closest: Closest approach of each pair of species that was seen, Å, by ``A-B``; pairs that are not seen within
            half the thickness of the cell are left out.
        displacement: Root mean square displacement of the atoms from the structure at the start, of the second half of
            the snapshots, Å.
        spacing: Cube root of the volume of an atom, Å, with which that compares.
    """

    closest: dict[str, float] = Field(default_factory=dict)
    displacement: float
    spacing: float


class Mode(Record):
    """A vibration of a crystal at rest.

    Args:
        wave_vector: Wave vector, Cartesian, 1/Å, 2π included.
        frequency: Frequency, THz; negative for an imaginary one.
    """

    wave_vector: list[float]
    frequency: float


class Branches(Record):
    """All vibrations of a wave vector.

    Args:
        wave_vector: Whole multiples of the reciprocal vectors of the cell.
        frequencies: Frequencies, THz, rising, negative for imaginary ones; uniform shifts are none.
    """

    wave_vector: WaveVector
    frequencies: list[float]


class Lattice(Record):
    """A crystal at rest (T = 0), in its cell as it is.

    Args:
        formula: Formula of the cell.
        atoms: Number of atoms of the cell.
        primitive: Number of atoms of the primitive cell; None where it has none.
        skipped: Why it was not looked at, or only in part; None where all is known.
        pressure: Pressure, GPa.
        tensor: 6x6 stress-strain coefficients, GPa, Voigt order.
        rigidities: Eigenvalues of these, symmetrised and in Mandel's notation, GPa, rising: all are positive where no
            small strain lowers the enthalpy. Of a cubic crystal C11 + 2 C12, C11 - C12 (twice), 2 C44 (three times).
        softest: The strain of the lowest of them, engineering, Voigt order, normalised.
        wave_vectors: Number of wave vectors of the cell that were looked at: all that are commensurate with it.
        lowest: The softest vibrations, one for each wave vector, rising; uniform shifts are none.
        highest: The largest frequency, THz.
        optical: Frequencies at the wave vector zero, THz, rising, without the three of uniform shifts.
        branches: The wave vectors that were asked for.
    """

    formula: str
    atoms: int
    primitive: int | None = None
    skipped: str | None = None
    pressure: float | None = None
    tensor: list[list[float]] | None = None
    rigidities: list[float] | None = None
    softest: list[float] | None = None
    wave_vectors: int | None = None
    lowest: list[Mode] = Field(default_factory=list)
    highest: float | None = None
    optical: list[float] = Field(default_factory=list)
    branches: list[Branches] = Field(default_factory=list)


class Dimer(Record):
    """The energy of two atoms alone, by distance.

    Args:
        pair: Chemical symbols of the two.
        distances: Distances, rising, Å.
        energies: Energies, eV; zero far apart, or at the largest distance at which there is one.
        skipped: Why there are none; None where there are.
        failed: Distances at which there is no energy, rising, Å.
        reason: Why there is none at the largest of them; None where there is one at all distances.
    """

    pair: tuple[str, str]
    distances: list[float] = Field(default_factory=list)
    energies: list[float] = Field(default_factory=list)
    skipped: str | None = None
    failed: list[float] = Field(default_factory=list)
    reason: str | None = None


class Hole(Record):
    """Two atoms that attract each other where they should repel.

    Args:
        pair: Chemical symbols of the two, ``A-B``.
        distance: Distance below which they attract, Å.
        barrier: Energy over which they come there from the closest approach that was seen, eV.
        closest: That closest approach, Å.
    """

    pair: str
    distance: float
    barrier: float
    closest: float


class TargetVerdict(Record):
    """What a refinement did to the agreement with a target.

    Args:
        state_point: Label of the state point.
        target: Label of the target.
        role: Role of the target.
        is_met: Whether the reduced chi² is that of two standard errors at most.
        change: Whether it came nearer to experiment; None without a potential before.
        significance: By how many combined errors it came nearer; negative where it went away.
    """

    state_point: str
    target: str
    role: Role
    is_met: bool
    change: Change | None = None
    significance: float | None = None


class PhononVerdict(Record):
    """A measured frequency beside that of the refined potential at rest.

    Args:
        state_point: Label of the state point.
        name: Its name.
        value: Frequency of the potential, negative for an imaginary one; None where it has none.
        measured: Measured frequency.
        error: Standard error of that.
        unit: Unit of all three.
    """

    state_point: str
    name: str
    value: float | None
    measured: float
    error: float
    unit: str


class Verdict(Record):
    """What a potential may be used for, and for what not.

    Args:
        line: All in one line.
        is_sound: Whether nothing that was looked at speaks against it.
        targets: What became of each target.
        lattices: Crystals at rest, by the label of the state point; empty where none was looked at.
        unstable: What is unstable of them, in words, by the label of the state point.
        holes: Pairs that attract each other at short distances.
        unchecked: What was not looked at, and why.
        phonons: Measured frequencies, which nothing trained.
        hot: Hot runs by the label of the state point; empty where none were asked for.
    """

    line: str
    is_sound: bool
    targets: list[TargetVerdict] = Field(default_factory=list)
    lattices: dict[str, Lattice] = Field(default_factory=dict)
    unstable: dict[str, list[str]] = Field(default_factory=dict)
    holes: list[Hole] = Field(default_factory=list)
    unchecked: list[str] = Field(default_factory=list)
    phonons: list[PhononVerdict] = Field(default_factory=list)
    hot: dict[str, list[HotRun]] = Field(default_factory=dict)
