"""Why a refinement, or an update of it, ends; and which failures of its jobs a refinement survives. Free of JAX."""

from __future__ import annotations

from enum import StrEnum

from aiida_difftre.engine.errors import ExitStatus


class Reason(StrEnum):
    """Why a refinement, or one update of it, is over."""

    CONVERGED = "converged"
    """The best potential agrees with the training targets (``chi2_stop``), on trajectories that can tell."""
    NOISE = "noise"
    """As ``converged``, but the error of the trajectories is above ``max_noise``, so that it may be chance."""
    PATIENCE = "patience"
    """No better potential for ``patience`` iterations."""
    MAX_ITERATIONS = "max_iterations"
    """All ``max_iterations`` updates were made, and the last potential judged."""
    STALLED = "stalled"
    """No step was found, with a fresh optimizer neither."""
    LAST_UPDATE_DISCARDED = "last_update_discarded"
    """The potential of the last update was unstable; there was no other to come."""
    TOO_MANY_ROLL_BACKS = "too_many_roll_backs"
    """The potential was rolled back ``max_roll_backs`` times and failed again."""
    UNSTABLE_START = "unstable_start"
    """The dynamics of the given potential is unstable."""
    FAILED = "failed"
    """A job failed in a way that smaller steps do not cure."""
    WALLTIME = "walltime"
    """The walltime of the job has passed."""
    INTERRUPTED = "interrupted"
    """A signal, such as SIGTERM, asked to stop."""
    CHI2 = "chi2"
    """An update met the training targets (``update.chi2_stop``)."""
    GATE = "gate"
    """An update left too few effective samples for another step."""
    MAX_STEPS = "max_steps"
    """An update made all its steps."""
    MINIMUM = "minimum"
    """The next step of an update would have gained next to nothing."""
    NO_DESCENT = "no_descent"
    """No step of an update, however small, lowered the loss."""

    @property
    def is_complete(self) -> bool:
        """Whether the refinement came to an end of its own, which a validation may follow."""
        return self in {
            Reason.CONVERGED,
            Reason.NOISE,
            Reason.PATIENCE,
            Reason.MAX_ITERATIONS,
            Reason.STALLED,
            Reason.LAST_UPDATE_DISCARDED,
        }


STOPPED = {ExitStatus.WALLTIME: Reason.WALLTIME, ExitStatus.INTERRUPTED: Reason.INTERRUPTED}
"""What stopped a job, by its exit status."""

RETRIED_WITH_SMALLER_STEPS = {ExitStatus.TOO_FEW_EFFECTIVE_SAMPLES, ExitStatus.NOT_FINITE}
"""Failures of an update that smaller steps may cure."""

UNSTABLE = {
    ExitStatus.NOT_FINITE,
    ExitStatus.ATOMS_TOO_CLOSE,
    ExitStatus.TEMPERATURE_OUT_OF_BOUNDS,
    ExitStatus.VOLUME_OUT_OF_BOUNDS,
}
"""Failures of sampling that are the potential's."""
