"""Exit codes of the composite chains, each number with one meaning; the engine's own are in ``engine/errors.py``.

43x: physics; 50x: a part of ``difftre.train`` failed; 51x: a job of another chain failed.
"""

from __future__ import annotations

from typing import Final

UNSTABLE: Final = 430
"""The dynamics of a potential is unstable, and no restart cures it."""
TOO_MANY_ROLL_BACKS: Final = 431
"""The refinement returned to its last good potential as often as it may."""
TOO_FEW_LABELS: Final = 432
"""More first-principles calculations failed than the input allows."""

DATASET_FAILED: Final = 501
PRETRAINING_FAILED: Final = 502
REFINEMENT_FAILED: Final = 503
VALIDATION_FAILED: Final = 504
FEFF_FAILED: Final = 505

SAMPLING_FAILED: Final = 511
UPDATE_FAILED: Final = 512
PREDICTION_FAILED: Final = 513
