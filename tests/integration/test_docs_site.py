"""The site of ``docs/``, as ``make docs`` builds it: without a warning, with no broken link, and for itself alone.

It needs ``.venv-docs``, which ``make docs`` and ``make soak`` set up, and for the tests in a browser a Chromium."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from docs.site.check import problems
from docs.site.navigation import INDEX_PAGES, entries_of
from tests.integration.test_status_page import program

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-docs" / "bin" / "python"
RECIPE = (ROOT / "Makefile").read_text(encoding="utf-8")

pytestmark = [pytest.mark.soak, pytest.mark.xdist_group("docs-site")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A freshly built one."""
    if not PYTHON.exists():
        pytest.skip("there is no .venv-docs here: make docs sets it up")
    strict = re.findall(r"(?m)^SPHINX_STRICT := (.*)$", RECIPE)[0].split()
    built = tmp_path_factory.mktemp("docs")
    command = [
        str(PYTHON),
        "-m",
        "sphinx",
        *strict,
        "-c",
        "docs/site",
        "-d",
        str(built / "doctrees"),
        ".",
        str(built / "html"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert (done.returncode, done.stderr) == (0, "")
    return built / "html"


@pytest.fixture
def page(site: Path) -> Iterator[Page]:
    """A page of a browser that has no server to ask: whatever a page wants from one is an error of its."""
    chromium = program()
    if chromium is None:
        pytest.skip("there is no Chromium here")
    wanted: list[str] = []
    with sync_playwright() as playwright:
        browser: Browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.on("request", lambda request: wanted.append(request.url))
        yield opened
        browser.close()
    assert wanted
    assert [url for url in wanted if not url.startswith((site.as_uri(), "data:"))] == []


def test_every_link_and_anchor_leads_somewhere_and_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    assert problems(site) == []


def test_every_page_is_there_and_is_reached_from_the_first_one(site: Path) -> None:
    first = (site / "docs" / "index.html").read_text(encoding="utf-8")
    for index in INDEX_PAGES:
        for entry in entries_of(index):
            assert (site / entry.page).with_suffix(".html").is_file()
            assert f'href="{"../" * (not entry.page.startswith("docs/"))}' in first
    sidebar = first.partition('class="sidebar-tree"')[2].partition("</div>")[0]
    assert [each for each in INDEX_PAGES for entry in entries_of(each) if f">{entry.title}</a>" not in sidebar] == []


def test_nothing_of_the_repository_is_in_it_that_no_page_links_to(site: Path) -> None:
    assert sorted(path.name for path in site.iterdir() if path.name[0] not in "._") == [
        "CHANGELOG.html",
        "CONTRIBUTING.html",
        "README.html",
        "SECURITY.html",
        "deploy",
        "docs",
        "genindex.html",
        "index.html",
        "objects.inv",
        "search.html",
        "searchindex.js",
    ]


def test_search_works_without_a_server(site: Path, page: Page) -> None:
    """Only the excerpts below its results want one, since a file may not fetch another."""
    page.goto((site / "search.html").as_uri() + "?q=bisect_on_error")
    expect(page.locator("#search-results a").first).to_be_visible()
    page.locator("#search-results a", has_text="retry.bisect_on_error").first.click()
    expect(page.locator("h3", has_text="retry.bisect_on_error")).to_be_visible()


def test_the_first_page_leads_to_the_tutorial(site: Path, page: Page) -> None:
    page.goto((site / "index.html").as_uri())
    page.wait_for_url("**/docs/index.html")
    page.get_by_role("link", name="Tutorial").first.click()
    expect(page.locator("h1")).to_contain_text("Ten minutes")
