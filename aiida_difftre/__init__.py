"""AiiDA workflows that correct machine-learned interatomic potentials with experimental data (DiffTRe)."""

__version__ = "0.2.0"
