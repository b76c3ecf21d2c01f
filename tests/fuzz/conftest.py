"""Fixtures of the mutated inputs: settings of hypothesis, and the report."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.fuzz import doors

settings.register_profile(
    "fuzz",
    max_examples=doors.EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz")


@pytest.fixture(scope="session", autouse=True)
def written_report() -> Iterator[None]:
    """The numbers of inputs by kind, where ``DIFFTRE_FUZZ_REPORT`` asks for them."""
    yield
    doors.write_report()
