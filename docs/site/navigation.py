"""The navigation of the site, which is in the pages themselves: the lists of links of the index pages.

So a reader on the forge and a reader of the site find the same groups, and nothing is said twice. A page whose name is
in ``INDEX_PAGES`` lists what is below it as ``- [Title](page.md): why``, in groups with a heading each or without one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
INDEX: Final = "docs/index.md"
INDEX_PAGES: Final = (INDEX, "docs/runbooks/README.md")

_FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_FILE_LINK = re.compile(r"\[([\w./-]+\.md)\]\(([^)#\s]+\.md)")
_LINE = re.compile(r"^## +(?P<group>.+?)$|^- \[(?P<title>[^\]]+)\]\((?P<target>[^)#]+\.md)\)", re.MULTILINE)


class Entry(NamedTuple):
    """A page of the navigation. ``page`` is its path below the root of the repository."""

    group: str
    title: str
    page: str


def entries_of(index: str) -> list[Entry]:
    """What an index page lists, in its order. ``index`` is its path below the root of the repository.

    Raises ValueError for a link that leaves the repository."""
    found: list[Entry] = []
    group = ""
    for match in _LINE.finditer(_FENCED.sub("", (ROOT / index).read_text(encoding="utf-8"))):
        if match["group"]:
            group = match["group"]
            continue
        page = _path(index, match["target"])
        if page.startswith(".."):
            raise ValueError(f"{index}: {match['target']} is outside of the repository; link to a page in it")
        found.append(Entry(group, match["title"], page))
    return found


def with_titles(page: str, text: str) -> str:
    """The text of a page, in which links named after a file, ``[iam.md](iam.md)``, have the title of that page instead.

    On the forge, where pages are files, their names are what a reader looks for; in a site nobody sees them."""
    titles = {entry.page: entry.title for index in INDEX_PAGES for entry in entries_of(index)}

    def named(match: re.Match[str]) -> str:
        name, target = match.groups()
        title = titles.get(_path(page, target))
        return f"[{title}]({target}" if title and PurePosixPath(name).name == PurePosixPath(target).name else match[0]

    return _FILE_LINK.sub(named, text)


def _path(page: str, target: str) -> str:
    """Where a link of a page leads, from the root of the repository."""
    return os.path.normpath(PurePosixPath(page).parent / target)


def toctrees(index: str) -> str:
    """The entries of an index page as hidden toctrees, Sphinx's own navigation, in MyST."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries_of(index):
        groups.setdefault(entry.group, []).append(entry)
    blocks = []
    for group, entries in groups.items():
        caption = f":caption: {group}\n" if group else ""
        lines = "".join(f"{entry.title} </{entry.page.removesuffix('.md')}>\n" for entry in entries)
        blocks.append(f"\n```{{toctree}}\n:hidden:\n{caption}\n{lines}```\n")
    return "".join(blocks)
