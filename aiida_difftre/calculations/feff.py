"""Single-scattering paths of an X-ray absorption edge by FEFF, and the function that gives them to a target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common import datastructures
from aiida.common.folders import Folder
from aiida.engine import CalcJob, CalcJobProcessSpec, calcfunction
from aiida.engine.processes.calcjobs.calcjob import validate_calc_job

from aiida_difftre.calculations import ports
from aiida_difftre.calculations.checks import check_computer, check_periodic, check_scheduler, check_whole
from aiida_difftre.calculations.played import StaysPlayedMixin
from aiida_difftre.data.target import TargetData
from aiida_difftre.engine.observables import feff
from aiida_difftre.engine.observables.specs.absorption import EDGES

INPUT, OUTPUT = "feff.inp", "feff.out"
DEFAULT_RADIUS = 8.0
DEFAULT_WALLTIME_S = 1800


def cluster_of(inputs: Mapping[str, Any]) -> feff.Cluster:
    """The cluster that the inputs of the job describe.

    Raises:
        ValueError: naming the value and the remedy.
    """
    site = inputs.get("site")
    return feff.cluster(
        inputs["structure"].get_ase(),
        inputs["absorber"].value,
        inputs["radius"].value,
        None if site is None else site.value,
    )


def _check_edge(node: orm.Str | None, _: Any) -> str | None:
    if node is not None and node.value not in EDGES:
        return f"the edge is {node.value!r}; known edges: {', '.join(EDGES)}"
    return None


class FeffCalculation(StaysPlayedMixin, CalcJob):
    """Single-scattering paths around an absorbing atom of an ideal crystal, by FEFF 6, as a table for EXAFS.

    FEFF computes the potentials once for the cluster; amplitude, phase and mean free path of the photoelectron follow
    for every shell of neighbours. This takes less than a second.
    """

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Ports, options and exit codes."""
        super().define(spec)
        spec.inputs.validator = cls.validate_inputs  # type: ignore[assignment]
        ports.options(
            spec,
            parser="difftre.feff",
            walltime_s=DEFAULT_WALLTIME_S,
            input_filename=INPUT,
            output_filename=OUTPUT,
        )
        spec.input("structure", valid_type=orm.StructureData, help="The ideal crystal (Å); its cell may be repeated.")
        ports.value(spec, "absorber", orm.Str, "Chemical symbol of the absorbing atom.")
        ports.value(spec, "edge", orm.Str, "K, L1, L2 or L3.", default=lambda: orm.Str("K"), validator=_check_edge)
        ports.value(
            spec,
            "radius",
            orm.Float,
            "Distance up to which neighbours scatter (Å).",
            default=lambda: orm.Float(DEFAULT_RADIUS),
        )
        ports.value(
            spec,
            "site",
            orm.Int,
            "Index of the absorbing atom; the first one of the species by default.",
            required=False,
        )
        spec.output("paths", valid_type=orm.Dict, help="The table: option `paths` of the observable exafs.")
        spec.default_output_node = "paths"
        spec.exit_code(
            303, "ERROR_NOT_FINISHED", "FEFF did not finish; its output ends with: {message}", invalidates_cache=True
        )
        spec.exit_code(304, "ERROR_OUTPUT_MISSING", "FEFF left no paths: {message}")
        spec.exit_code(312, "ERROR_OUTPUT_UNREADABLE", "An output file cannot be read: {message}")

    @classmethod
    def validate_inputs(cls, inputs: Mapping[str, Any], port: Any) -> str | None:
        """Check the inputs together; what a work chain supplies later is checked when it launches the job."""
        message = validate_calc_job(inputs, port) or check_scheduler(inputs, port) or check_computer(inputs)
        if message or any(inputs.get(name) is None for name in ("structure", "absorber")):
            return message
        structure = inputs["structure"]
        if message := check_periodic(structure, "the structure") or check_whole(structure, "the structure"):
            return message
        try:
            cluster_of(inputs)
        except ValueError as error:
            return str(error)
        return None

    def prepare_for_submission(self, folder: Folder) -> datastructures.CalcInfo:
        """Write the input, and say what comes back."""
        text = feff.input_text(cluster_of(self.inputs), self.inputs.edge.value, self.inputs.structure.get_formula())
        Path(folder.get_abs_path(INPUT)).write_text(text, encoding="ascii")
        code = datastructures.CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.stdout_name = OUTPUT
        info = datastructures.CalcInfo()
        info.codes_info = [code]
        info.retrieve_list = [OUTPUT, ("feff[0-9][0-9][0-9][0-9].dat", ".", 0)]
        return info


@calcfunction
def attach_paths(target: TargetData, paths: orm.Dict) -> TargetData:
    """The target with a table of scattering paths among its options."""
    content = target.target
    options = {**content.options, "paths": paths.get_dict()}
    return TargetData({**content.model_dump(mode="json"), "options": options}, label=target.label)
