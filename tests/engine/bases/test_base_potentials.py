"""Base potentials: what each kind gives, what is refused before anything starts, and Born terms by differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.neighborlist import neighbor_list

from aiida_difftre import testing
from aiida_difftre.engine.bases import loading
from aiida_difftre.engine.bases.base_pass import with_base
from aiida_difftre.engine.bases.calculators import CalculatorBase, surrounded
from aiida_difftre.engine.bases.protocol import BasePotential, Evaluation
from aiida_difftre.engine.bases.traced import TracedBase
from aiida_difftre.engine.contract import files, known_bases
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.known_bases import KnownBase
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.runtime.progress import Silent
from tests.fixtures.engine import argon, lennard_jones, rattled, silicon, stillinger_weber

HERE = Path()
SILICON = {"cutoff": 3.7712, "epsilon": 2.1683, "sigma": 2.0951}


class Called:
    """A base of JAX that is called as a calculator is."""

    def __init__(self, base: TracedBase) -> None:
        self._base = base

    def evaluate(self, symbols: Sequence[str], positions: Any, cells: Any, *what: Any, **options: Any) -> Evaluation:
        return self._base.evaluate(symbols, positions, cells, *what, **options)


def silicon_base() -> TracedBase:
    spec = BaseSpec(engine="jax", name="stillinger_weber", arguments=SILICON)
    base = loading.load(spec, ["Si"], HERE)
    assert isinstance(base, TracedBase)
    return base


def argon_base() -> TracedBase:
    arguments = {"cutoff": 5.0, "epsilon": 0.0104, "sigma": 3.4}
    base = loading.load(BaseSpec(engine="jax", name="lennard_jones", arguments=arguments), ["Ar"], HERE)
    assert isinstance(base, TracedBase)
    return base


def example(name: str) -> testing.BaseExample:
    if name == "emt":
        base, atoms = loading.load(BaseSpec(engine="ase", name="emt"), ["Cu"], HERE), bulk("Cu", a=3.7, cubic=True)
    elif name == "stillinger_weber":
        base, atoms = silicon_base(), silicon(5.3)
    else:
        base, atoms = CalculatorBase(MatrixStress(epsilon=0.0104, sigma=3.4, rc=8.0)), bulk("Ar", a=5.1, cubic=True)
    atoms.rattle(0.08, seed=1)
    return testing.BaseExample(base, atoms)


class MatrixStress(LennardJones):
    """A calculator whose stress is a matrix, as CHGNet's is."""

    def calculate(self, *arguments: Any, **options: Any) -> None:
        super().calculate(*arguments, **options)
        xx, yy, zz, yz, xz, xy = self.results["stress"]
        self.results["stress"] = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@pytest.mark.parametrize("name", ["emt", "stillinger_weber", "matrix_stress"])
def test_bases_keep_the_contract(name: str) -> None:
    found = example(name)
    for check in testing.BASE_CHECKS.values():
        check(found)


@pytest.mark.filterwarnings("ignore")  # those of PyTorch and of models are not ours
@pytest.mark.parametrize(
    ("package", "spec", "atoms", "steps"),
    [
        (
            "torch_sim",
            BaseSpec(
                engine="torch_sim", name="lennard_jones", arguments={"sigma": 3.4, "epsilon": 0.0104, "cutoff": 7.0}
            ),
            bulk("Ar", a=5.1, cubic=True),
            {},
        ),
        # In single precision: longer steps of finite differences.
        (
            "chgnet",
            known_bases.known("ase", "chgnet").spec(),
            bulk("Si", a=5.3, cubic=True),
            {"step": 0.02, "tolerance": 0.03},
        ),
    ],
)
def test_models_of_other_packages_keep_the_contract(
    package: str, spec: BaseSpec, atoms: Atoms, steps: dict[str, float]
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    atoms.rattle(0.08, seed=1)
    found = testing.BaseExample(loading.load(spec, sorted(set(atoms.symbols)), HERE), atoms, **steps)
    for check in testing.BASE_CHECKS.values():
        check(found)


@pytest.mark.parametrize("pbc", [(False, False, False), (True, True, False)])
def test_vacuum_around_what_is_not_periodic(pbc: tuple[bool, bool, bool]) -> None:
    """For models that take all cells as periodic: atoms are as far apart as before, or too far to see each other."""
    atoms = Atoms("Cu3", [[0.0, 0, 0], [2.3, 0.4, 0], [1.0, 2.0, 1.5]], pbc=pbc, cell=[5, 6, 0] if any(pbc) else None)
    held = surrounded(atoms, vacuum=3.0)
    assert held.pbc.all()
    seen = []
    for structure in (atoms, held):
        columns = np.column_stack(neighbor_list("ijD", structure, 5.9))
        seen.append(columns[np.lexsort(columns.round(6).T)])
    np.testing.assert_allclose(*seen, atol=1e-12)


@pytest.mark.filterwarnings("ignore")  # those of PyTorch and of models are not ours
def test_two_atoms_alone_with_a_model_of_crystals() -> None:
    pytest.importorskip("chgnet", reason="chgnet is not installed")
    base = loading.load(known_bases.known("ase", "chgnet").spec(), ["Si"], HERE)
    places = np.array([[[0.0, 0, 0], [distance, 0, 0]] for distance in (2.3, 30.0, 3000.0)])
    found = base.evaluate(["Si"] * 2, places, np.zeros((3, 3, 3)), ("energy", "forces"), pbc=(False,) * 3)
    near, far, farther = found.energies
    assert near < far - 1
    assert far == farther


def random_mace(path: Path) -> Path:
    """A tiny MACE model with random weights."""
    modules = pytest.importorskip("mace.modules", reason="mace-torch is not installed")
    import torch
    from e3nn.o3 import Irreps

    torch.manual_seed(0)
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = modules.ScaleShiftMACE(
        r_max=4.0, num_bessel=4, num_polynomial_cutoff=5, max_ell=2, interaction_cls=block, interaction_cls_first=block,
        num_interactions=2, num_elements=1, hidden_irreps=Irreps("8x0e + 8x1o"), MLP_irreps=Irreps("8x0e"),
        gate=torch.nn.functional.silu, atomic_energies=np.array([-1.0]), avg_num_neighbors=10.0, atomic_numbers=[14],
        correlation=2, atomic_inter_scale=1.0, atomic_inter_shift=0.0,
    )  # fmt: skip
    torch.save(model.double(), path / "tiny.model")
    return path / "tiny.model"


def random_nequip(path: Path) -> Path:
    """A tiny NequIP model with random weights, compiled as nequip-compile does it."""
    models = pytest.importorskip("nequip.model", reason="nequip is not installed")
    from nequip.model.inference_models.torchscript import save_torchscript_model
    from nequip.utils.global_state import get_latest_global_state, set_global_state

    set_global_state(allow_tf32=False)
    model = models.NequIPGNNModel(
        seed=1, model_dtype="float64", type_names=["Si"], r_max=4.0, num_layers=2, l_max=1, num_features=8,
        radial_mlp_width=8, avg_num_neighbors=10.0, per_type_energy_scales=1.0, per_type_energy_shifts=-1.0,
    )  # fmt: skip
    metadata = model.metadata | get_latest_global_state(only_metadata_related=True)
    told = {name: str(int(value)) if isinstance(value, bool) else value for name, value in metadata.items()}
    save_torchscript_model(model, told, str(path / "tiny.nequip.pth"), "cpu")
    return path / "tiny.nequip.pth"


@pytest.mark.filterwarnings("ignore")  # those of PyTorch and of models are not ours
@pytest.mark.parametrize(("name", "write"), [("mace", random_mace), ("nequip", random_nequip)])
def test_models_in_files_keep_the_contract(
    name: str, write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write(tmp_path)
    digest = files.digest(model)
    monkeypatch.setenv("DIFFTRE_TRUSTED_MODELS", digest)
    spec = known_bases.known("ase", name).spec(files={"model": {"path": model.name, "sha256": digest}})
    atoms = bulk("Si", a=5.3, cubic=True)
    atoms.rattle(0.08, seed=1)
    found = testing.BaseExample(loading.load(spec, ["Si"], tmp_path), atoms)
    for check in testing.BASE_CHECKS.values():
        check(found)


class WrongSign(MatrixStress):
    def calculate(self, *arguments: Any, **options: Any) -> None:
        super().calculate(*arguments, **options)
        self.results["stress"] = -self.results["stress"]


class Forgetful:
    """Gives the forces of the first configuration for all."""

    def evaluate(self, symbols: Sequence[str], positions: Any, cells: Any, *what: Any, **options: Any) -> Evaluation:
        found = CalculatorBase(EMT()).evaluate(symbols, positions, cells)
        return found._replace(forces=np.broadcast_to(found.forces[0], positions.shape))  # type: ignore[index]


@pytest.mark.parametrize(
    ("base", "check", "message"),
    [
        (CalculatorBase(WrongSign(epsilon=0.1, sigma=2.2, rc=6.0)), "stress_is_a_derivative", "positive in tension"),
        (Forgetful(), "walkers_do_not_see_each_other", "of several is not what it is alone"),
    ],
)
def test_the_contract_finds_what_is_wrong(base: BasePotential, check: str, message: str) -> None:
    atoms = bulk("Cu", a=3.7, cubic=True)
    atoms.rattle(0.08, seed=1)
    with pytest.raises(testing.ContractError, match=message):
        testing.BASE_CHECKS[check](testing.BaseExample(base, atoms))


def refusal(spec: BaseSpec, species: list[str], folder: Path = HERE) -> EngineError:
    with pytest.raises(EngineError) as caught:
        loading.load(spec, species, folder)
    return caught.value


def test_bad_bases_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "mace.model"
    model.write_bytes(b"weights")
    digest = files.digest(model)
    spec = BaseSpec.model_validate(
        {"engine": "ase", "name": "mace", "files": {"model": {"path": "mace.model", "sha256": digest}}}
    )
    assert "does not know Si" in refusal(BaseSpec(engine="ase", name="emt"), ["Si"]).message
    assert "pip install mace-torch" in refusal(spec, ["Si"], tmp_path).message
    monkeypatch.setattr(known_bases, "check_installed", lambda spec: None)
    trusted = refusal(spec, ["Si"], tmp_path)
    assert f"DIFFTRE_TRUSTED_MODELS={digest}" in trusted.message
    monkeypatch.setenv("DIFFTRE_TRUSTED_MODELS", f"{64 * '1'}, {digest}")
    assert "No module named" in refusal(spec, ["Si"], tmp_path).message  # it was to be read now
    model.write_bytes(b"other weights")
    changed = refusal(spec, ["Si"], tmp_path)
    assert changed.status == ExitStatus.CORRUPT_FILE
    assert f"and not {digest}" in changed.message
    missing = refusal(spec.at({"model": str(tmp_path / "gone")}), ["Si"])
    assert "there is no file of the base 'mace' gone" in missing.message


def test_a_base_that_fails_or_gives_no_numbers_is_refused_first() -> None:
    class Broken(Calculator):
        implemented_properties = ["energy", "forces", "stress"]

        def calculate(self, *arguments: Any, **options: Any) -> None:
            self.results = {"energy": np.nan, "forces": np.zeros((8, 3)), "stress": np.zeros(6)}

    class Stressless(Calculator):
        implemented_properties = ["energy", "forces"]

        def calculate(self, *arguments: Any, **options: Any) -> None:
            self.results = {"energy": 0.0, "forces": np.zeros((8, 3))}

    atoms = silicon()
    for base, status, message in (
        (CalculatorBase(Stressless()), ExitStatus.INVALID_INPUT, "Stressless gives no stress, which a base needs"),
        (CalculatorBase(Broken()), ExitStatus.NOT_FINITE, "the energy that the base gives .* is not finite"),
        (CalculatorBase(EMT()), ExitStatus.INVALID_INPUT, "the base potential failed: .*No EMT-potential for Si"),
    ):
        with pytest.raises(EngineError, match=message) as caught:
            loading.check_configuration(base, list(atoms.symbols), atoms.positions, atoms.cell.array)
        assert caught.value.status == status


def test_bases_of_other_packages_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = KnownBase("mine", "ase", "a test", f"{__name__}:factory", {"depth": "eV"})
    monkeypatch.setattr(known_bases, "registry", lambda: {("ase", "mine"): mine})
    monkeypatch.setattr("importlib.import_module", lambda name: type("Module", (), {"factory": staticmethod(factory)}))
    found = loading.load(mine.spec({"depth": 0.2}), ["Ar"], HERE)
    assert isinstance(found, CalculatorBase)
    assert found.calculator.parameters.epsilon == 0.2  # type: ignore[attr-defined]  # LennardJones


def factory(species: tuple[str, ...], *, depth: float) -> Calculator:
    return LennardJones(epsilon=depth, sigma=3.4)


def test_born_terms_by_differences_are_the_derivatives() -> None:
    potential, parameters = lennard_jones()
    snapshots = rattled(potential, parameters, argon(1, 5.1), snapshots=3, amplitude=0.1, temperature=80.0)
    exact, differences = (
        with_base(snapshots, base, "0" * 64, born_stride=2, progress=Silent()).base
        for base in (argon_base(), Called(argon_base()))
    )
    assert exact is not None
    assert differences is not None
    np.testing.assert_allclose(differences.energies, exact.energies, rtol=1e-12)
    np.testing.assert_allclose(differences.stresses, exact.stresses, atol=1e-10)
    assert exact.born is not None
    assert exact.born.shape == (2, 6, 6)
    assert abs(exact.stresses[:, :3]).min() > 0.3  # a tenth of the Born terms: it would be missed
    np.testing.assert_allclose(differences.born, exact.born, atol=2e-3 * exact.born.max())


def test_a_potential_of_this_package_is_a_base(tmp_path: Path) -> None:
    potential, parameters = stillinger_weber()
    path = tmp_path / "silicon.safetensors"
    potentials.save(path, potential, {**parameters, "atomic_energies": np.array([-3.0])})
    spec = BaseSpec.model_validate(
        {
            "engine": "jax",
            "name": "potential",
            "files": {"potential": {"path": path.name, "sha256": files.digest(path)}},
        }
    )
    atoms = silicon()
    found = loading.load(spec, ["Si"], tmp_path).evaluate(list(atoms.symbols), atoms.positions[None], atoms.cell[None])
    assert found.energies is not None
    assert found.energies[0] / 8 == pytest.approx(-3.0 - 2 * 2.1683, abs=1e-4)
    other = potentials.build(PotentialSpec(species=["Ge", "Si"], terms=[{"architecture": "pair_spline", "cutoff": 4}]))
    base = loading.load(spec, ["Ge", "Si"], tmp_path)
    assert isinstance(base, TracedBase)
    with pytest.raises(EngineError, match="is for Ge, Si and its base for Si; give both the same species"):
        base.joined(other, other.init(jax.random.key(0)))
