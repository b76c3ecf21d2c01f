"""Elastic constants of Stillinger-Weber silicon at 300 K by fluctuations and from a strained cell, with their errors.

    python -m tests.benchmarks.strained_cells

Trajectories of the same length, of 8 and of 64 atoms; one line of JSON for each.
"""

from __future__ import annotations

import json

from aiida_difftre.engine.contract.jobs import Machine, SamplingSettings
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.geometry.lattice import strained
from aiida_difftre.engine.runtime import device

STRAIN = (0.01, -0.01, 0.0, 0.0, 0.0, 0.02)
LATTICE = 5.43095
"""Å."""
LENGTHS = {1: 12000.0, 2: 6000.0}
"""fs of each of eight walkers, by the number of cubic cells along an edge."""


def main() -> None:
    """Sample, and print what either way gives."""
    machine = Machine(precision="float64", platform="cpu")
    device.configure(machine)

    from aiida_difftre.engine.reweighting.predictions import predict_trajectory
    from tests.fixtures.engine import silicon, simulate, start, stillinger_weber

    potential, parameters = stillinger_weber()
    for repeat, length in LENGTHS.items():
        settings = SamplingSettings(
            thermostat={"name": "langevin", "friction_per_ps": 20.0}, walkers=8, timestep_fs=2.0,
            equilibration_fs=1000.0, production_fs=length, stride_fs=40.0,
        )  # fmt: skip
        for options in ({"born_stride": 20}, {"strain": list(STRAIN)}):
            atoms = silicon(LATTICE) * (repeat, repeat, repeat)
            if "strain" in options:
                atoms.set_cell(strained(atoms.cell.array, STRAIN), scale_atoms=True)
            found = simulate(potential, parameters, start(atoms, 8), temperature=300.0, settings=settings, seed=3)
            request = ObservableRequest(observable="stiffness", options=options)
            one = predict_trajectory(potential, parameters, found, [request], machine=machine, seed=0)[0]
            print(json.dumps({"atoms": len(atoms), **options, "labels": one.labels, "values": one.values,
                              "errors": one.errors}), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
