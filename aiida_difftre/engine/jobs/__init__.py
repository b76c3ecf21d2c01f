"""Jobs: one module for each kind, with a function ``run``."""
