"""The engine is tested in float64 unless a test says otherwise; compiled programs persist between tests and runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# The cache's loader warns of compiler options that it takes for features of the processor.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import pytest

jax.config.update("jax_enable_x64", True)

CACHE = Path(tempfile.gettempdir()) / f"difftre-tests-{os.getuid()}"
CACHE.mkdir(exist_ok=True)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_module() -> Iterator[None]:
    """Compiled programs leave the memory with the module that needed them; all of them together are gigabytes."""
    yield
    jax.clear_caches()
