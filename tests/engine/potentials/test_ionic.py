"""Terms of ions: direct sums in NumPy, the Madelung energy, neutral charges, walls, and input that is refused."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract.jobs import PretrainJob
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.potentials.coulomb_dsf import CoulombDsf
from aiida_difftre.engine.potentials.potential import build, species_of
from aiida_difftre.engine.potentials.term import Environment

MADELUNG = 1.747564594633
"""Of rock salt."""

BKS = {
    "amplitude": {"Si-Si": 0.0, "Si-O": 18003.7572, "O-O": 1388.7730},
    "rho": {"Si-Si": 1.0, "Si-O": 1 / 4.87318, "O-O": 1 / 2.76},
    "c6": {"Si-Si": 0.0, "Si-O": 133.5381, "O-O": 175.0},
}
"""Of van Beest, Kramer and van Santen, Phys. Rev. Lett. 64, 1955 (1990): eV, Å, eV Å⁶."""
SILICA_CHARGES = {"charges": {"Si": 2.4, "O": -1.2}, "formula": "SiO2"}
CORE = {"epsilon": 1.0, "sigma": {"Si-Si": 1.5, "Si-O": 1.25, "O-O": 1.7}, "exponent": 24}


def silica_terms(*, core: bool, charges: dict[str, Any] = SILICA_CHARGES) -> list[dict[str, Any]]:
    terms = [
        {"architecture": "coulomb_dsf", "cutoff": 6.0, "hyperparameters": {**charges, "damping": 0.2}},
        {"architecture": "buckingham", "cutoff": 5.5, "hyperparameters": {**BKS, "onset": 5.0}},
        {"architecture": "repulsion", "cutoff": 4.0, "hyperparameters": CORE, "trainable": False},
    ]
    return terms if core else terms[:2]


def quartz_like() -> Atoms:
    rng = np.random.default_rng(1)
    atoms = Atoms("Si2O4", cell=[5.0, 5.2, 4.8], pbc=True, scaled_positions=rng.uniform(size=(6, 3)))
    atoms.set_scaled_positions(
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.2, 0.25, 0.2], [0.7, 0.3, 0.2], [0.25, 0.75, 0.7], [0.8, 0.8, 0.75]]
    )
    atoms.positions += rng.normal(scale=0.1, size=(6, 3))
    return atoms


def direct_sum(atoms: Atoms) -> float:
    """The energy of ``silica_terms`` with a core, from the formulas."""
    alpha, cutoff, k = 0.2, 6.0, 14.399645478
    charge = {"Si": 2.4, "O": -1.2}
    total = 0.0
    for i, j, r in zip(*neighbor_list("ijd", atoms, cutoff), strict=True):
        a, b = sorted((atoms.symbols[i], atoms.symbols[j]), reverse=True)
        force = math.erfc(alpha * cutoff) / cutoff**2
        force += 2 * alpha / math.sqrt(math.pi) * math.exp(-((alpha * cutoff) ** 2)) / cutoff
        shifted = math.erfc(alpha * r) / r - math.erfc(alpha * cutoff) / cutoff + force * (r - cutoff)
        energy = k * charge[a] * charge[b] * shifted
        if r < 5.5:
            pair, t = f"{a}-{b}", max((r - 5.0) / 0.5, 0.0)
            smooth = 1 - 10 * t**3 + 15 * t**4 - 6 * t**5
            energy += smooth * (BKS["amplitude"][pair] * math.exp(-r / BKS["rho"][pair]) - BKS["c6"][pair] / r**6)
        if r < 4.0:
            t = max((r - 3.6) / 0.4, 0.0)
            energy += (1 - 10 * t**3 + 15 * t**4 - 6 * t**5) * (CORE["sigma"][f"{a}-{b}"] / r) ** 24
        total += energy / 2
    itself = alpha / math.sqrt(math.pi) + (math.erfc(alpha * cutoff) / cutoff + force * cutoff) / 2
    return total - k * itself * sum(charge[symbol] ** 2 for symbol in atoms.symbols)


def test_silica_against_a_direct_sum() -> None:
    atoms = quartz_like()
    potential = build(PotentialSpec.model_validate({"species": ["Si", "O"], "terms": silica_terms(core=True)}))
    calculator = DiffTReCalculator(potential, potential.init(jax.random.key(0)))
    calculator.calculate(atoms)
    assert calculator.results["energy"] == pytest.approx(direct_sum(atoms), rel=1e-11)


def test_madelung_energy_of_rock_salt() -> None:
    term = CoulombDsf.from_spec(("Na", "Cl"), 12.0, {"charges": {"Na": 1, "Cl": -1}, "formula": "NaCl"})
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    i, j, r = neighbor_list("ijd", atoms, 12.0)
    distances = jnp.asarray(np.stack([r[i == atom] for atom in (0, 1)]))
    nothing = jnp.zeros_like(distances)
    environment = Environment(
        jnp.stack([distances, nothing, nothing], -1), nothing == 0, jnp.array([0, 1]),
        jnp.asarray(np.stack([j[i == atom] for atom in (0, 1)])), distances=distances,
    )  # fmt: skip
    energy = float(jnp.sum(term.energy(term.init(jax.random.key(0)), term.project(environment))))
    assert energy == pytest.approx(-MADELUNG * 14.399645478 / 2.82, rel=5e-4)


def test_charges_stay_neutral_whatever_they_become() -> None:
    species = ("Si", "Al", "O")
    charges = {"Si": 2.0, "Al": 1.5, "O": -7 / 5}
    term = CoulombDsf.from_spec(species, 6.0, {"charges": charges, "formula": "Si2Al2O5"})
    parameters = term.init(jax.random.key(0))
    assert parameters["charges"].shape == (2,)
    np.testing.assert_allclose(term.all_charges(parameters), [charges[one] for one in species], atol=1e-12)
    moved = term.all_charges({"charges": parameters["charges"] + jnp.array([0.3, -0.1])})
    assert float(moved @ jnp.array([2.0, 2.0, 5.0])) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("charges", "message"),
    [
        ({"charges": {"Si": 2.4, "O": -1.3}}, "charges of SiO2 sum to -0.2 e, not to zero; .* O must have -1.2 e"),
        ({"charges": {"Si": 2.4}}, "charges has no O, which is a species of this potential; add it"),
        ({"charges": {"Si": 2.4, "O": -1.2, "Al": 1}}, "charges has 'Al'; species of this potential: Si, O"),
        ({"formula": "SiC"}, "formula = 'SiC' has no O"),
        ({"formula": "Si(O"}, r"formula = 'Si\(O' must be a chemical formula, such as NaCl or SiO2"),
        ({"charges": {"Si": "x", "O": -1.2}}, r"charges\[Si\] = 'x'"),
        ({"charges": 2.4}, "charges = 2.4"),
        ({"alpha": 0.2}, "unknown hyperparameter 'alpha'; known: charges, damping, formula"),
    ],
)
def test_charges_that_are_refused(charges: dict[str, Any], message: str) -> None:
    terms = silica_terms(core=True, charges={**SILICA_CHARGES, **charges})
    with pytest.raises(ValueError, match=rf"potential: potential term 'coulomb_dsf': {message}"):
        validate(PretrainJob, {"potential": {"species": ["Si", "O"], "terms": terms}})


def test_ions_that_fuse_are_refused() -> None:
    """BKS silica as it was published loses its ions at 5000 K; with a core, and salt as it is, they are kept apart."""
    job = {"potential": {"species": ["Si", "O"], "terms": silica_terms(core=False)}}
    with pytest.raises(ValueError, match=r"the ions of Si-Si|the ions of Si-O fuse: .* rises by 0\.\d+ eV only before"):
        validate(PretrainJob, job)
    validate(PretrainJob, {"potential": {"species": ["Si", "O"], "terms": silica_terms(core=True)}})
    charges = {"charges": {"Na": 1, "Cl": -1}, "formula": "NaCl"}
    alone = {"architecture": "coulomb_dsf", "cutoff": 8.0, "hyperparameters": charges}
    with pytest.raises(ValueError, match=r"the ions of Na-Cl fuse: .* a term 'repulsion' with exponent 24"):
        validate(PretrainJob, {"potential": {"species": ["Na", "Cl"], "terms": [alone]}})
    core = {"amplitude": 1256.0, "rho": 0.317}
    born_mayer = {"architecture": "born_mayer", "cutoff": 8.0, "hyperparameters": core}
    validate(PretrainJob, {"potential": {"species": ["Na", "Cl"], "terms": [alone, born_mayer]}})


def test_a_structure_of_another_composition_is_refused() -> None:
    potential = build(PotentialSpec.model_validate({"species": ["Si", "O"], "terms": silica_terms(core=True)}))
    assert species_of(potential, ["O", "Si", "O"]).tolist() == [1, 0, 1]
    with pytest.raises(EngineError, match="charges are neutral in SiO2, but the structure holds 1 O, 1 Si"):
        species_of(potential, ["O", "Si"])
