"""First-principles labels: structures given or generated, labelled by pw.x, some at once, collected in one node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessBuilder, ToContext, WorkChain, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_difftre.data import elasticity
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.structures import DIMER, GIVEN, Generation, check_generation
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains import exit_codes
from aiida_difftre.workchains.builders import ProtocolMixin, load_code, refuse_unknown
from aiida_difftre.workchains.facts import IndexedMixin
from aiida_difftre.workchains.kpoints import Mesh, mesh_of
from aiida_difftre.workchains.labels import (
    collect_labels,
    generate_structures,
    kind_of,
    missing_labels,
    static_reference,
)
from aiida_difftre.workchains.once import SubmitOnceMixin
from aiida_difftre.workchains.pseudo_families import find_family, recommended_cutoffs
from aiida_difftre.workchains.pw import PwBaseWorkChain


def _check_generation(node: orm.Dict | None, _: Any) -> str | None:
    if node is None:
        return None
    try:
        validate(Generation, node.get_dict())
    except ValueError as error:
        return f"generation: {error}"
    return None


def _check_max_concurrent(node: orm.Int, _: Any) -> str | None:
    return None if node.value >= 1 else f"max_concurrent is {node.value}; at least 1 calculation has to run"


def _check_min_fraction(node: orm.Float, _: Any) -> str | None:
    return None if 0 < node.value <= 1 else f"min_fraction is {node.value}; it must be larger than 0 and at most 1"


def _check_inputs(inputs: Mapping[str, Any], namespace: Any) -> str | None:
    if "structure" not in namespace or "pw" not in namespace:
        return None  # a chain around this one provides them
    structures = dict(inputs.get("structures", {}))
    if "structure" in inputs:
        if "generation" not in inputs:
            return "structure is given without generation; say what to generate, or give it under structures"
        structures["structure"] = inputs["structure"]
        try:
            check_generation(inputs["structure"].get_ase(), validate(Generation, inputs["generation"].get_dict()))
        except ValueError as error:
            return f"generation: {error}"
        if inputs["generation"].get_dict().get("elastic"):
            try:
                elasticity.check_cubic(inputs["structure"].get_ase())
            except ValueError as error:
                return str(error)
    elif "generation" in inputs:
        return "generation is given without structure, the seed cell"
    if not structures:
        return "nothing to label: give structure (a seed cell) with generation, or structures"
    return _check_pw(inputs["pw"], structures)


def _check_pw(pw: Mapping[str, Any], structures: Mapping[str, orm.StructureData]) -> str | None:
    if "kpoints" not in pw and "kpoints_distance" not in pw:
        return "no k-points: give pw.kpoints (an explicit mesh) or pw.kpoints_distance"
    pseudos = pw["pw"].get("pseudos", {})
    for label, structure in structures.items():
        if structure.pbc != (True, True, True):
            return f"{label!r} has pbc {structure.pbc}; cells that are periodic in three directions are labelled"
        missing = sorted(set(structure.get_kind_names()) - set(pseudos))
        if missing:
            return (
                f"no pseudopotential for {', '.join(missing)} of {label!r} (given: "
                f"{', '.join(sorted(pseudos)) or 'none'}); install a family that has it "
                "(`aiida-pseudo install`) and name it, or give pw.pw.pseudos"
            )
    control = pw["pw"]["parameters"].get_dict().get("CONTROL", {})
    for key in ("tprnfor", "tstress"):
        if control.get(key) is not True:
            return f"CONTROL.{key} is {control.get(key)!r}; a label needs forces and stress, so set it to true"
    return None


BANDS_CHECK = "sanity_check_insufficient_bands"
"""A handler that repeats a metal with more bands where the highest holds 0.5 % of an electron: of aluminium, 0.05 and
0.1 Ry, that changed stresses by 0.002 GPa. It sees only cells with an XML, those of the static reference."""

KNOWN_OVERRIDES: dict[tuple[str, ...], tuple[str, ...]] = {
    (): ("generation", "max_concurrent", "meta_parameters", "min_fraction", "pw"),
    ("meta_parameters",): ("conv_thr_per_atom",),
    ("pw",): ("clean_workdir", "kpoints_distance", "max_iterations", "pw"),
    ("pw", "pw"): ("metadata", "parameters", "settings"),
    ("pw", "pw", "metadata"): ("options",),
}
"""What the builder takes over from the presets, by the part of them; anything else would be dropped."""


def _part_of(overrides: Mapping[str, Any] | None, part: tuple[str, ...]) -> Mapping[str, Any]:
    for name in part:
        overrides = (overrides or {}).get(name)
    return overrides or {}


class DftDatasetWorkChain(ProtocolMixin, IndexedMixin, SubmitOnceMixin, WorkChain):
    """Labels by density-functional theory: energy, forces and stress of given or generated cells.

    Every cell goes through PwBaseWorkChain with its error handlers; what fails nevertheless is dropped and reported.
    """

    CHAIN = "dataset"

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs, outline, outputs and exit codes."""
        super().define(spec)
        spec.input(
            "structure",
            valid_type=orm.StructureData,
            required=False,
            help="Seed cell from which cells are generated (Å).",
        )
        spec.input_namespace(
            "structures",
            valid_type=orm.StructureData,
            dynamic=True,
            required=False,
            help="Further cells to label, as they are (Å).",
        )
        spec.input(
            "generation",
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            required=False,
            validator=_check_generation,
            help="What to generate: seed, equilibrium, isotropic (linear strains), rattles (standard_deviation in Å, "
            "count), strains (maximum, standard_deviation, count, isotropic), volumes (minimum and maximum over that "
            "of the seed cell, count, standard_deviation), each with a repeat of the seed cell; dimers (distances and "
            "box in Å); elastic, elastic_strain.",
        )
        spec.expose_inputs(
            PwBaseWorkChain,
            namespace="pw",
            exclude=("pw.structure", "pw.parent_folder"),
            namespace_options={
                "help": "Of PwBaseWorkChain, for every cell; but a mesh is that of the seed cell, thinner for its "
                "supercells, and dimers take Γ alone."
            },
        )
        spec.input(
            "max_concurrent",
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Int(3),
            validator=_check_max_concurrent,
            help="Number of calculations at once.",
        )
        spec.input(
            "min_fraction",
            valid_type=orm.Float,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Float(0.8),
            validator=_check_min_fraction,
            help="Fraction of the labels that must succeed.",
        )
        spec.inputs.validator = _check_inputs
        spec.outline(cls.prepare_structures, while_(cls.is_labelling)(cls.label_more), cls.collect)
        spec.output("dataset", valid_type=DatasetData, help="Cells with energy (eV), forces (eV/Å), stress (eV/Å³).")
        spec.output(
            "reference",
            valid_type=orm.Dict,
            required=False,
            help="Static stress (six, GPa), stiffness (C11, C12, C44 in GPa) and density (kg/m³) of the seed cell, as "
            "labelled; with generation.elastic.",
        )
        spec.exit_code(
            exit_codes.TOO_FEW_LABELS,
            "ERROR_TOO_FEW_LABELS",
            message="{failed} of {total} labels failed, more than min_fraction allows; the last one: {reason}",
        )

    @classmethod
    def get_builder_from_protocol(
        cls,
        pw_code: orm.AbstractCode | str,
        structure: orm.StructureData | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        pseudo_family: str | None = None,
        functional: str | None = None,
        structures: Mapping[str, orm.StructureData] | None = None,
        kpoints: tuple[int, int, int] | None = None,
        kpoints_offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
        kpoints_distance: float | None = None,
    ) -> ProcessBuilder:
        """Inputs from a protocol.

        Args:
            pw_code: Code of pw.x, or its label.
            structure: Seed cell; None where only ``structures`` are labelled.
            protocol: Name of the preset: quick (the default), cpu or paper.
            overrides: Changes that are merged into the protocol, in the nesting of its YAML file.
            options: Options that are merged into the ``metadata.options`` of each calculation.
            pseudo_family: Label of the family of pseudopotentials; None where a single installed family has all the
                elements.
            functional: Functional that the label of the family has to name, where ``pseudo_family`` is None.
            structures: Further cells to label.
            kpoints: Mesh of k-points of the seed cell (and of ``structures``); by default one is chosen for each
                cell by ``kpoints_distance``.
            kpoints_offset: Offset of the mesh, in units of its step.
            kpoints_distance: Largest distance of neighbouring k-points, 1/Å; None takes that of the protocol.

        Returns:
            The builder.

        Raises:
            ValueError: for a missing pseudopotential, and for unknown protocols, overrides and codes.
        """
        for part, known in KNOWN_OVERRIDES.items():
            refuse_unknown(
                _part_of(overrides, part), known, f"overrides of dataset{''.join('.' + name for name in part)}"
            )
        inputs = cls.get_protocol_inputs(protocol, overrides)
        given = {**(structures or {}), **({"structure": structure} if structure is not None else {})}
        if not given:
            raise ValueError("nothing to label: give structure or structures")
        kinds = {kind.name: kind.symbol for one in given.values() for kind in one.kinds}
        family = find_family(pseudo_family, set(kinds.values()), functional)
        code = load_code(pw_code)

        parameters = inputs["pw"]["pw"]["parameters"]
        system = parameters.setdefault("SYSTEM", {})
        if "ecutwfc" not in system or "ecutrho" not in system:
            cutoffs = recommended_cutoffs(family, set(kinds.values()))
            system.setdefault("ecutwfc", cutoffs[0])
            system.setdefault("ecutrho", cutoffs[1])
        number = max(len(one.sites) for one in given.values())
        conv_thr = number * inputs["meta_parameters"]["conv_thr_per_atom"]
        parameters.setdefault("ELECTRONS", {}).setdefault("conv_thr", conv_thr)

        builder: Any = cls.get_builder()
        builder.pw.pw.code = code
        builder.pw.pw.pseudos = {name: family.get_pseudo(symbol) for name, symbol in kinds.items()}
        builder.pw.pw.parameters = orm.Dict(parameters)
        builder.pw.pw.settings = orm.Dict(inputs["pw"]["pw"]["settings"])
        builder.pw.pw.metadata.options = {**inputs["pw"]["pw"]["metadata"]["options"], **(options or {})}
        builder.pw.clean_workdir = orm.Bool(inputs["pw"]["clean_workdir"])
        builder.pw.max_iterations = orm.Int(inputs["pw"]["max_iterations"])
        builder.pw.handler_overrides = orm.Dict({BANDS_CHECK: {"enabled": False}})
        if kpoints is not None:
            mesh = orm.KpointsData()
            mesh.set_kpoints_mesh(list(kpoints), offset=list(kpoints_offset))
            builder.pw.kpoints = mesh
        else:
            builder.pw.kpoints_distance = orm.Float(kpoints_distance or inputs["pw"]["kpoints_distance"])
        if structure is not None:
            builder.structure = structure
            builder.generation = orm.Dict(inputs["generation"])
        if structures:
            builder.structures = dict(structures)
        builder.max_concurrent = orm.Int(inputs["max_concurrent"])
        builder.min_fraction = orm.Float(inputs["min_fraction"])
        return builder

    def prepare_structures(self) -> None:
        """Generate the cells, and put down which are to be labelled."""
        cells = {f"{GIVEN}_{label}": node.uuid for label, node in self.inputs.get("structures", {}).items()}
        if "structure" in self.inputs:
            # The label by which the live picture finds their number.
            made = self.compute(
                generate_structures, "generate_structures", self.inputs.structure, self.inputs.generation
            )
            cells |= {name: node.uuid for name, node in made.items()}
        self.ctx.cells = cells
        self.ctx.order = list(cells)  # a checkpoint keeps the order of a list, but not that of a mapping
        self.ctx.waiting = sorted(cells)
        self.ctx.running = {}
        self.ctx.labelled = {}
        self.ctx.failures = {}
        self.report(f"{len(cells)} cells to label, {self.inputs.max_concurrent.value} at once")

    def is_labelling(self) -> bool:
        """Whether there is something to wait for, or to submit with a prospect of enough labels."""
        self._take_finished()
        return bool(self.ctx.running) or (bool(self.ctx.waiting) and not self._too_few())

    def label_more(self) -> ToContext | None:
        """Fill the window of running calculations, and wait for the oldest of them.

        Waiting for one and not for all keeps the window full: the others are looked at when this step comes round.
        """
        while self.ctx.waiting and not self._too_few() and len(self.ctx.running) < self.inputs.max_concurrent.value:
            name = self.ctx.waiting.pop(0)
            self.ctx.running[name] = self._submit(name).pk
        if not self.ctx.running:
            return None
        oldest = next(iter(self.ctx.running.values()))
        return ToContext(oldest=orm.load_node(oldest))

    def _submit(self, name: str) -> orm.ProcessNode:
        structure: Any = orm.load_node(self.ctx.cells[name])
        inputs = AttributeDict(self.exposed_inputs(PwBaseWorkChain, namespace="pw"))
        inputs.pw.structure = structure
        inputs.pw.pseudos = {kind: inputs.pw.pseudos[kind] for kind in structure.get_kind_names()}
        if name in elasticity.RELAXED:
            inputs.pw.parameters = self._relaxing_parameters()
            # aiida-quantumespresso judges the convergence of a relaxation by the XML.
            inputs.pw.metadata = {"options": {**inputs.pw.metadata.options, "without_xml": False}}
        self._sample_zone(name, structure, inputs)
        inputs.metadata = {"call_link_label": name}
        return self.submit(PwBaseWorkChain, **inputs)

    def _sample_zone(self, name: str, structure: Any, inputs: AttributeDict) -> None:
        """Give a cell its mesh where that is not the one of the inputs."""
        seed = self.inputs.structure.cell if "structure" in self.inputs else None
        chosen = mesh_of(name, structure.cell, inputs, seed)
        if chosen is None:
            return
        if kind_of(name) == DIMER:
            settings = inputs.pw.settings.get_dict() if "settings" in inputs.pw else {}
            inputs.pw.settings = self._shared("gamma_settings", {**settings, "gamma_only": True})  # half the work
        elif list(chosen.numbers) == list(inputs.kpoints.get_kpoints_mesh()[0]):
            return
        inputs.pop("kpoints_distance", None)
        inputs.kpoints = self._mesh(chosen)

    def _relaxing_parameters(self) -> orm.Dict:
        """The parameters with internal relaxation."""
        parameters = self.inputs.pw.pw.parameters.get_dict()
        parameters["CONTROL"] |= {"calculation": "relax", "disk_io": "nowf"}
        parameters.setdefault("IONS", {})
        return self._shared("relaxing", parameters)

    def _shared(self, name: str, content: dict[str, Any]) -> orm.Dict:
        """One node for all cells that take the same."""
        if name not in self.ctx:
            self.ctx[name] = orm.Dict(content).store()
        return self.ctx[name]

    def _mesh(self, mesh: Mesh) -> orm.KpointsData:
        """One node for all cells of a mesh."""
        name = f"mesh_{'_'.join(map(str, (*mesh.numbers, *mesh.offset)))}"
        if name not in self.ctx:
            self.ctx[name] = orm.KpointsData()
            self.ctx[name].set_kpoints_mesh(list(mesh.numbers), offset=list(mesh.offset))
            self.ctx[name].store()
        return self.ctx[name]

    def _take_finished(self) -> None:
        for name, pk in list(self.ctx.running.items()):
            node = orm.load_node(pk)
            if not node.is_terminated:
                continue
            del self.ctx.running[name]
            missing = missing_labels(node) if node.is_finished_ok else []
            if node.is_finished_ok and not missing:
                self.ctx.labelled[name] = pk
            else:
                reason = f"no finite {', '.join(missing)}" if missing else node.exit_message or node.process_state.value
                self.ctx.failures[name] = f"{node.process_label}<{pk}> [{node.exit_status}] {reason}"
                self.report(f"label {name!r} failed and is dropped: {self.ctx.failures[name]}")

    def _too_few(self) -> bool:
        allowed = (1 - self.inputs.min_fraction.value) * len(self.ctx.cells)
        return len(self.ctx.failures) > allowed + 1e-9 or len(self.ctx.failures) == len(self.ctx.cells)

    def collect(self) -> ExitCode | None:
        """Make the dataset, and the static reference."""
        if self._too_few():
            return self.exit_codes.ERROR_TOO_FEW_LABELS.format(
                failed=len(self.ctx.failures), total=len(self.ctx.cells), reason=list(self.ctx.failures.values())[-1]
            )
        names = [name for name in self.ctx.order if name in self.ctx.labelled]
        trajectories = {name: orm.load_node(self.ctx.labelled[name]).outputs.output_trajectory for name in names}
        self.out("dataset", self.compute(collect_labels, "collect_labels", **trajectories))
        if "generation" in self.inputs and self.inputs.generation.get_dict().get("elastic"):
            self._reference(trajectories)
        self.report(f"{len(names)} of {len(self.ctx.cells)} cells labelled")
        return None

    def _reference(self, trajectories: Mapping[str, orm.TrajectoryData]) -> None:
        needed = {
            "unstrained": elasticity.UNSTRAINED,
            "stretched": elasticity.STRETCHED,
            "compressed": elasticity.COMPRESSED,
            "sheared": elasticity.SHEARED,
        }
        missing = [name for name in needed.values() if name not in trajectories]
        if missing:
            self.report(f"no static stiffness, since the labels {', '.join(missing)} failed")
            return
        inputs = {port: trajectories[name] for port, name in needed.items()}
        self.out("reference", self.compute(static_reference, "static_reference", self.inputs.generation, **inputs))


if __name__ == "__main__":
    from aiida_difftre.workchains.main import labels_by_dft, launch

    launch("difftre.dataset", nodes=("structure",), prepare=labels_by_dft)
