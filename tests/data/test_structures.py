"""Generated cells: reproducible, of the sizes asked for, refused where unphysical."""

import numpy as np
import pytest
from ase.build import bulk

from aiida_difftre.data import elasticity
from aiida_difftre.data.structures import (
    Generation,
    generate,
    minimum_distance,
    rattled,
    strained,
    supercell_mesh,
)
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.geometry.lattice import strain_matrix
from aiida_difftre.engine.units import EV_PER_A3_IN_GPA


@pytest.fixture
def diamond():
    return bulk("C", "diamond", a=3.567, cubic=True)


SETTINGS = {
    "seed": 3,
    "isotropic": [-0.02, 0.02],
    "rattles": [{"standard_deviation": 0.05, "count": 3}],
    "strains": [
        {"maximum": 0.03, "standard_deviation": 0.02, "count": 4},
        {"maximum": 0.03, "count": 2, "isotropic": True},
    ],
}


def test_same_seed_gives_the_same_cells_and_another_seed_others(diamond):
    first, again = (generate(diamond, Generation(**SETTINGS)) for _ in range(2))
    other = generate(diamond, Generation(**{**SETTINGS, "seed": 4}))
    assert list(first) == list(again)
    for name, cell in first.items():
        np.testing.assert_array_equal(cell.positions, again[name].positions)
        np.testing.assert_array_equal(cell.cell, again[name].cell)
    assert not np.allclose(first["rattled_003"].positions, other["rattled_003"].positions)


def test_counts_and_kinds(diamond):
    cells = generate(diamond, Generation(**SETTINGS))
    assert len(cells) == 12
    kinds = [cell.info["kind"] for cell in cells.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"equilibrium": 1, "strained": 8, "rattled": 3}
    assert all(name.startswith(cell.info["kind"]) for name, cell in cells.items())
    np.testing.assert_array_equal(cells["equilibrium_000"].positions, diamond.positions)


def test_seed_cell_is_not_changed(diamond):
    before = diamond.copy()
    generate(diamond, Generation(**SETTINGS))
    assert diamond == before


def test_rattles_have_their_standard_deviation_and_no_drift(diamond):
    large = diamond.repeat(5)
    displacements = rattled(large, 0.05, np.random.default_rng(1)).positions - large.positions
    assert displacements.std() == pytest.approx(0.05, rel=0.03)
    np.testing.assert_allclose(displacements.mean(axis=0), 0, atol=1e-12)


def test_strains_stay_within_their_maximum_and_keep_fractional_coordinates(diamond):
    generation = Generation(strains=[{"maximum": 0.04, "count": 50}])
    for cell in generate(diamond, generation).values():
        deformation = np.linalg.solve(diamond.cell.array, cell.cell.array) - np.eye(3)
        assert abs(deformation).max() <= 0.04
        np.testing.assert_allclose(deformation, deformation.T, atol=1e-12)
        np.testing.assert_allclose(cell.get_scaled_positions(), diamond.get_scaled_positions(), atol=1e-9)


def test_isotropic_strain_scales_the_lattice(diamond):
    cells = generate(diamond, Generation(equilibrium=False, isotropic=[-0.02]))
    np.testing.assert_allclose(cells["strained_000"].cell.lengths(), 3.567 * 0.98)


def test_voigt_shear_is_engineering_strain():
    np.testing.assert_array_equal(strain_matrix([0, 0, 0, 0.02, 0, 0])[1, 2], 0.01)


def test_minimum_distance_sees_periodic_images(diamond):
    assert minimum_distance(diamond) == pytest.approx(3.567 * 3**0.5 / 4)
    assert minimum_distance(bulk("Ar", "fcc", a=5.0)) == pytest.approx(5.0 / 2**0.5)


def test_unphysical_rattle_is_refused(diamond):
    with pytest.raises(ValueError, match=r"lower the standard deviation"):
        generate(diamond, Generation(rattles=[{"standard_deviation": 0.9, "count": 5}]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratles": []}, "ratles"),
        ({"rattles": [{"standard_deviation": -0.1, "count": 1}]}, "standard_deviation"),
        ({"rattles": [{"standard_deviation": 0.1, "count": 0}]}, "count"),
        ({"strains": [{"maximum": 0.5, "count": 1}]}, "maximum"),
        ({"isotropic": [0.0]}, "isotropic strain 0.0"),
        ({"isotropic": [0.01, 0.01]}, "repeat"),
        ({"equilibrium": False}, "nothing is to be generated"),
        ({"equilibrium": False, "isotropic": [0.01], "elastic": True}, "equilibrium: true"),
        ({"elastic_strain": 0.5}, "elastic_strain"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        validate(Generation, settings)


def test_cubic_reference_recovers_the_stiffness_of_a_linear_solid(diamond):
    stiffness = {"C11": 1000.0, "C12": 100.0, "C44": 550.0}
    matrix = np.diag([1000.0] * 3 + [550.0] * 3)
    matrix[:3, :3] += 100.0 * (1 - np.eye(3))
    initial = np.array([15.0, 15.0, 15.0, 0.0, 0.0, 0.0])
    stresses = {elasticity.UNSTRAINED: initial / EV_PER_A3_IN_GPA}
    for name, cell in elasticity.elastic_cells(diamond, 0.004).items():
        tensor = np.linalg.solve(diamond.cell.array, cell.cell.array) - np.eye(3)
        strain = tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * [1, 1, 1, 2, 2, 2]
        stresses[name] = (initial + matrix @ strain) / EV_PER_A3_IN_GPA
    reference = elasticity.cubic_reference(diamond, stresses, 0.004)
    assert reference["stiffness"] == pytest.approx(stiffness)
    assert reference["stress"] == pytest.approx(initial.tolist())
    assert reference["density"] == pytest.approx(3515.7, abs=0.1)


def test_cubic_reference_names_a_missing_label(diamond):
    with pytest.raises(ValueError, match="elastic_sheared"):
        elasticity.cubic_reference(
            diamond,
            {name: np.zeros(6) for name in ("equilibrium_000", "elastic_stretched", "elastic_compressed")},
            0.01,
        )


@pytest.mark.parametrize("cell", [bulk("C", "diamond", a=3.567), strained(bulk("C", cubic=True), np.diag([0.1, 0, 0]))])
def test_elastic_constants_need_a_cubic_cell(cell):
    with pytest.raises(ValueError, match="conventional cubic cell"):
        elasticity.check_cubic(cell)


ALONE = {"equilibrium": False}


def test_dimers_of_every_pair_at_every_distance():
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    cells = generate(salt, Generation(**ALONE, dimers={"distances": [2.5, 4.0], "box": 12.0}))
    found = [(str(cell.symbols), cell.get_distance(0, 1, mic=True)) for cell in cells.values()]
    pairs = ("Cl2", "ClNa", "Na2")
    assert found == [(pair, pytest.approx(distance)) for pair in pairs for distance in (2.5, 4.0)]
    for name, cell in cells.items():
        assert name.startswith("dimer_")
        assert cell.info["kind"] == "dimer"
        np.testing.assert_array_equal(cell.cell, 12.0 * np.eye(3))


def test_volumes_are_evenly_spaced_in_supercells():
    seed = bulk("Ar", "fcc", a=5.3, cubic=True)
    volumes = {"minimum": 0.9, "maximum": 1.2, "count": 4, "standard_deviation": 0.1, "repeat": [1, 1, 2]}
    cells = list(generate(seed, Generation(**ALONE, volumes=[volumes])).values())
    assert [len(cell) for cell in cells] == [8] * 4
    ratios = [cell.get_volume() / (2 * seed.get_volume()) for cell in cells]
    np.testing.assert_allclose(ratios, [0.9, 1.0, 1.1, 1.2], rtol=1e-12)
    still = seed.repeat((1, 1, 2))
    moved = cells[1].positions - still.positions
    assert 0.05 < moved.std() < 0.2
    assert not np.allclose(cells[0].get_scaled_positions(), cells[3].get_scaled_positions(), atol=1e-3)


@pytest.mark.parametrize("kind", ["rattles", "strains"])
def test_other_copies_may_be_of_supercells(kind):
    seed = bulk("Al", "fcc", a=4.05)
    rule = {"count": 1, "standard_deviation": 0.05, "repeat": [2, 1, 1]}
    if kind == "strains":
        rule["maximum"] = 0.02
    (cell,) = generate(seed, Generation(**ALONE, **{kind: [rule]})).values()
    assert len(cell) == 2


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"dimers": {"distances": [3.0, 6.0], "box": 11.0}}, "a box above 12 Å"),
        ({"dimers": {"distances": [3.0, 3.0], "box": 11.0}}, "repeat"),
        ({"dimers": {"distances": [], "box": 11.0}}, "distances"),
        ({"dimers": {"distances": [0.0], "box": 11.0}}, "distances"),
        ({"volumes": [{"minimum": 1.2, "maximum": 0.9, "count": 3}]}, "1.2, must be below"),
        ({"volumes": [{"minimum": 0.1, "maximum": 0.9, "count": 3}]}, "minimum"),
        ({"volumes": [{"minimum": 0.9, "maximum": 1.1, "count": 1}]}, "count"),
        ({"rattles": [{"standard_deviation": 0.1, "count": 1, "repeat": [0, 1, 1]}]}, "repeat"),
    ],
)
def test_unsound_generation_is_refused(settings, fragment):
    with pytest.raises(ValueError, match=fragment):
        validate(Generation, settings)


@pytest.mark.parametrize(
    ("mesh", "repeat", "strain", "expected"),
    [
        ((4, 4, 4), (1, 1, 1), 0.15, (4, 4, 4)),
        ((4, 4, 4), (1, 2, 4), -0.1, (4, 2, 1)),
        ((5, 5, 3), (2, 1, 2), 0.0, (3, 5, 2)),
        ((1, 1, 1), (3, 1, 1), 0.0, (1, 1, 1)),
    ],
)
def test_supercells_take_a_thinner_mesh(mesh, repeat, strain, expected):
    seed = bulk("Ti", "hcp", a=2.95, c=4.68)
    supercell = strained(seed.repeat(repeat), strain * np.eye(3))
    assert supercell_mesh(mesh, seed.cell, supercell.cell) == expected
