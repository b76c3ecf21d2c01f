"""Which potentials a prior of smooth pair splines is for. Free of JAX."""

from __future__ import annotations

from aiida_difftre.engine.contract.settings import PotentialSpec

SMOOTHED = "pair_spline"
"""Architecture of the terms that the prior is for."""


def check_curvature_width(width: float | None, spec: PotentialSpec) -> None:
    """Refuse a prior of the curvature of pair splines for a potential in which no such term moves.

    Args:
        width: Standard deviation of the curvature at the cutoff, eV/Å²; None for no prior.
        spec: The potential.

    Raises:
        ValueError: Naming the width and the terms.
    """
    if width is None or any(term.architecture == SMOOTHED and term.trains("control_points") for term in spec.terms):
        return
    there = [term.architecture for term in spec.terms]
    what = "its pair_spline is not trained" if SMOOTHED in there else f"its terms are {', '.join(there)}"
    raise ValueError(
        f"loss.curvature_width is {width:g} eV/Å², the prior of a pair_spline that is trained, but of this potential "
        f"{what}; leave it out"
    )
