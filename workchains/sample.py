"""Restart chain of sampling: checkpoints, less memory, and once a smaller time step for a run that goes bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.engine import ProcessBuilder, ProcessHandlerReport, process_handler
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_difftre.calculations.sample import SampleCalculation
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.dynamic_requests import is_dynamic
from aiida_difftre.engine.contract.jobs import SamplingSettings
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.sampling_settings import WALKERS
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains.engine import UNSTABLE, EngineBaseWorkChain
from aiida_difftre.workchains.kept import check_cleaning


class SampleBaseWorkChain(EngineBaseWorkChain):
    """Sample a trajectory at one state point, through interruptions and a run that goes bad once."""

    _process_class = SampleCalculation
    CHAIN = "sample"

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:  # type: ignore[override]
        """As of every job; what is kept of a trajectory must fit what is deleted."""
        super().define(spec)
        spec.inputs.validator = check_cleaning

    def settings(self) -> SamplingSettings:
        """The sampling settings of the next job."""
        return validate(SamplingSettings, self.ctx.inputs.parameters.get_dict().get("sampling", {}))

    def less_memory(self) -> dict[str, Any] | None:
        """Half the walkers for twice the time, which keeps the number of snapshots; the batch first of all.

        A property of the dynamics takes its error from several walkers, and none is left of it with one.
        """
        changes = super().less_memory() or {}
        if "trajectory" in self.ctx.inputs:
            return changes or None
        settings = self.settings()
        walkers = settings.walkers or WALKERS
        asked = self.ctx.inputs.parameters.get_dict().get("observables", [])
        if walkers < (4 if any(is_dynamic(validate(ObservableRequest, one)) for one in asked) else 2):
            return changes or None
        fewer = {"walkers": walkers // 2, "production_fs": 2 * settings.production_fs}
        return {**changes, "sampling": fewer}

    @process_handler(priority=300)
    def handle_unstable(self, node: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Not finite, atoms too close or too hot: once with half the time step, from the last good snapshots."""
        is_given = "trajectory" in self.ctx.inputs
        if node.exit_status not in UNSTABLE or is_given or self.ctx.get("timestep_halved", False):
            return None
        self.ctx.timestep_halved = True
        timestep = self.settings().timestep_fs / 2
        self.change_parameters({"sampling": {"timestep_fs": timestep}})
        self.ctx.inputs.pop("parent_folder", None)
        start = "from the start"
        if "trajectory" in node.outputs:
            self.ctx.inputs.start_trajectory = node.outputs.trajectory
            self.ctx.inputs.start_folder = node.outputs.remote_folder
            start = "from its last good snapshots"
        return self.cured(node, f"running again {start} with a time step of {timestep:g} fs")

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        code: orm.AbstractCode | str,
        potential: PotentialData | None = None,
        structure: orm.StructureData | None = None,
        temperature: float | None = None,
        pressure: float | None = None,
        observables: Sequence[Mapping[str, Any]] | None = None,
        start_trajectory: TrajectoryEnsembleData | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """A builder with the inputs of a preset.

        Args:
            code: Code of the engine on a machine, or its label.
            potential: Potential to sample with.
            structure: Cell and atoms at the start.
            temperature: Temperature, K.
            pressure: Pressure, GPa; held where ``sampling.barostat`` is set.
            observables: Observables to predict, as fields of
                ``aiida_difftre.engine.contract.observables.ObservableRequest``.
            start_trajectory: Trajectory to continue from.
            protocol: Name of the preset: quick (the default), cpu or paper.
            overrides: Changes that are merged into the preset, in the nesting of the chain's inputs.
            options: Options of the job, such as resources or max_wallclock_seconds.

        Returns:
            The builder.

        Example:
            >>> from aiida import orm
            >>> from aiida_difftre.workchains.sample import SampleBaseWorkChain
            >>> computer = orm.Computer("here", "localhost", transport_type="core.local", scheduler_type="core.slurm")
            >>> code = orm.InstalledCode(computer, "/opt/bin/difftre")
            >>> builder = SampleBaseWorkChain.get_builder_from_protocol(
            ...     code=code, temperature=300.0, overrides={"calc": {"parameters": {"sampling": {"walkers": 16}}}}
            ... )
            >>> builder.calc.parameters["temperature"], builder.calc.parameters["sampling"]["walkers"]
            (300.0, 16)
        """
        stated = {"temperature": temperature, "pressure": pressure}
        parameters: dict[str, Any] = {name: float(value) for name, value in stated.items() if value is not None}
        if observables is not None:
            parameters["observables"] = [dict(one) for one in observables]
        return cls.make_builder(
            code=code,
            calc={"potential": potential, "structure": structure, "start_trajectory": start_trajectory},
            parameters=parameters,
            protocol=protocol,
            overrides=overrides,
            options=options,
        )


if __name__ == "__main__":
    from aiida_difftre.workchains.main import launch

    launch("difftre.sample.base", nodes=("potential", "structure"), values={"temperature": float})
