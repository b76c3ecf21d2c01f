"""What a gradient of a stiffness target costs, whose Born terms are second derivatives with respect to strain.

    python tests/benchmarks/stiffness.py [--walkers 16] [--platform auto] [--runs 3] [--output FILE]

Diamond with the untrained moment network of ``md.py``; stress and stiffness over the snapshots of a short trajectory.
Seconds of CPU and of wall time: the second are those of a GPU.
"""

from __future__ import annotations

from typing import Any

import md
import measure

from aiida_difftre.engine.contract.jobs import Machine
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.runtime import device


def measured(walkers: int, atoms: int, machine: Machine, runs: int) -> dict[str, Any]:
    """Seconds of preparing snapshots, of their energies, of all quantities, and of one vector-Jacobian product."""
    import jax
    import numpy as np

    from aiida_difftre.engine.reweighting.reference import prepare_reference
    from aiida_difftre.engine.runtime.progress import Silent
    from aiida_difftre.engine.sampling import protocol

    system, start, parameters = md.system_of("network", atoms, 200, walkers)
    trajectory = protocol.sample(
        system.potential, parameters, start, StatePoint(system.temperature), system.settings,
        protocol.Run(machine, 1, Silent()),
    )  # fmt: skip
    requests = [ObservableRequest(observable=name) for name in ("stress", "stiffness")]

    def prepared() -> Any:
        return prepare_reference(system.potential, parameters, trajectory, requests, machine).snapshots

    held = prepared()
    cotangents = {key: np.ones_like(value) for key, value in held.evaluate(parameters).items()}
    parts = {
        "prepare": prepared,
        "energies": lambda: held.energies(parameters),
        "evaluate": lambda: held.evaluate(parameters),
        "gradient": lambda: jax.block_until_ready(held.pullback(parameters, cotangents)),
    }
    found: dict[str, Any] = {"atoms": atoms, "walkers": walkers, "snapshots": len(trajectory.energies)}
    for name, function in parts.items():
        spent = measure.middle(measure.times(function, runs))
        found |= {f"{name}_cpu_s": spent.cpu, f"{name}_wall_s": spent.wall}
    return found


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    measure.add_platform(parser)
    parser.add_argument("--walkers", type=int, default=16)
    parser.add_argument("--atoms", type=int, default=64)
    options = parser.parse_args()
    machine = Machine(threads=1, platform=options.platform)
    device.configure(machine)
    walkers, atoms = (1, 8) if options.tiny else (options.walkers, options.atoms)
    found = measured(walkers, atoms, machine, options.runs)
    measure.write({"versions": measure.versions(machine), **found}, options.output)


if __name__ == "__main__":
    main()
