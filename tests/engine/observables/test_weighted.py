"""Weighted totals, partials and isotopes: sums in NumPy, the Debye sum, relations between them, refused input."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from aiida_difftre.engine.contract import isotopes
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.observables import protocol
from aiida_difftre.engine.observables.protocol import Macrostate

FM = {name: isotopes.scattering_length(name) or 0.0 for name in ("H", "D", "O")}
"""Coherent scattering lengths, fm."""


def liquid(seed: int = 2) -> Atoms:
    """Water's composition at random places, in a triclinic cell."""
    rng = np.random.default_rng(seed)
    cell = 7.0 * np.eye(3) + rng.normal(scale=0.3, size=(3, 3))
    return Atoms("H20O10", cell=cell, pbc=True, scaled_positions=rng.uniform(size=(30, 3)))


def values(atoms: Atoms, observable: str, grid: list[float], **options: Any) -> np.ndarray:
    request = ObservableRequest(observable=observable, grid=grid, options=options)
    made = protocol.make(request, tuple(atoms.get_chemical_symbols()), atoms.cell.array, masses=atoms.get_masses())
    features = jax.jit(made.features)(jnp.asarray(atoms.get_scaled_positions()), jnp.asarray(atoms.cell.array))
    return np.asarray(made.combine({"features": features[None]}, jnp.ones(1), Macrostate(300.0, 1.0, 1)))


def densities(atoms: Atoms, edges: np.ndarray) -> list[dict[str, np.ndarray]]:
    """ρ_a(q) of each wave vector, in lists by bin."""
    reciprocal = 2 * np.pi * np.linalg.inv(atoms.cell.array).T
    found: list[dict[str, Any]] = [{"H": [], "O": []} for _ in edges[1:]]
    for index in product(range(-6, 7), repeat=3):
        vector = np.array(index) @ reciprocal
        place = int(np.searchsorted(edges, np.linalg.norm(vector), side="right")) - 1
        if any(index) and 0 <= place < len(found):
            for element, waves in found[place].items():
                waves.append(np.exp(1j * atoms.positions[np.array(atoms.symbols) == element] @ vector).sum())
    return [{element: np.array(waves) for element, waves in one.items()} for one in found]


GRID, EDGES = [2.25, 2.75, 3.25], np.array([2.0, 2.5, 3.0, 3.5])
C = {"H": 2 / 3, "O": 1 / 3}


def test_partials_against_sums_over_wave_vectors() -> None:
    atoms = liquid()
    waves, n = densities(atoms, EDGES), len(atoms)

    def average(function: Any) -> list[float]:
        return [float(np.mean(np.real(function(one["H"], one["O"])))) / n for one in waves]

    expected = {
        ("H", "H"): 1 + (np.array(average(lambda h, o: abs(h) ** 2)) - C["H"]) / C["H"] ** 2,
        ("H", "O"): 1 + np.array(average(lambda h, o: h * o.conj())) / (C["H"] * C["O"]),
        "NN": average(lambda h, o: abs(h + o) ** 2),
        "NC": average(lambda h, o: (h + o) * (C["O"] * h - C["H"] * o).conj()),
        "CC": average(lambda h, o: abs(C["O"] * h - C["H"] * o) ** 2),
    }
    for partial, wanted in expected.items():
        named = list(partial) if isinstance(partial, tuple) else partial
        found = values(atoms, "structure_factor", GRID, partial=named, vectors_per_bin=None)
        np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_partials_of_both_methods_add_up_to_the_total() -> None:
    """Σ c_a c_b b_a b_b (A_ab - 1)/<b>², and S_NN, S_NC, S_CC in terms of A_ab, from transforms as well."""
    atoms = liquid()
    for method in ({"method": "direct", "vectors_per_bin": None}, {"method": "transform", "r_bin": 0.05}):
        a = {
            pair: values(atoms, "structure_factor", GRID, partial=list(pair), **method)
            for pair in (("H", "H"), ("H", "O"), ("O", "O"))
        }
        hh, ho, oo = a.values()
        mean = C["H"] * FM["H"] + C["O"] * FM["O"]
        parts = {pair: C[pair[0]] * C[pair[1]] * FM[pair[0]] * FM[pair[1]] / mean**2 for pair in a}
        total = 1 + sum((1 if x == y else 2) * parts[x, y] * (a[x, y] - 1) for x, y in a)
        np.testing.assert_allclose(values(atoms, "structure_factor", GRID, **method), total, rtol=1e-6)
        h, o = C["H"], C["O"]
        nc = h * o * (h * (hh - ho) - o * (oo - ho))
        cc = h * o * (1 + h * o * (hh + oo - 2 * ho))
        np.testing.assert_allclose(values(atoms, "structure_factor", GRID, partial="NC", **method), nc, atol=1e-9)
        np.testing.assert_allclose(values(atoms, "structure_factor", GRID, partial="CC", **method), cc, atol=1e-9)


def test_isotopes_by_choice_by_mass_and_by_length_are_the_same() -> None:
    atoms = liquid()
    heavy = atoms.copy()
    heavy.set_masses([2.014 if symbol == "H" else None for symbol in heavy.symbols])
    options = {"vectors_per_bin": None}
    by_mass = values(heavy, "structure_factor", GRID, **options)
    np.testing.assert_allclose(values(atoms, "structure_factor", GRID, isotopes={"H": "D"}, **options), by_mass)
    half = 0.36 * FM["H"] + 0.64 * FM["D"]
    mixed = values(atoms, "structure_factor", GRID, isotopes={"H": {"H": 0.36, "D": 0.64}}, **options)
    given = values(heavy, "structure_factor", GRID, scattering_lengths={"H": half}, **options)
    np.testing.assert_allclose(mixed, given, rtol=1e-9)
    assert np.abs(mixed - by_mass).max() > 0.1


def test_weighted_total_against_pairs_counted_one_by_one() -> None:
    atoms, grid = liquid(), [0.25, 0.75, 1.25, 1.75, 2.25]
    i, j, r = neighbor_list("ijd", atoms, 2.5)
    for radiation, lengths in (("neutron", FM), ("xray", {"H": 1.0, "O": 8.0})):
        b = np.array([lengths[symbol] for symbol in atoms.symbols])
        shells = 4 / 3 * np.pi * np.diff(np.arange(0, 2.6, 0.5) ** 3)
        counts = np.histogram(r, np.arange(0, 2.6, 0.5), weights=b[i] * b[j])[0]
        expected = counts * atoms.get_volume() / (len(atoms) * b.mean()) ** 2 / shells
        np.testing.assert_allclose(values(atoms, "rdf", grid, radiation=radiation), expected, rtol=1e-4)


def test_a_cluster_scatters_by_the_sum_of_debye() -> None:
    """1/N Σ b_i b_j sin(q r)/(q r), and what the transform subtracts: the mean density up to where it ends."""
    rng = np.random.default_rng(5)
    cluster = Atoms("H4O2", cell=[24.0] * 3, pbc=True, positions=12 + rng.uniform(-2, 2, size=(6, 3)))
    q, end, width = np.array([1.5, 2.5, 4.0]), 10.0, 2e-3
    found = values(
        cluster,
        "structure_factor",
        q.tolist(),
        method="transform",
        r_max=end,
        r_bin=width,
        window="none",
        isotopes={"H": "D"},
    )
    b = np.array([{"H": FM["D"], "O": FM["O"]}[symbol] for symbol in cluster.symbols])
    r = cluster.get_all_distances()[None] + 1e-12
    debye = np.sum(b[:, None] * b * np.sinc(q[:, None, None] * r / np.pi), (1, 2)) / 6
    density = 6 / 24.0**3
    edge = end - width / 2  # of the last bin's centre
    background = 4 * np.pi * density * (np.sin(q * edge) - q * edge * np.cos(q * edge)) / q**3
    expected = 1 + (debye - np.mean(b**2)) / b.mean() ** 2 - background
    np.testing.assert_allclose(found, expected, rtol=3e-3)


def test_counting_distinct_pairs_gives_an_ideal_gas_one() -> None:
    """N(N - 1) against N²: the factor of like pairs, and none for unlike ones."""
    atoms, grid = liquid(), [1.25, 1.75, 2.25]
    for pair, factor in ((None, 30 / 29), (["H", "H"], 20 / 19), (["H", "O"], 1.0)):
        every, distinct = (values(atoms, "rdf", grid, pair=pair, self_pairs=with_self) for with_self in (True, False))
        np.testing.assert_allclose(distinct, factor * every, rtol=1e-12)


@pytest.mark.parametrize(
    ("observable", "options", "message"),
    [
        ("structure_factor", {"partial": ["H", "Si"]}, "option 'partial' names 'Si'; the structure has H, O"),
        ("structure_factor", {"partial": "NX"}, "option 'partial' of structure_factor is 'NX'; give two species"),
        ("structure_factor", {"composition": "SiO2"}, "was measured on SiO2, .* but the structure holds 20 H, 10 O"),
        ("structure_factor", {"isotopes": {"Si": "29Si"}}, "option 'isotopes' names Si; the structure has H, O"),
        ("structure_factor", {"isotopes": {"H": "29Si"}}, "has 29Si for H; it is one of Si"),
        ("structure_factor", {"isotopes": {"H": {"H": 0.3, "D": 0.6}}}, "isotopes of H sum to 0.9, not to 1"),
        ("structure_factor", {"isotopes": "D2O"}, "option 'isotopes' of structure_factor is 'D2O'; give isotopes by"),
        ("structure_factor", {"isotopes": {"O": "14O"}}, "14O has no scattering length|no isotope"),
        ("rdf", {"radiation": "neutron", "composition": "HO"}, "'rdf' was measured on HO"),
        ("rdf", {"radiation": "muon"}, "option 'radiation' of rdf is 'muon'; choose neutron or xray"),
        ("rdf", {"radiation": "xray", "pair": ["H", "O"]}, "g\\(r\\) of one pair has no weights"),
        ("rdf", {"composition": "H2O"}, "option 'composition' of rdf needs a radiation"),
        ("rdf", {"self_pairs": "no"}, "option 'self_pairs' of rdf is 'no'"),
        ("rdf", {"pair": ["H", "Si"]}, "Si"),
    ],
)
def test_refused(observable: str, options: dict[str, Any], message: str) -> None:
    atoms = liquid()
    with pytest.raises(ValueError, match=message):
        ObservableRequest(observable=observable, grid=GRID, options=options).check_system(
            atoms.get_chemical_symbols(), atoms.cell.array
        )


def test_a_species_without_a_scattering_length_is_refused() -> None:
    request = ObservableRequest(observable="rdf", grid=GRID, options={"radiation": "neutron"})
    with pytest.raises(ValueError, match="there is no neutron weight for the species 'Po'; give one in scattering_len"):
        request.check_system(["Po", "O"], 10 * np.eye(3))
