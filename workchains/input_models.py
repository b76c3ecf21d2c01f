"""The schema of the YAML of a whole run: strict models, with messages that name the value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from aiida_difftre.calculations.checks import check_labels
from aiida_difftre.data.structures import Generation
from aiida_difftre.engine.contract.architectures import NewPotential
from aiida_difftre.engine.contract.base import Name, Seed, Sha256, Strict
from aiida_difftre.engine.contract.bounds import Density, Limits, Pressure, Repeat, Temperature
from aiida_difftre.engine.contract.jobs import PretrainJob, SamplingSettings, UpdateSettings
from aiida_difftre.engine.contract.label_names import LabelKeys
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.errors import did_you_mean
from aiida_difftre.engine.trajectories.importing import FileSettings
from aiida_difftre.workchains.machines import Machines
from aiida_difftre.workchains.systems import (
    System,
)


def check_label(label: str) -> str:
    """Refuse what cannot name a link in the provenance graph.

    Raises:
        ValueError: naming the label and what is allowed.
    """
    problem = check_labels([label], "state point or target")
    if problem:
        raise ValueError(problem)
    return label


KPoints = Annotated[int, Limits(least=1, most=200, reason="a calculation takes as long as it has k-points")]

Offset = Annotated[float, Limits(least=-1, most=1, reason="it is in units of the step of the mesh")]

Strain = Annotated[float, Limits(least=-0.2, most=0.2, reason="crystals yield or melt under larger strains")]

Label = Annotated[str, AfterValidator(check_label)]

Measured = Annotated[
    Annotated[Target, Tag("[fields]")] | Annotated[Path, Tag("[file]")],
    Discriminator(lambda value: "[file]" if isinstance(value, str | Path) else "[fields]"),
]
"""A target, or the file of one; what is wrong with the one that is given is told, and not why it is not the other."""


class Dft(Strict):
    """Where the first-principles labels come from.

    Args:
        dataset: node (PK, UUID, label) or file of labels that exist, such as extended XYZ; then the rest is not used.
            All frames of a file, or those of an index behind its name (``labels.extxyz@::5``).
        keys: Names under which the file has its labels; the usual ones are recognised.
        system: the cell to label, where it is not that of the run.
        repeat: Repetitions of that cell along each lattice vector, which make the seed cell.
        structures: files with further structures to label: all frames, or those of an index (``md.extxyz@::5``).
        functional: Functional of the pseudopotentials, such as LDA or PBE.
        pseudo_family: aiida-pseudo family; by default the one of ``aiida-difftre setup``, or the only one whose label
            names the functional.
        pw_parameters: namelists of pw.x, merged into those of the protocol.
        kpoints: mesh of the seed cell; its supercells take fewer, and dimers take Γ.
        kpoints_offset: Offset of the mesh, in units of its step.
        kpoints_distance: 1/Å; chooses a mesh for each cell where ``kpoints`` is not given; None takes the protocol's.
        generation: what is made of the seed cell (``Generation``), merged into that of the protocol.
        max_concurrent: calculations at once.
        min_fraction: Fraction of the labels that must succeed.
    """

    dataset: str | None = None
    keys: LabelKeys = Field(default_factory=LabelKeys)
    system: System | None = None
    repeat: Repeat = (1, 1, 1)
    structures: list[Path] = Field(default_factory=list)
    functional: str = "LDA"
    pseudo_family: str | None = None
    pw_parameters: dict[str, dict[str, Any]] = Field(default_factory=dict)
    kpoints: tuple[KPoints, KPoints, KPoints] | None = None
    kpoints_offset: tuple[Offset, Offset, Offset] = (0.0, 0.0, 0.0)
    kpoints_distance: (
        Annotated[
            float, Limits(least=0.005, most=10, unit="1/Å", reason="a denser mesh never ends, a wider one is Γ alone")
        ]
        | None
    ) = None
    generation: dict[str, Any] = Field(default_factory=dict)
    max_concurrent: Annotated[int, Limits(least=1, most=10_000, reason="no queue takes more jobs")] | None = None
    min_fraction: Annotated[float, Limits(above=0, most=1, reason="it is a fraction of the labels")] | None = None

    @field_validator("dataset", mode="before")
    @classmethod
    def _identifier(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _one_sampling(self) -> Dft:
        if self.kpoints is not None and self.kpoints_distance is not None:
            raise ValueError("give either kpoints (a mesh) or kpoints_distance")
        if self.dataset is None and self.keys.model_fields_set:
            raise ValueError("keys are those of a file of labels, but dataset names none")
        return self


class RemoteFile(Strict):
    """A file of a base that stays on the computer where jobs run.

    Args:
        path: Absolute path there.
        sha256: SHA-256 of its content.
    """

    path: str
    sha256: Sha256


BaseFile = Annotated[
    Annotated[Path, Tag("[path]")] | Annotated[RemoteFile, Tag("[remote]")],
    Discriminator(lambda value: "[path]" if isinstance(value, str | Path) else "[remote]"),
]
"""A file of a base: one here, which is kept with the node, or one that stays on the computer."""


class Base(Strict):
    """A model of somebody else, to which the potential is a correction.

    Args:
        name: Name of the model, such as ``chgnet``; or
        node: node (PK, UUID, label) of a base that exists.
        engine: What evaluates it: ``ase``, ``torch_sim`` or ``jax``; None where the name has one, or that of ASE.
        version: Version of the package with its weights; None for the one that is known to work.
        arguments: Settings of the model by name.
        files: Files of the model by argument: paths relative to the YAML, which are kept with the node, or those that
            stay on the computer (``RemoteFile``).
    """

    name: str | None = None
    node: str | None = None
    engine: Literal["ase", "torch_sim", "jax"] | None = None
    version: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, BaseFile] = Field(default_factory=dict)

    @field_validator("node", mode="before")
    @classmethod
    def _identifier(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _one(self) -> Base:
        if (self.name is None) == (self.node is None):
            raise ValueError("give either name (of a model that is known) or node (a base that exists)")
        if self.node is not None and len(self.model_fields_set) > 1:
            raise ValueError("a node says everything about the base; leave out the other settings")
        if len({isinstance(file, RemoteFile) for file in self.files.values()}) > 1:
            raise ValueError("files are all kept with the node, or all stay on the computer")
        return self


class Model(Strict):
    """The potential to make, or the one to start from.

    Args:
        potential: node (PK, UUID, label) or file of a potential that exists; pretraining is then left out; or
        spec: Spec of the potential to make; or
        correction: Spec of the potential to make on top of ``base``.
        base: Base to which the potential is a correction.
    """

    potential: str | None = None
    spec: NewPotential | None = None
    correction: NewPotential | None = None
    base: Base | None = None

    @field_validator("potential", mode="before")
    @classmethod
    def _identifier(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _one(self) -> Model:
        given = [name for name in ("potential", "spec", "correction") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give one of potential (one that exists), spec (one to make) and correction (with base)")
        if self.correction is not None and (self.base is None or self.correction.base is not None):
            raise ValueError("correction holds species and terms, and what it corrects is model.base; give base there")
        if self.spec is not None and self.base is not None:
            raise ValueError("spec is a potential of its own; name what is added to the base correction")
        return self


class StatePoint(Strict):
    """Where something was measured.

    Args:
        temperature: K.
        pressure: GPa, held where sampling has a barostat; None, or no barostat, for a fixed cell.
        density: kg/m³, to which the system's cell is scaled; None leaves it.
        repeat: Repetitions of the system's cell along each lattice vector.
        structure: file of a simulation cell, instead of the system's repeated cell; of several frames, the one of an
            index (``md.extxyz@-1``).
        strain: Strain of that cell, xx yy zz yz xz xy, with engineering shears, for stresses under strain; the
            conditions of targets are those of the cell without it.
        targets: what was measured, inline, as the name of a YAML file, or as ``catalogue:SYSTEM/NAME``; by label.
    """

    temperature: Temperature
    pressure: Pressure | None = None
    density: Density | None = None
    repeat: Repeat = (1, 1, 1)
    structure: Path | None = None
    strain: tuple[Strain, Strain, Strain, Strain, Strain, Strain] | None = None
    targets: dict[Label, Measured] = Field(min_length=1)


class TrajectoryFiles(FileSettings):
    """A trajectory of another program; temperature and pressure are those of its state point.

    Args:
        files: files of one system, each of them a run of its own; an index of the frames may stand behind a name.
        logs: Logs that belong to them, with energies or cells: of one file all of them, else one for each.
    """

    files: list[Path] = Field(min_length=1)
    logs: list[Path] = Field(default_factory=list)


Existing = Annotated[
    Annotated[TrajectoryFiles, Tag("[files]")] | Annotated[str, Tag("[node]")],
    Discriminator(lambda value: "[files]" if isinstance(value, dict | TrajectoryFiles) else "[node]"),
]
"""A trajectory that exists: files of another program, or a node (PK, UUID, label) or a trajectory.npz."""


class StagePoint(Strict):
    """A state point in a stage.

    Args:
        repeat: Repetitions of the system's cell along each lattice vector; or
        structure: file of a simulation cell; without either the cell is that of the run.
        targets: what is compared in place of the targets of the same labels, which the cell may not hold; null leaves
            one out. The others stay.
    """

    repeat: Repeat | None = None
    structure: Path | None = None
    targets: dict[Label, Measured | None] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _changes_something(self) -> StagePoint:
        if self.repeat is not None and self.structure is not None:
            raise ValueError("give either repeat or structure of the cell of the stage")
        if self.repeat is None and self.structure is None and not self.targets:
            raise ValueError("give repeat or structure of the cell of the stage, or its targets")
        return self


class Stage(Strict):
    """A refinement before that of the run, in other cells, with whose potential the next one goes on.

    Args:
        state_points: cells and targets by label of the state point; the others keep those of the run.
        settings: merged into the settings of the refinement.
        sampling: merged into the settings of its reference trajectories.
        update: merged into the settings of each of its updates.
    """

    state_points: dict[Label, StagePoint] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    sampling: dict[str, Any] = Field(default_factory=dict)
    update: dict[str, Any] = Field(default_factory=dict)


class EarlierRuns(Strict):
    """Earlier runs whose trajectories updates take as well, where they overlap with the present potential.

    Args:
        runs: Runs (PK, UUID or label) that sampled the same system at the same state points, with potentials of one
            form.
    """

    runs: list[str] = Field(min_length=1)

    @field_validator("runs", mode="before")
    @classmethod
    def _identifiers(cls, value: Any) -> Any:
        return [str(one) if isinstance(one, int) else one for one in value] if isinstance(value, list) else value


class Refinement(Strict):
    """The loop; everything that is not given comes from the protocol.

    Args:
        stages: Refinements in smaller cells that come first, on which far steps are cheap.
        settings: Settings of the work chain: max_iterations, patience, chi2_stop, growth, ...
        update: Settings of each update job.
        trajectory: trajectories that exist, by the label of their state points, in place of the first sampling: a node
            (PK, UUID, label), a trajectory.npz, or files of another program (``TrajectoryFiles``).
        pool: earlier runs whose trajectories updates take as well, as ``pool: {runs: [PK, ...]}``.
    """

    stages: list[Stage] = Field(default_factory=list, max_length=9)
    trajectory: dict[Label, Existing] = Field(default_factory=dict)
    pool: EarlierRuns | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    update: dict[str, Any] = Field(default_factory=dict)

    @field_validator("trajectory", mode="before")
    @classmethod
    def _identifiers(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("give the label of a state point with each trajectory, as trajectory: {ambient: NODE}")
        return {label: str(one) if isinstance(one, int) else one for label, one in value.items()}


class Validation(Strict):
    """The long independent runs, before and after refinement.

    Args:
        sampling: merged into that of the protocol.
        settings: Settings of the work chain: static_stiffness, verdict, phonons, assessment, members, hot.
    """

    sampling: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)


class Feff(Strict):
    """The scattering paths for exafs targets, which FEFF computes for the ideal crystal of their state point.

    Args:
        radius: Distance up to which neighbours scatter, Å.
    """

    radius: Annotated[
        float,
        Limits(
            above=0,
            most=20,
            unit="Å",
            reason="paths beyond decay within their mean free path, and FEFF takes a limited number of atoms",
        ),
    ] = 8.0


class RunInput(Strict):
    """One run, from DFT to validation.

    Args:
        label: Label of the work chain.
        protocol: preset from which everything is taken that is not given here.
        seed: Seed of everything random, but for the DFT structures (``dft.generation.seed``).
        system: the crystal or other cell.
        dft: labels; left out: there are none, and the potential of ``model.spec`` starts from its initial parameters.
        model: potential.
        pretraining: settings of the pretraining job, merged into those of the protocol.
        state_points: conditions and targets, by label.
        feff: scattering paths, where a target of X-ray absorption has no table of them.
        sampling: Settings of the reference trajectories, merged into that of the protocol.
        refinement: the loop.
        validation: the final check.
        machines: codes and options.
    """

    label: Name = ""
    protocol: Literal["quick", "cpu", "paper"] = "quick"
    seed: Seed = 0
    system: System
    dft: Dft | None = None
    model: Model
    pretraining: dict[str, Any] = Field(default_factory=dict)
    state_points: dict[Label, StatePoint] = Field(min_length=1)
    feff: Feff = Field(default_factory=Feff)
    sampling: dict[str, Any] = Field(default_factory=dict)
    refinement: Refinement = Field(default_factory=Refinement)
    validation: Validation = Field(default_factory=Validation)
    machines: Machines = Field(default_factory=Machines)

    @model_validator(mode="after")
    def _settings(self) -> RunInput:
        for where, settings, model in (
            ("dft.generation", self.dft.generation if self.dft is not None else {}, Generation),
            ("pretraining", self.pretraining, PretrainJob),
            ("sampling", self.sampling, SamplingSettings),
            ("validation.sampling", self.validation.sampling, SamplingSettings),
            ("refinement.update", self.refinement.update, UpdateSettings),
        ):
            check_part(where, settings, model)
        for number, stage in enumerate(self.refinement.stages):
            check_part(f"refinement.stages.{number}.sampling", stage.sampling, SamplingSettings)
            check_part(f"refinement.stages.{number}.update", stage.update, UpdateSettings)
            if unknown := sorted(set(stage.state_points) - set(self.state_points)):
                known = ", ".join(self.state_points)
                raise ValueError(f"refinement.stages.{number} names the state point {unknown[0]!r}; there are: {known}")
            for label, point in stage.state_points.items():
                if unknown := sorted(set(point.targets) - set(self.state_points[label].targets)):
                    known = ", ".join(self.state_points[label].targets)
                    raise ValueError(
                        f"refinement.stages.{number}: the targets of {label!r} name {unknown[0]!r}; what they replace "
                        f"are those of the run: {known}"
                    )
        if unknown := sorted(set(self.refinement.trajectory) - set(self.state_points)):
            known = ", ".join(self.state_points)
            raise ValueError(f"refinement.trajectory names the state point {unknown[0]!r}; there are: {known}")
        if not any(
            isinstance(target, Path) or target.is_in_loss
            for point in self.state_points.values()
            for target in point.targets.values()
        ):
            raise ValueError("no training target with a positive weight: nothing to refine towards")
        return self


def check_part(where: str, settings: dict[str, Any], model: type[Strict]) -> None:
    """Refuse unknown keys in settings that are merged into those of the protocol; their values are checked once merged.

    Raises:
        ValueError: naming the section and the key.
    """
    for key in settings:
        if key not in model.model_fields:
            near, known = did_you_mean(key, model.model_fields), ", ".join(model.model_fields)
            raise ValueError(f"{where}: unknown setting {key!r}; known settings: {known}{near}")
