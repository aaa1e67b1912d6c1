"""How Sphinx makes the pages: `python -m sphinx -W -n docs docs/_build`."""

import sys
from pathlib import Path

from bam_search import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "bam_search"
author = "The bam_search authors"
version = release = __version__
extensions = [
    "myst_parser",  # pages are Markdown
    "sphinx.ext.autodoc",  # the API from its docstrings
    "sphinx.ext.napoleon",  # which are in Google's style
    "sphinx_click",  # the commands from their options
    "study_keys",  # the keys of a study from its dataclasses
]
html_theme = "furo"
html_title = f"bam_search {version}"
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
