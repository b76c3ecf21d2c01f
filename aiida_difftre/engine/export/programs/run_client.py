"""Answer i-PI, or another server of its protocol, with the potential of this folder: python run_client.py

Give --host and --port for a socket of the internet kind; the default is the Unix socket of input.xml.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ase.calculators.socketio import SocketClient
from ase.io import read

from aiida_difftre.engine.calculator import DiffTReCalculator

FOLDER = Path(__file__).resolve().parent
ADDRESS = "difftre"


def main(arguments: list[str] | None = None) -> None:
    """Connect, and answer until the server ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unix", default=ADDRESS, help=f"name of a Unix socket (default: {ADDRESS})")
    parser.add_argument("--host", default="localhost", help="host of the server, where a port is given")
    parser.add_argument("--port", type=int, help="port of the server, in place of a Unix socket")
    options = parser.parse_args(arguments)
    atoms = read(FOLDER / "structure.extxyz")
    atoms.calc = DiffTReCalculator(FOLDER / "potential.safetensors")
    if options.port is None:
        client = SocketClient(unixsocket=options.unix)
    else:
        client = SocketClient(host=options.host, port=options.port)
    client.run(atoms, use_stress=True)


if __name__ == "__main__":
    main()
