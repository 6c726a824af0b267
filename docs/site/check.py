"""Checks a built site: every link and anchor leads somewhere in it, and no page asks another server for anything.

python -m docs.site.check build/docs

Sphinx checks what it makes of the sources; this looks at the pages that a browser gets, whatever made them.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

# Attributes that a browser fetches by itself, by element; "a" only leads elsewhere when it is followed.
FETCHED: Final = {
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "input": "src",
    "link": "href",
    "object": "data",
    "script": "src",
    "source": "src",
    "video": "src",
}
# Relations of <link> that nothing is fetched for.
NAMED_ONLY: Final = {"canonical", "index", "search", "next", "prev", "author", "license"}
_IN_STYLES: Final = re.compile(r"""@import\s+(?:url\()?["']?([^"')\s;]+)|url\(\s*["']?([^"')]+)""")


@dataclass(slots=True)
class Page:
    """What a page refers to, and what of it can be referred to."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        self.page.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        self.page.fetched += fetched_by_styles(values.get("style", ""))
        wanted = values.get(FETCHED.get(tag, ""), "")
        if tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        elif wanted and tag == "link" and NAMED_ONLY & set(values.get("rel", "").split()):
            self.page.links.append(wanted)
        elif wanted:
            self.page.fetched.append(wanted)
        self.page.fetched += [one.split()[0] for one in values.get("srcset", "").split(",") if one.strip()]

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.page.fetched += fetched_by_styles(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False


def fetched_by_styles(text: str) -> list[str]:
    return [first or second for first, second in _IN_STYLES.findall(text)]


def read(html: str) -> Page:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.page


def problems(site: Path) -> list[str]:
    """Each broken link, each broken anchor and each request to elsewhere, as a line; empty when there is none.

    Raises FileNotFoundError when there is no page at all."""
    site = site.resolve()
    pages = {path: read(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        raise FileNotFoundError(f"{site} has no pages; build the site first: make docs")
    found: list[str] = []
    for path, page in pages.items():
        where = path.relative_to(site)
        found += [f"{where}: {link}: {why}" for link in page.links if (why := _link_problem(site, pages, path, link))]
        found += [f"{where}: {link}: {why}" for link in page.fetched if (why := _fetch_problem(site, path, link))]
    for path in sorted(site.rglob("*.css")):
        wanted = fetched_by_styles(path.read_text(encoding="utf-8"))
        found += [
            f"{path.relative_to(site)}: {link}: {why}" for link in wanted if (why := _fetch_problem(site, path, link))
        ]
    return found


def _link_problem(site: Path, pages: dict[Path, Page], source: Path, link: str) -> str:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return "" if parts.scheme in ("https", "mailto") else "not https"
    target = _target(source, parts.path)
    if not target.is_relative_to(site):
        return "leaves the site"
    if not target.is_file():
        return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return "no such anchor"
    return ""


def _fetch_problem(site: Path, source: Path, link: str) -> str:
    parts = urlsplit(link)
    if parts.scheme == "data" or link.startswith("#"):
        return ""
    if parts.scheme or parts.netloc:
        return "is fetched from another server"
    target = _target(source, parts.path)
    return "" if target.is_relative_to(site) and target.is_file() else "no such file"


def _target(source: Path, path: str) -> Path:
    return (source.parent / unquote(path)).resolve() if path else source


def main() -> None:
    site = Path(sys.argv[1])
    found = problems(site)
    print("\n".join([*found, f"{site}: {len(found)} broken links or requests to other servers"]))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
