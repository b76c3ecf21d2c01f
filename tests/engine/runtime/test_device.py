"""The machine: cache folder, description, self-check."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk

from aiida_difftre.engine.contract.jobs import Machine
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.potential import Environment
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.snapshots import snapshots
from tests.fixtures.engine import alloy, build, network


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DIFFTRE_CACHE", raising=False)
    assert device.cache_folder(Machine()) == Path.home() / ".cache" / "difftre"
    monkeypatch.setenv("DIFFTRE_CACHE", str(tmp_path))
    assert device.cache_folder(Machine()) == tmp_path
    assert device.cache_folder(Machine(compilation_cache="/elsewhere")) == Path("/elsewhere")


def test_description() -> None:
    found = device.description(Machine(precision="float64"))
    assert found["jax"] == jax.__version__
    assert found["platform"] == jax.default_backend()
    assert found["precision"] == "float64"
    assert device.mesh().shape["device"] == found["devices"]


def test_cores_where_the_system_does_not_tell_which(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= device.usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS
    assert device.usable_cores() == os.cpu_count()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads have names on Linux")
@pytest.mark.parametrize("threads", [1, 3])
def test_operations_share_no_more_threads_than_asked_for(threads: int) -> None:
    script = f"""
from pathlib import Path
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.contract.jobs import Machine
device.configure(Machine(threads={threads}, platform="cpu"))
import jax
jax.block_until_ready(jax.numpy.ones(3))
print([(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.count("XLAEigen") == threads


def test_cached_programs_are_loaded_without_a_word_of_xla(tmp_path: Path) -> None:
    """Also where a module of the engine has imported JAX before the machine is configured, as scripts do."""
    script = """
import sys
from aiida_difftre.engine.potentials import potential
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.contract.jobs import Machine
device.configure(Machine(threads=1, platform="cpu", compilation_cache=sys.argv[1]))
import jax
jax.jit(lambda x: x[jax.numpy.arange(5) % 3].sum())(jax.numpy.ones(3)).block_until_ready()
"""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    for _ in range(2):  # the second one loads what the first has compiled
        words = [sys.executable, "-c", script, str(tmp_path)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_self_check_passes(precision: str) -> None:
    potential, parameters = network(("C", "O"))
    atoms = alloy()
    positions, cell = atoms.get_scaled_positions(), atoms.cell.array
    environment = snapshots.environment(potential, positions, cell, atoms.get_chemical_symbols(), precision)
    assert device.self_check(potential, parameters, environment, precision) < device.SELF_CHECK_TOLERANCE[precision]


@pytest.mark.parametrize("repeat", [1, 2])
def test_a_perfect_crystal_of_hardly_any_energy_passes(repeat: int) -> None:
    """Attraction and repulsion of tens of eV per atom cancel to -13 meV: single precision knows three digits of it."""
    potential = build("lennard_jones", ["C"], 3.0, epsilon=5.0, sigma=1.6)
    parameters = potential.init(jax.random.key(0))
    atoms = bulk("C", "diamond", a=3.6108322578459724, cubic=True).repeat(repeat)
    positions, cell = atoms.get_scaled_positions(), atoms.cell.array
    environment = snapshots.environment(potential, positions, cell, atoms.get_chemical_symbols(), "float32")
    energies = np.asarray(jax.jit(potential.energies)(parameters, environment))
    np.testing.assert_allclose(energies, -0.013, atol=2e-4)
    found = device.self_check(potential, parameters, environment, "float32")
    assert found < device.SELF_CHECK_TOLERANCE["float32"] / 10


@pytest.mark.parametrize("factor", [1.00018, 1.00069])
@pytest.mark.parametrize("size", [0.013, 1.0])
def test_the_known_miscompilation_is_found(factor: float, size: float) -> None:
    with pytest.raises(EngineError, match="miscompiles"):
        device.self_check(Miscompiled(factor), PARAMETERS, neighbors(1, size), "float32")


@pytest.fixture
def compilation_cache(tmp_path: Path) -> Iterator[Path]:
    """An empty cache of compiled programs."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


class Miscompiled:
    """A potential whose compiled energies differ from the others by a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.uncompiled = 0

    def energies(self, parameters: dict[str, jax.Array], environment: Environment) -> jax.Array:
        energies = environment.displacements[..., 0].sum(1) + parameters["atomic_energies"]
        if jax.config.jax_disable_jit:
            self.uncompiled += 1
            return energies
        return self.factor * energies


PARAMETERS = {"atomic_energies": jnp.zeros(3)}


def neighbors(number: int, size: float | tuple[float, ...] = 1.0) -> Environment:
    """Three atoms with displacements of a size."""
    sizes = jnp.broadcast_to(jnp.asarray(size)[..., None, None], (3, number, 3))
    kinds = jnp.zeros((3, number), jnp.int32)
    return Environment(sizes, jnp.ones((3, number), bool), kinds[:, 0], kinds)


def test_a_program_is_checked_once(compilation_cache: Path) -> None:
    right = Miscompiled(1.0)
    for _ in range(3):
        assert device.self_check(right, PARAMETERS, neighbors(1), "float64") == 0
    assert right.uncompiled == 1
    device.self_check(right, PARAMETERS, neighbors(2), "float64")
    assert right.uncompiled == 2  # another program
    (verdict, _) = compilation_cache.glob("self-check-*.json")
    verdict.write_text("half a ")
    device.self_check(right, PARAMETERS, neighbors(1), "float64")
    device.self_check(right, PARAMETERS, neighbors(2), "float64")
    assert right.uncompiled == 3


def test_a_wrong_program_is_refused_each_time(compilation_cache: Path) -> None:
    wrong = Miscompiled(1.001)
    for count in (1, 2):
        with pytest.raises(EngineError, match=r"differs from the uncompiled one by 1\.0e-03") as raised:
            device.self_check(wrong, PARAMETERS, neighbors(1), "float64")
        assert raised.value.status is ExitStatus.SELF_CHECK_FAILED
        assert wrong.uncompiled == count
    assert not list(compilation_cache.glob("self-check-*"))


def test_energies_that_are_not_finite_are_refused_where_the_program_is_known(compilation_cache: Path) -> None:
    right = Miscompiled(1.0)
    device.self_check(right, PARAMETERS, neighbors(1), "float64")
    with pytest.raises(EngineError, match="atom 1 of the first configuration is not finite"):
        device.self_check(right, PARAMETERS, neighbors(1, (1.0, jnp.nan, 1.0)), "float64")


def test_without_a_cache_each_start_checks() -> None:
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        right = Miscompiled(1.0)
        for count in (1, 2):
            device.self_check(right, PARAMETERS, neighbors(1), "float64")
            assert right.uncompiled == count
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
