"""Configuration of the documentation: `sphinx-build -W -b html docs docs/_build/html`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from aiida_difftre import __version__

project = "aiida-difftre"
author = "The aiida-difftre developers"
copyright = author  # noqa: A001 (the name that Sphinx reads)
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "difftre_reference",
    "difftre_tutorials",
]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext", "_generated", "_static"]
html_theme = "furo"
html_title = f"aiida-difftre {__version__}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
templates_path: list[str] = []
nitpicky = True
nitpick_ignore_regex = [("py:exc|py:class", r"(?!aiida_difftre\.).*")]  # of Python, NumPy, ase and AiiDA
autodoc_typehints = "none"  # docstrings state shapes and units
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
