"""Restart chain of updates: smaller batches where memory runs out, copies where links are lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine import ProcessBuilder

from aiida_difftre.calculations.update import UpdateCalculation
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.workchains.engine import EngineBaseWorkChain


class UpdateBaseWorkChain(EngineBaseWorkChain):
    """Move the parameters on one set of trajectories; a step that cannot be made small is the caller's to cure."""

    _process_class = UpdateCalculation
    CHAIN = "update"

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        code: orm.AbstractCode | str,
        potential: PotentialData | None = None,
        state_points: Mapping[str, Mapping[str, Any]] | None = None,
        dataset: DatasetData | None = None,
        optimizer_state: orm.SinglefileData | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """A builder with the inputs of a preset.

        Args:
            code: Code of the engine on a machine, or its label.
            potential: Potential that sampled the trajectories.
            state_points: LABEL -> trajectory, remote (optional), targets.
            dataset: Training data for the matching term.
            optimizer_state: State of the optimizer of an earlier update.
            protocol: Name of the preset: quick (the default), cpu or paper.
            overrides: Changes that are merged into the preset, in the nesting of the chain's inputs.
            options: Options of the job, such as resources or max_wallclock_seconds.

        Returns:
            The builder.

        Example:
            >>> from aiida import orm
            >>> from aiida_difftre.workchains.update import UpdateBaseWorkChain
            >>> computer = orm.Computer("here", "localhost", transport_type="core.local", scheduler_type="core.slurm")
            >>> code = orm.InstalledCode(computer, "/opt/bin/difftre")
            >>> options = {"max_wallclock_seconds": 7200}
            >>> builder = UpdateBaseWorkChain.get_builder_from_protocol(code=code, options=options)
            >>> builder.calc.metadata.options["max_wallclock_seconds"]
            7200
        """
        return cls.make_builder(
            code=code,
            calc={
                "potential": potential,
                "state_points": state_points,
                "dataset": dataset,
                "optimizer_state": optimizer_state,
            },
            parameters={},
            protocol=protocol,
            overrides=overrides,
            options=options,
        )


if __name__ == "__main__":
    from aiida_difftre.workchains.main import launch, one_state_point

    launch("difftre.update.base", nodes=("potential", "trajectory", "target"), prepare=one_state_point)
