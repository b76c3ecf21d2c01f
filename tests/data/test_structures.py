"""Generated cells: reproducible, of the sizes asked for, refused where unphysical."""

import numpy as np
import pytest
from ase.build import bulk

from aiida_difftre.data import elasticity
from aiida_difftre.data.structures import Generation, generate, minimum_distance, rattled, strained, voigt_strain
from aiida_difftre.engine.jobs import validate
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
    generation = Generation(**SETTINGS)
    cells = generate(diamond, generation)
    assert len(cells) == generation.count == 12
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
    np.testing.assert_array_equal(voigt_strain([0, 0, 0, 0.02, 0, 0])[1, 2], 0.01)


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
