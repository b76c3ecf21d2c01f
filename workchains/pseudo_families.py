"""Which pseudopotential family has the elements of the structures, and the cutoffs that it recommends."""

from __future__ import annotations

from aiida import orm
from aiida_pseudo.groups.family import PseudoPotentialFamily


def family_label(functional: str) -> str:
    """Label of the family that holds what ``aiida-difftre setup`` generates."""
    return f"difftre/{functional}/ld1"


def find_family(label: str | None, elements: set[str], functional: str | None = None) -> PseudoPotentialFamily:
    """The family of a label, or the only one installed that has all elements and names the functional.

    Args:
        label: Label of the family.
        elements: chemical symbols.
        functional: that the label has to name, as ``PseudoDojo/0.4/LDA/SR/standard/upf`` does; None for any.

    Returns:
        The family.

    Raises:
        ValueError: naming the element that is missing and the remedy.
    """
    if label is not None:
        families = orm.QueryBuilder().append(PseudoPotentialFamily, filters={"label": label}).all(flat=True)
        if not families:
            raise ValueError(
                f"there is no pseudopotential family {label!r}; `aiida-pseudo list` shows the installed ones, "
                "`aiida-difftre setup` or `aiida-pseudo install` adds one"
            )
        missing = sorted(elements - set(families[0].elements))
        if missing:
            raise ValueError(
                f"no pseudopotential for {', '.join(missing)} in the family {label!r}; name another family, or install "
                "one (`aiida-pseudo install`)"
            )
        return families[0]
    every = orm.QueryBuilder().append(PseudoPotentialFamily).all(flat=True)
    fitting = [
        family
        for family in every
        if elements <= set(family.elements) and (functional is None or functional in family.label.split("/"))
    ]
    ours = [family for family in fitting if functional is not None and family.label == family_label(functional)]
    if ours:
        return ours[0]
    if len(fitting) != 1:
        found = ", ".join(sorted(repr(family.label) for family in fitting)) or "none"
        kind = f"{functional} pseudopotential" if functional else "pseudopotential"
        raise ValueError(
            f"{kind} families with {', '.join(sorted(elements))}: {found}; name one (dft.pseudo_family), or make one "
            "with `aiida-difftre setup --input FILE` or `aiida-pseudo install`"
        )
    return fitting[0]


def recommended_cutoffs(family: PseudoPotentialFamily, elements: set[str]) -> tuple[float, float]:
    """Cutoffs (Ry) of the wave functions and of the density.

    Raises:
        ValueError: for a family that recommends none, saying where to give them.
    """
    try:
        return family.get_recommended_cutoffs(elements=tuple(elements), unit="Ry")
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"the pseudopotential family {family.label!r} recommends no cutoffs ({error}); give ecutwfc and ecutrho "
            "(Ry) in the overrides, under pw, pw, parameters, SYSTEM"
        ) from None
