"""Finds pw.x and ld1.x on PATH, or installs them from the qepy wheel into an environment of their own; checks them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiida_difftre.cli import qepy_program

PACKAGES = ("qepy==7.2.0", "numpy<2")
OPENBLAS = "scipy==1.12.0"
"""The last series whose OpenBLAS has plain Fortran symbols; optional, see qepy_program."""

LAST_WHEELS = (3, 12)
"""The last Python for which there are wheels of these; later ones take them too, since nothing of them is imported."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMPI_MCA_ess_singleton_isolated": "1",
    "OMPI_MCA_btl": "self",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
"""For a serial run: one thread, and an Open MPI that opens no sockets and does not mind root."""

PREPEND_TEXT = "\n".join(f"export {name}={value}" for name, value in ENVIRONMENT.items())

Report = Callable[[str], None]


class QuantumEspressoError(Exception):
    """Quantum ESPRESSO cannot be found, installed or run; the message names the remedy."""


@dataclass(frozen=True)
class Programs:
    """Paths of the programs.

    Args:
        pw: pw.x.
        ld1: ld1.x; None where only a pw.x is there.
        version: Version of pw.x, such as ``7.2``.
        private: whether they are wrappers around the qepy wheel in the private environment.
    """

    pw: Path
    ld1: Path | None
    version: str
    private: bool


def home() -> Path:
    """Folder for what ``setup`` installs: $DIFFTRE_HOME, else difftre in the user's data folder."""
    if os.environ.get("DIFFTRE_HOME"):
        return Path(os.environ["DIFFTRE_HOME"]).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "difftre"


def find_programs(pw: Path | None = None, report: Report = lambda _: None) -> Programs:
    """Take the given pw.x, else the one on PATH, else the private one, which is installed where it is missing.

    Args:
        pw: path of a pw.x to use.
        report: is told what is being done.

    Raises:
        QuantumEspressoError: when the program does not run, or the installation fails.
    """
    found = pw or _on_path("pw.x")
    if found is None:
        return private_programs(report)
    beside = found.parent / "ld1.x"
    ld1 = beside if beside.is_file() else _on_path("ld1.x")
    return Programs(pw=found, ld1=ld1, version=program_version(found), private=False)


def private_programs(report: Report = lambda _: None) -> Programs:
    """pw.x and ld1.x from the qepy wheel; installed into a virtual environment under :func:`home` if need be.

    Raises:
        QuantumEspressoError: when the installation fails or the program does not run.
    """
    environment = home() / "qepy-venv"
    if _site_packages(environment) is None:
        report(f"installing pw.x (the qepy wheel) into {environment}")
        _install(environment)
    pw, ld1 = _write_wrappers(environment)
    return Programs(pw=pw, ld1=ld1, version=program_version(pw), private=True)


def program_version(program: Path) -> str:
    """Start pw.x with an empty input and read the version off its banner.

    Raises:
        QuantumEspressoError: when it does not start.
    """
    try:
        result = run_program(program, "", timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QuantumEspressoError(f"{program} does not start: {error}") from None
    match = re.search(r"Program PWSCF v\.?(\S+) starts", result.stdout)
    if match is None:
        said = (result.stdout + result.stderr).strip()[-400:] or "nothing"
        raise QuantumEspressoError(
            f"{program} is no working pw.x: with an empty input it says {said!r}; name another one with --pw, "
            "or take it off PATH to have one installed"
        )
    return match.group(1)


def run_program(
    program: Path, text: str, timeout: float, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program on an input given on standard input, serially.

    Args:
        program: path.
        text: the input.
        timeout: s.
        folder: Folder in which it runs; a scratch folder under :func:`home` by default, since qepy leaves a file
            behind.
    """
    if folder is None:
        folder = home() / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [str(program)],
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        check=False,
    )


def check_scf(pw: Path, pseudopotential: Path, element: str) -> None:
    """Run a real, tiny self-consistent calculation: one atom at one k-point.

    Args:
        pw: the program.
        pseudopotential: UPF file.
        element: its chemical symbol.

    Raises:
        QuantumEspressoError: with the end of the output, when it does not finish.
    """
    folder = home() / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    text = _SCF_INPUT.format(folder=pseudopotential.parent, file=pseudopotential.name, element=element)
    try:
        result = run_program(pw, text, timeout=120, folder=folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QuantumEspressoError(f"{pw} does not finish a calculation of one atom: {error}") from None
    if "JOB DONE" not in result.stdout:
        raise QuantumEspressoError(
            f"{pw} starts but does not finish a calculation of one {element} atom; its output ends with:\n"
            f"{(result.stdout + result.stderr)[-800:]}"
        )


_SCF_INPUT = """&CONTROL
 calculation = 'scf', prefix = 'check', outdir = './check', pseudo_dir = '{folder}', disk_io = 'none'
/
&SYSTEM
 ibrav = 1, celldm(1) = 6.0, nat = 1, ntyp = 1, ecutwfc = 15, occupations = 'smearing', degauss = 0.05
/
&ELECTRONS
 conv_thr = 1e-3, electron_maxstep = 30, scf_must_converge = .false.
/
ATOMIC_SPECIES
 {element} 1.0 {file}
ATOMIC_POSITIONS crystal
 {element} 0.0 0.0 0.0
K_POINTS gamma
"""


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found).absolute() if found else None


def _site_packages(environment: Path) -> Path | None:
    found = [path for path in environment.glob("lib/python*/site-packages") if (path / "qepy" / "qepylibs").is_dir()]
    return found[0] if found else None


def install_environment(
    environment: Path,
    packages: Sequence[str],
    optional: Sequence[str] = (),
    *,
    of_python: tuple[int, int] | None = None,
) -> None:
    """Make a virtual environment with packages.

    It is made under a temporary name of this process and renamed: an interrupted installation leaves nothing that looks
    whole, and of two at the same time the first to end is kept.

    Args:
        environment: folder; what is there beforehand is replaced.
        packages: requirements.
        optional: a requirement and options of pip, whose failure does not matter.
        of_python: take the wheels of this version of Python, without what they require; those of this one by default.

    Raises:
        OSError: where the folder cannot be made.
        subprocess.SubprocessError: where pip fails.
    """
    environment.parent.mkdir(parents=True, exist_ok=True)
    part = environment.with_name(f"{environment.name}.{os.getpid()}.part")
    for leftover in (part, environment):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        venv.create(part, with_pip=True)
        foreign: tuple[str, ...] = ()
        if of_python is not None:
            (site_packages,) = part.glob("lib/python*/site-packages")
            version = ".".join(map(str, of_python))
            foreign = (
                "--no-deps",
                "--only-binary",
                ":all:",
                "--python-version",
                version,
                "--target",
                str(site_packages),
            )
        _pip(part, *foreign, *packages)
        if optional:
            with contextlib.suppress(subprocess.SubprocessError):
                _pip(part, *foreign, *optional)
        try:
            part.rename(environment)
        except OSError:
            if not environment.is_dir():  # else another set-up was faster, and its environment is whole
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _install(environment: Path) -> None:
    try:
        of_python = LAST_WHEELS if sys.version_info[:2] > LAST_WHEELS else None
        # Only the speed depends on OpenBLAS.
        install_environment(environment, PACKAGES, ("--no-deps", OPENBLAS), of_python=of_python)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()[-600:]
        raise QuantumEspressoError(
            f"no pw.x on PATH, and installing {' '.join(PACKAGES)} into {environment} failed: {said}\n"
            "Install Quantum ESPRESSO (on Debian: apt install quantum-espresso) and name it with --pw, "
            "or choose another folder with DIFFTRE_HOME"
        ) from None


def _pip(environment: Path, *arguments: str) -> None:
    subprocess.run(
        [environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=900,
    )


def _write_wrappers(environment: Path) -> tuple[Path, Path]:
    site_packages = _site_packages(environment)
    if site_packages is None:
        raise QuantumEspressoError(f"there is no qepy in {environment}; delete that folder and run setup again")
    folder = home() / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    runner = folder / "qepy_program.py"
    _write(runner, Path(qepy_program.__file__).read_text(encoding="utf-8"), mode=0o644)
    wrappers = []
    for name in ("pw.x", "ld1.x"):
        path = folder / name
        # -I -S: neither the user's site-packages nor PYTHONPATH belong into this environment, and the start is faster.
        python = f"'{environment}/bin/python' -I -S"
        _write(
            path, f"#!/bin/sh\n{PREPEND_TEXT}\nexec {python} '{runner}' '{site_packages}' {name} \"$@\"\n", mode=0o755
        )
        wrappers.append(path)
    return wrappers[0], wrappers[1]


def _write(path: Path, text: str, mode: int) -> None:
    """Write through a rename: another set-up, or a running calculation, never sees half a script."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.chmod(mode)
    part.replace(path)


def engine_script() -> Path:
    """The ``difftre`` console script of the environment in which this runs.

    Raises:
        FileNotFoundError: when it is not there.
    """
    beside = Path(sys.executable).parent / "difftre"
    found = beside if beside.is_file() else _on_path("difftre")
    if found is None:
        raise FileNotFoundError(
            f"there is no script 'difftre' beside {sys.executable} nor on PATH; install aiida-difftre into the "
            "environment from which setup is run (pip install aiida-difftre)"
        )
    return found
