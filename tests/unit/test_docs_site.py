"""The site of ``docs/``: its navigation has every page, and what checks a built site notices what is wrong with one.

``tests/integration/test_docs_site.py`` builds the real one."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from docs.site import check, navigation
from docs.site.navigation import INDEX, INDEX_PAGES, Entry, entries_of, toctrees, with_titles

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))
FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)


def listed() -> list[Entry]:
    return [entry for index in INDEX_PAGES for entry in entries_of(index)]


def test_the_navigation_has_every_page_once() -> None:
    pages = Counter(entry.page for entry in listed())
    assert {page for page in pages if page.startswith("docs/")} == set(PAGES) - {INDEX}
    assert set(pages.values()) == {1}
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"} <= set(pages)
    assert all((ROOT / page).is_file() for page in pages)


def test_every_entry_of_the_first_page_is_in_a_group_with_a_title_of_its_own() -> None:
    entries = entries_of(INDEX)
    assert all(entry.group for entry in entries)
    assert len({entry.title for entry in entries}) == len(entries)


@pytest.mark.parametrize("page", sorted({*PAGES, *(entry.page for entry in listed())}))
def test_a_page_begins_with_its_one_title(page: str) -> None:
    text = FENCED.sub("", (ROOT / page).read_text(encoding="utf-8"))
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1


def test_a_heading_is_at_most_one_level_below_the_one_before_it() -> None:
    for page in PAGES:
        text = FENCED.sub("", (ROOT / page).read_text(encoding="utf-8"))
        levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
        assert all(after - before <= 1 for before, after in pairwise(levels)), page


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(navigation, "ROOT", tmp_path)
    return tmp_path / "docs"


def test_groups_become_toctrees_in_their_order(pages: Path) -> None:
    (pages / "index.md").write_text(
        "# Title\n\n- [First](first.md): [not this](no.md)\n\n## Group\n\n"
        "- [Outside](../README.md)\n- [Deep](a/b.md)\n\n"
        "Text with a [link](text.md).\n\n```\n- [Code](code.md)\n```\n\n## Empty\n"
    )
    assert entries_of(INDEX) == [
        Entry("", "First", "docs/first.md"),
        Entry("Group", "Outside", "README.md"),
        Entry("Group", "Deep", "docs/a/b.md"),
    ]
    assert toctrees(INDEX) == (
        "\n```{toctree}\n:hidden:\n\nFirst </docs/first>\n```\n"
        "\n```{toctree}\n:hidden:\n:caption: Group\n\nOutside </README>\nDeep </docs/a/b>\n```\n"
    )


def test_an_entry_outside_of_the_repository_is_refused(pages: Path) -> None:
    (pages / "index.md").write_text("- [Away](../../away.md)\n")
    with pytest.raises(ValueError, match=r"docs/index\.md: \.\./\.\./away\.md is outside"):
        entries_of(INDEX)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[iam.md](../iam.md)", "[Permissions](../iam.md)"),
        ("[docs/iam.md](../iam.md#other-roles)", "[Permissions](../iam.md#other-roles)"),
        (
            "[README.md](../../README.md) and [policies](../iam.md)",
            "[Overview](../../README.md) and [policies](../iam.md)",
        ),
        ("[iam.md](../metrics.md)", "[iam.md](../metrics.md)"),
        ("[no.md](no.md)", "[no.md](no.md)"),
        ("[iam.json](../iam.json)", "[iam.json](../iam.json)"),
    ],
)
def test_a_link_with_the_name_of_a_file_gets_the_title_of_the_page(text: str, shown: str) -> None:
    assert with_titles("docs/runbooks/README.md", text) == shown


GOOD = '<h1 id="top">A</h1><a href="#top">up</a><a href="b/c.html#deep">c</a><a href="https://example.org/x">away</a>'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.html").write_text(GOOD)
    (tmp_path / "b" / "c.html").write_text('<p id="deep"><a href="../a.html#top">a</a><img src="../picture.png">')
    (tmp_path / "picture.png").touch()
    (tmp_path / "a.css").write_text(
        'p { background: url("picture.png") } q { background: url(data:image/png;base64,AA) }'
    )
    return tmp_path


def test_a_good_site_has_no_problems(site: Path) -> None:
    assert check.problems(site) == []


@pytest.mark.parametrize(
    ("html", "why"),
    [
        ('<a href="no.html">', "no.html: no such file"),
        ('<a href="b">', "b: no such file"),
        ('<a href="../elsewhere.html">', "../elsewhere.html: leaves the site"),
        ('<a href="#no">', "#no: no such anchor"),
        ('<a href="b/c.html#no">', "b/c.html#no: no such anchor"),
        ('<a href="http://example.org/">', "http://example.org/: not https"),
        ('<img src="no.png">', "no.png: no such file"),
        ('<img srcset="picture.png 1x, no.png 2x">', "no.png: no such file"),
        ('<img src="https://example.org/x.png">', "https://example.org/x.png: is fetched from another server"),
        ('<script src="//example.org/x.js"></script>', "//example.org/x.js: is fetched from another server"),
        (
            '<link rel="stylesheet" href="https://example.org/x">',
            "https://example.org/x: is fetched from another server",
        ),
        ('<link rel="preconnect" href="https://example.org">', "https://example.org: is fetched from another server"),
        ("<style>@import 'https://example.org/x';</style>", "https://example.org/x: is fetched from another server"),
        ('<p style="background: url(https://example.org/x)">', "https://example.org/x: is fetched from another server"),
    ],
)
def test_what_is_wrong_is_named_with_its_page(site: Path, html: str, why: str) -> None:
    (site / "a.html").write_text(GOOD + html)
    assert check.problems(site) == [f"a.html: {why}"]


def test_a_style_sheet_that_asks_elsewhere_is_named(site: Path) -> None:
    (site / "a.css").write_text('@font-face { src: url("https://example.org/font.woff2") }')
    assert check.problems(site) == ["a.css: https://example.org/font.woff2: is fetched from another server"]


def test_a_folder_without_pages_is_no_good_site(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make docs"):
        check.problems(tmp_path)
