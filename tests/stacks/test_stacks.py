"""Whole runs on the services of a site: storage, broker, two workers, and Slurm behind ssh; about a minute each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.engine import submit
from aiida.engine.daemon.client import DaemonClient, get_daemon_client

from aiida_difftre.calculations.scheduler import SchedulerStatus
from aiida_difftre.workchains.from_input import read_builder
from aiida_difftre.workchains.refine import RefineWorkChain
from aiida_difftre.workchains.train import TrainWorkChain
from tests.fixtures import services
from tests.fixtures.chains import explain
from tests.fixtures.daemon import running_job, stop, wait_until, workers

pytestmark = [pytest.mark.daemon, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def two_workers(aiida_profile: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonClient]:
    """The daemon of the test profile with two workers."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    client = get_daemon_client(aiida_profile.name)
    client.start_daemon(number_workers=2)
    try:
        yield client
    finally:
        if client.is_daemon_running:
            stop(client)


@pytest.fixture
def cluster(
    request: pytest.FixtureRequest, aiida_profile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[orm.Computer]:
    """Slurm behind a real sshd as a computer of core.ssh_async; with accounting where the parameter is true."""
    if request.config.getoption("--broker") == "zeromq" and services.RABBITMQ.exists():
        pytest.skip("it runs on PostgreSQL and RabbitMQ, below")
    with services.slurm_over_ssh(has_accounting=request.param) as home:
        monkeypatch.setenv("HOME", str(home))  # where ssh looks for its configuration
        monkeypatch.setenv("SLURM_CONF", str(home / "slurm.conf"))
        computer = orm.Computer(
            label="cluster", hostname=services.SSH_HOST, transport_type="core.ssh_async", scheduler_type="core.slurm",
            workdir=str(tmp_path / "scratch"),
        ).store()  # fmt: skip
        computer.configure(safe_interval=0.1, use_login_shell=False)
        computer.set_minimum_job_poll_interval(0.5)
        computer.set_default_mpiprocs_per_machine(1)
        yield computer


def one_iteration(content: dict[str, Any]) -> None:
    content["refinement"]["settings"]["max_iterations"] = 1


def ended(run: orm.ProcessNode) -> dict[str, list[int | None]]:
    """Exit statuses of the jobs of a run that ended well, by kind, in order."""
    wait_until(lambda: run.is_terminated, "the end", run)
    assert run.is_finished_ok, explain(run)
    found: dict[str, list[int | None]] = {}
    jobs = sorted((job for job in run.called_descendants if isinstance(job, orm.CalcJobNode)), key=lambda job: job.pk)
    for job in jobs:
        found.setdefault(job.process_label, []).append(job.exit_status)
    return found


def test_a_run_with_two_workers(argon_input: Any, two_workers: DaemonClient) -> None:
    """On the storage and the broker of the session."""
    run = submit(read_builder(argon_input(one_iteration), TrainWorkChain))
    # Two samplings in the refinement, two in the validation.
    assert ended(run) == {"SampleCalculation": [0, 0, 0, 0], "UpdateCalculation": [0]}
    assert len(workers(two_workers)) == 2
    assert run.outputs.potential.is_stored


@pytest.fixture
def on_cluster(cluster: orm.Computer, engine_script: str) -> Callable[[dict[str, Any]], None]:
    """Changes to the content of an input, with which its jobs run on a GPU node of the cluster."""
    code = orm.InstalledCode(computer=cluster, label="difftre", filepath_executable=engine_script).store()

    def change(content: dict[str, Any]) -> None:
        one_iteration(content)
        content["sampling"]["production_fs"] = 4000.0
        for machine in ("sampling", "update"):
            content["machines"][machine]["code"] = code.full_label
            content["machines"][machine]["options"] |= {
                "queue_name": services.PARTITION,
                "custom_scheduler_commands": "#SBATCH --gres=gpu:1",
                "prepend_text": f'export PYTHONPATH={ROOT}\necho "GPUs: $SLURM_GPUS_ON_NODE"',
            }

    return change


def cancelled_first(run: orm.ProcessNode) -> orm.CalcJobNode:
    """The first job of a run, which is cancelled past AiiDA."""
    first = wait_until(lambda: running_job(run, "SampleCalculation"), "a job in the queue", run)
    subprocess.run(["scancel", first.get_job_id()], check=True)
    return first


@pytest.mark.long
@pytest.mark.parametrize("cluster", [True], indirect=True)
def test_accounting_tells_who_cancelled(request: pytest.FixtureRequest, on_cluster: Any, argon_input: Any) -> None:
    """The owner of a job wants its run to end with it.

    By hand: ``pytest -n 0 -m long --db postgresql --broker rabbitmq tests/stacks``, with slurmdbd and MariaDB.
    """
    request.getfixturevalue("two_workers")  # after the home folder is set

    def end(content: dict[str, Any]) -> None:
        on_cluster(content)
        content["machines"]["sampling"]["on_cancelled"] = "end_if_own"

    run = submit(read_builder(argon_input(end), RefineWorkChain))
    first = cancelled_first(run)
    wait_until(lambda: run.is_terminated, "the end", run)
    assert first.exit_status == SchedulerStatus.CANCELLED_BY_OWNER, explain(run)
    assert "the accounting says CANCELLED by" in first.exit_message
    assert not run.is_finished_ok
    assert [job for job in run.called_descendants if isinstance(job, orm.CalcJobNode)] == [first]


@pytest.mark.parametrize("cluster", [False], indirect=True)
def test_slurm_over_ssh(
    request: pytest.FixtureRequest, cluster: orm.Computer, on_cluster: Any, argon_input: Any
) -> None:
    """A refinement on a GPU node; its first job is cancelled past AiiDA, which Slurm tells without naming who."""
    two_workers = request.getfixturevalue("two_workers")  # after the home folder is set
    run = submit(read_builder(argon_input(on_cluster), RefineWorkChain))
    first = cancelled_first(run)
    jobs = ended(run)
    assert jobs["SampleCalculation"][1:] == [0, 0]
    assert jobs["UpdateCalculation"] == [0]
    assert first.exit_status in (345, 303), explain(run)  # 303: it was cancelled before it ran
    assert len(workers(two_workers)) == 2
    for job in run.called_descendants:
        if isinstance(job, orm.CalcJobNode) and job.is_finished_ok:
            output = job.outputs.retrieved.base.repository.get_object_content("_scheduler-stdout.txt")
            assert "GPUs: 1" in output
            assert job.outputs.remote_folder.computer.uuid == cluster.uuid


def test_on_postgresql_and_rabbitmq(request: pytest.FixtureRequest) -> None:
    """The tests above in a session of their own."""
    if request.config.getoption("--broker") == "rabbitmq":
        pytest.skip("this session has RabbitMQ itself")
    pgtest = pytest.importorskip("pgtest.pgtest", reason="pgtest is not installed: it is in the extra `tests`")
    try:
        pgtest.which("pg_ctl")
    except FileNotFoundError:
        pytest.skip("there are no PostgreSQL programs (pg_ctl, initdb) on this machine")
    if not services.RABBITMQ.exists():
        pytest.skip("rabbitmq-server is not installed; .ci/run installs it")
    environment = {name: value for name, value in os.environ.items() if name != "AIIDA_PATH"}
    options = ["-q", "-rs", "-n", "0", "-p", "no:cacheprovider", "-m", "slow and not long"]
    options += ["--db", "postgresql", "--broker", "rabbitmq"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, __file__],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
