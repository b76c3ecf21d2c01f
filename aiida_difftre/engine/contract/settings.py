"""What every job says: which potential, and how it uses the machine. Free of JAX."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ase.data import atomic_numbers
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.bounds import Limits

LONGEST_CUTOFF = 20.0
"""Å. A neighbour list holds every neighbour of every snapshot in memory; diamond has some 6000 within this distance."""


class TermSpec(Strict):
    """One term of a potential: its architecture, cutoff and hyperparameters.

    Args:
        architecture: Name under which the architecture is registered, such as ``lennard_jones``.
        cutoff: Distance beyond which a neighbour does not count, Å; at most 20.
        hyperparameters: Settings of the architecture by name, which it checks itself.
        trainable: Whether pretraining and refinement change its parameters; or the names of those that they change,
            such as ``[readout]`` or ``[layers/2, readout]``.

    Example:
        >>> from aiida_difftre.engine.contract.settings import TermSpec
        >>> term = TermSpec(architecture="repulsion", cutoff=3.0, hyperparameters={"epsilon": 1.0, "sigma": 1.2})
        >>> term.trainable
        True
    """

    architecture: str
    cutoff: Annotated[
        float,
        Limits(
            above=0,
            most=LONGEST_CUTOFF,
            unit="Å",
            reason="potentials of this package are short-ranged, 3 to 8 Å; longer lists do not fit into memory",
        ),
    ]
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    trainable: bool | Annotated[list[str], Field(min_length=1)] = True

    def trains(self, path: str) -> bool:
        """Whether a parameter, by its path in the term such as ``mlp/w0``, is one that training changes."""
        if isinstance(self.trainable, bool):
            return self.trainable
        return any(path == name or path.startswith(f"{name}/") for name in self.trainable)


class PotentialSpec(Strict):
    """Everything about a potential but its parameters.

    Args:
        species: Chemical symbols, without repetition.
        terms: The terms, whose sum is the energy; with a base, the correction to it.
        base: Fixed potential to which the terms are added; None for none.

    Example:
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> terms = [{"architecture": "repulsion", "cutoff": 3.0}, {"architecture": "moment_network", "cutoff": 5.0}]
        >>> PotentialSpec(species=["C"], terms=terms).cutoff
        5.0
    """

    species: list[str] = Field(min_length=1)
    terms: list[TermSpec] = Field(min_length=1)
    base: BaseSpec | None = None

    @model_serializer(mode="wrap")
    def _without_empty_base(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What has no base is written as it was before there were any: digests and files stay as they are.
        content: dict[str, Any] = handler(self)
        return content if self.base is not None else {key: value for key, value in content.items() if key != "base"}

    @model_validator(mode="after")
    def _distinct(self) -> PotentialSpec:
        if len(set(self.species)) != len(self.species):
            raise ValueError(f"species {self.species} repeat")
        if unknown := [symbol for symbol in self.species if symbol not in atomic_numbers]:
            raise ValueError(f"species {', '.join(map(repr, unknown))}: no chemical symbol")
        return self

    @property
    def cutoff(self) -> float:
        """The largest cutoff of the terms, in Å."""
        return max(term.cutoff for term in self.terms)


class Machine(Strict):
    """How a job uses the machine: precision, cores, memory and time.

    Args:
        platform: ``auto`` takes what JAX finds; ``cpu`` leaves GPUs alone; ``gpu`` refuses to run without one.
        precision: Precision of forces and gradients; energies that enter weights are always in float64.
        threads: Number of cores, over which walkers and batches are spread; 0 takes all that the process may use.
        batch_size: Number of snapshots per device and batch; 0 lets the engine choose.
        walltime_s: Time after which the job stops, s; None for no limit. Sampling and pretraining leave a checkpoint,
            an update what it has reached.
        snapshot_cache_mib: Memory for what an update or a prediction keeps of the snapshots of all its state points,
            MiB: projections where they fit, else neighbour lists. What is not kept is computed anew at each step, which
            can take several times as long.
        compilation_cache: Folder of JAX's persistent compilation cache; None takes ``$DIFFTRE_CACHE`` or
            ``~/.cache/difftre``.

    Example:
        >>> from aiida_difftre.engine.contract.settings import Machine
        >>> Machine(threads=4).precision
        'float32'
    """

    platform: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["float32", "float64"] = "float32"
    threads: Annotated[int, Limits(least=0, most=4096, reason="no node has more cores")] = 0
    batch_size: Annotated[int, Limits(least=0, most=1_000_000, reason="no trajectory has more snapshots")] = 0
    walltime_s: (
        Annotated[float, Limits(above=0, most=1e8, unit="s", reason="no queue lets a job run for three years")] | None
    ) = None
    snapshot_cache_mib: Annotated[
        float, Limits(least=0, most=1e7, unit="MiB", reason="no node has 10 TiB of memory")
    ] = 512.0
    compilation_cache: str | None = None

    def share_of(self, number: int) -> Machine:
        """The same, with the memory for snapshots that one of several state points may take.

        Args:
            number: Number of state points.
        """
        return self.model_copy(update={"snapshot_cache_mib": self.snapshot_cache_mib / max(1, number)})
