"""docs/log-events.md lists exactly the events that the code logs."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LOGGED = re.compile(r'\b(?:log|level|_log|logger|write_event|get_logger\(\))(?:\.\w+)?\(\s*"([a-z_]+\.[a-z_]+)"')
CONDITIONAL = re.compile(r'"([a-z_]+\.[a-z_]+)" if [\w .]+ else "([a-z_]+\.[a-z_]+)",\s*\n\s*shard_id')


def in_code() -> set[str]:
    """Events of every module but the demo."""
    found: set[str] = set()
    for path in (ROOT / "consumer").rglob("*.py"):
        text = path.read_text()
        found |= set(LOGGED.findall(text))
        for pair in CONDITIONAL.findall(text):
            found |= set(pair)
    return found


def in_docs() -> set[str]:
    text = (ROOT / "docs" / "log-events.md").read_text()
    return {
        name
        for line in text.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", line.split("|")[1])
    }


def test_every_event_is_documented() -> None:
    """A new event needs a line in the page."""
    assert in_code() - in_docs() == set()


def test_no_event_is_documented_that_does_not_exist() -> None:
    """A removed event leaves the page."""
    assert in_docs() - in_code() == {"log.dropped"}  # written by the log writer itself, past structlog
