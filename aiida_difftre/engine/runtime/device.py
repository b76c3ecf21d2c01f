"""The machine under the engine: JAX's configuration, the accelerator check and the start-up self-check."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import platform
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiida_difftre
from aiida_difftre.engine.contract import writing
from aiida_difftre.engine.contract.jobs import Machine
from aiida_difftre.engine.errors import EngineError, ExitStatus

if TYPE_CHECKING:
    import numpy as np
    from jax.sharding import Mesh
    from numpy.typing import NDArray

SELF_CHECK_TOLERANCE = {"float32": 2e-5, "float64": 1e-10}
"""Relative difference of compiled and uncompiled energies; the known miscompilation is 2e-4 and larger."""

SELF_CHECK_RATTLE = 0.05
"""Å, standard deviation of what is added to each component of a displacement for the check."""

SELF_CHECK_FLOOR = 0.05
"""eV per atom, to which a smaller energy is not compared: terms of some eV may cancel, and their rounding does not."""


def cache_folder(machine: Machine) -> Path:
    """Folder of the persistent compilation cache."""
    named = machine.compilation_cache or os.environ.get("DIFFTRE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "difftre"


def _make_cache(machine: Machine) -> Path | None:
    """Make the folder of the cache; None, with a warning, where that fails and the job does not name it.

    Raises:
        EngineError: with status INVALID_INPUT, where the job names it.
    """
    try:
        folder = cache_folder(machine)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & stat.S_IWOTH:
            raise OSError(f"programs in {folder} would run in this job, and everybody may write to it")
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        if machine.compilation_cache is not None:
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                f"machine.compilation_cache is {machine.compilation_cache!r}, which cannot be used: {error}; name "
                "a folder that you alone can write on the compute node, or leave it out",
            ) from None
        print(
            f"difftre: every program of this job is compiled anew, since the folder of the cache "
            f"({os.environ.get('DIFFTRE_CACHE') or '~/.cache/difftre'}) cannot be used: {error}; name one that you "
            "alone can write here in the environment variable DIFFTRE_CACHE",
            file=sys.stderr,
        )
        return None
    return folder


def usable_cores() -> int:
    """Cores that the process may use: those that the scheduler left it, where the operating system tells."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def configure(machine: Machine) -> None:
    """Set JAX up for this process; call it before the first array is made.

    64-bit types are on (energies that enter weights are float64); each CPU device runs one thread, and walkers and
    batches are spread over devices; compiled programs persist between jobs.

    Raises:
        EngineError: with status NO_ACCELERATOR, when the job asks for a GPU and JAX sees none; INVALID_INPUT, when the
            folder that it names for the cache cannot be made.
    """
    threads = machine.threads or usable_cores()
    flags = [os.environ.get("XLA_FLAGS", "")]
    if "host_platform_device_count" not in flags[0]:
        flags.append(f"--xla_force_host_platform_device_count={threads}")
        flags.append("--xla_cpu_multi_thread_eigen=false")
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()
    # Read by XLA as it starts: without it the pool that operations share has a thread for each core of the machine.
    os.environ["NPROC"] = str(threads)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)

    import jax

    jax.config.update("jax_enable_x64", True)
    cache = _make_cache(machine)
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if machine.platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    found = jax.default_backend()
    if machine.platform == "gpu" and found != "gpu":
        raise EngineError(
            ExitStatus.NO_ACCELERATOR,
            f"the job asks for a GPU, but JAX {jax.__version__} found {found!r} only; install jax[cuda12] or "
            "jax[cuda13] on the compute node and request a GPU from the scheduler, or set machine.platform to cpu",
        )


def has_gpu() -> bool:
    """Whether JAX computes on a GPU; after :func:`configure`."""
    import jax

    return bool(jax.default_backend() == "gpu")


def mesh(count: int | None = None) -> Mesh:
    """Devices of the process along one axis, ``device``; walkers and batches of snapshots are spread over it.

    Args:
        count: Number of devices; None for all.
    """
    import jax

    devices = None if count is None else jax.devices()[:count]
    number = count or jax.device_count()
    return jax.make_mesh((number,), ("device",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def description(machine: Machine) -> dict[str, Any]:
    """Versions and device, for ``results.json``."""
    import jax

    return {
        "version": aiida_difftre.__version__,
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "host": platform.machine(),
        "python": platform.python_version(),
        "precision": machine.precision,
    }


def self_check(potential: Any, parameters: Any, environment: Any, precision: str) -> float:
    """Compare the compiled energy of a rattled configuration with an uncompiled evaluation.

    In a perfect crystal all atoms round alike, and terms may cancel to an energy that is nearly zero, so that a right
    program may differ by more than a wrong one. What is compared need not be a configuration: each displacement is
    changed on its own, always in the same way.

    jaxlib 0.10.2 on CPU compiled neighbour-list energies to wrong values without an error; forces were right, so that
    only such a check sees it. The evaluation without compilation costs more than all else at the start of a short job;
    a program that was found right on this machine by this build is remembered beside its compiled form.

    Args:
        potential: its energies are compiled.
        parameters: Its parameters.
        environment: Environment of a configuration, whose energy must be finite.
        precision: Precision of the environment.

    Returns:
        The relative difference; that of the earlier check where there was one.

    Raises:
        EngineError: with status SELF_CHECK_FAILED, or NOT_FINITE where the uncompiled energy is not.
    """
    import jax
    import numpy as np

    # Without the atomic reference energies, whose size would hide a wrong interaction.
    parameters = {**parameters, "atomic_energies": np.zeros_like(parameters["atomic_energies"])}
    lowered = jax.jit(potential.energies).lower(parameters, environment)
    program = lowered.compile()
    verdict = _verdict_file(lowered.as_text())
    if not np.isfinite(np.asarray(program(parameters, environment))).all():
        with jax.disable_jit():
            _require_finite(np.asarray(potential.energies(parameters, environment)))
        raise _miscompiled(math.nan)
    known = _read_verdict(verdict)
    if known is not None and known <= SELF_CHECK_TOLERANCE[precision]:
        return known
    rattled = _rattled(environment)
    compiled = np.asarray(program(parameters, rattled), np.float64)
    with jax.disable_jit():
        reference = np.asarray(potential.energies(parameters, rattled), np.float64)
    _require_finite(reference)
    scale = max(abs(reference).sum(), SELF_CHECK_FLOOR * len(reference))
    difference = float(abs(compiled.sum() - reference.sum()) / scale)
    if not difference <= SELF_CHECK_TOLERANCE[precision]:
        raise _miscompiled(difference)
    if verdict is not None:
        with contextlib.suppress(OSError):  # a cache that cannot be written, or is full, is no cache
            writing.write_json(verdict, {"relative_difference": difference})
    return difference


def _rattled(environment: Any) -> Any:
    """An environment whose displacements are changed, with the same types and places."""
    import jax
    import numpy as np

    old = environment.displacements
    noise = np.random.default_rng(0).normal(scale=SELF_CHECK_RATTLE, size=old.shape)
    new = np.asarray(old) + np.where(np.asarray(environment.mask)[..., None], noise, 0.0)
    new = new.astype(old.dtype)
    return environment._replace(displacements=jax.device_put(new, getattr(old, "sharding", None)))


def _miscompiled(difference: float) -> EngineError:
    import jax

    return EngineError(
        ExitStatus.SELF_CHECK_FAILED,
        f"the compiled energy differs from the uncompiled one by {difference:.1e} (relative): this build of JAX "
        f"({jax.__version__}, {jax.default_backend()}) miscompiles; install another version (not jaxlib 0.10.2)",
        {"relative_difference": difference},
    )


def _require_finite(energies: NDArray[np.floating[Any]]) -> None:
    """Refuse energies of atoms that are not finite.

    Raises:
        EngineError: with status NOT_FINITE, naming the first atom.
    """
    import numpy as np

    if not np.isfinite(energies).all():
        raise EngineError(
            ExitStatus.NOT_FINITE,
            f"the energy of atom {int(np.argmin(np.isfinite(energies)))} of the first configuration is not finite; "
            "check the structure and the parameters of the potential",
        )


def _verdict_file(program: str) -> Path | None:
    """Where the verdict on a program is kept; None without a compilation cache.

    Args:
        program: The program as it is handed to the compiler.
    """
    import jax

    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]  # declared as JAX starts
    if not folder:
        return None
    machine = (platform.node(), jax.default_backend(), jax.devices()[0].device_kind, os.environ.get("XLA_FLAGS", ""))
    build = (jax.__version__, importlib.metadata.version("jaxlib"))
    key = hashlib.sha256("\n".join((*build, *machine, program)).encode()).hexdigest()
    return Path(folder) / f"self-check-{key}.json"


def _read_verdict(path: Path | None) -> float | None:
    """The relative difference of an earlier check; None where there was none."""
    if path is None:
        return None
    try:
        return float(json.loads(path.read_text())["relative_difference"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
