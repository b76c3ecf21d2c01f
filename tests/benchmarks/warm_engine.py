"""The engine kept in one process for all jobs of a benchmark: the same jobs without start-up. Not part of the package.

A job is the small program that :func:`write_program` makes; it hands its folder over and waits for the exit status.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAM = """#!{python} -IS
import os, socket, sys
stream = socket.socket(socket.AF_UNIX)
stream.connect({address!r})
stream.sendall("\\n".join([os.getcwd(), *sys.argv[1:]]).encode())
stream.shutdown(socket.SHUT_WR)
sys.exit(int(stream.recv(64) or b"1"))
"""

KEPT = 25
"""Jobs whose compiled functions are kept."""


@contextmanager
def program(folder: Path) -> Iterator[Path]:
    """The path of a program that runs jobs in one process, which ends with the block."""
    address, script = folder / "engine.socket", folder / "difftre-warm"
    script.write_text(PROGRAM.format(python=sys.executable, address=str(address)))
    script.chmod(0o755)
    with (folder / "engine.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, __file__, str(address)], stdout=log, stderr=log)
    try:
        while not address.exists():
            if server.poll() is not None:
                raise RuntimeError(f"the engine did not start: {(folder / 'engine.log').read_text()[-500:]}")
            time.sleep(0.1)
        yield script
    finally:
        server.kill()  # a job takes a gentler signal for its own
        server.wait()


def serve(address: str) -> None:
    """Run one job after the other."""
    from aiida_difftre.engine.cli import cli

    done = 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(256)
        while True:
            connection, _ = listener.accept()
            with connection:
                folder, *arguments = b"".join(iter(lambda c=connection: c.recv(4096), b"")).decode().split("\n")
                os.chdir(folder)
                status = cli(arguments)
                done += 1
                if done % KEPT == 0:
                    import jax

                    jax.clear_caches()  # each job makes its functions anew, and the old ones stay
                with suppress(OSError):  # a job that was killed does not wait
                    connection.sendall(str(status).encode())


if __name__ == "__main__":
    serve(sys.argv[1])
