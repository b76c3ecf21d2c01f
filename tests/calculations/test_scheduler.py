"""Options of the scheduler: what it does not take is refused before submission, for every scheduler of AiiDA."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from aiida import orm
from aiida.plugins import CalculationFactory

from aiida_difftre.calculations.scheduler import check_options
from aiida_difftre.workchains.codes import JOB_OF, job_ports, load_code
from aiida_difftre.workchains.machines import JobMachine
from aiida_difftre.workchains.sample import SampleBaseWorkChain

SCHEDULERS = ("core.direct", "core.slurm", "core.pbspro", "core.torque", "core.sge", "core.lsf")


def computer(scheduler: str) -> orm.Computer:
    return orm.Computer(
        label=f"machine-{uuid4().hex}",
        hostname="localhost",
        transport_type="core.local",
        scheduler_type=scheduler,
        workdir="/tmp",
    ).store()


def refused(options: dict[str, Any], scheduler: str) -> str:
    with pytest.raises(ValueError, match=r"=|unknown") as caught:
        check_options(options, job_ports("sampling"), computer(scheduler))
    message = str(caught.value)
    assert len(message) < 1000
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("scheduler", "resources"),
    [
        ("core.direct", {"num_machines": 1, "num_mpiprocs_per_machine": 4}),
        ("core.slurm", {"num_machines": 2, "num_mpiprocs_per_machine": 4, "num_cores_per_mpiproc": 2}),
        ("core.slurm", {"tot_num_mpiprocs": 8, "num_mpiprocs_per_machine": 4}),
        ("core.pbspro", {"num_machines": 2, "num_mpiprocs_per_machine": 1, "num_cores_per_machine": 1}),
        ("core.torque", {"num_machines": 2, "num_mpiprocs_per_machine": 1}),
        ("core.sge", {"parallel_env": "mpi", "tot_num_mpiprocs": 4}),
        ("core.lsf", {"tot_num_mpiprocs": 4}),
        ("core.lsf", {"tot_num_mpiprocs": 4, "use_num_machines": True, "num_machines": 2}),
    ],
)
def test_what_each_scheduler_takes(aiida_profile: Any, scheduler: str, resources: dict[str, Any]) -> None:
    options = {"resources": resources, "max_wallclock_seconds": 3600, "queue_name": "short"}
    before = dict(resources)
    for kind in JOB_OF:
        check_options(options, job_ports(kind), computer(scheduler))
    assert resources == before


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_unknown_names(aiida_profile: Any, scheduler: str) -> None:
    message = refused({"max_walltime": 600}, scheduler)
    assert message.startswith("unknown option 'max_walltime'; known options: account, ")
    assert "max_wallclock_seconds" in message
    assert "unknown option 'foo'" in refused({"foo": 1}, scheduler)
    message = refused({"resources": {"gpus": 1, "num_machines": 1}}, scheduler)
    assert f"unknown resource 'gpus'; the resources of scheduler '{scheduler}' are " in message
    assert "custom_scheduler_commands" in message


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"max_wallclock_seconds": -5}, "max_wallclock_seconds = -5 must be at least 1 and at most"),
        ({"max_wallclock_seconds": 1e300}, "max_wallclock_seconds = 1e+300 must be at least 1"),
        ({"max_wallclock_seconds": "600"}, "max_wallclock_seconds = '600' must be a whole number"),
        ({"max_wallclock_seconds": True}, "max_wallclock_seconds = True must be a whole number"),
        ({"max_memory_kb": 0}, "max_memory_kb = 0 must be at least 1"),
        ({"queue_name": "short\n#SBATCH --wrap=x"}, "must be a word on one line"),
        ({"resources": 5}, "resources = 5 must be a mapping"),
        ({"resources": {"num_machines": "x" * 10**6}}, "must be a whole number"),
        ({"resources": {"num_machines": -1, "num_mpiprocs_per_machine": 1}}, "resources"),
        ({"resources": {"tot_num_mpiprocs": 10**12}}, "resources.tot_num_mpiprocs = 1000000000000 must be"),
        ({"resources": {}}, "resources"),
    ],
)  # fmt: skip
def test_values_out_of_bounds(aiida_profile: Any, scheduler: str, options: dict[str, Any], fragment: str) -> None:
    if options == {"resources": {"num_machines": "x" * 10**6}} and scheduler == "core.sge":
        fragment = "unknown resource 'num_machines'"
    assert fragment in refused(options, scheduler) or "unknown resource 'num_machines'" in refused(options, scheduler)


def test_a_scheduler_that_does_not_take_the_default(aiida_profile: Any) -> None:
    assert "the resources of scheduler 'core.sge' are parallel_env, tot_num_mpiprocs" in refused({}, "core.sge")


def test_an_input_file_names_the_machine(engine: orm.InstalledCode) -> None:
    with pytest.raises(ValueError, match=r"machines\.sampling\.options: unknown option 'max_walltime'; known"):
        load_code("sampling", JobMachine(code=engine.full_label, options={"max_walltime": 600}))


def test_a_builder_is_refused_like_an_input_file(engine: orm.InstalledCode, potential: Any, structure: Any) -> None:
    def builder(**options: Any) -> Any:
        return SampleBaseWorkChain.get_builder_from_protocol(
            code=engine, potential=potential, structure=structure, temperature=85.0, options=options
        )

    with pytest.raises(ValueError, match="options of sample: unknown 'max_walltime'; known are account"):
        builder(max_walltime=600)
    inputs = builder(resources={"num_machines": 1, "gpus": 1})._inputs(prune=True)["calc"]
    port = CalculationFactory("difftre.sample").spec().inputs
    error = port.validate(port.pre_process(port.serialize(inputs)))
    assert "metadata.options: unknown resource 'gpus'" in error.message
