"""Sphinx's settings for the site: ``make docs``.

The source folder is the repository itself, so that a link such as ``../README.md`` or ``../deploy/iam/policy.json``
leads to the same file on the forge and in the site. Which of the pages are in it, and where, is said by docs/index.md.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docs.site.navigation import INDEX, INDEX_PAGES, entries_of, toctrees, with_titles  # noqa: E402 - Sphinx runs this file alone

project = "dynamodb-stream-consumer"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
project_copyright = f"{project} authors, Apache-2.0"

extensions = ["myst_parser"]
root_doc = INDEX.removesuffix(".md")
include_patterns = ["docs/**", *(entry.page for entry in entries_of(INDEX))]
# Folders that hold no page are not even looked at: virtual environments have thousands of them.
exclude_patterns = [
    ".*",
    *sorted(entry.name for entry in ROOT.iterdir() if entry.is_dir() and entry.name not in ("docs", "deploy")),
]

# As the forge reads Markdown: its anchors, and bare blocks of code are commands and output, not Python.
myst_heading_anchors = 6
highlight_language = "none"
nitpicky = True

# It brings all it needs and fetches nothing from elsewhere: the site is read where there is no internet, too.
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options: dict[str, Any] = {"top_of_page_buttons": []}
html_permalinks_icon = "#"
smartquotes = False  # it would make a dash of the two hyphens of an option

LONG_PATH = re.compile(r'(?<=<span class="pre">)(?=[^<]*/)[^<]{25,}(?=</span>)')
SEPARATOR = re.compile(r"::|[/_](?=\w)")


def add_navigation(app: Any, docname: str, source: list[str]) -> None:
    page = f"{docname}.md"
    source[0] = with_titles(page, source[0])
    if page in INDEX_PAGES:
        source[0] += toctrees(page)


def break_long_paths(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Let paths and names of tests go on in the next line behind a separator; site.css keeps other code together."""
    if "body" in context:
        context["body"] = LONG_PATH.sub(
            lambda match: SEPARATOR.sub(r'\g<0></span><wbr><span class="pre">', match[0]), context["body"]
        )


def setup(app: Any) -> None:
    app.connect("source-read", add_navigation)
    app.connect("html-page-context", break_long_paths)
