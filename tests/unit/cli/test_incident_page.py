"""docs/incident.md is read at night: what it names exists, and what it says to type is taken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.commands import require_command

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "incident.md").read_text()
COMMANDS = sorted(set(re.findall(r"^ *(?:\$ )?stream-consumer ([^|\n#]+)", PAGE, re.MULTILINE)))


@pytest.mark.parametrize("typed", COMMANDS)
def test_every_command_has_these_options(typed: str) -> None:
    require_command(typed)


def test_it_names_several_commands() -> None:
    assert len(COMMANDS) >= 6


def test_every_named_test_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)
    assert named
    for path, name in named:
        assert re.search(rf"^ *(async )?def {name}\(", (ROOT / "tests" / path).read_text(), re.MULTILINE), name


def test_every_named_alert_and_metric_exists() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    assert set(re.findall(r"`(StreamConsumer\w+)`", PAGE)) <= alerts
    documented = (ROOT / "docs" / "metrics.md").read_text()
    for metric in set(re.findall(r"stream_consumer_[a-z_]+[a-z]", PAGE)):
        assert metric in documented, metric


def test_every_link_leads_somewhere() -> None:
    for page, anchor in re.findall(r"\]\((\w[\w-]*\.md)?(?:#([\w-]+))?\)", PAGE):
        text = (ROOT / "docs" / page).read_text() if page else PAGE
        headings = [re.sub(r"[^\w\- ]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in text.splitlines()]
        assert not anchor or anchor in headings, (page, anchor)
