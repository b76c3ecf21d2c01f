"""What a package with observables of its own imports, under the name that its users import. Free of JAX."""

from __future__ import annotations

from aiida_difftre.engine.contract.observables import ObservableRequest, ObservableSpec

__all__ = ["ObservableRequest", "ObservableSpec"]
