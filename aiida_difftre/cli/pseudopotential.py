"""Pseudopotentials: a family that the user has, or one generated with ld1.x from the inputs in the package."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.exceptions import NotExistent
from aiida_pseudo.data.pseudo import UpfData
from aiida_pseudo.groups.family import CutoffsPseudoPotentialFamily, PseudoPotentialFamily
from pydantic import Field

from aiida_difftre.cli.quantum_espresso import run_program
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.documents import read_yaml
from aiida_difftre.workchains.pseudo_families import family_label

STRINGENCY = "standard"


class PseudopotentialError(Exception):
    """No pseudopotential for an element, or one that fails its tests; the message names the element and the remedy."""


class Recipe(Strict):
    """How a pseudopotential is generated and tested; an entry of pseudopotentials/library.yaml.

    Args:
        template: name of the input of ld1.x.
        cutoff_wfc: Ry.
        cutoff_rho: Ry.
        tests: configurations of the valence electrons, the one that it is made for first.
        excitation_error: largest error of an excitation energy in the tests, Ry.
        eigenvalue_error: largest error of an eigenvalue in the tests, Ry.
    """

    template: str
    cutoff_wfc: float = Field(gt=0)
    cutoff_rho: float = Field(gt=0)
    tests: list[str] = Field(min_length=1)
    excitation_error: float = Field(default=2e-3, gt=0)
    eigenvalue_error: float = Field(default=4e-3, gt=0)

    @property
    def text(self) -> str:
        """The input of ld1.x."""
        return (_folder() / self.template).read_text(encoding="utf-8")


class Excitation(Strict):
    """Outcome of one test configuration, in Ry, relative to the first one.

    Args:
        configuration: Configuration of the valence electrons.
        all_electron: excitation energy with all electrons.
        error: pseudo minus all-electron excitation energy.
        eigenvalue_errors: all-electron minus pseudo, of the bound states.
    """

    configuration: str
    all_electron: float
    error: float
    eigenvalue_errors: list[float]


def _folder() -> Path:
    return Path(str(files("aiida_difftre.cli"))) / "pseudopotentials"


def library(functional: str) -> dict[str, Recipe]:
    """The recipes for a functional, by element; empty for a functional without any."""
    entries = read_yaml(_folder() / "library.yaml")
    return {element: Recipe.model_validate(entry) for element, entry in entries.get(functional, {}).items()}


def generate(recipe: Recipe, element: str, ld1: Path, folder: Path) -> Path:
    """Run ld1.x.

    Args:
        recipe: what to generate.
        element: chemical symbol; the template writes ELEMENT.upf.
        ld1: the program.
        folder: where to.

    Returns:
        the UPF file.

    Raises:
        PseudopotentialError: with the end of the output, when there is no such file afterwards.
    """
    result = run_program(ld1, recipe.text, timeout=120, folder=folder)
    path = folder / f"{element}.upf"
    if not path.is_file() or "End of pseudopotential test" not in result.stdout:
        raise PseudopotentialError(
            f"{ld1} does not generate a pseudopotential for {element} from {recipe.template}; its output ends with:\n"
            f"{(result.stdout + result.stderr)[-600:]}"
        )
    return path


def excitations(recipe: Recipe, element: str, ld1: Path, upf: Path) -> tuple[list[Excitation], str]:
    """Test the transferability on the excited atom and ion.

    Args:
        recipe: whose test configurations are run; the first is the one that it is made for.
        element: chemical symbol.
        ld1: the program.
        upf: the pseudopotential.

    Returns:
        the outcomes, and the whole output of ld1.x.

    Raises:
        PseudopotentialError: when ld1.x does not get through.
    """
    patterns = {"zed": r"\bzed\s*=\s*([0-9.]+)", "dft": r"\bdft\s*=\s*('[^']+')", "config": r"\bconfig\s*=\s*('[^']+')"}
    stated = {name: re.search(pattern, recipe.text) for name, pattern in patterns.items()}
    missing = [name for name, match in stated.items() if match is None]
    if missing:
        raise PseudopotentialError(f"{recipe.template} does not state {', '.join(missing)}")
    atom = ", ".join(f"{name} = {match[1]}" for name, match in stated.items() if match is not None)
    configurations = "".join(f" configts({number}) = '{text}'\n" for number, text in enumerate(recipe.tests, start=1))
    # The basis of Bessel functions finds every state below the first bound ones: it would show a ghost.
    text = (
        f"&input\n title = '{element}', {atom}, rel = 1, iswitch = 2, beta = 0.5\n/\n"
        f"&test\n file_pseudo = '{upf.name}', nconf = {len(recipe.tests)},\n{configurations}"
        f" ecutmin = {recipe.cutoff_wfc}, ecutmax = {recipe.cutoff_wfc + 10}, decut = 10, rm = 30\n/\n"
    )
    output = run_program(ld1, text, timeout=120, folder=upf.parent).stdout
    sections = re.split(r"-+ Testing the pseudopotential -+", output)[1:]
    if len(sections) != len(recipe.tests):
        raise PseudopotentialError(
            f"{ld1} tests {len(sections)} of {len(recipe.tests)} configurations of {element}; its output ends with:\n"
            f"{output[-600:]}"
        )
    outcomes = []
    for configuration, section in zip(recipe.tests, sections, strict=True):
        tested = section.split("End of pseudopotential test")[0]
        levels = re.findall(r"^\s+\d \d\s+\d[SPDF]\s+\d\([ \d.]+\)\s+\S+\s+\S+\s+(\S+)", tested, re.MULTILINE)
        changes = [re.search(rf"dEtot_{kind} =\s+(\S+) Ry", tested) for kind in ("ae", "ps")]
        energies = [float(change[1]) if change else 0.0 for change in changes]
        outcomes.append(
            Excitation(
                configuration=configuration,
                all_electron=energies[0],
                error=energies[1] - energies[0],
                eigenvalue_errors=[float(level) for level in levels],
            )
        )
    return outcomes, output


def check_excitations(recipe: Recipe, element: str, outcomes: list[Excitation]) -> None:
    """Refuse a pseudopotential that is not transferable.

    Raises:
        PseudopotentialError: naming the configuration and its error.
    """
    for outcome in outcomes:
        worst = max((abs(error) for error in outcome.eigenvalue_errors), default=0.0)
        if not (abs(outcome.error) <= recipe.excitation_error and worst <= recipe.eigenvalue_error):
            raise PseudopotentialError(
                f"the pseudopotential for {element} from {recipe.template} is not transferable: in "
                f"{outcome.configuration} the energy is off by {outcome.error:.4f} Ry and an eigenvalue by "
                f"{worst:.4f} Ry, where {recipe.excitation_error} and {recipe.eigenvalue_error} Ry are allowed; "
                "another ld1.x may do better"
            )


def bessel_levels(output: str) -> list[dict[int, list[float]]]:
    """The lowest levels (Ry) by angular momentum in a complete basis, for each test configuration."""
    return [
        {
            int(momentum): [float(level) for level in re.findall(r"(-?\d+\.\d+) Ry", levels)]
            for momentum, levels in re.findall(r"E\(L=(\d)\) =(.*)", section.split("End of Bessel")[0])
        }
        for section in output.split("Test with a basis set of Bessel functions")[1:]
    ]


def find_family(elements: Iterable[str], functional: str) -> PseudoPotentialFamily | None:
    """An installed family for the functional, with cutoffs, that has all elements: ours first, then by label.

    Args:
        elements: chemical symbols.
        functional: such as LDA; the label of the family has to name it, as ``PseudoDojo/0.4/LDA/SR/standard/upf`` does.
    """
    wanted = set(elements)
    found: list[PseudoPotentialFamily] = [
        family
        for (family,) in orm.QueryBuilder().append(PseudoPotentialFamily, subclassing=True).all()
        if functional in family.label.split("/")
        and wanted <= set(family.elements)
        and problem_with(family, wanted) is None
    ]
    return min(found, key=lambda family: (family.label != family_label(functional), family.label), default=None)


def problem_with(family: PseudoPotentialFamily, elements: Iterable[str]) -> str | None:
    """What keeps a family from being used for the elements; None where nothing does."""
    missing = sorted(set(elements) - set(family.elements))
    if missing:
        return (
            f"the pseudopotential family {family.label!r} has none for {', '.join(missing)}; "
            "choose another one (`aiida-pseudo list`), or install one with `aiida-pseudo install`"
        )
    try:
        family.get_recommended_cutoffs(elements=tuple(elements), unit="Ry")
    except (AttributeError, ValueError) as error:
        return (
            f"the pseudopotential family {family.label!r} recommends no cutoffs ({error}); set them with "
            f"`aiida-pseudo family cutoffs set {family.label} FILE.json -s standard -u Ry`"
        )
    return None


def ensure_family(
    elements: Iterable[str],
    functional: str,
    *,
    label: str | None = None,
    ld1: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> PseudoPotentialFamily:
    """A family with all elements and their cutoffs: the one named, else an installed one, else a generated one.

    Args:
        elements: chemical symbols.
        functional: name in the library, such as LDA.
        label: Label of a family to use; nothing is generated then.
        ld1: the program that generates.
        report: is told what is being done.

    Raises:
        PseudopotentialError: naming the element and the remedy.
    """
    wanted = sorted(set(elements))
    if label is not None:
        return _named_family(label, wanted)
    family = find_family(wanted, functional)
    if family is not None:
        return family
    recipes = check_recipes(wanted, functional)
    if ld1 is None:
        raise PseudopotentialError(
            f"no {functional} pseudopotential family with {', '.join(wanted)} is installed, and there is no ld1.x to "
            "generate one; install a family (`aiida-pseudo install pseudo-dojo`) and name it with --pseudo-family"
        )
    report(f"generating pseudopotentials with ld1.x: {functional}, {', '.join(wanted)}")
    return _generated_family(wanted, functional, recipes, ld1)


def check_recipes(elements: Iterable[str], functional: str) -> dict[str, Recipe]:
    """The recipes for a functional, with all elements.

    Raises:
        PseudopotentialError: naming the elements without a recipe, those with one, and the remedy.
    """
    recipes = library(functional)
    unknown = sorted(set(elements) - set(recipes))
    if unknown:
        raise PseudopotentialError(
            f"no {functional} pseudopotential for {', '.join(unknown)}: no installed family that names {functional} "
            f"has all elements, and the package can generate {', '.join(sorted(recipes)) or 'none'} only; install a "
            "family (`aiida-pseudo install pseudo-dojo`, `aiida-pseudo install sssp`) and name it in "
            "dft.pseudo_family of the input, or with --pseudo-family"
        )
    return recipes


def _named_family(label: str, elements: list[str]) -> PseudoPotentialFamily:
    try:
        family = orm.load_group(label)
    except NotExistent:
        raise PseudopotentialError(
            f"there is no pseudopotential family {label!r} in this profile; `aiida-pseudo list` shows those that are "
            "installed, `aiida-pseudo install` adds one"
        ) from None
    if not isinstance(family, PseudoPotentialFamily):
        raise PseudopotentialError(f"{label!r} is a {type(family).__name__}, not a pseudopotential family")
    problem = problem_with(family, elements)
    if problem is not None:
        raise PseudopotentialError(problem)
    return family


def _generated_family(
    elements: list[str], functional: str, recipes: dict[str, Recipe], ld1: Path
) -> CutoffsPseudoPotentialFamily:
    label = family_label(functional)
    family, _ = CutoffsPseudoPotentialFamily.collection.get_or_create(label=label)
    family.description = f"{functional}, generated with ld1.x by aiida-difftre setup"
    missing = [element for element in elements if element not in family.elements]
    nodes = []
    with tempfile.TemporaryDirectory(prefix="difftre-ld1-") as name:
        for element in missing:
            path = generate(recipes[element], element, ld1, Path(name))
            check_excitations(recipes[element], element, excitations(recipes[element], element, ld1, path)[0])
            with path.open("rb") as stream:
                nodes.append(UpfData(stream, filename=path.name).store())
    if nodes:
        family.add_nodes(nodes)
    cutoffs: dict[str, Any] = {
        element: {"cutoff_wfc": recipes[element].cutoff_wfc, "cutoff_rho": recipes[element].cutoff_rho}
        for element in family.elements
    }
    family.set_cutoffs(cutoffs, STRINGENCY, unit="Ry")
    return family
