"""Everything: first-principles labels, pretraining (or initial parameters), refinement on experiment, validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessBuilder, ToContext, WorkChain, calcfunction, if_, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_difftre.calculations.feff import FeffCalculation, attach_paths
from aiida_difftre.data.base import BasePotentialData
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.workchains import absorption, exit_codes
from aiida_difftre.workchains.builders import ProtocolMixin, load_code, refuse_unknown
from aiida_difftre.workchains.dataset import DftDatasetWorkChain
from aiida_difftre.workchains.facts import IndexedMixin
from aiida_difftre.workchains.feff import FeffBaseWorkChain
from aiida_difftre.workchains.once import SubmitOnceMixin
from aiida_difftre.workchains.predict import PredictBaseWorkChain
from aiida_difftre.workchains.pretrain import PretrainBaseWorkChain
from aiida_difftre.workchains.protocols import deep_merge
from aiida_difftre.workchains.refine import RefineWorkChain
from aiida_difftre.workchains.sample import SampleBaseWorkChain
from aiida_difftre.workchains.stages import apply_stage, check_stages, stage_names
from aiida_difftre.workchains.state_points import (
    add_base,
    define_base,
    define_state_points,
    reason_of,
)
from aiida_difftre.workchains.train_checks import check_inputs
from aiida_difftre.workchains.update import UpdateBaseWorkChain
from aiida_difftre.workchains.validate import ValidateWorkChain

REFINE, VALIDATE = "refine", "validate"
PARTS = ("dataset", "feff", "pretrain", REFINE, VALIDATE)
"""What overrides may name."""
JOBS = ("pw", "feff", "pretrain", "sample", "update", "predict")
"""What codes and options may name."""


@calcfunction
def unlabelled_configurations(**structures: orm.StructureData) -> Any:
    """The structures as a dataset without labels."""
    return DatasetData.from_ase([structures[name].get_ase() for name in sorted(structures)])


class TrainWorkChain(ProtocolMixin, IndexedMixin, SubmitOnceMixin, WorkChain):
    """Make a potential that agrees with structures and measurements, and confirm it in long independent runs.

    Labels (made here by DFT, or given) train a first potential (or one is given; or it gets its initial parameters and
    knows nothing but its prior terms); refinement corrects it with the measurements; long independent runs confirm it.
    """

    CHAIN = "train"

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs, outline, outputs and exit codes."""
        super().define(spec)
        optional = {"required": False, "populate_defaults": False}
        spec.input("dataset", valid_type=DatasetData, required=False, help="Labels that exist; no DFT is done then.")
        spec.expose_inputs(
            DftDatasetWorkChain,
            namespace="dataset_inputs",
            namespace_options={**optional, "help": "Of the first-principles labels."},
        )
        spec.input(
            "potential", valid_type=PotentialData, required=False, help="A potential to refine; nothing is pretrained."
        )
        spec.expose_inputs(
            PretrainBaseWorkChain,
            namespace="pretrain",
            exclude=["calc.dataset", "calc.base"],
            namespace_options={**optional, "help": "Of pretraining."},
        )
        define_base(spec)
        define_state_points(spec)
        spec.expose_inputs(
            FeffCalculation,
            namespace="feff",
            exclude=["structure", "absorber", "edge"],
            namespace_options={
                **optional,
                "help": "Of the scattering paths, for exafs targets without a table of them.",
            },
        )
        spec.expose_inputs(
            RefineWorkChain,
            namespace="refine",
            exclude=["potential", "base", "state_points", "dataset", "base_labels"],
            namespace_options={"help": "Of the refinement."},
        )
        spec.expose_inputs(
            ValidateWorkChain,
            namespace="validate",
            exclude=["before", "after", "base", "state_points", "dataset"],
            namespace_options={**optional, "help": "Of the long independent runs; left out: there are none."},
        )
        spec.input_namespace(
            "stages",
            dynamic=True,
            required=False,
            valid_type=(orm.StructureData, TargetData, orm.Dict),
            validator=check_stages,
            help="Refinements before that of the run, in the order of their names: `structures` StructureData by label "
            "of the state point (smaller cells), `targets` TargetData by label of the state point and of the target "
            "that they replace, `changes` Dict (settings, sampling, update, merged into those of refine; `without`, "
            "labels of targets to leave out by state point).",
        )
        spec.inputs["refine"].validator = None
        spec.inputs["validate"].validator = None
        spec.inputs.validator = check_inputs
        spec.outline(
            if_(cls.has_to_scatter)(cls.compute_paths, cls.inspect_paths),
            if_(cls.has_to_label)(cls.make_dataset, cls.inspect_dataset),
            if_(cls.has_to_pretrain)(cls.pretrain_potential, cls.inspect_pretraining),
            while_(cls.has_stage)(cls.refine_stage, cls.inspect_stage),
            cls.refine_potential,
            cls.inspect_refinement,
            if_(cls.has_to_validate)(cls.validate_potential, cls.inspect_validation),
        )
        spec.output("dataset", valid_type=DatasetData, required=False, help="The labels.")
        spec.output("reference", valid_type=orm.Dict, required=False, help="Stress and stiffness of DFT itself (GPa).")
        spec.output("potential_pretrained", valid_type=PotentialData, required=False, help="Before refinement.")
        spec.output("potential", valid_type=PotentialData, required=False, help="After refinement.")
        spec.output("history", valid_type=orm.Dict, required=False, help="Of the refinement.")
        spec.output("report", valid_type=orm.Dict, required=False, help="Of the validation.")
        spec.exit_code(exit_codes.DATASET_FAILED, "ERROR_DATASET_FAILED", message="The labels failed: {reason}")
        spec.exit_code(
            exit_codes.PRETRAINING_FAILED, "ERROR_PRETRAINING_FAILED", message="Pretraining failed: {reason}"
        )
        spec.exit_code(
            exit_codes.REFINEMENT_FAILED, "ERROR_REFINEMENT_FAILED", message="The refinement failed: {reason}"
        )
        spec.exit_code(
            exit_codes.VALIDATION_FAILED, "ERROR_VALIDATION_FAILED", message="The validation failed: {reason}"
        )
        spec.exit_code(exit_codes.FEFF_FAILED, "ERROR_FEFF_FAILED", message="The scattering paths failed: {reason}")

    def has_to_scatter(self) -> bool:
        """Whether a target lacks its table of scattering paths."""
        return bool(absorption.without_paths(self.inputs.state_points))

    def compute_paths(self) -> ToContext:
        """Run FEFF for every target that lacks its table."""
        jobs = {}
        for key, (label, name) in absorption.without_paths(self.inputs.state_points).items():
            point = self.inputs.state_points[label]
            options = point["targets"][name].target.options
            inputs = AttributeDict(self.exposed_inputs(FeffCalculation, namespace="feff"))
            inputs.structure = point["structure"]
            inputs.absorber, inputs.edge = orm.Str(options["absorber"]), orm.Str(options["edge"])
            jobs[key] = self.submit(FeffBaseWorkChain, calc=inputs, metadata={"call_link_label": key})
        return ToContext(**jobs)

    def inspect_paths(self) -> ExitCode | None:
        """Give each target its table."""
        self.ctx.with_paths = {}
        for key, (label, name) in absorption.without_paths(self.inputs.state_points).items():
            node = self.ctx[key]
            if not node.is_finished_ok:
                return self.exit_codes.ERROR_FEFF_FAILED.format(reason=reason_of(node))
            target = self.inputs.state_points[label]["targets"][name]
            self.ctx.with_paths[key] = self.compute(attach_paths, f"attach_{key}", target, node.outputs.paths)
        return None

    def has_to_label(self) -> bool:
        """Whether labels have to be made."""
        return "dataset_inputs" in self.inputs

    def make_dataset(self) -> ToContext:
        """Label structures by DFT."""
        inputs = self.exposed_inputs(DftDatasetWorkChain, namespace="dataset_inputs")
        inputs["metadata"] = {"call_link_label": "dataset"}
        return ToContext(dataset=self.submit(DftDatasetWorkChain, **inputs))

    def inspect_dataset(self) -> ExitCode | None:
        """Take the labels over."""
        node = self.ctx.dataset
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_DATASET_FAILED.format(reason=reason_of(node))
        self.out("dataset", node.outputs.dataset)
        if "reference" in node.outputs:
            self.out("reference", node.outputs.reference)
        return None

    def _dataset(self) -> Any:
        return self.inputs.dataset if "dataset" in self.inputs else self.outputs.get("dataset")

    def has_to_pretrain(self) -> bool:
        """Whether there is no potential yet."""
        return "potential" not in self.inputs

    def pretrain_potential(self) -> ToContext:
        """Match the labels; where there are none, the structures of the state points are what the potential sees."""
        inputs = AttributeDict(self.exposed_inputs(PretrainBaseWorkChain, namespace="pretrain"))
        labels = self._dataset()
        inputs.calc.dataset = labels if labels is not None else self._configurations()
        add_base(inputs.calc, self.inputs)
        inputs.metadata.call_link_label = "pretrain"
        return ToContext(pretrain=self.submit(PretrainBaseWorkChain, **inputs))

    def _configurations(self) -> Any:
        structures = {label: point["structure"] for label, point in self.inputs.state_points.items()}
        return self.compute(unlabelled_configurations, "configurations", **structures)

    def inspect_pretraining(self) -> ExitCode | None:
        """Take the potential over."""
        node = self.ctx.pretrain
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_PRETRAINING_FAILED.format(reason=reason_of(node))
        self.out("potential_pretrained", node.outputs.potential)
        return None

    def _initial_potential(self) -> Any:
        return self.inputs.potential if "potential" in self.inputs else self.outputs["potential_pretrained"]

    def _with_state_points(self, chain: type[WorkChain], namespace: str) -> dict[str, Any]:
        inputs = self.exposed_inputs(chain, namespace=namespace)
        inputs["state_points"] = {
            label: {**point, "targets": dict(point["targets"])} for label, point in self.inputs.state_points.items()
        }
        for key, (label, name) in absorption.without_paths(self.inputs.state_points).items():
            inputs["state_points"][label]["targets"][name] = self.ctx.with_paths[key]
        add_base(inputs, self.inputs)
        dataset = self._dataset()
        if dataset is not None:
            inputs["dataset"] = dataset
        inputs["metadata"] = {"call_link_label": namespace}
        return dict(inputs)

    def has_stage(self) -> bool:
        """Whether a stage comes before the refinement of the run, or the next one."""
        return int(self.ctx.get("stages_done", 0)) < len(stage_names(self.inputs))

    def _stage(self) -> str:
        return stage_names(self.inputs)[int(self.ctx.get("stages_done", 0))]

    def _of_refinement(self) -> dict[str, Any]:
        """Inputs of a refinement; what the base gives for the dataset is computed by the first that needs it."""
        inputs = self._with_state_points(RefineWorkChain, "refine")
        if "base_labels" in self.ctx:
            inputs["base_labels"] = self.ctx.base_labels
        return inputs

    def refine_stage(self) -> ToContext:
        """Correct the potential in the cells of the stage."""
        name = self._stage()
        inputs = self._of_refinement()
        apply_stage(inputs, self.inputs.stages[name])
        inputs["potential"] = self._refined_so_far()
        inputs["metadata"] = {"call_link_label": name}
        return ToContext(**{name: self.submit(RefineWorkChain, **inputs)})

    def inspect_stage(self) -> ExitCode | None:
        """Go on with its potential."""
        name = self._stage()
        node = self.ctx[name]
        if not node.is_finished_ok:
            reason = f"{name}: {reason_of(node)}"
            return self.exit_codes.ERROR_REFINEMENT_FAILED.format(reason=reason)
        self.ctx.stages_done = int(self.ctx.get("stages_done", 0)) + 1
        self.ctx.refined = node.outputs.potential
        if "base_labels" in node.outputs:
            self.ctx.base_labels = node.outputs.base_labels
        self.report(f"{name}: refined in the cells of the stage, {node.outputs.history['outcome']}")
        return None

    def _refined_so_far(self) -> Any:
        return self.ctx.refined if "refined" in self.ctx else self._initial_potential()

    def refine_potential(self) -> ToContext:
        """Correct the potential with the measurements."""
        inputs = self._of_refinement()
        inputs["potential"] = self._refined_so_far()
        return ToContext(refine=self.submit(RefineWorkChain, **inputs))

    def inspect_refinement(self) -> ExitCode | None:
        """Take over what there is; a refinement that gave up may still have a best potential."""
        node = self.ctx.refine
        for name in ("potential", "history"):
            if name in node.outputs:
                self.out(name, node.outputs[name])
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_REFINEMENT_FAILED.format(reason=reason_of(node))
        return None

    def has_to_validate(self) -> bool:
        """Whether long runs were asked for."""
        return "validate" in self.inputs

    def validate_potential(self) -> ToContext:
        """Confirm the potential by independent runs."""
        inputs = self._with_state_points(ValidateWorkChain, "validate")
        inputs["before"] = self._initial_potential()
        inputs["after"] = self.ctx.refine.outputs.potential
        return ToContext(validate=self.submit(ValidateWorkChain, **inputs))

    def inspect_validation(self) -> ExitCode | None:
        """Take the report over."""
        node = self.ctx.validate
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_VALIDATION_FAILED.format(reason=reason_of(node))
        self.out("report", node.outputs.report)
        return None

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        codes: Mapping[str, orm.AbstractCode | str],
        state_points: Mapping[str, Mapping[str, Any]],
        spec: Mapping[str, Any] | None = None,
        labels: Mapping[str, Any] | None = None,
        dataset: DatasetData | None = None,
        potential: PotentialData | None = None,
        base: BasePotentialData | None = None,
        stages: Mapping[str, Mapping[str, Any]] | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """A builder with the inputs of a preset.

        Args:
            codes: Codes by job: ``pw``, ``feff``, ``pretrain``, ``sample``, ``update``, ``predict``; needed ones only,
                or their labels.
            state_points: State points by label: structure, temperature, targets.
            spec: Species and terms of the potential to make.
            labels: Arguments of DftDatasetWorkChain's own method: structure, structures, pseudo_family, functional,
                kpoints, kpoints_offset, kpoints_distance.
            dataset: Labels that exist already.
            potential: Potential to start from, in place of pretraining; without it, dataset and labels the run starts
                from the initial parameters of ``spec``.
            base: Base to which the potential is a correction, where it is one.
            stages: Refinements in smaller cells that come first: ``structures`` and ``targets`` by label of the state
                point, and ``changes`` of settings, sampling and update.
            protocol: ``quick`` (default), ``cpu`` or ``paper``.
            overrides: Changes that are merged into the presets of ``dataset``, ``feff``, ``pretrain``, ``refine`` and
                ``validate``.
            options: Options of the jobs (``metadata.options``), by the same names as ``codes``.

        Returns:
            The builder.

        Raises:
            ValueError: for inputs that do not go together.
        """
        options = options or {}
        refuse_unknown(overrides, PARTS, "overrides of train")
        refuse_unknown(codes, JOBS, "codes of train")
        refuse_unknown(options, JOBS, "options of train")
        needed = [SampleBaseWorkChain.CHAIN, UpdateBaseWorkChain.CHAIN, PredictBaseWorkChain.CHAIN]
        needed += ["pw"] if labels else []
        needed += [PretrainBaseWorkChain.CHAIN] if potential is None else []
        if missing := [job for job in needed if job not in codes]:
            raise ValueError(f"codes of train: {', '.join(missing)} missing; this run needs {', '.join(needed)}")
        preset = cls.get_protocol_inputs(protocol, overrides)
        builder = cls.get_builder()
        builder.state_points = state_points
        if labels:
            dft = DftDatasetWorkChain.get_builder_from_protocol(
                codes["pw"], protocol=protocol, overrides=preset["dataset"], options=options.get("pw"), **labels
            )
            builder.dataset_inputs = dft._inputs(prune=True)
        if absorption.without_paths(state_points) and "feff" in codes:
            given = {name: orm.to_aiida_type(value) for name, value in preset.get("feff", {}).items()}
            builder["feff"] = {
                "code": load_code(codes["feff"]),
                "metadata": {"options": options.get("feff", {})},
                **given,
            }
        if potential is None:
            untrained = {} if labels or dataset is not None else {"calc": {"parameters": {"steps": 0}}}
            pretrain = PretrainBaseWorkChain.get_builder_from_protocol(
                code=codes["pretrain"],
                spec=spec,
                protocol=protocol,
                overrides=deep_merge(untrained, preset["pretrain"]),
                options=options.get("pretrain"),
            )
            builder.pretrain = pretrain._inputs(prune=True)
        for name, node in (("dataset", dataset), ("potential", potential), ("base", base)):
            if node is not None:
                builder[name] = node
        if stages:
            builder.stages = stages
        common: dict[str, Any] = {
            "state_points": state_points, "sample_code": codes["sample"], "protocol": protocol
        }  # fmt: skip
        parts = {
            REFINE: RefineWorkChain.get_builder_from_protocol(
                update_code=codes["update"],
                overrides=preset["refine"],
                options={job: options[job] for job in ("sample", "update") if job in options},
                **common,
            ),
            VALIDATE: ValidateWorkChain.get_builder_from_protocol(
                predict_code=codes["predict"],
                overrides=preset["validate"],
                options={job: options[job] for job in ("sample", "predict") if job in options},
                **common,
            ),
        }
        for name, part in parts.items():
            inputs = part._inputs(prune=True)
            del inputs["state_points"]
            builder[name] = inputs
        return builder


if __name__ == "__main__":
    from aiida_difftre.workchains.from_input import launch

    launch("difftre.train")
