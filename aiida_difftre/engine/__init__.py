"""The engine: pure JAX, free of AiiDA, useful alone through the console script ``difftre``.

Modules that the AiiDA side may import (they are free of JAX): ``errors``, ``files``, ``jobs``, ``targets``, ``units``.
"""
