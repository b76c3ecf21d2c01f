"""jax-md's integrators, without the ten seconds that importing the whole package takes.

``import jax_md.simulate`` runs the package's ``__init__``, which imports flax, e3nn and every potential. Registering
an empty module with the package's path first lets the submodules be imported alone; the rest of jax-md can still be
imported later by its full name.
"""

from __future__ import annotations

import importlib.util
import sys
import types

if "jax_md" not in sys.modules:
    _spec = importlib.util.find_spec("jax_md")
    if _spec is None or _spec.submodule_search_locations is None:
        raise ImportError("jax-md is not installed: pip install jax-md")
    _package = types.ModuleType("jax_md")
    _package.__path__ = list(_spec.submodule_search_locations)
    sys.modules["jax_md"] = _package

from jax_md import simulate

__all__ = ["simulate"]
