"""What a stored trajectory costs: bytes, CPU seconds to store, and to read a part of it.

    python tests/benchmarks/trajectory.py [--snapshots 1000] [--atoms 500] [--runs 3] [--output FILE]

A node in a temporary AiiDA profile without a daemon or a broker; positions are uniform random numbers, which cannot be
compressed.
"""

from __future__ import annotations

import statistics
import tempfile

import measure
import numpy as np

TARGET = {"megabytes": 7, "store_cpu_s": 0.3}


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    parser.add_argument("--snapshots", type=int, default=1000)
    parser.add_argument("--atoms", type=int, default=500)
    options = parser.parse_args()
    snapshots, atoms = (10, 8) if options.tiny else (options.snapshots, options.atoms)
    from aiida.manage.configuration import profile_context
    from aiida.storage.sqlite_temp import SqliteTempBackend

    from aiida_difftre.data.trajectory import TrajectoryEnsembleData
    from aiida_difftre.engine.contract.trajectories import Trajectory

    random = np.random.default_rng(1)
    walkers = 4
    trajectory = Trajectory(
        positions=random.random((snapshots, atoms, 3)).astype(np.float32),
        cell=20.0 * np.eye(3),
        species=("Ar",) * atoms,
        energies=random.normal(size=snapshots),
        walkers=(np.arange(snapshots) % walkers).astype(np.int32),
        times=np.arange(snapshots, dtype=float),
        temperatures=300 + random.normal(size=snapshots),
        last_positions=random.random((walkers, atoms, 3)),
        last_velocities=random.normal(size=(walkers, atoms, 3)),
        temperature=300.0,
        scales=np.ones(snapshots),
        last_scales=np.ones(walkers),
    )
    stored, energies, everything, sizes = [], [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        profile_context(SqliteTempBackend.create_profile("benchmark", filepath=folder), allow_switch=True),
    ):
        for run in range(options.runs + 1):
            node = TrajectoryEnsembleData.from_trajectory(trajectory)
            stored.append(measure.seconds(node.store).cpu)
            energies.append(measure.seconds(lambda: node.get_array("energies")).cpu)  # noqa: B023
            everything.append(measure.seconds(node.get_trajectory).cpu)
            sizes.append(sum(node.base.repository.get_object_size(n) for n in node.base.repository.list_object_names()))
            trajectory.positions[0, 0, 0] = run  # AiiDA would recognise the same content
    measure.write(
        {
            "versions": measure.versions(),
            "snapshots": snapshots,
            "atoms": atoms,
            "megabytes": statistics.median(sizes) / 1e6,
            "store_cpu_s": statistics.median(stored[1:]),
            "read_energies_cpu_s": statistics.median(energies[1:]),
            "read_everything_cpu_s": statistics.median(everything[1:]),
            "target": TARGET,
        },
        options.output,
    )


if __name__ == "__main__":
    main()
