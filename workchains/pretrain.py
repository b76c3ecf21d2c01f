"""Restart chain of pretraining: checkpoints, and smaller batches where memory runs out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine import ProcessBuilder

from aiida_difftre.calculations.pretrain import PretrainCalculation
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.jobs import PretrainJob
from aiida_difftre.workchains.engine import EngineBaseWorkChain


class PretrainBaseWorkChain(EngineBaseWorkChain):
    """Train a potential on a dataset, through interruptions."""

    _process_class = PretrainCalculation
    CHAIN = "pretrain"

    def less_memory(self) -> dict[str, Any] | None:
        """Half the configurations per step."""
        default = PretrainJob.model_fields["batch_configurations"].default
        size = self.ctx.inputs.parameters.get_dict().get("batch_configurations", default)
        return {"batch_configurations": size // 2} if size > 1 else None

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        code: orm.AbstractCode | str,
        dataset: DatasetData | None = None,
        spec: Mapping[str, Any] | None = None,
        potential: PotentialData | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """A builder with the inputs of a preset.

        Args:
            code: Code of the engine on a machine, or its label.
            dataset: Labelled configurations.
            spec: Species and terms of a potential to make; None to continue from one.
            potential: Potential to continue from; None to make one.
            protocol: Name of the preset: quick (the default), cpu or paper.
            overrides: Changes that are merged into the preset, in the nesting of the chain's inputs.
            options: Options of the job, such as resources or max_wallclock_seconds.

        Returns:
            The builder.

        Example:
            >>> from aiida import orm
            >>> from aiida_difftre.workchains.pretrain import PretrainBaseWorkChain
            >>> computer = orm.Computer("here", "localhost", transport_type="core.local", scheduler_type="core.slurm")
            >>> code = orm.InstalledCode(computer, "/opt/bin/difftre")
            >>> spec = {"species": ["C"], "terms": [{"architecture": "moment_network", "cutoff": 5.0}]}
            >>> builder = PretrainBaseWorkChain.get_builder_from_protocol(code=code, spec=spec)
            >>> builder.calc.parameters["potential"]["species"]
            ['C']
        """
        return cls.make_builder(
            code=code,
            calc={"dataset": dataset, "potential": potential},
            parameters={} if spec is None else {"potential": dict(spec)},
            protocol=protocol,
            overrides=overrides,
            options=options,
        )


if __name__ == "__main__":
    from aiida_difftre.engine.contract.documents import parse_yaml
    from aiida_difftre.workchains.main import launch

    launch("difftre.pretrain.base", nodes=("dataset",), values={"spec": parse_yaml})
