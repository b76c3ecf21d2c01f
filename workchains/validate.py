"""Long independent runs before and after refinement, every target with error bars, and the errors against DFT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessBuilder, ToContext, WorkChain, calcfunction, if_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_difftre.data.base import BasePotentialData
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.assessment import AssessResults
from aiida_difftre.engine.contract.base import derived_seed
from aiida_difftre.engine.contract.records import read
from aiida_difftre.engine.contract.results import PredictResults, SampleResults
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains import exit_codes
from aiida_difftre.workchains.assess import AssessBaseWorkChain
from aiida_difftre.workchains.builders import ProtocolMixin, settings_validator
from aiida_difftre.workchains.engine import options_of_another
from aiida_difftre.workchains.facts import IndexedMixin
from aiida_difftre.workchains.once import SubmitOnceMixin
from aiida_difftre.workchains.predict import PredictBaseWorkChain
from aiida_difftre.workchains.sample import SampleBaseWorkChain
from aiida_difftre.workchains.state_points import (
    add_base,
    define_base,
    define_state_points,
    expose_sampling,
    is_unstable,
    make_builder,
    reason_of,
    sampling_parameters,
)
from aiida_difftre.workchains.validate_checks import WHEN, ValidateSettings, check_inputs, has_undistorted_cell
from aiida_difftre.workchains.validation_report import validation_report
from aiida_difftre.workchains.verdict import of_report


@calcfunction
def configurations(**structures: orm.StructureData) -> Any:
    """Structures as a dataset without labels, in the order of their labels."""
    return DatasetData.from_ase([structures[label].get_ase() for label in sorted(structures)])


class ValidateWorkChain(ProtocolMixin, IndexedMixin, SubmitOnceMixin, WorkChain):
    """Confirm a refined potential by runs that share nothing with its training but the potential.

    Every run starts from the structure of its state point, equilibrates afresh with a seed of its own, and predicts
    every target, test targets included, with error bars. Where a dataset is given, both potentials are compared with
    its first-principles labels.
    """

    CHAIN = "validate"

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs, outline, outputs and exit codes."""
        super().define(spec)
        spec.input("before", valid_type=PotentialData, required=False, help="The potential before refinement.")
        spec.input("after", valid_type=PotentialData, help="The potential to validate.")
        define_base(spec)
        define_state_points(spec)
        spec.input("dataset", valid_type=DatasetData, required=False, help="First-principles labels to compare with.")
        expose_sampling(spec)
        spec.expose_inputs(
            PredictBaseWorkChain,
            namespace="predict",
            exclude=[f"calc.{name}" for name in ("potential", "base", "structures", "trajectory", "remote")],
            namespace_options={
                "required": False,
                "populate_defaults": False,
                "help": "Of the comparison with DFT, the static stiffness and the lattices of the verdict; left out: "
                "none is done.",
            },
        )
        spec.input(
            "settings",
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            serializer=orm.to_aiida_type,
            validator=settings_validator(ValidateSettings),
            help="seed, static_stiffness, verdict, phonons, assessment, members, hot.",
        )
        spec.inputs.validator = check_inputs
        spec.outline(
            cls.run_all,
            cls.inspect,
            if_(cls.has_to_assess)(cls.assess, cls.inspect_assessment),
            cls.conclude,
        )
        spec.output(
            "report", valid_type=orm.Dict, help="Per target: experiment, before, after, errors, chi²; the verdict."
        )
        spec.output(
            "assessment",
            valid_type=orm.Dict,
            required=False,
            help="What the training targets determine of the refined potential, and what they leave open.",
        )
        spec.output_namespace(
            "members", valid_type=PotentialData, dynamic=True, help="Potentials that the assessment drew."
        )
        spec.output_namespace("predictions", dynamic=True, help="By potential and state point.")
        spec.output_namespace("trajectories", dynamic=True, help="By potential and state point.")
        spec.output_namespace(
            "blown_up",
            dynamic=True,
            help="By state point: structures of hot runs on the way to where walkers blew up, without labels.",
        )
        spec.exit_code(
            exit_codes.UNSTABLE,
            "ERROR_UNSTABLE",
            message="The dynamics of the potential '{when}' at state point {label} is unstable: {reason}",
        )
        spec.exit_code(
            exit_codes.SAMPLING_FAILED, "ERROR_SAMPLING_FAILED", message="Sampling '{when}' at {label} failed: {reason}"
        )
        spec.exit_code(
            exit_codes.PREDICTION_FAILED, "ERROR_PREDICTION_FAILED", message="The prediction {label} failed: {reason}"
        )

    def _potentials(self) -> dict[str, Any]:
        return {when: self.inputs[when] for when in WHEN if when in self.inputs}

    def _runs(self) -> Iterator[tuple[str, str]]:
        return ((when, label) for when in self._potentials() for label in self.inputs.state_points)

    def run_all(self) -> None:
        """Submit every run at once: nothing depends on anything else."""
        for when, label in self._runs():
            self.to_context(**{f"sample_{when}_{label}": self._submit_sampling(when, label)})
        if "predict" not in self.inputs:
            return
        settings = validate(ValidateSettings, self.inputs.settings.get_dict())
        dataset = self.inputs.get("dataset")
        has_cell = dataset is not None and has_undistorted_cell(dataset)
        static = settings.static_stiffness
        for when, potential in self._potentials().items():
            if dataset is not None:
                self._submit_prediction(f"compared_{when}", potential, dataset, static_stiffness=static and has_cell)
            if static and not has_cell:
                self._submit_prediction(f"static_{when}", potential, self._cell(), static_stiffness=True)
        if settings.verdict:
            vectors = sorted({one.wave_vector for named in settings.phonons.values() for one in named.values()})
            asked = {"stability": True} | ({"wave_vectors": vectors} if vectors else {})
            self._submit_prediction("lattices_after", self.inputs.after, self._cells(), **asked)

    def _cell(self) -> Any:
        """The structure of the first state point, where the dataset holds no unit cell at rest."""
        first = next(iter(self.inputs.state_points.values()))
        return self.compute(configurations, "configuration", structure=first["structure"])

    def _cells(self) -> Any:
        """The structures of all state points."""
        structures = {label: point["structure"] for label, point in self.inputs.state_points.items()}
        return self.compute(configurations, "cells", **structures)

    def _submit_sampling(self, when: str, label: str) -> orm.ProcessNode:
        settings = validate(ValidateSettings, self.inputs.settings.get_dict())
        point = self.inputs.state_points[label]
        inputs = AttributeDict(self.exposed_inputs(SampleBaseWorkChain, namespace="sample"))
        inputs.calc.potential = self.inputs[when]
        add_base(inputs.calc, self.inputs)
        inputs.calc.structure = point["structure"]
        template = inputs.calc.parameters.get_dict()
        seed = derived_seed(settings.seed, "validate", when, label)
        parameters = sampling_parameters(template, point, seed=seed, predict=True)
        if when == "after" and settings.hot is not None:
            parameters["hot"] = settings.hot.model_dump(mode="json")
        inputs.calc.parameters = orm.Dict(parameters)
        inputs.metadata.call_link_label = f"sample_{when}_{label}"
        return self.submit(SampleBaseWorkChain, **inputs)

    def _submit_prediction(self, name: str, potential: Any, structures: Any, **asked: Any) -> None:
        inputs = AttributeDict(self.exposed_inputs(PredictBaseWorkChain, namespace="predict"))
        inputs.calc.potential = potential
        add_base(inputs.calc, self.inputs)
        inputs.calc.structures = structures
        inputs.calc.parameters = orm.Dict({**inputs.calc.parameters.get_dict(), **asked})
        inputs.metadata.call_link_label = name
        self.to_context(**{f"predict_{name}": self.submit(PredictBaseWorkChain, **inputs)})

    def inspect(self) -> ExitCode | None:
        """Stop where a run failed; name it."""
        for when, label in self._runs():
            node = self.ctx[f"sample_{when}_{label}"]
            if not node.is_finished_ok:
                code = "ERROR_UNSTABLE" if is_unstable(node) else "ERROR_SAMPLING_FAILED"
                return self.exit_codes[code].format(when=when, label=label, reason=reason_of(node))
        for name, node in self._predictions():
            if not node.is_finished_ok:
                return self.exit_codes.ERROR_PREDICTION_FAILED.format(label=name, reason=reason_of(node))
        return None

    def _predictions(self) -> list[tuple[str, orm.ProcessNode]]:
        return [(name.removeprefix("predict_"), node) for name, node in self.ctx.items() if name.startswith("predict_")]

    def has_to_assess(self) -> bool:
        """Whether the settings ask for an assessment."""
        return validate(ValidateSettings, self.inputs.settings.get_dict()).assessment

    def assess(self) -> ToContext:
        """Submit the assessment of the refined potential on the trajectories that it sampled here."""
        sampling = self.inputs.sample.calc
        job = self.inputs.predict.calc if "predict" in self.inputs else sampling
        settings = validate(ValidateSettings, self.inputs.settings.get_dict())
        parameters: dict[str, Any] = {"seed": settings.seed}
        if settings.members:
            parameters["members"] = settings.members
        if (machine := job.parameters.get_dict().get("machine")) is not None:
            parameters["machine"] = machine
        inputs = AttributeDict({"calc": {"code": job.code, "potential": self.inputs.after}})
        add_base(inputs.calc, self.inputs)
        inputs.calc.metadata = {"options": options_of_another(job.metadata.options)}
        inputs.calc.parameters = orm.Dict(parameters)
        if "before" in self.inputs and self.inputs.before.spec == self.inputs.after.spec:
            inputs.calc.start = self.inputs.before
        inputs.calc.state_points = {}
        for label, point in self.inputs.state_points.items():
            node = self.ctx[f"sample_after_{label}"]
            inputs.calc.state_points[label] = {
                "trajectory": node.outputs.trajectory,
                "remote": node.outputs.remote_folder,
                "targets": dict(point["targets"]),
            }
        inputs.metadata = {"call_link_label": "assessment"}
        return ToContext(assessment=self.submit(AssessBaseWorkChain, **inputs))

    def inspect_assessment(self) -> ExitCode | None:
        """Stop where it failed."""
        node = self.ctx.assessment
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_PREDICTION_FAILED.format(label="assessment", reason=reason_of(node))
        for sentence in read(AssessResults, node.outputs.output_parameters.get_dict()).sentences:
            self.report(sentence)
        self.out("assessment", node.outputs.output_parameters)
        if "members" in node.outputs:
            self.out("members", dict(node.outputs.members))
        return None

    def conclude(self) -> None:
        """Compare, and return everything."""
        predictions: dict[str, dict[str, Any]] = {}
        trajectories: dict[str, dict[str, Any]] = {}
        sampled: dict[str, dict[str, Any]] = {}
        blown_up: dict[str, Any] = {}
        for when, label in self._runs():
            node = self.ctx[f"sample_{when}_{label}"]
            predictions.setdefault(when, {})[label] = node.outputs.predictions
            trajectories.setdefault(when, {})[label] = node.outputs.trajectory
            parameters = node.outputs.output_parameters
            if "blown_up" in node.outputs:
                blown_up[label] = node.outputs.blown_up
            # Jobs of an earlier version, found in the cache, do not say.
            if (stationarity := read(SampleResults, parameters.get_dict()).stationarity) is not None:
                sampled.setdefault(when, {})[label] = parameters
                if stationarity.warning:
                    self.report(f"{when} refinement at {label}: {stationarity.warning}")
        found: dict[str, dict[str, Any]] = {"compared": {}, "static": {}, "lattices": {}}
        for name, node in self._predictions():
            part, when = name.split("_")
            found[part][when] = node.outputs.output_parameters
            if read(PredictResults, node.outputs.output_parameters.get_dict()).static is not None:
                found["static"][when] = node.outputs.output_parameters
        report = self.compute(
            validation_report,
            "report",
            targets={label: dict(point["targets"]) for label, point in self.inputs.state_points.items()},
            predictions=predictions,
            sampled=sampled,
            settings=self.inputs.settings,
            **found,
        )
        self.report(of_report(report.get_dict()).line)
        self.out("report", report)
        self.out("predictions", predictions)
        self.out("trajectories", trajectories)
        if blown_up:
            self.out("blown_up", blown_up)

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        state_points: Mapping[str, Mapping[str, Any]],
        sample_code: orm.AbstractCode | str,
        predict_code: orm.AbstractCode | str | None = None,
        before: PotentialData | None = None,
        after: PotentialData | None = None,
        base: BasePotentialData | None = None,
        dataset: DatasetData | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """A builder with the inputs of a preset.

        Args:
            state_points: State points by label: structure, temperature, targets.
            sample_code: Code of the engine on the machine that samples, or its label.
            predict_code: Code of the engine for the comparison with DFT; that of ``sample_code`` by default.
            before: Potential before refinement.
            after: Potential to validate.
            base: Base to which both are corrections, where they are.
            dataset: Labels to compare with.
            protocol: ``quick`` (default), ``cpu`` or ``paper``.
            overrides: Changes that are merged into the preset: ``settings``, ``sample``, ``predict``.
            options: Options of the jobs (``metadata.options``), by ``sample`` and ``predict``.

        Returns:
            The builder.

        Raises:
            ValueError: for unknown protocols, overrides, options and codes, naming the known ones.

        Example:
            >>> from aiida import orm
            >>> from ase.build import bulk
            >>> from aiida_difftre.data.target import TargetData
            >>> from aiida_difftre.workchains.validate import ValidateWorkChain
            >>> machine = {"hostname": "localhost", "transport_type": "core.local", "scheduler_type": "core.slurm"}
            >>> _, computer = orm.Computer.collection.get_or_create(label="example", **machine)
            >>> _ = computer.store().configure()
            >>> code = orm.InstalledCode(computer, "/opt/bin/difftre")
            >>> target = TargetData(
            ...     {
            ...         "observable": "stress", "values": [0.0] * 6, "errors": [0.1] * 6, "unit": "GPa",
            ...         "error_source": "assumed", "conditions": {"temperature": 300.0}, "citation": "ambient pressure",
            ...     }
            ... )
            >>> diamond = orm.StructureData(ase=bulk("C", "diamond", 3.57, cubic=True))
            >>> point = {"structure": diamond, "temperature": orm.Float(300.0), "targets": {"stress": target}}
            >>> builder = ValidateWorkChain.get_builder_from_protocol(
            ...     state_points={"ambient": point}, sample_code=code, protocol="cpu"
            ... )
            >>> builder.sample.calc.code is code
            True
        """
        return make_builder(
            cls,
            cls.CHAIN,
            PredictBaseWorkChain,
            codes=(sample_code, predict_code or sample_code),
            state_points=state_points,
            nodes={"before": before, "after": after, "base": base, "dataset": dataset},
            protocol=protocol,
            overrides=overrides,
            options=options,
        )


if __name__ == "__main__":
    from aiida_difftre.workchains.from_input import launch

    launch("difftre.validate")
