"""What the hyperparameters of each term of this package may be, by the name of its architecture. Free of JAX."""

from __future__ import annotations

from aiida_difftre.engine.contract import ionic_options, nequix_options, term_options, tetrahedral_options

OPTIONS: dict[str, type[term_options.TermOptions]] = {
    "born_mayer": ionic_options.BornMayerOptions,
    "buckingham": ionic_options.BuckinghamOptions,
    "coulomb_dsf": ionic_options.CoulombDsfOptions,
    "dispersion": term_options.DispersionOptions,
    "external_polynomial": term_options.ExternalPolynomialOptions,
    "external_spline": term_options.ExternalSplineOptions,
    "lennard_jones": term_options.LennardJonesOptions,
    "moment_network": term_options.MomentNetworkOptions,
    "nequix": nequix_options.NequixOptions,
    "pair_spline": term_options.PairSplineOptions,
    "repulsion": term_options.RepulsionOptions,
    "stillinger_weber": term_options.StillingerWeberOptions,
    "stillinger_weber_alloy": tetrahedral_options.StillingerWeberAlloyOptions,
}
"""Hyperparameters of the terms of this package."""
