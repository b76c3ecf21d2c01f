"""What all tests share: a temporary AiiDA profile, on SQLite or (``--db postgresql``) PostgreSQL, and ready inputs."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

from tests import typecheck

# Parts of the engine whose annotations, shapes included, are checked at each call; before anything imports them.
CHECKED = (
    "calculators", "contract", "geometry", "matching", "observables", "optimizers", "potentials", "refinement",
    "reweighting", "runtime", "sampling", "snapshots", "tables",
)  # fmt: skip
install_import_hook(
    [f"aiida_difftre.engine.{name}" for name in CHECKED], f"{typecheck.__name__}.{typecheck.checked.__name__}"
)

# Importing AiiDA makes its folder, `~/.aiida` unless told otherwise; the tests leave the user's alone.
os.environ["AIIDA_PATH"] = tempfile.mkdtemp(prefix="difftre-tests-")
atexit.register(shutil.rmtree, os.environ["AIIDA_PATH"], ignore_errors=True)
# So is the cache of compiled programs, `~/.cache/difftre` unless told otherwise; this one is kept between runs.
os.environ.setdefault("DIFFTRE_CACHE", str(Path(tempfile.gettempdir()) / f"difftre-tests-{os.getuid()}"))
# Before JAX is imported, which sets its own: XLA warns in pages of each program that it takes from that cache.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# AiiDA's daemon looks for `verdi` on the PATH when its module is imported; `.venv/bin/pytest` does not put it there.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # that it makes the folder
    from aiida.manage import get_manager

pytest_plugins = [
    "aiida.tools.pytest_fixtures",
    "tests.fixtures.calculations",
    "tests.fixtures.nodes",
    "tests.fixtures.chains",
    "tests.fixtures.daemon",
    "tests.fixtures.quantum_espresso",
    "tests.fixtures.feff",
    "tests.fixtures.plugins",
]

EXPECTED_WARNINGS = (
    # aiida-core tells that it makes the temporary configuration which its own fixture asks for.
    "ignore:Creating AiiDA configuration folder:UserWarning",
    # aiida-core 2.9 with SQLAlchemy 2: deleting links of unsaved nodes; harmless.
    "ignore::sqlalchemy.exc.SAWarning",
    # pgsu warns that the database's name, which pgtest passes, is replaced by its own.
    "ignore:The dsn contain:UserWarning",
    # aiida-core leaves its last database connections to the garbage collector.
    "ignore:connection .*was deleted while still open:ResourceWarning",
    "ignore:Exception ignored in. <function BaseConnection:pytest.PytestUnraisableExceptionWarning",
    # The same on SQLite, which Python 3.13 tells.
    "ignore:unclosed database in:ResourceWarning",
    "ignore:Exception ignored in. <sqlite3.Connection:pytest.PytestUnraisableExceptionWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    for line in EXPECTED_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


LONG_FIRST = (
    "stacks", "integration", "faults", "benchmarks", "fuzz", "engine/test_cli.py", "engine/test_interruption.py",
    "engine/jobs", "workchains", "engine/sampling", "test_testing.py", "engine/potentials",
    "engine/observables/test_mechanical.py", "docs", "calculations", "cli", "engine/refinement", "engine/reweighting",
    "engine/matching", "engine/snapshots", "engine/observables", "parsers",
)  # fmt: skip
"""What takes long, by folder or file of the tests, longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first: a worker takes whole files, and a long one that starts last leaves the others idle."""
    here = Path(__file__).parent
    ranks = [here / name for name in LONG_FIRST]

    def rank(item: pytest.Item) -> int:
        return next((number for number, path in enumerate(ranks) if item.path.is_relative_to(path)), len(ranks))

    items.sort(key=rank)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--db",
        choices=("sqlite", "postgresql"),
        default=os.environ.get("DIFFTRE_TEST_DB", "sqlite"),
        help="storage of the test profile (default: $DIFFTRE_TEST_DB, else sqlite)",
    )
    parser.addoption(
        "--broker", choices=("zeromq", "rabbitmq"), default="zeromq", help="broker of the test profile's daemon"
    )


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The broker of the session, as the profile's options; RabbitMQ is started where it is asked for."""
    if request.config.getoption("--broker") == "zeromq":
        yield {"broker_backend": "core.zeromq"}
        return
    from tests.fixtures.services import rabbitmq

    with rabbitmq() as config:
        yield {"broker_backend": "core.rabbitmq", "broker_config": config}


@pytest.fixture(scope="session", autouse=True)
def aiida_profile(
    request: pytest.FixtureRequest, aiida_config: Any, aiida_profile_factory: Any, broker: dict[str, Any]
) -> Iterator[Any]:
    """The profile of the session; its daemon, where a test starts one, needs no service unless the options ask so."""
    options = dict(broker)
    if request.config.getoption("--db") == "sqlite":
        with aiida_profile_factory(aiida_config, **options) as profile:
            yield profile
        return
    from tests.fixtures.postgres import adapted_to_this_machine

    with adapted_to_this_machine():
        storage = request.getfixturevalue("config_psql_dos")()
        with aiida_profile_factory(
            aiida_config, storage_backend="core.psql_dos", storage_config=storage, **options
        ) as profile:
            yield profile
            get_manager().reset_profile_storage()
    # What aiida-core leaves to the garbage collector is collected here, where its warnings are expected.
    gc.collect()
