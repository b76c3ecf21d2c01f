"""Start of the engine: imports, and a small sampling and update job with a cold and a warm compilation cache.

    python tests/benchmarks/startup.py [--runs 3] [--output FILE]

CPU seconds of processes of their own; each cold run has an empty cache. The jobs are 8 atoms of diamond for a few
steps, so that what is counted is start, compilation and writing.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import measure

IMPORTS = {
    "python": "pass",
    "numpy": "import numpy",
    "jax": "import jax",
    "engine": "import aiida_difftre.engine.jobs.sample, aiida_difftre.engine.jobs.update",
    "aiida_side": "import aiida_difftre.calculations.sample, aiida_difftre.workchains.refine",
}
JOB = """
import sys
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.contract.jobs import Machine, PotentialSpec, SamplingSettings, TermSpec, UpdateSettings
device.configure(Machine(threads=1, platform="cpu", compilation_cache=sys.argv[1]))
import jax, numpy as np
from ase.build import bulk
from aiida_difftre.engine.refinement import objective
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.sampling import protocol
from aiida_difftre.engine.sampling.starts import Start
from aiida_difftre.engine.runtime.progress import Silent
from aiida_difftre.engine.contract.targets import Conditions, Target
from aiida_difftre.engine.contract.state_points import StatePoint
machine = Machine(threads=1)
atoms = bulk("C", "diamond", 3.567, cubic=True)
prior = TermSpec(architecture="stillinger_weber", cutoff=2.52, hyperparameters={"preset": "diamond"})
spec = PotentialSpec(species=["C"], terms=[TermSpec(architecture="moment_network", cutoff=3.5), prior])
potential = potentials.build(spec)
parameters = potential.init(jax.random.key(0))
settings = SamplingSettings(walkers=2, equilibration_fs=0, production_fs=40, stride_fs=10, min_distance=0.1)
start = Start(atoms.get_scaled_positions()[None].repeat(2, 0), None, np.array(atoms.cell), tuple(atoms.symbols))
trajectory = protocol.sample(potential, parameters, start, StatePoint(300.0), settings,
                             protocol.Run(machine, 1, Silent()))
if sys.argv[2] == "update":
    target = Target(observable="pressure", values=[0.0], errors=[1.0], unit="GPa",
                    conditions=Conditions(temperature=300.0), citation="made for this benchmark")
    sampled = objective.SampledStatePoint("x", trajectory, [target], StatePoint(300.0))
    data = objective.prepare(potential, parameters, sampled, UpdateSettings(), machine, seed=1)
    evaluation = objective.evaluate([data], parameters)
    jax.block_until_ready(objective.gradient([data], parameters, evaluation))
"""


def process_seconds(code: str, *arguments: str) -> float:
    """CPU seconds of a Python process; the cache is that of the arguments alone."""
    free = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    before = measure.children_seconds()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=free, stdout=subprocess.DEVNULL)
    return measure.children_seconds() - before


def main() -> None:
    """Command line."""
    options = measure.parser(__doc__).parse_args()
    imports = {"python": IMPORTS["python"], "numpy": IMPORTS["numpy"]} if options.tiny else IMPORTS
    found = {
        "imports_cpu_s": {
            name: statistics.median(process_seconds(code) for _ in range(options.runs))
            for name, code in imports.items()
        }
    }
    for job in () if options.tiny else ("sample", "update"):
        cold, warm = [], []
        for _ in range(options.runs):
            with tempfile.TemporaryDirectory() as folder:
                cache = str(Path(folder) / "cache")
                cold.append(process_seconds(JOB, cache, job))
                warm.append(process_seconds(JOB, cache, job))
        found[f"{job}_cpu_s"] = {"cold": statistics.median(cold), "warm": statistics.median(warm)}
    measure.write({"versions": measure.versions(), **found}, options.output)


if __name__ == "__main__":
    main()
