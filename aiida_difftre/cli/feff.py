"""Finds FEFF 6 on PATH, or installs the one of xraylarch into an environment of its own; checks it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ase.build import bulk

from aiida_difftre.cli.quantum_espresso import home, install_environment
from aiida_difftre.engine.observables import feff

PACKAGES = ("xraylarch==2026.3.1",)
NAMES = ("feff6l", "feff6")
FOLDERS = {"linux": "linux64", "darwin": "darwin64"}

Report = Callable[[str], None]


class FeffError(Exception):
    """FEFF cannot be found, installed or run; the message names the remedy."""


def find_program(given: Path | None = None, report: Report = lambda _: None) -> Path:
    """Take the given program, else the one on PATH, else that of xraylarch, which is installed where it is missing.

    Args:
        given: path of a FEFF 6 to use.
        report: is told what is being done.

    Raises:
        FeffError: when it does not run, or the installation fails.
    """
    found = given or installed_program()
    if found is None:
        environment = home() / "feff-venv"
        report(f"installing feff6l (xraylarch) into {environment}")
        try:
            install_environment(environment, PACKAGES)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip()[-600:]
            raise FeffError(
                f"no feff6l on PATH, and installing {' '.join(PACKAGES)} into {environment} failed: {said}\nInstall "
                "FEFF 6 and put it on PATH, or choose another folder with DIFFTRE_HOME"
            ) from None
        found = installed_program()
    if found is None:
        raise FeffError(f"xraylarch has no feff6l for {sys.platform}; install FEFF 6 and put feff6l on PATH")
    check(found)
    return found


def installed_program() -> Path | None:
    """The program on PATH, else the one in the private environment; None where there is neither."""
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return Path(found).absolute()
    folder = FOLDERS.get(sys.platform, sys.platform)
    within = sorted((home() / "feff-venv").glob(f"lib/python*/site-packages/larch/bin/{folder}/feff6l"))
    return within[0] if within else None


def check(program: Path) -> None:
    """Run it on the first shells of copper.

    Raises:
        FeffError: when it does not find them.
    """
    with tempfile.TemporaryDirectory(prefix="difftre-feff-") as name:
        cluster = feff.cluster(bulk("Cu", "fcc", a=3.61), "Cu", 4.0)
        (Path(name) / "feff.inp").write_text(feff.input_text(cluster, "K", "check"), encoding="ascii")
        try:
            result = subprocess.run(
                [program], cwd=name, capture_output=True, text=True, errors="replace", timeout=120, check=False
            )
            paths = feff.read_folder(Path(name))
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise FeffError(f"{program} does not run: {error}; name another FEFF 6") from None
    if len(paths) != 2:
        said = (result.stdout + result.stderr).strip()[-400:] or "nothing"
        raise FeffError(f"{program} is no working FEFF 6: for copper it says {said!r}; take it off PATH")
