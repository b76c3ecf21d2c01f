"""A refinement whose dynamics costs next to nothing, in a profile of its own: what is left is overhead."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import measure

EPSILON, SIGMA, LATTICE = 0.0103, 3.4, 5.4
"""Argon: depth (eV) and diameter (Å) of the pair energy, edge (Å) of the cubic cell of four atoms."""

COLDEST, STEP, HOTTEST = 60.0, 10.0, 90.0
"""K: of the state points; more than four are closer."""

PROFILE = "benchmark"


@contextmanager
def profile(poll_interval: float | None = None, *, has_services: bool = False) -> Iterator[Path]:
    """A new profile with the engine as a code, loaded; deleted with all that was run in it.

    Args:
        poll_interval: between looks at the jobs, s; None for that of ``aiida-difftre setup``.
        has_services: PostgreSQL and RabbitMQ, started for it, instead of SQLite and the ZeroMQ broker.
    """
    root = Path(tempfile.mkdtemp(prefix="difftre-benchmark-"))
    os.environ["AIIDA_PATH"] = str(root)
    # Workers of the daemon and jobs look for their programs on the PATH.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ.setdefault("DIFFTRE_CACHE", str(Path(tempfile.gettempdir()) / f"difftre-benchmark-cache-{os.getuid()}"))
    from aiida_difftre.cli.setup import setup

    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        if has_services:
            stack.enter_context(_services(root))
        setup(PROFILE, dft=False, make_default=True)
        if poll_interval is not None:
            from aiida import orm

            orm.load_computer("localhost").set_minimum_job_poll_interval(poll_interval)
        yield root


@contextmanager
def _services(root: Path) -> Iterator[None]:
    """The profile on a PostgreSQL cluster and a RabbitMQ of its own, both on the loopback interface."""
    sys.path.append(str(Path(__file__).parents[2]))
    from aiida.manage import get_manager
    from aiida.manage.configuration import create_profile, get_config
    from aiida.tools.pytest_fixtures.storage import PostgresCluster

    from tests.fixtures.postgres import adapted_to_this_machine
    from tests.fixtures.services import rabbitmq

    cluster = PostgresCluster()
    with adapted_to_this_machine(), rabbitmq() as broker:
        try:
            storage = cluster.create_database()
            storage["repository_uri"] = (root / "repository").as_uri()
            create_profile(
                get_config(create=True), name=PROFILE, email="benchmark@localhost",
                storage_backend="core.psql_dos", storage_config=storage,
                broker_backend="core.rabbitmq", broker_config=broker,
            )  # fmt: skip
            yield
        finally:
            get_manager().unload_profile()
            cluster._close()


def code(program: Path | None = None) -> Any:
    """The engine of this environment as a code, or another program that takes its arguments."""
    from aiida import orm

    engine = orm.load_code("difftre@localhost")
    if program is None:
        return engine
    return orm.InstalledCode(
        label=program.stem, computer=engine.computer, filepath_executable=str(program),
        default_calc_job_plugin="difftre.sample",
    ).store()  # fmt: skip


def builder(folder: Path, engine: Any, *, iterations: int, state_points: int, walkers: int = 2) -> Any:
    """Four argon atoms at several temperatures, a few snapshots each, whose pressures no pair energy meets."""
    import numpy as np
    from aiida import orm
    from ase.build import bulk

    from aiida_difftre.data.potential import PotentialData
    from aiida_difftre.data.target import TargetData
    from aiida_difftre.engine.contract import files
    from aiida_difftre.engine.contract.jobs import PotentialSpec, TermSpec
    from aiida_difftre.workchains.refine import RefineWorkChain

    term = TermSpec(architecture="lennard_jones", cutoff=6.0, hyperparameters={"epsilon": EPSILON, "sigma": SIGMA})
    path = folder / "argon.safetensors"
    files.write_potential(
        path,
        PotentialSpec(species=["Ar"], terms=[term]),
        {
            "atomic_energies": np.zeros(1),
            "terms/0_lennard_jones/epsilon": np.full(1, EPSILON),
            "terms/0_lennard_jones/sigma": np.full(1, SIGMA),
        },
    )
    structure = orm.StructureData(ase=bulk("Ar", "fcc", a=LATTICE, cubic=True)).store()
    points = {}
    step = min(STEP, (HOTTEST - COLDEST) / max(1, state_points - 1))
    for number in range(state_points):
        temperature = COLDEST + number * step
        target = {
            "observable": "pressure",
            "values": [0.05 * (-1) ** number],
            "errors": [0.01],
            "unit": "GPa",
            "conditions": {"temperature": temperature},
            "citation": "made up for a benchmark",
        }
        points[f"point{number}"] = {
            "structure": structure,
            "temperature": orm.Float(temperature),
            "targets": {"pressure": TargetData(target)},
        }
    options = {"max_wallclock_seconds": 1800, "environment_variables": {"DIFFTRE_CACHE": os.environ["DIFFTRE_CACHE"]}}
    machine = {"threads": 1, "platform": "cpu"}
    sampling = {
        "walkers": walkers, "timestep_fs": 5.0, "equilibration_fs": 50.0, "production_fs": 400.0, "stride_fs": 50.0
    }  # fmt: skip
    update = {"max_steps": 2, "gate": 0.2, "chi2_stop": 0.0, "chi2_converged": 0.0, "bootstrap": 20}
    return RefineWorkChain.get_builder_from_protocol(
        state_points=points,
        potential=PotentialData.from_file(path),
        sample_code=engine,
        overrides={
            "settings": {
                "max_iterations": iterations, "chi2_stop": 0.0, "patience": iterations + 1,
                "growth": {"thresholds": []}, "continued_equilibration_fs": 50.0, "max_roll_backs": iterations,
            },
            "sample": {"calc": {"parameters": {"sampling": sampling, "machine": machine}}},
            "update": {"calc": {"parameters": {"update": update, "machine": machine}}},
        },
        options={"sample": options, "update": options},
    )  # fmt: skip


def versions() -> dict[str, Any]:
    """Programs and hardware; without importing JAX, whose start is part of what is measured."""
    names = ("aiida-core", "jax", "jaxlib", "numpy", "sqlalchemy")
    return {**measure.versions(), **{name: version(name) for name in names}}
