"""Restart chain of assessments: smaller batches where memory runs out, copies where links are lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.engine import ProcessBuilder

from aiida_difftre.calculations.assess import AssessCalculation
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.workchains.engine import EngineBaseWorkChain


class AssessBaseWorkChain(EngineBaseWorkChain):
    """Tell what the targets determine of a potential, what they leave open, and which measurement would tell most."""

    _process_class = AssessCalculation
    CHAIN = "assess"

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        code: orm.AbstractCode | str,
        potential: PotentialData | None = None,
        start: PotentialData | None = None,
        state_points: Mapping[str, Mapping[str, Any]] | None = None,
        candidates: Sequence[Mapping[str, Any]] | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """A builder with the inputs of a preset.

        Args:
            code: Code of the engine on a machine, or its label.
            potential: The refined potential, which sampled the trajectories.
            start: The potential before refinement.
            state_points: LABEL -> trajectory, remote (optional), targets.
            candidates: Measurements that could be made, as fields of
                ``aiida_difftre.engine.contract.assess_job.Candidate``.
            protocol: Name of the preset: quick (the default), cpu or paper.
            overrides: Changes that are merged into the preset, in the nesting of the chain's inputs.
            options: Options of the job, such as resources or max_wallclock_seconds.

        Returns:
            The builder.

        Raises:
            ValueError: For unknown protocols, overrides, options and codes, naming the known ones.

        Example:
            >>> from aiida import orm
            >>> from aiida_difftre.workchains.assess import AssessBaseWorkChain
            >>> computer = orm.Computer("here", "localhost", transport_type="core.local", scheduler_type="core.slurm")
            >>> code = orm.InstalledCode(computer, "/opt/bin/difftre")
            >>> pressure = {"name": "p", "state_point": "liquid", "observable": "pressure", "error": 0.001}
            >>> builder = AssessBaseWorkChain.get_builder_from_protocol(code=code, candidates=[pressure])
            >>> builder.calc.parameters["candidates"][0]["error"]
            0.001
        """
        return cls.make_builder(
            code=code,
            calc={"potential": potential, "start": start, "state_points": state_points},
            parameters={} if candidates is None else {"candidates": [dict(one) for one in candidates]},
            protocol=protocol,
            overrides=overrides,
            options=options,
        )


if __name__ == "__main__":
    from aiida_difftre.workchains.main import launch

    launch("difftre.assess.base", nodes=("potential", "start"))
