"""The status page in a real browser: a Chromium that is installed, without a window.

Where there is none (``chromium`` on the PATH, or what STREAM_CONSUMER_TEST_CHROMIUM names), these tests are skipped.
``make screenshot`` writes the picture of the README with the last of them.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from consumer.operate.status import SLOW, KeyStatus, ShardStatus, StatusBoard
from tests.support import status_samples as samples
from tests.support.served import Running

pytestmark = pytest.mark.xdist_group("browser")

SCREENSHOT = Path(__file__).resolve().parents[2] / "docs" / "images" / "status-page.png"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}}
DARK: dict[str, Any] = {**DESKTOP, "color_scheme": "dark"}


def program() -> str | None:
    named = os.environ.get("STREAM_CONSUMER_TEST_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = program()
    if chromium is None:
        pytest.skip(f"there is no Chromium here: none of {', '.join(NAMES)} is on the PATH")
    with sync_playwright() as playwright:
        # Its own sandbox needs rights that root in a container does not have; it only sees this server's pages.
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


class Shown:
    """A page of ``board`` as it is shown, with what it asked for and what went wrong."""

    def __init__(self, context: BrowserContext, board: StatusBoard) -> None:
        self.server = Running(board, life=5.0)
        self.board = board
        self.url = f"http://127.0.0.1:{self.server.port}/"
        self.page: Page = context.new_page()
        self.problems: list[str] = []
        self.answers: list[tuple[str, int]] = []
        self.page.on("console", lambda message: self._say(message.type, message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        self.page.on("response", lambda response: self.answers.append((response.url, response.status)))

    def _say(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.problems.append(text)

    def open(self, fragment: str = "") -> Page:
        self.page.goto(self.url + fragment)
        expect(self.page.locator("#shards tbody tr").first).to_be_visible()
        return self.page

    def polls(self) -> int:
        return sum(url.endswith("/status.json") for url, _ in self.answers)


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[..., Shown]]:
    """``show(board, **options of the browser's context)``."""
    shown: list[Shown] = []
    contexts: list[BrowserContext] = []

    def make(board: StatusBoard, **options: Any) -> Shown:
        contexts.append(browser.new_context(**(options or DESKTOP)))
        shown.append(Shown(contexts[-1], board))
        return shown[-1]

    yield make
    for context in contexts:
        context.close()
    for one in shown:
        one.server.stop()


def card(page: Page, name: str) -> Locator:
    """What one of the numbers at the top says: its value, and the line below."""
    return page.locator("#numbers .card", has_text=name).locator("p:not(.name)")


def rows(page: Page) -> list[str]:
    return page.locator("#shards tbody th a").all_inner_texts()


def test_an_incident_is_obvious(show: Callable[..., Shown]) -> None:
    shown = show(samples.incident(time.time()))
    page = shown.open()
    expect(page.locator("#headline")).to_have_text(
        "1 shard stopped: records were trimmed before they were read. And 7 other problems."
    )
    expect(page.locator("#problems")).to_contain_text("stream-consumer dlq redrive --config consumer.yaml")
    assert page.title() == "critical: orders-projector · orders"
    states = page.locator("#shards tbody tr td:nth-child(2)").all_inner_texts()
    assert states[0] == "halted"
    reasons = page.locator("#shards tbody tr td:nth-child(5)").all_inner_texts()
    assert reasons[:3] == ["records were trimmed before they were read", SLOW["breaker"], SLOW["destination"]]
    expect(page.locator("#errors")).to_contain_text("dead_letter.refused: PermissionDenied")
    expect(page.locator("#keys")).to_contain_text("dshCdVqX5CScXxHy")
    expect(card(page, "Letters to redrive")).to_have_text(["58", "about, at the destination; 3 refused by it"])
    expect(page.locator("#fleet tr.warning")).to_contain_text("leaving")
    expect(page.locator("#config")).to_contain_text("batch.batch_size")
    calls = page.locator("#calls tbody tr").first
    expect(calls).to_contain_text("GetRecords")
    expect(calls.locator("td").last).to_have_text("2.57")
    expect(page.locator("#calls-cost")).to_contain_text(
        "a month at this rate, an estimate: list prices of us-east-1 as of 20"
    )
    expect(page.locator("#shards")).to_contain_text("71 % of it one key")
    assert "customer-17" not in page.content()
    chart = page.locator("#numbers svg").first
    assert (chart.get_attribute("aria-label") or "").startswith("Lag over the last 15 minutes: at most 19 min")
    assert {url.partition("//")[2].partition("/")[0] for url, _ in shown.answers} == {f"127.0.0.1:{shown.server.port}"}
    assert shown.problems == []


def test_a_number_that_is_not_known_is_no_0(show: Callable[..., Shown]) -> None:
    found = samples.status(time.time(), (samples.own(300),), dead_letter_backlog=None)
    page = show(samples.board(found)).open()
    expect(card(page, "Letters to redrive")).to_have_text(["–", "not known, at the destination; 0 refused by it"])


def test_text_is_never_taken_for_markup(show: Callable[..., Shown]) -> None:
    hostile = "<img src=x onerror=alert(1)><b>bold</b>"
    shard = ShardStatus(hostile, "halted", owner=hostile, note=hostile, parents=(hostile,))
    found = samples.status(time.time(), (shard,))
    shown = show(samples.board(replace(found, application=hostile, table=hostile, changed_settings={hostile: hostile})))
    page = shown.open()
    assert hostile in page.locator("#shards").inner_text()
    assert hostile in page.locator("#config").inner_text()
    assert page.locator("b, main img").count() == 0
    assert shown.problems == []


def test_it_follows_the_worker_and_asks_only_for_what_changed(show: Callable[..., Shown]) -> None:
    shown = show(samples.healthy(time.time()))
    shown.page.clock.install()
    page = shown.open()
    expect(page.locator("#headline")).to_contain_text("Healthy: 12 of 12 shards owned")
    row = page.locator("#shards tbody tr").first
    row.evaluate("row => { row.kept = true }")
    before = shown.board.status
    assert before is not None
    shown.board.publish(replace(before, updated_at=before.updated_at + 1))  # nothing new
    with page.expect_response(lambda response: response.status == 304):
        page.clock.run_for(2_000)
    shown.board.publish(replace(before, parked_keys=3, oldest_parked=before.updated_at - 60))
    with page.expect_response(lambda response: response.url.endswith("/status.json") and response.status == 200):
        page.clock.run_for(2_000)
    expect(page.locator("#headline")).to_contain_text("3 keys parked")
    assert row.evaluate("row => row.kept"), "a row that is still there is not made anew"


def test_it_rests_in_a_hidden_tab_and_when_told_to(show: Callable[..., Shown]) -> None:
    shown = show(samples.healthy(time.time()))
    shown.page.clock.install()
    page = shown.open()

    def hide(hidden: bool) -> None:
        page.evaluate(
            "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
            " document.dispatchEvent(new Event('visibilitychange')) }",
            hidden,
        )

    hide(True)
    asked = shown.polls()
    page.clock.run_for(60_000)
    assert shown.polls() == asked
    with page.expect_response("**/status.json"):
        hide(False)
    page.click("#pause")
    expect(page.locator("#live-text")).to_have_text("paused")
    asked = shown.polls()
    page.clock.run_for(60_000)
    assert shown.polls() == asked
    with page.expect_response("**/status.json"):
        page.click("#pause")


def test_a_worker_that_is_gone_or_silent_is_said_to_be(show: Callable[..., Shown]) -> None:
    shown = show(samples.healthy(time.time() - 100))
    page = shown.open()
    expect(page.locator("#live-text")).to_contain_text("nothing new for")
    shown.server.call(shown.server.server.close())
    expect(page.locator("#headline")).to_contain_text("This worker has given no answer since")
    expect(page.locator("#verdict")).to_have_attribute("data-severity", "critical")


@pytest.mark.parametrize("ahead", [-3_600, 3_600])
def test_a_machine_whose_clock_differs_from_that_of_aws(show: Callable[..., Shown], ahead: int) -> None:
    """Its answers are dated by its own clock, its report and its keys by that of AWS."""
    now = time.time() - ahead
    key = KeyStatus("digest", "retrying", samples.shard_id(300), now - 1_200)
    shown = show(samples.board(samples.status(now, (samples.own(300),), keys=(key,), clock_ahead=float(ahead))))
    page = shown.open()
    expect(page.locator("#live-text")).to_have_text("live")
    expect(page.locator("#keys tbody td").last).to_have_text("20 min")


def test_a_thousand_shards(show: Callable[..., Shown]) -> None:
    shown = show(samples.thousand(time.time()))
    page = shown.open()
    assert page.locator("#shards tbody tr").count() == 200
    assert page.locator("#shards tbody tr td:nth-child(2)").all_inner_texts()[:4] == [
        "halted",
        "halted",
        "quarantined",
        "open",
    ]
    expect(page.locator("#headline")).to_contain_text("2 shards stopped")
    assert (
        page.evaluate("() => { const began = performance.now(); drawShards(); return performance.now() - began }") < 500
    )
    page.click("#after")
    expect(page.locator("#page")).to_have_text("page 2 of 5")
    page.fill("#find", samples.shard_id(9_500))
    expect(page.locator("#shards-count")).to_have_text("1 of 1,000")
    assert rows(page) == [samples.shard_id(9_500)]
    page.fill("#find", "")
    page.select_option("#show", "trouble")
    expect(page.locator("#shards-count")).to_have_text("3 of 1,000")
    page.select_option("#show", "all")
    page.click("#shards thead button:text('lag')")
    expect(page.locator("#shards [aria-sort=descending]")).to_have_text("lag")
    lags = page.locator("#shards tbody td:nth-child(4)").all_inner_texts()
    assert lags[0] == "3.0 s"
    assert lags == sorted(lags, reverse=True)
    assert shown.problems == []


def test_a_shard_has_a_link_of_its_own(show: Callable[..., Shown]) -> None:
    wanted = samples.shard_id(9_001)
    page = show(samples.thousand(time.time())).open(f"#shard={wanted}")
    expect(page.locator("tr.selected th")).to_have_text(wanted)
    expect(page.locator("#page")).not_to_have_text("page 1 of 5")
    expect(page.locator("tr.detail")).to_contain_text("epoch of the lease")


def test_the_lineage_has_children_below_their_parents_and_folds_what_is_finished(show: Callable[..., Shown]) -> None:
    page = show(samples.incident(time.time())).open()
    page.select_option("#view", "lineage")
    shown = rows(page)
    parent, child = samples.shard_id(300), samples.shard_id(420)
    assert shown.index(child) == shown.index(parent) + 1
    grandparent = samples.shard_id(200)
    assert grandparent not in shown
    fold = page.get_by_role("button", name="1 finished shard before").first
    expect(fold).to_have_attribute("aria-expanded", "false")
    fold.click()
    expect(fold).to_have_attribute("aria-expanded", "true")
    assert rows(page)[rows(page).index(parent) - 1] == grandparent
    expect(page.locator("tr", has_text=child).locator("td").nth(3)).to_have_text("waits for its parents")


def test_everything_works_by_keyboard(show: Callable[..., Shown]) -> None:
    page = show(samples.incident(time.time())).open()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#shards-title")).to_be_focused()
    for wanted in ("#find", "#show", "#view", "#shards thead button >> nth=0"):
        page.keyboard.press("Tab")
        expect(page.locator(wanted)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#shards [aria-sort=ascending]")).to_have_text("shard")
    ids = rows(page)
    assert ids == sorted(ids)
    first = page.locator("#shards tbody th a").first
    first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("tr.detail")).to_be_visible()
    expect(first).to_be_focused()


@pytest.mark.parametrize("options", [DESKTOP, DARK, PHONE], ids=["light", "dark", "phone"])
def test_axe_finds_nothing(show: Callable[..., Shown], options: dict[str, Any]) -> None:
    """By the rules of WCAG 2.1 AA and axe's own best practices."""
    shown = show(samples.incident(time.time()), **options, bypass_csp=True)  # axe is a script that is put into it
    page = shown.open(f"#shard={samples.shard_id(301)}")
    page.select_option("#view", "lineage")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    shown.board.publish(samples.healthy(time.time()).status)  # type: ignore[arg-type]  # it has one
    expect(page.locator("#verdict")).to_have_attribute("data-severity", "info")  # the errors are still recent
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_phone_needs_no_scrolling_sideways(show: Callable[..., Shown]) -> None:
    for board in (samples.incident(time.time()), samples.thousand(time.time())):
        page = show(board, **PHONE).open()
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_worker_that_starts(show: Callable[..., Shown]) -> None:
    shown = show(StatusBoard())
    shown.page.goto(shown.url)
    expect(shown.page.locator("#headline")).to_have_text("Starting: the configuration is not loaded yet.")
    assert shown.problems == []


def test_without_scripts_it_says_where_the_numbers_are(show: Callable[..., Shown]) -> None:
    shown = show(samples.healthy(time.time()), java_script_enabled=False)
    shown.page.goto(shown.url)
    expect(shown.page.get_by_text("This page is drawn by a script")).to_be_visible()
    expect(shown.page.locator("#verdict")).to_be_hidden()


@pytest.mark.skipif(not os.environ.get("STREAM_CONSUMER_SCREENSHOT"), reason="make screenshot asks for it")
def test_the_picture_of_the_readme(show: Callable[..., Shown]) -> None:
    page = show(samples.incident(time.time()), viewport={"width": 1280, "height": 1500}).open()
    SCREENSHOT.parent.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOT)
