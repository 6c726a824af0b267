"""Every link of the pages leads somewhere: to a file that is there, and to a heading that is in it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "deploy").rglob("*.md"),
        *(ROOT / ".github").rglob("*.md"),
    ]
)
FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)")
ELSEWHERE = ("https://", "mailto:")


def text_of(page: Path) -> str:
    """Without code, whose brackets are no links and whose comments are no headings."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def links_of(page: Path) -> list[str]:
    return LINK.findall(re.sub(r"`[^`\n]*`", "", text_of(page)))


def anchors_of(page: Path) -> set[str]:
    """As the usual hosts name them: lower case, no punctuation, blanks as hyphens, a number for each repetition."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", text_of(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(next(each for each in (name, *(f"{name}-{n}" for n in range(1, 99))) if each not in found))
    return found


def problem(page: Path, link: str) -> str:
    """Why a link leads nowhere; empty when it does not."""
    if link.startswith(ELSEWHERE):
        return ""
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT):
        return "leaves the repository"
    if not target.exists():
        return "no such file"
    if anchor and (target.suffix != ".md" or anchor not in anchors_of(target)):
        return "no such heading"
    return ""


def test_pages_have_links() -> None:
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "iam.md"} <= {page.name for page in PAGES}
    assert sum(len(links_of(page)) for page in PAGES) > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert {link: why for link in links_of(page) if (why := problem(page, link))} == {}


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("docs/no-such-page.md", "no such file"),
        ("docs/iam.md#no-such-heading", "no such heading"),
        ("../elsewhere.md", "leaves the repository"),
        ("http://example.org", "no such file"),
        ("docs/iam.md#redriving-dead-letters", ""),
    ],
)
def test_a_link_that_leads_nowhere_is_noticed(link: str, why: str) -> None:
    assert problem(ROOT / "README.md", link) == why
