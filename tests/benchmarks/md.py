"""Speed of molecular dynamics against LAMMPS and jax-md's stock functions, in one run. Prints JSON.

    python tests/benchmarks/md.py [--systems lj-864 ...] [--peers lammps jax-md] [--runs 3] [--output FILE]

One core each, CPU seconds (so that a busy machine matters less), after a run that compiles; the programs take turns,
and ratios are medians of those of each turn.
The systems: argon-like Lennard-Jones (ρ* = 0.844, T* = 1, cutoff 2.5 σ, Langevin, 0.005 τ), Stillinger-Weber silicon
at 300 K, and diamond with an untrained moment network with 35 neighbours. LAMMPS is taken where ``lmp`` is on PATH.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure

from aiida_difftre.engine.contract.jobs import LangevinSpec, Machine, PotentialSpec, SamplingSettings, TermSpec
from aiida_difftre.engine.runtime import device

SYSTEMS = ("lj-864", "lj-4000", "lj-32000", "sw-512", "network-64", "network-216", "network-1000")
TARGETS = {
    "lj-864": {"times_slower_than_lammps": 2.0},
    "sw-512": {"times_slower_than_lammps": 2.5},
    "network-216": {"microseconds_per_atom_and_step": 8.0},
}
FEWEST_STEPS = 250
"""A fifth of the steps of a run lies between two snapshots, whose cost a run has too: as many for large systems."""

EPSILON, SIGMA, ARGON_MASS = 0.0125, 3.4, 39.948
LJ_INPUT = """
units lj
lattice fcc 0.844
region box block 0 {n} 0 {n} 0 {n}
create_box 1 box
create_atoms 1 box
mass 1 1.0
velocity all create 1.0 1
pair_style lj/cut 2.5
pair_coeff 1 1 1.0 1.0 2.5
neighbor 0.3 bin
neigh_modify every 1 delay 0 check yes
fix 1 all nve
fix 2 all langevin 1.0 1.0 1.0 1
timestep 0.005
thermo 100000
run {warm}
run {steps}
"""
SW_INPUT = """
units metal
lattice diamond 5.43095
region box block 0 {n} 0 {n} 0 {n}
create_box 1 box
create_atoms 1 box
mass 1 28.0855
velocity all create 300 1
pair_style sw
pair_coeff * * silicon.sw Si
neighbor 1.0 bin
neigh_modify every 1 delay 0 check yes
fix 1 all nve
fix 2 all langevin 300 300 1.0 1
timestep 0.001
thermo 100000
run {warm}
run {steps}
"""
SILICON = "Si Si Si 2.1683 2.0951 1.80 21.0 1.20 -0.333333333333 7.049556277 0.6022245584 4.0 0.0 0.0\n"


def lammps(kind: str, cells: int, steps: int) -> Callable[[], float] | None:
    """Measures steps per CPU second, from a long and a short run; None without LAMMPS or for a network."""
    program, template = shutil.which("lmp"), {"lj": LJ_INPUT, "sw": SW_INPUT}.get(kind)
    if program is None or template is None:
        return None

    def measured() -> float:
        used = []
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "silicon.sw").write_text(SILICON)
            for length in (1, steps):
                (Path(folder) / "in").write_text(template.format(n=cells, warm=200, steps=length))
                before = measure.children_seconds()
                subprocess.run(
                    [program, "-in", "in", "-log", "none"],
                    cwd=folder,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                used.append(measure.children_seconds() - before)
        return (steps - 1) / (used[1] - used[0])

    return measured


def stepper(advance: Callable[[Any], Any], state: Any, steps: int) -> Callable[[], float]:
    """Measures steps per CPU second; each run goes on where the last one ended."""
    import jax

    state = jax.block_until_ready(advance(state))

    def further() -> None:
        nonlocal state
        state = jax.block_until_ready(advance(state))

    return lambda: steps / measure.seconds(further).cpu


def system_of(kind: str, number: int, steps: int, walkers: int = 1) -> tuple[Any, Any, Any]:
    """A system of ours, its start and the parameters."""
    import jax
    import numpy as np
    from ase.build import bulk

    from aiida_difftre.engine import units
    from aiida_difftre.engine.potentials import potential as potentials
    from aiida_difftre.engine.sampling.starts import Start
    from aiida_difftre.engine.sampling.system import System

    timestep, temperature = 1.0, 300.0
    friction = 1.0
    if kind == "lj":
        cells = round((number / 4) ** (1 / 3))
        atoms = bulk("Ar", "fcc", a=SIGMA * (4 / 0.844) ** (1 / 3), cubic=True).repeat(cells)
        unit = SIGMA * (ARGON_MASS / EPSILON) ** 0.5 * units.TIME_UNIT_IN_FS
        timestep, temperature, friction = 0.005 * unit, EPSILON / units.BOLTZMANN, 1e3 / unit
        spec = PotentialSpec(
            species=["Ar"],
            terms=[
                TermSpec(
                    architecture="lennard_jones",
                    cutoff=2.5 * SIGMA,
                    hyperparameters={"epsilon": EPSILON, "sigma": SIGMA},
                )
            ],
        )
    elif kind == "sw":
        atoms = bulk("Si", "diamond", a=5.43095, cubic=True).repeat(round((number / 8) ** (1 / 3)))
        spec = PotentialSpec(species=["Si"], terms=[TermSpec(architecture="stillinger_weber", cutoff=1.8 * 2.0951)])
    else:
        atoms = bulk("C", "diamond", a=3.567, cubic=True).repeat(round((number / 8) ** (1 / 3)))
        prior = TermSpec(architecture="stillinger_weber", cutoff=2.52, hyperparameters={"preset": "diamond"})
        spec = PotentialSpec(species=["C"], terms=[TermSpec(architecture="moment_network", cutoff=3.65), prior])
        timestep = 0.5
    potential = potentials.build(spec)
    parameters = potential.init(jax.random.key(0))
    settings = SamplingSettings(
        walkers=walkers, thermostat=LangevinSpec(friction_per_ps=friction), timestep_fs=timestep, equilibration_fs=0,
        production_fs=steps * timestep, stride_fs=steps / 5 * timestep,
    )  # fmt: skip
    positions = atoms.get_scaled_positions()[None].repeat(walkers, 0)
    begin = Start(positions, None, np.array(atoms.cell), tuple(atoms.symbols))
    system = System(potential, begin.symbols, begin.cell, temperature, settings, "float32")
    return system, begin, parameters


def prepared(kind: str, number: int, steps: int, walkers: int = 1) -> tuple[Callable[[Any], Any], Any, int]:
    """What advances walkers of this package, their state after equilibration, and the steps of one call."""
    import numpy as np

    from aiida_difftre.engine.sampling.dynamics import dynamics as dynamics_of
    from aiida_difftre.engine.sampling.run import list_capacity, start_lists

    system, begin, parameters = system_of(kind, number, steps, walkers)
    lists = start_lists(system, begin)
    dynamics = dynamics_of(system, list_capacity(lists))
    state = dynamics.init(1, begin.positions, np.ones(walkers), None, parameters, lists)
    while True:
        state, _ = dynamics.apply(state, parameters)
        if not dynamics.capacity.exceeded(state.needed):
            break
        dynamics = dynamics_of(system, dynamics.capacity.enlarged(state.needed))
        state = dynamics.relist(state)
    per_call = system.snapshots_per_call * system.steps_per_snapshot
    return lambda state: dynamics.apply(state, parameters)[0], state, per_call


def stock(kind: str, number: int, steps: int) -> Callable[[], float] | None:
    """Measures jax-md's own potentials and lists; None for a network, and above 4000 atoms."""
    if kind == "network" or number > 4000:
        return None
    import jax
    import jax.numpy as jnp
    from jax_md import energy, partition, simulate, space

    _, begin, _ = system_of(kind, number, steps)
    reduced = kind == "lj"
    box = float(begin.cell[0, 0]) / (SIGMA if reduced else 1.0)
    displacement, shift = space.periodic(box)
    positions = jnp.asarray(begin.positions[0] * box, jnp.float32)
    if reduced:
        neighbor_fn, energy_fn = energy.lennard_jones_neighbor_list(
            displacement, box, r_onset=2.25, r_cutoff=2.5, dr_threshold=0.3, format=partition.OrderedSparse
        )
        kT, dt, mass, gamma = 1.0, 0.005, 1.0, 1.0
    else:
        neighbor_fn, energy_fn = energy.stillinger_weber_neighbor_list(displacement, box, dr_threshold=0.5)
        from aiida_difftre.engine import units

        kT, dt, mass, gamma = units.BOLTZMANN * 300, 1 / units.TIME_UNIT_IN_FS, 28.0855, 1e-3 * units.TIME_UNIT_IN_FS
    init, apply = simulate.nvt_langevin(energy_fn, shift, dt, kT, gamma)
    neighbors = neighbor_fn.allocate(positions, extra_capacity=8)
    state = init(jax.random.key(1), positions, mass=mass, neighbor=neighbors)

    def step(_: int, carry: Any) -> Any:
        state, neighbors = carry
        neighbors = neighbors.update(state.position)
        return apply(state, neighbor=neighbors), neighbors

    advance = jax.jit(lambda carry: jax.lax.fori_loop(0, steps, step, carry))
    return stepper(advance, (state, neighbors), steps)


def compared(name: str, peers: list[str], atom_steps: int, runs: int, fewest: int) -> dict[str, Any]:
    """Steps per CPU second of this package and its peers, and how many times slower it is than each."""
    kind, number = name.split("-")[0], int(name.split("-")[1])
    steps = max(fewest, atom_steps // number // (5 if kind == "network" else 1) // 5 * 5)
    programs: dict[str, Callable[[], float] | None] = {"engine": stepper(*prepared(kind, number, steps))}
    if "lammps" in peers:
        programs["lammps"] = lammps(kind, round((number / (4 if kind == "lj" else 8)) ** (1 / 3)), steps)
    if "jax-md" in peers:
        programs["jax-md"] = stock(kind, number, steps)
    speeds: dict[str, list[float]] = {program: [] for program, measured in programs.items() if measured is not None}
    for _ in range(runs):
        for program, found in speeds.items():
            measured = programs[program]
            assert measured is not None
            found.append(measured())
    engine = statistics.median(speeds["engine"])
    entry: dict[str, Any] = {
        f"{program}_steps_per_cpu_s": statistics.median(found) for program, found in speeds.items()
    }
    entry["microseconds_per_atom_and_step"] = 1e6 / engine / number
    for program, found in speeds.items():
        if program != "engine":
            turns = zip(found, speeds["engine"], strict=True)
            entry[f"times_slower_than_{program}"] = statistics.median(theirs / mine for theirs, mine in turns)
    if name in TARGETS:
        entry["target"] = TARGETS[name]
    return entry


def main() -> None:
    """Measure and print."""
    parser = measure.parser(__doc__)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--peers", nargs="*", default=["lammps", "jax-md"], choices=["lammps", "jax-md"])
    parser.add_argument("--atom-steps", type=int, default=600_000, help="atoms times steps of one run")
    options = parser.parse_args()
    machine = Machine(threads=1, platform="cpu")
    device.configure(machine)
    systems = ["lj-32", "network-8"] if options.tiny else options.systems
    atom_steps, peers = (32 * 40, []) if options.tiny else (options.atom_steps, options.peers)
    fewest = 20 if options.tiny else FEWEST_STEPS
    results: dict[str, Any] = {"versions": measure.versions(machine)}
    for name in systems:
        results[name] = compared(name, peers, atom_steps, options.runs, fewest)
        print(f"{name}: {results[name]}", file=sys.stderr, flush=True)
    measure.write(results, options.output)


if __name__ == "__main__":
    main()
