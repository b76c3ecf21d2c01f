"""An environment of its own for the jobs that evaluate a base potential: what is installed here, and its package."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

from aiida_difftre.cli.quantum_espresso import home
from aiida_difftre.engine.contract import known_bases
from aiida_difftre.engine.contract.known_bases import KnownBase

LONGEST_INSTALLATION_S = 3600
"""The packages of models bring PyTorch with them."""

Report = Callable[[str], None]

_PROGRAM = """#!{python}
import sys

from aiida_difftre.engine.cli import cli

sys.exit(cli())
"""

_CHECK = """
from aiida_difftre.engine.contract.known_bases import check_installed, known
check_installed(known({engine!r}, {name!r}).spec())
"""


class BaseError(Exception):
    """The environment of a base cannot be made; the message names the remedy."""


def known_name(name: str) -> KnownBase:
    """A base with a package, by its name.

    Raises:
        BaseError: for a name that is not known, or one that needs no environment.
    """
    found = [base for base in known_bases.registry().values() if base.name == name]
    packaged = [base for base in found if base.package is not None]
    if packaged:
        return min(packaged, key=lambda base: base.engine)
    names = sorted({base.name for base in known_bases.registry().values() if base.package is not None})
    if found:
        raise BaseError(f"base {name!r} needs no package, and runs with the code of the engine; leave out --base")
    raise BaseError(f"unknown base {name!r}; those with a package: {', '.join(names)}")


def ensure_environment(base: KnownBase, report: Report = lambda _: None) -> Path:
    """The command ``difftre`` in an environment that has the package of a base; made where it is missing.

    It sees the packages of this environment, so that the engine is the same, and has only those of the base in
    addition.

    Args:
        base: The base.
        report: is told what is being done.

    Returns:
        The program.

    Raises:
        BaseError: when the installation fails, or another version is found.
    """
    environment = home() / f"base-{base.name}"
    python = environment / "bin" / "python"
    program = environment / "bin" / "difftre"
    try:
        if not python.is_file():
            venv.create(environment, with_pip=True)
        site = next(environment.glob("lib/python*/site-packages"))
        (site / "difftre_parent.pth").write_text(_parent_paths())
        if _problem(python, base) is not None:
            wanted = base.package if base.version is None else f"{base.package}=={base.version}"
            report(f"installing {wanted} into {environment}")
            _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wanted)])
        program.write_text(_PROGRAM.format(python=python))
        program.chmod(0o755)
    except (OSError, StopIteration, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()[-600:]
        raise BaseError(
            f"installing {base.package} into {environment} failed: {said}; mend that, or install it where jobs run and "
            "name that code in the input (machines.sampling.code)"
        ) from None
    if (problem := _problem(python, base)) is not None:
        raise BaseError(f"{problem}; remove {environment} to have it made anew")
    return program


def _parent_paths() -> str:
    """The folders of packages of this environment, one in a line; those of an editable installation among them."""
    import aiida_difftre

    paths = [Path(aiida_difftre.__file__).resolve().parents[1]]
    paths += [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    return "".join(f"{path}\n" for path in dict.fromkeys(paths))


def _problem(python: Path, base: KnownBase) -> str | None:
    """Why an environment cannot evaluate a base; None where it can."""
    code = _CHECK.format(engine=base.engine, name=base.name) if not base.files else f"import {_module(base)}"
    try:
        _run([python, "-c", code])
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip().splitlines()[-1].removeprefix("ValueError: ")
    return None


def _module(base: KnownBase) -> str:
    """What the package of a base that takes its weights from a file is imported as."""
    return {"mace-torch": "mace", "fairchem-core": "fairchem", "torch-sim-atomistic": "torch_sim"}.get(
        str(base.package), str(base.package)
    )


def _run(command: list[str | Path]) -> None:
    subprocess.run(
        [str(word) for word in command],
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LONGEST_INSTALLATION_S,
        cwd=Path(sys.prefix),
    )
