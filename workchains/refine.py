"""The DiffTRe loop: sample at every state point, move the parameters, until fresh trajectories agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessBuilder, ToContext, WorkChain, if_, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_difftre.data.base import BasePotentialData
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract import loop_verdicts as verdicts
from aiida_difftre.engine.contract import policy
from aiida_difftre.engine.contract.base import derived_seed
from aiida_difftre.engine.contract.loop_state import Action, State
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.reasons import RETRIED_WITH_SMALLER_STEPS, Reason
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains import base_labels, pools, records
from aiida_difftre.workchains.builders import ProtocolMixin
from aiida_difftre.workchains.comparison import decisive_points, noise
from aiida_difftre.workchains.engine import lowered_for_memory
from aiida_difftre.workchains.facts import IndexedMixin
from aiida_difftre.workchains.history import collect_history, iteration_name, plan_of, update_label, updates_of
from aiida_difftre.workchains.once import SubmitOnceMixin
from aiida_difftre.workchains.predict import PredictBaseWorkChain
from aiida_difftre.workchains.protocols import deep_merge
from aiida_difftre.workchains.refine_checks import check_inputs
from aiida_difftre.workchains.refine_ports import define_inputs, define_outputs
from aiida_difftre.workchains.refine_settings import RefineSettings
from aiida_difftre.workchains.sample import SampleBaseWorkChain
from aiida_difftre.workchains.scratch import clean
from aiida_difftre.workchains.state_points import (
    add_base,
    base_born_stride,
    in_refinement,
    is_unstable,
    make_builder,
    production_fs,
    quantum_advice,
    reason_of,
    sampling_parameters,
    targets_of,
    within_memory,
)
from aiida_difftre.workchains.update import UpdateBaseWorkChain


class RefineWorkChain(ProtocolMixin, IndexedMixin, SubmitOnceMixin, WorkChain):
    """Refine a potential until its fresh trajectories agree with experiment.

    Each iteration samples a trajectory at every state point that has a training or selection target, continuing from
    the last snapshots of the previous one, and moves the parameters on these trajectories until too few effective
    samples are left. A potential is judged by the reduced chi² of the trajectory that it sampled itself (of selection
    targets where there are some, else of training targets), never by the reweighted loss; the latest one
    is returned whose chi² does not differ from the lowest by more than the noise of the trajectories. Test targets have
    no part in it. A trajectory that a state point brings with it takes the place of its first
    sampling. A potential that makes the dynamics unstable is rolled back and the learning rate
    halved. The last iteration only samples, so that every potential that is considered has been judged.
    """

    CHAIN = "refine"

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs, outline, outputs and exit codes."""
        super().define(spec)
        define_inputs(spec)
        spec.inputs.validator = check_inputs
        spec.outline(
            cls.prepare,
            if_(cls.needs_base_labels)(cls.predict_base_labels, cls.inspect_base_labels),
            while_(cls.is_unfinished)(
                if_(cls.needs_trajectories)(cls.sample_state_points, cls.inspect_trajectories),
                if_(cls.needs_update)(cls.update_potential, cls.inspect_update),
            ),
            cls.conclude,
        )
        define_outputs(spec)

    def prepare(self) -> None:
        """Set up the state of the loop."""
        sampled_fs = production_fs(self.inputs.sample.calc.parameters.get_dict())
        # Written at each change of state: nothing here may grow with every iteration; the called nodes keep the rest.
        self._remember(policy.start(self._settings(), sampled_fs))
        self.ctx.candidate = {"potential": self.inputs.potential, "optimizer_state": None}  # to be sampled next
        self.ctx.reference = None  # potential and optimizer state of the last stable sampling
        self.ctx.pools = {}  # by state point, the latest first: name, potential, trajectory, remote, chain
        self.ctx.best = None  # potential
        self.ctx.sampled = {}  # predictions of the last trajectories
        self.ctx.lowered = {}  # what fits into memory, by call of the chain
        for label, point in self._state_points().items():
            if advice := quantum_advice(point):
                self.report(f"{label}: {advice}")
            if told := pools.left_out(point.get("earlier") or {}, self.inputs.potential):
                self.report(f"{label}: {told}")

    def _state_points(self) -> dict[str, Any]:
        return in_refinement(self.inputs.state_points)

    def _settings(self) -> RefineSettings:
        return validate(RefineSettings, self.inputs.settings.get_dict())

    def _course(self) -> State:
        return validate(State, self.ctx.state)

    def _remember(self, state: State) -> None:
        self.ctx.state = state.model_dump(mode="json")

    def _decide(self, verdict: verdicts.Verdict) -> State:
        """Go on to what follows from a verdict, and report it."""
        state = policy.decide(self._course(), verdict, self._settings())
        self._remember(state)
        if state.message:
            self.report(state.message)
        return state

    def needs_base_labels(self) -> bool:
        """Whether the base has to be evaluated for the dataset, which no update can."""
        return base_labels.are_missing(self.inputs)

    def predict_base_labels(self) -> ToContext:
        """Evaluate the base for the dataset, where sampling runs; before anything long, and once."""
        sampling = self.exposed_inputs(SampleBaseWorkChain, namespace="sample")
        inputs = base_labels.prediction(AttributeDict(sampling), self.inputs.potential, self.inputs.dataset)
        add_base(inputs.calc, self.inputs)
        return ToContext(base_labels=self.submit(PredictBaseWorkChain, **inputs))

    def inspect_base_labels(self) -> ExitCode | None:
        """Keep what it gives."""
        node = self.ctx.base_labels
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_PREDICTION_FAILED.format(reason=reason_of(node))
        self.out("base_labels", node.outputs.predictions)
        return None

    def is_unfinished(self) -> bool:
        """Whether there is anything left to do."""
        return self._course().action is not Action.END

    def needs_trajectories(self) -> bool:
        """Whether the present potential has not yet sampled."""
        return self._course().action is Action.SAMPLE

    def needs_update(self) -> bool:
        """Whether the parameters are to move on, or the loop is over."""
        return self._course().action is Action.UPDATE

    def sample_state_points(self) -> None:
        """Sample a trajectory at every state point that needs one, side by side."""
        settings, state = self._settings(), self._course()
        template = self.inputs.sample.calc.parameters.get_dict()
        previous = {label: pool[0] for label, pool in self.ctx.pools.items()}
        for label, point in self._state_points().items():
            if label in state.held:
                continue
            inputs = AttributeDict(self.exposed_inputs(SampleBaseWorkChain, namespace="sample"))
            inputs.calc.potential = self.ctx.candidate["potential"]
            add_base(inputs.calc, self.inputs)
            has_base = self.inputs.potential.spec.base is not None
            inputs.calc.structure = point["structure"]
            parameters = sampling_parameters(
                template,
                point,
                seed=derived_seed(settings.seed, "sample", state.samplings, label),
                predict=state.is_last(settings),
                born_stride=base_born_stride(point) if has_base else 0,
                production_fs=state.production_fs,
                equilibration_fs=settings.continued_equilibration_fs if label in previous else None,
            )
            lowered = self.ctx.lowered.get(f"sample_{label}", {})
            inputs.calc.parameters = orm.Dict(within_memory(parameters, lowered))
            if label in previous:
                inputs.calc.start_trajectory = previous[label]["trajectory"]
                inputs.calc.start_folder = previous[label]["remote"]
            if self.ctx.reference is None and point.get("trajectory") is not None:
                inputs.calc.trajectory = point["trajectory"]
            if self._cleans:
                inputs.clean_workdir = orm.Bool(False)  # the update and the next sampling link to its files
            inputs.metadata.call_link_label = f"sample_{state.samplings:03d}_{label}"
            self.to_context(**{f"sample_{label}": self.submit(SampleBaseWorkChain, **inputs)})

    def inspect_trajectories(self) -> ExitCode | None:
        """Take the trajectories as the new reference, or roll the potential back."""
        held = self._course().held
        nodes = {label: self.ctx[f"sample_{label}"] for label in self._state_points() if label not in held}
        for label, node in nodes.items():
            if node.is_finished_ok:
                continue
            reason = reason_of(node)
            if not is_unstable(node):
                self._decide(verdicts.Stopped(Reason.FAILED, reason))
                self._publish()
                return self.exit_codes.ERROR_SAMPLING_FAILED.format(label=label, reason=reason)
            self._clean(nodes.values())
            if self._decide(verdicts.Unstable(label, reason)).reason is Reason.UNSTABLE_START:
                return self.exit_codes.ERROR_INITIAL_POTENTIAL_UNSTABLE.format(label=label, reason=reason)
            return None
        for label, node in nodes.items():
            self._remember_memory(f"sample_{label}", node)
        self._clean(self.ctx.pools[label][0]["chain"] for label in nodes if label in self.ctx.pools)
        self.ctx.reference, most = self.ctx.candidate, self._settings().pool_iterations
        name, potential = f"sampling{self._course().samplings:03d}", self.ctx.candidate["potential"]
        self.ctx.pools |= {
            label: pools.remember(self.ctx.pools.get(label, []), name, potential, node, most=most)
            for label, node in nodes.items()
        }
        if self._decide(verdicts.Sampled()).action is Action.JUDGE:
            self.ctx.sampled = {label: node.outputs.predictions for label, node in nodes.items()}
            self._judge({label: records.predictions_of(node) for label, node in self.ctx.sampled.items()})
        return None

    @property
    def _cleans(self) -> bool:
        return bool(self.inputs.sample.clean_workdir.value)

    def _clean(self, chains: Iterable[orm.ProcessNode]) -> None:
        """Delete the folders of samplings that nothing needs any more, where the input says so."""
        if self._cleans:
            clean(chains)

    def on_terminated(self) -> None:
        """Delete what is left of the folders of samplings, where the input says so."""
        super().on_terminated()
        self._clean(node for node in self.node.called if node.process_label == SampleBaseWorkChain.__name__)

    def _remember_memory(self, name: str, node: orm.ProcessNode) -> None:
        """What a restart chain had to lower to fit into memory, the next one of the kind starts with."""
        self.ctx.lowered[name] = deep_merge(self.ctx.lowered.get(name, {}), lowered_for_memory(node))

    def update_potential(self) -> None:
        """Move the parameters on the reference trajectories."""
        settings, state = self._settings(), self._course()
        reference = self.ctx.reference
        inputs = AttributeDict(self.exposed_inputs(UpdateBaseWorkChain, namespace="update"))
        template = inputs.calc.parameters.get_dict()
        parameters = {
            **template,
            "seed": derived_seed(settings.seed, "update", state.iteration),
            "learning_rate_scale": state.learning_rate_scale,
            "update": {**settings.of_updates(), **template.get("update", {})},
        }
        inputs.calc.parameters = orm.Dict(deep_merge(parameters, self.ctx.lowered.get("update", {})))
        inputs.calc.potential = reference["potential"]
        add_base(inputs.calc, self.inputs)
        is_fresh = state.reference is not None and state.reference.has_fresh_optimizer
        if reference["optimizer_state"] is not None and not is_fresh:
            inputs.calc.optimizer_state = reference["optimizer_state"]
        if parameters["update"].get("loss", {}).get("dataset_weight", 0) > 0:
            inputs.calc.dataset = self.inputs.dataset
            labels = self.inputs.get("base_labels", self.outputs.get("base_labels"))
            if labels is not None:
                inputs.calc.base_labels = labels
        inputs.calc.state_points = {
            label: {
                **pools.trajectories(
                    self.ctx.pools,
                    label,
                    reference["potential"],
                    neighbours=settings.pool_neighbours,
                    of_runs=point.get("earlier") or {},
                ),
                "targets": dict(point["targets"]),
            }
            for label, point in self._state_points().items()
        }
        inputs.metadata.call_link_label = update_label(state.iteration, state.roll_backs)
        self.to_context(update_job=self.submit(UpdateBaseWorkChain, **inputs))

    def inspect_update(self) -> ExitCode | None:
        """Judge the potential that sampled, and go on with the new one."""
        node = self.ctx.update_job
        if not node.is_finished_ok:
            reason = reason_of(node)
            if node.exit_status not in RETRIED_WITH_SMALLER_STEPS:
                self._decide(verdicts.Stopped(Reason.FAILED, reason))
                self._publish()
                return self.exit_codes.ERROR_UPDATE_FAILED.format(reason=reason)
            self._decide(verdicts.UpdateFailed(reason))
            return None
        self._remember_memory("update", node)
        update = records.update_results(node.outputs.output_parameters)
        state = self._judge(records.predictions_before(update))
        if state.action is not Action.END:
            self.ctx.candidate = {"potential": node.outputs.potential, "optimizer_state": node.outputs.optimizer_state}
            self._decide(verdicts.Updated(update.has_moved, update.reason, update.held))
        return None

    def _judge(self, predictions: Mapping[str, list[Prediction]]) -> State:
        """Compare the reference with the targets, and keep its potential where it is the best.

        Args:
            predictions: Predictions by state point, on the trajectories that the potential sampled itself.
        """
        targets = {label: targets_of(point["targets"]) for label, point in self._state_points().items()}
        compared = records.compare_points(targets, predictions)
        chi2 = records.judge(compared)
        found = [item for items in compared.values() for item in items.values()]
        verdict = verdicts.Agreement(chi2["training"], chi2["selection"], decisive_points(found), noise(found))
        state = self._decide(verdict)
        if state.reference is not None and state.reference.is_best:
            self.ctx.best = self.ctx.reference["potential"]
        return state

    def conclude(self) -> ExitCode | None:
        """Return the best potential and the history."""
        self._publish()
        state = self._course()
        if state.reason is Reason.TOO_MANY_ROLL_BACKS:
            return self.exit_codes.ERROR_TOO_MANY_ROLL_BACKS.format(number=state.roll_backs, reason=state.failure)
        return None

    def _publish(self) -> None:
        """Attach what there is: a job that dies must not take the good iterations with it."""
        state = self._course()
        selected = state.selected()
        if selected is None:
            return
        updates = updates_of(self.node)
        plan = plan_of(state, selected, updates, sampled=self.ctx.reference["potential"].uuid)
        history = self.compute(
            collect_history,
            "history",
            orm.Dict(plan),
            targets={label: dict(point["targets"]) for label, point in self._state_points().items()},
            updates={iteration_name(number): update.outputs.output_parameters for number, update in updates.items()},
            sampled=dict(self.ctx.sampled),
        )
        self.out("potential", self.ctx.best)
        self.out("history", history)
        self.report(f"{state.reason}: the best potential is that of {selected.sentence()}")

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        state_points: Mapping[str, Mapping[str, Any]],
        potential: PotentialData | None = None,
        base: BasePotentialData | None = None,
        sample_code: orm.AbstractCode | str,
        update_code: orm.AbstractCode | str | None = None,
        dataset: DatasetData | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """A builder with the inputs of a preset.

        Args:
            state_points: State points by label: structure, temperature, targets.
            potential: Potential to refine.
            base: Base to which it is a correction, where it is one.
            sample_code: Code of the engine on the machine that samples, or its label.
            update_code: Code of the engine on the machine that updates; that of ``sample_code`` by default.
            dataset: Training data for the matching term.
            protocol: ``quick`` (default), ``cpu`` or ``paper``.
            overrides: Changes that are merged into the preset: ``settings``, ``sample``, ``update``.
            options: Options of the jobs (``metadata.options``), by ``sample`` and ``update``.

        Returns:
            The builder.

        Raises:
            ValueError: for unknown protocols, overrides, options and codes, naming the known ones.

        Example:
            >>> from aiida import orm
            >>> from ase.build import bulk
            >>> from aiida_difftre.data.target import TargetData
            >>> from aiida_difftre.workchains.refine import RefineWorkChain
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
            >>> builder = RefineWorkChain.get_builder_from_protocol(
            ...     state_points={"ambient": point}, sample_code=code, overrides={"settings": {"max_iterations": 7}}
            ... )
            >>> builder.settings["max_iterations"]
            7
        """
        return make_builder(
            cls,
            cls.CHAIN,
            UpdateBaseWorkChain,
            codes=(sample_code, update_code or sample_code),
            state_points=state_points,
            nodes={"potential": potential, "base": base, "dataset": dataset},
            protocol=protocol,
            overrides=overrides,
            options=options,
        )


if __name__ == "__main__":
    from aiida_difftre.workchains.from_input import launch

    launch("difftre.refine")
