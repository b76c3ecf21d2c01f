"""The engine: pure JAX, free of AiiDA, useful alone through the console script ``difftre``.

The AiiDA side may import what is free of JAX: ``contract``, ``tables``, ``observables.specs``, ``errors``, ``units``.
"""

import os

# XLA logs an error for each cached program whose tuning hints (prefer-no-gather) are no CPU features: harmless. It
# reads this as JAX is imported, which any module below may do before a job is known.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
