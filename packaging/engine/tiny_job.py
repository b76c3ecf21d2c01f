"""Write a sampling job of seconds, 32 argon atoms, to the folder on the command line."""

import json
import sys
from pathlib import Path

import ase.build
import ase.io
import numpy as np

from aiida_difftre.engine.contract.files import write_potential
from aiida_difftre.engine.contract.settings import PotentialSpec

folder = Path(sys.argv[1])
ase.io.write(folder / "structure.extxyz", ase.build.bulk("Ar", "fcc", 5.4, cubic=True) * (2, 2, 2))
term = {"architecture": "lennard_jones", "cutoff": 5.0, "hyperparameters": {"epsilon": 0.0104, "sigma": 3.4}}
parameters = {
    "atomic_energies": np.zeros(1),
    "terms/0_lennard_jones/epsilon": np.full(1, 0.0104),
    "terms/0_lennard_jones/sigma": np.full(1, 3.4),
}
write_potential(folder / "potential.safetensors", PotentialSpec(species=["Ar"], terms=[term]), parameters)
sampling = {"walkers": 2, "timestep_fs": 4.0, "equilibration_fs": 40.0, "production_fs": 400.0, "stride_fs": 40.0}
job = {"potential": "potential.safetensors", "structure": "structure.extxyz", "temperature": 85.0, "sampling": sampling}
(folder / "job.json").write_text(json.dumps({"kind": "sample", **job}))
