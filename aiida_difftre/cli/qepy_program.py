"""Runs a Quantum ESPRESSO program out of the qepy wheel: ``qepy_program.py SITE_PACKAGES pw.x -in FILE``.

Standard library only: this file is copied beside the private environment that holds qepy, and runs there. It loads
the shared library of the program and calls it, without importing qepy, numpy and f90wrap first. Where the environment
has an OpenBLAS with Fortran symbols (that of scipy 1.12) it is loaded before, and so takes the place of the reference
BLAS in the wheel: a quarter less time for an 8-atom cell, the same digits.
"""

import ctypes
import sys
from pathlib import Path

PROGRAMS = {"pw.x": ("libqepy_pw.so", "pwscf_"), "ld1.x": ("libqepy_atomic.so", "ld1_")}
COMMAND_LINE = "__qepy_sys_MOD_command_line"
COMMAND_LINE_LENGTH = 512


def main(argv: list[str]) -> None:
    """Run the program named first in ``argv`` with the rest as its command line; standard input is its own."""
    site_packages, program, *arguments = argv
    root = Path(site_packages)
    library, symbol = PROGRAMS[program]
    command_line = " ".join(arguments).encode()
    if len(command_line) > COMMAND_LINE_LENGTH:
        sys.exit(f"the command line is longer than {COMMAND_LINE_LENGTH} characters: {command_line.decode()}")
    # The bundled run-time libraries have mangled names; OpenBLAS finds them by name only once they are loaded.
    runtime = [*root.glob("qepy.libs/libquadmath*"), *sorted(root.glob("qepy.libs/libgfortran*.so.5*"))]
    for path in [*runtime, *root.glob("scipy.libs/libopenblasp*")]:
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    loaded = ctypes.CDLL(str(root / "qepy" / "qepylibs" / library), ctypes.RTLD_GLOBAL)
    modules = ctypes.CDLL(str(root / "qepy" / "qepylibs" / "libqepy_modules.so"))
    buffer = (ctypes.c_char * COMMAND_LINE_LENGTH).in_dll(modules, COMMAND_LINE)
    buffer.raw = command_line.ljust(COMMAND_LINE_LENGTH)
    getattr(loaded, symbol)()


if __name__ == "__main__":
    main(sys.argv[1:])
