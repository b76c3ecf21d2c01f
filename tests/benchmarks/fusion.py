"""What holding on to labels costs and buys: agreement with experiment against errors of DFT by weight; JSON.

    python tests/benchmarks/fusion.py --run PK --weights 0 0.01 0.1 1 10 --seeds 3 --output fusion.json

From a finished run with labels (``aiida-difftre run examples/diamond/quick.yaml``) come its pretrained potential, its
labels, its structures, targets and settings. The refinement is repeated by the engine alone, with each weight and seed,
and ends with the long independent run of the validation. Told are chi² there, the root mean square errors against all
labels, the static elasticity at the first labelled structure (which no target tells), and the distance of the
parameters to those before, as a length and in units of the labels' curvature. ``--anchors`` repeats it with weights of
the distance to where each update starts, ``--widths`` lets labels count less the further their volume is from that of
the state points, and ``--input`` takes state points, targets and settings of another input than that of the run.
``--alternate`` turns to the labels and to the experiment by turns instead (S. Röcken and J. Zavadlav, npj Comput.
Mater. 10, 69 (2024)): so many steps of matching, then one update without labels, as often as ``--iterations`` says.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
import numpy as np

if TYPE_CHECKING:
    from aiida_difftre.engine.contract.jobs import RefineJob
    from aiida_difftre.engine.contract.results import RefineResults

STRUCTURES = "dataset.extxyz"
QUANTITIES = ("energy", "force", "stress")
PRETRAINED = "pretrained.safetensors"
TURN = "turn.safetensors"
LEARNING_RATE = 0.002
"""Of matching by turns: a tenth of that of pretraining."""


def of_run(pk: str, profile: str | None, folder: Path, other: Path | None = None) -> dict[str, Any]:
    """Write the files of a run's refinement, or of that of another input, to a folder; the content of its job."""
    from aiida import load_profile, orm

    from aiida_difftre.workchains.from_input import read_builder

    load_profile(profile)
    run = orm.load_node(pk)
    inputs = run.inputs if other is None else read_builder(other)
    for node, name, stored in (
        (run.outputs.potential_pretrained, PRETRAINED, "potential.safetensors"),
        (run.outputs.dataset, STRUCTURES, "dataset.extxyz"),
    ):
        (folder / name).write_bytes(node.base.repository.get_object_content(stored, mode="rb"))
    points = []
    for label, point in inputs["state_points"].items():
        structure = f"{label}.extxyz"
        point["structure"].get_ase().write(folder / structure)
        targets = [node.target.model_dump() for node in point["targets"].values()]
        pressure = {"pressure": point["pressure"].value} if "pressure" in point else {}
        points.append(
            {
                "label": label, "structure": structure, "temperature": point["temperature"].value, "targets": targets,
                **pressure,
            }
        )  # fmt: skip
    refine, validate = inputs["refine"], inputs["validate"]
    loop = {name: value for name, value in refine["settings"].get_dict().items() if name in loop_fields()}
    return {
        **loop, "potential": PRETRAINED, "dataset": STRUCTURES, "state_points": points,
        "sampling": refine["sample"]["calc"]["parameters"].get_dict()["sampling"],
        "update": refine["update"]["calc"]["parameters"].get_dict()["update"],
        "validation": validate["sample"]["calc"]["parameters"].get_dict()["sampling"],
    }  # fmt: skip


def loop_fields() -> set[str]:
    """Settings of the loop that the engine has, too."""
    from aiida_difftre.engine.contract.jobs import RefineJob

    return set(RefineJob.model_fields)


def small(folder: Path) -> dict[str, Any]:
    """Argon with labels of another Lennard-Jones potential, to see that it runs."""
    import ase.io
    import jax
    from ase.build import bulk
    from ase.calculators.lj import LennardJones
    from ase.calculators.singlepoint import SinglePointCalculator

    from aiida_difftre.engine.contract.settings import PotentialSpec, TermSpec
    from aiida_difftre.engine.potentials.potential import build, save

    crystal = bulk("Ar", cubic=True, a=5.4).repeat(2)
    frames = []
    for seed in range(2):
        frame = crystal.copy()
        frame.rattle(0.1, seed=seed)
        frame.calc = LennardJones(epsilon=0.011, sigma=3.45, rc=5.0)
        found = {name: frame.calc.get_property(name, frame) for name in ("energy", "forces", "stress")}
        frame.calc = SinglePointCalculator(frame, **found)
        frames.append(frame)
    ase.io.write(folder / STRUCTURES, frames)
    crystal.write(folder / "solid.extxyz")
    term = TermSpec(architecture="lennard_jones", cutoff=5.0, hyperparameters={"epsilon": 0.0104, "sigma": 3.4})
    made = build(PotentialSpec(species=["Ar"], terms=[term]))
    save(folder / PRETRAINED, made, made.init(jax.random.key(0)))
    pressure = {
        "observable": "pressure", "values": [0.05], "errors": [0.002], "unit": "GPa", "citation": "none",
        "conditions": {"temperature": 85.0},
    }  # fmt: skip
    sampling = {"timestep_fs": 4.0, "equilibration_fs": 200.0, "production_fs": 400.0, "stride_fs": 40.0, "walkers": 2}
    point = {"label": "solid", "structure": "solid.extxyz", "temperature": 85.0, "targets": [pressure]}
    return {
        "potential": PRETRAINED, "dataset": STRUCTURES, "state_points": [point], "max_iterations": 2,
        "sampling": sampling, "validation": sampling,
        "update": {"optimizer": {"name": "gauss_newton"}, "bootstrap": 20},
    }  # fmt: skip


def volumes(content: dict[str, Any], folder: Path) -> list[float]:
    """Volumes of the state points, Å³ per atom."""
    import ase.io

    from aiida_difftre.engine.contract.label_weights import volume_of

    return sorted({round(volume_of(ase.io.read(folder / one["structure"])), 6) for one in content["state_points"]})


def refined(content: dict[str, Any], folder: Path, *, weight: float, anchor: float, seed: int) -> dict[str, Any]:
    """Refine with a weight of the labels and of the distance; what comes out."""
    from aiida_difftre.engine.contract.jobs import RefineJob
    from aiida_difftre.engine.jobs import refine
    from aiida_difftre.engine.runtime.progress import Silent

    loss = {**content["update"].get("loss", {}), "dataset_weight": weight, "anchor_weight": anchor}
    if weight == 0:
        loss.pop("dataset_widths", None)
    changed = {"seed": seed, "update": {**content["update"], "loss": loss}}
    job = RefineJob.model_validate({**content, **changed, "dataset": STRUCTURES if weight > 0 else None})
    begin = time.process_time()
    result = refine.run(job, folder, Silent())
    spent = time.process_time() - begin
    how = {"weight": weight, "anchor": anchor, "reason": str(result.reason), "iterations": len(result.iterations)}
    return {"seed": seed, **how, "cpu_s": round(spent, 1), **outcome(job, result, folder)}


def alternated(content: dict[str, Any], folder: Path, *, steps: int, turns: int, seed: int) -> dict[str, Any]:
    """Match the labels and make one update without them, by turns; what comes out after the last update."""
    from aiida_difftre.engine.contract.jobs import CHECKPOINT, POTENTIAL_OUT, PretrainJob, RefineJob
    from aiida_difftre.engine.jobs import pretrain, refine
    from aiida_difftre.engine.runtime.progress import Silent

    loss = dict(content["update"].get("loss", {}))
    weights, widths = loss.pop("dataset_weights", None), loss.pop("dataset_widths", None)
    matching = {
        "initial_potential": TURN, "dataset": STRUCTURES, "steps": steps, "evaluate_every": steps,
        "optimizer": {"learning_rate": LEARNING_RATE}, **({"weights": weights} if weights else {}),
        **({"widths": widths} if widths else {}),
    }  # fmt: skip
    alone = {**content, "potential": TURN, "max_iterations": 1, "update": {**content["update"], "loss": loss}}
    (folder / TURN).write_bytes((folder / PRETRAINED).read_bytes())
    begin = time.process_time()
    courses: list[list[float]] = []
    for turn in range(turns):
        if turn > 0:
            (folder / CHECKPOINT).unlink(missing_ok=True)
            pretrain.run(PretrainJob.model_validate({**matching, "seed": seed + turn}), folder, Silent())
            (folder / TURN).write_bytes((folder / POTENTIAL_OUT).read_bytes())
        last = {} if turn == turns - 1 else {"validation": None}
        job = RefineJob.model_validate({**alone, **last, "seed": 100 * seed + turn})
        result = refine.run(job, folder, Silent())
        (folder / TURN).write_bytes((folder / POTENTIAL_OUT).read_bytes())
        courses.append([one.chi2 for one in result.iterations])
    spent = time.process_time() - begin
    return {"seed": seed, "steps": steps, "courses": courses, "cpu_s": round(spent, 1), **outcome(job, result, folder)}


def outcome(job: RefineJob, result: RefineResults, folder: Path) -> dict[str, Any]:
    """Of the refined potential: agreement in the validation, errors of the labels, the crystal at rest, distance."""
    from aiida_difftre.engine.contract.agreement import Points
    from aiida_difftre.engine.contract.jobs import POTENTIAL_OUT, PredictJob
    from aiida_difftre.engine.jobs import predict
    from aiida_difftre.engine.runtime.progress import Silent

    values, squares = {}, []
    for point in job.state_points:
        found = (result.validation or {})[point.label]
        if not isinstance(found, list):
            raise RuntimeError(f"the validation of {point.label} failed: {found}")
        values[point.label] = {one.observable: [one.values, one.errors] for one in found if len(one.values) <= 6}
        for target, one in zip(point.targets, found, strict=True):
            if target.role == "training":
                deviations = np.subtract(one.values, target.values)
                squares.append(Points(deviations, np.asarray(target.errors), np.asarray(one.errors)).squares())
    asked = {"potential": POTENTIAL_OUT, "structures": STRUCTURES, "static_stiffness": True}
    told = predict.run(PredictJob.model_validate(asked), folder, Silent())
    return {
        "chi2": float(np.mean(np.concatenate(squares))), "values": values,
        "errors": told.errors and told.errors.model_dump(exclude_none=True),
        "static": told.static and told.static.model_dump(include={"stress", "stiffness"}),
        "distance": distance(folder),
    }  # fmt: skip


def distance(folder: Path) -> dict[str, float]:
    """Of the parameters from those before: a length, and the root of what the labels' loss rises by to second order."""
    import jax

    from aiida_difftre.engine.contract.jobs import POTENTIAL_OUT, LossSettings, Machine
    from aiida_difftre.engine.matching.dataset_loss import dataset_loss
    from aiida_difftre.engine.potentials.potential import load
    from aiida_difftre.engine.refinement.sensitivities import columns

    potential, before = load(folder / PRETRAINED)
    _, after = load(folder / POTENTIAL_OUT)
    movable = [bool(moves) for moves in jax.tree.leaves(potential.trainable(before))]
    (way,) = columns(jax.tree.map(np.subtract, after, before), movable)
    labels = dataset_loss(potential, folder / STRUCTURES, LossSettings(dataset_weight=1.0), Machine())
    assert labels is not None
    rise = float(way @ labels.curvature(before, movable, way[:, None])[:, 0])
    return {"length": float(np.linalg.norm(way)), "of_labels": max(rise, 0.0) ** 0.5}


def main() -> None:
    """Repeat the refinement with each weight and seed."""
    parser = measure.parser(__doc__)
    parser.add_argument("--run", help="a finished run with labels: PK, UUID or label")
    parser.add_argument("--profile", default="difftre")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.01, 0.1, 1.0, 10.0])
    parser.add_argument("--anchors", type=float, nargs="+", default=[0.0])
    parser.add_argument(
        "--labels", type=float, nargs=3, metavar=("ENERGY", "FORCE", "STRESS"), help="their weights among each other"
    )
    parser.add_argument(
        "--widths", type=float, nargs=3, metavar=("ENERGY", "FORCE", "STRESS"),
        help="how far in ln V from the state points they count; 0 for any distance",
    )  # fmt: skip
    parser.add_argument(
        "--alternate", type=int, nargs="+", metavar="STEPS", help="turns of so many steps of matching, for --weights"
    )
    parser.add_argument("--input", type=Path, help="an input whose state points, targets and settings are taken")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=4)
    options = parser.parse_args()
    if options.run is None and not options.tiny:
        parser.error("give --run, a finished run with labels")
    from aiida_difftre.engine.contract.settings import Machine
    from aiida_difftre.engine.runtime import device

    device.configure(Machine(threads=1, platform="cpu"))
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = small(folder) if options.tiny else of_run(options.run, options.profile, folder, options.input)
        if not options.tiny:
            # Until the loss is least, and not until the targets are met.
            content |= {"chi2_stop": 0.0, "max_iterations": options.iterations, "patience": options.iterations}
        loss = {}
        if options.labels:
            loss["dataset_weights"] = dict(zip(QUANTITIES, options.labels, strict=True))
        if options.widths:
            widths = {name: width for name, width in zip(QUANTITIES, options.widths, strict=True) if width > 0}
            loss["dataset_widths"] = {**widths, "volumes": volumes(content, folder)}
        content["update"] = {**content["update"], "loss": {**content["update"].get("loss", {}), **loss}}
        ways = (
            [partial(alternated, steps=steps, turns=options.iterations) for steps in options.alternate]
            if options.alternate
            else [partial(refined, weight=w, anchor=a) for w, a in product(options.weights, options.anchors)]
        )
        for seed, way in product(range(1, options.seeds + 1), ways):
            found.append(way(dict(content), folder, seed=seed))
            # After each: the next may take long.
            measure.write({"versions": measure.versions(), "runs": found}, options.output)


if __name__ == "__main__":
    main()
