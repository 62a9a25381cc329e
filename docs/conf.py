"""How the site is built: ``tox -e docs``, or ``sphinx-build -W docs site``.

The pages are plain Markdown, which reads well beside the code, too. What only the site needs, the navigation and the
places of the files outside of this folder, is added here while the pages are read.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

from sphinx.application import Sphinx

import llm_council

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "llm_council"
author = "the llm_council authors"
release = version = llm_council.__version__

extensions = [
    "api_pages",
    "reference_tables",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"llm_council {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

# The attributes of a class stand in a list, and not as entries of their own.
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Annotations name classes shortly, and some short names exist twice.
suppress_warnings = ["ref.python"]

myst_heading_anchors = 4
myst_enable_extensions = ["deflist", "fieldlist"]

NAVIGATION: Final = {
    "Start": ("quickstart/*",),
    "Guides": ("guides/*", "providers/*"),
    "Cookbook": ("cookbook/*",),
    "Reference": ("reference/*",),
    "API": ("reference/api/*",),
    "Background": ("explanation/*",),
    "For the undecided": ("choosing/*",),
    "Operations": ("operations/*",),
    "Help": ("faq", "troubleshooting"),
    "Project": ("project/*",),
}
"""The captions beside every page, and the pages below each. A section that has an ``index`` shows that alone."""

_DOCS = Path(__file__).parent


def navigation() -> str:
    """Return the tables of contents, which the start page has at its end and the theme shows beside every page."""
    blocks = []
    for caption, patterns in NAVIGATION.items():
        pages = [page for pattern in patterns for page in sorted(_DOCS.glob(f"{pattern}.md"))]
        if pages:
            names = "\n".join(page.relative_to(_DOCS).with_suffix("").as_posix() for page in pages)
            blocks.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```")
    return "\n\n".join(blocks)


def prepare_page(_: Sphinx, name: str, content: list[str]) -> None:
    """Change the text of a page before it is parsed."""
    text = content[0]
    if name.startswith("project/"):  # the file above this folder takes the place of the page that links to it
        text = (_DOCS.parent / f"{Path(name).name.upper()}.md").read_text(encoding="utf-8").replace("](docs/", "](/")
    if name == root_doc:
        text += f"\n\n{navigation()}\n"
    content[0] = re.sub(
        r"\]\((?:\.\./)*(SECURITY|CONTRIBUTING|CHANGELOG)\.md", lambda found: f"](/project/{found[1].lower()}.md", text
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect what prepares the pages."""
    app.connect("source-read", prepare_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
