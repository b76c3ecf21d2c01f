"""Which requests of observables are properties of the dynamics, and which settings can give them. Free of JAX."""

from __future__ import annotations

from collections.abc import Iterable

from aiida_difftre.engine.contract import samplers
from aiida_difftre.engine.contract.observables import ObservableRequest, observable
from aiida_difftre.engine.contract.sampling_settings import LangevinSpec, SamplingSettings

WEAKEST_FRICTION = 0.1
"""1/ps, of a Langevin thermostat that leaves the paths of atoms nearly alone: the friction of a liquid with itself,
kT/(mD), is some 10/ps in argon and 60/ps in water, to which that of the thermostat is added."""


def is_dynamic(request: ObservableRequest) -> bool:
    """Tell whether a request is for a property of the dynamics.

    Args:
        request: The request.

    Returns:
        True if only the job that samples can predict it.
    """
    return observable(request.observable).is_dynamic


def check_dynamic_requests(requests: Iterable[ObservableRequest], settings: SamplingSettings | None) -> None:
    """Refuse properties of the dynamics where there is none, or one that a thermostat decides.

    Args:
        requests: Observables, of which those of configurations are not looked at.
        settings: Settings of the job that samples; None where snapshots are reweighted or were sampled before.

    Raises:
        ValueError: Naming the observable, the value and the remedy.
    """
    for request in requests:
        check = observable(request.observable).check_dynamics
        if check is None:
            continue
        if settings is None:
            raise ValueError(
                f"observable {request.name!r} is a property of the dynamics, which weights of snapshots do not tell, "
                "and a trajectory does not state its thermostat; ask for it where it is sampled (in a validation, as a "
                "target with role: test)"
            )
        if settings.sampler != samplers.JAX_MD:
            raise ValueError(
                f"observable {request.name!r} is a property of the dynamics, and sampler {settings.sampler!r} may have "
                f"none; sample with {samplers.JAX_MD}"
            )
        thermostat = settings.thermostat
        if isinstance(thermostat, LangevinSpec) and thermostat.friction_per_ps > WEAKEST_FRICTION:
            raise ValueError(
                f"observable {request.name!r} is a property of the dynamics, which a Langevin thermostat with "
                f"friction_per_ps = {thermostat.friction_per_ps:g} slows down; give this sampling thermostat: {{name: "
                f"nose_hoover, time_constant_fs: 200}}, or a friction of at most {WEAKEST_FRICTION:g}"
            )
        check(request, settings)
