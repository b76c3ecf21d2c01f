"""Restart chain of predictions: smaller batches where memory runs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.engine import ProcessBuilder

from aiida_difftre.calculations.predict import PredictCalculation
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.workchains.engine import EngineBaseWorkChain


class PredictBaseWorkChain(EngineBaseWorkChain):
    """Predict with a given potential, for structures or on a trajectory."""

    _process_class = PredictCalculation
    CHAIN = "predict"

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        code: orm.AbstractCode | str,
        potential: PotentialData | None = None,
        structures: DatasetData | None = None,
        trajectory: TrajectoryEnsembleData | None = None,
        observables: Sequence[Mapping[str, Any]] | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """A builder with the inputs of a preset.

        Args:
            code: Code of the engine on a machine, or its label.
            potential: Potential to predict with.
            structures: Configurations, labelled or not.
            trajectory: Trajectory over which observables are averaged.
            observables: Observables as fields of ``aiida_difftre.engine.contract.observables.ObservableRequest``.
            protocol: Name of the preset: quick (the default), cpu or paper.
            overrides: Changes that are merged into the preset, in the nesting of the chain's inputs.
            options: Options of the job, such as resources or max_wallclock_seconds.

        Returns:
            The builder.

        Example:
            >>> from aiida import orm
            >>> from aiida_difftre.workchains.predict import PredictBaseWorkChain
            >>> computer = orm.Computer("here", "localhost", transport_type="core.local", scheduler_type="core.slurm")
            >>> code = orm.InstalledCode(computer, "/opt/bin/difftre")
            >>> observables = [{"observable": "stress"}]
            >>> builder = PredictBaseWorkChain.get_builder_from_protocol(code=code, observables=observables)
            >>> builder.calc.parameters["observables"]
            [{'observable': 'stress'}]
        """
        return cls.make_builder(
            code=code,
            calc={"potential": potential, "structures": structures, "trajectory": trajectory},
            parameters={} if observables is None else {"observables": [dict(one) for one in observables]},
            protocol=protocol,
            overrides=overrides,
            options=options,
        )


if __name__ == "__main__":
    from aiida_difftre.workchains.main import launch

    launch("difftre.predict.base", nodes=("potential", "structures"))
