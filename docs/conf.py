"""How the documentation is built: `make docs`. No network; every warning is an error."""

from __future__ import annotations

import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "cello1"
author = "The cello1 developers"
project_copyright = author
release = metadata.version("cello1")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "cello1_docs",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Pages. Blocks without a language are commands.
highlight_language = "bash"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# Notebooks are executed anew at every build, in an empty folder, and must not fail.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 180
nb_merge_streams = True

# The API, from numpy docstrings.
autosummary_generate = True
# On disks that ignore case, score and Score would be one file.
autosummary_filename_map = {"cello1.Score": "cello1.Score-class"}
autodoc_typehints_format = "short"
# A machine that only builds these pages has none of what models need.
autodoc_mock_imports = [
    name
    for name in (
        "accelerate",
        "datasets",
        "peft",
        "safetensors",
        "tokenizers",
        "torch",
        "transformers",
        "trl",
    )
    if find_spec(name) is None
]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
maximum_signature_line_length = 90
# Names of types in signatures may be of other packages, whose index is not at hand.
nitpick_ignore_regex = [
    ("py:class", r".*"),
    ("py:mod", r"cello1\..*"),
    ("py:.*", r"(scanpy|matplotlib|numpy|pandas|anndata)\..*"),
]

# What it looks like.
html_theme = "furo"
html_title = "cello1"
html_static_path = ["_static"]
html_css_files = ["cello1.css"]
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
