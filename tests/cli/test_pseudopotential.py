"""Generated pseudopotentials: transferable, without ghosts; and what is said where there is none."""

import re
from pathlib import Path

import pytest
from aiida_pseudo.groups.family import CutoffsPseudoPotentialFamily, PseudoPotentialFamily

from aiida_difftre.cli import pseudopotential
from aiida_difftre.cli.pseudopotential import PseudopotentialError, ensure_family

RECIPES = [(functional, element) for functional in ("LDA", "PBE") for element in pseudopotential.library(functional)]


def _test_output(functional: str, element: str, ld1: Path, folder: Path):
    recipe = pseudopotential.library(functional)[element]
    upf = pseudopotential.generate(recipe, element, ld1, folder)
    return recipe, *pseudopotential.excitations(recipe, element, ld1, upf)


@pytest.mark.dft
@pytest.mark.parametrize(("functional", "element"), RECIPES)
def test_excitation_energies_and_eigenvalues_agree_with_all_electrons(functional, element, ld1, tmp_path: Path):
    recipe, outcomes, output = _test_output(functional, element, ld1, tmp_path)
    ground, *excited = outcomes
    assert max(map(abs, ground.eigenvalue_errors)) < 1e-4, "what it is made for is reproduced by construction"
    assert len(excited) == len(recipe.tests) - 1
    assert all(abs(outcome.all_electron) > 0.05 for outcome in excited), "some are no excitations"
    pseudopotential.check_excitations(recipe, element, outcomes)
    strict = recipe.model_copy(update={"excitation_error": 1e-7})
    with pytest.raises(PseudopotentialError, match=f"for {element} .* is not transferable: in"):
        pseudopotential.check_excitations(strict, element, outcomes)
    assert "ghost" not in output.lower()


@pytest.mark.dft
@pytest.mark.parametrize(("functional", "element"), RECIPES)
def test_no_state_lies_below_the_valence_states(functional, element, ld1, tmp_path: Path):
    _, _, output = _test_output(functional, element, ld1, tmp_path)
    row = r"^\s+\d (\d)\s+\d[SPDF]\s+\d\([ \d.]+\)\s+(\S+)\s+\S+\s+\S+"
    first = re.split(r"-+ Testing the pseudopotential -+", output)[1]
    bound = re.findall(row, first.split("End of pseudopotential test")[0], re.MULTILINE)
    lowest = pseudopotential.bessel_levels(output)[0]
    for momentum in {int(momentum) for momentum, _ in bound}:
        levels = sorted(float(energy) for found, energy in bound if int(found) == momentum)
        for level, energy in zip(lowest[momentum], levels, strict=False):
            assert level == pytest.approx(energy, abs=0.006), f"level of l = {momentum} (Ry)"
    if element == "C":
        assert lowest[0][0] == pytest.approx(-1.0028, abs=0.005), "2s of carbon is the lowest s state (Ry)"
        assert lowest[1][0] == pytest.approx(-0.3984, abs=0.005), "2p of carbon is the lowest p state (Ry)"


@pytest.mark.dft
def test_generated_family_recommends_its_cutoffs_and_is_used_again(ld1):
    family = ensure_family(["C"], "LDA", ld1=ld1)
    assert isinstance(family, CutoffsPseudoPotentialFamily)
    assert family.label == "difftre/LDA/ld1"
    assert family.get_recommended_cutoffs(elements=("C",), unit="Ry") == (70.0, 210.0)
    assert family.get_pseudo("C").z_valence == 4
    assert ensure_family(["C"], "LDA", ld1=None).uuid == family.uuid, "nothing has to be generated now"
    assert ensure_family(["C"], "LDA", label=family.label).uuid == family.uuid


def test_element_without_recipe_is_named(aiida_profile_clean):
    with pytest.raises(PseudopotentialError, match=r"no LDA pseudopotential for Xe.*aiida-pseudo install"):
        ensure_family(["C", "Xe"], "LDA", ld1=Path("ld1.x"))


def test_missing_ld1_is_named(aiida_profile_clean):
    with pytest.raises(PseudopotentialError, match=r"no ld1\.x to generate"):
        ensure_family(["C"], "LDA")


def test_unknown_family_is_named(aiida_profile_clean):
    with pytest.raises(PseudopotentialError, match=r"no pseudopotential family 'SSSP/9'"):
        ensure_family(["C"], "LDA", label="SSSP/9")


def test_family_without_the_element_is_named(aiida_profile_clean):
    PseudoPotentialFamily(label="empty").store()
    with pytest.raises(PseudopotentialError, match=r"'empty' has none for C"):
        ensure_family(["C"], "LDA", label="empty")


def test_failing_ld1_is_reported_with_its_output(tmp_path: Path):
    broken = tmp_path / "ld1.x"
    broken.write_text("#!/bin/sh\necho no lattice here\n")
    broken.chmod(0o755)
    with pytest.raises(PseudopotentialError, match="no lattice here"):
        pseudopotential.generate(pseudopotential.library("LDA")["C"], "C", broken, tmp_path)
