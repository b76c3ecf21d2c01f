"""Contract tests of a potential, a base potential, an observable or a sampler: what the engine relies on, for your own.

Each check takes an example and raises a :class:`ContractError`, which says in physical terms what is wrong. The checks
of a kind stand in a dictionary by name, so that a test is parametrised over it::

    @pytest.mark.parametrize("check", POTENTIAL_CHECKS.values(), ids=POTENTIAL_CHECKS.keys())
    def test_my_term(check):
        check(PotentialExample(potential, parameters, atoms))

Nothing else of the package imports this one. It imports JAX.
"""

from aiida_difftre.testing.bases import BASE_CHECKS, BaseCheck, BaseExample
from aiida_difftre.testing.expectations import ContractError
from aiida_difftre.testing.observables import OBSERVABLE_CHECKS, ObservableCheck, ObservableExample
from aiida_difftre.testing.potentials import POTENTIAL_CHECKS, PotentialCheck, PotentialExample
from aiida_difftre.testing.samplers import SAMPLER_CHECKS, SamplerCheck, SamplerExample

__all__ = [
    "BASE_CHECKS",
    "OBSERVABLE_CHECKS",
    "POTENTIAL_CHECKS",
    "SAMPLER_CHECKS",
    "BaseCheck",
    "BaseExample",
    "ContractError",
    "ObservableCheck",
    "ObservableExample",
    "PotentialCheck",
    "PotentialExample",
    "SamplerCheck",
    "SamplerExample",
]
