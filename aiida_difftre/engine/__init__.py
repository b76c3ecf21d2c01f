"""The engine: pure JAX, free of AiiDA, useful alone through the console script ``difftre``.

The AiiDA side may import what is free of JAX: ``contract``, ``tables``, ``observables.specs``, ``errors``, ``units``.
"""
