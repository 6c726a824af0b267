"""What may change while the daemon runs: every key is judged, and what has changed is found whatever it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from consumer.settings.model import Settings
from consumer.settings.reload import RELOADABLE, Change, changes, values
from tests.unit.settings.reload_keys import MAY_CHANGE, NEEDS_RESTART, document

PAGE = Path(__file__).resolve().parents[3] / "docs" / "signals.md"


def settings(**changed: Any) -> Settings:
    return Settings.model_validate(document(**changed), context={"base_dir": Path.cwd()})


def test_every_key_is_judged() -> None:
    """A new key belongs into one of the two tables: it may change, or its change needs a restart."""
    keys = {".".join(path) for path, _ in values(settings())}
    assert keys == set(NEEDS_RESTART) | set(MAY_CHANGE)
    assert set(RELOADABLE) == set(MAY_CHANGE)


@pytest.mark.parametrize(("key", "value"), [*NEEDS_RESTART.items(), *MAY_CHANGE.items()])
def test_a_change_of_any_key_is_found(key: str, value: Any) -> None:
    found = changes(settings(), settings(**{key: value}))
    assert [(change.key, change.needs_restart) for change in found] == [(key, key in NEEDS_RESTART)]


def test_another_way_to_write_a_value_is_no_change() -> None:
    written = {"checkpoint.interval": "1000ms", "limits.buffer": "65536KiB", "filters": "[]", "logging.level": "info"}
    assert changes(settings(), settings(**written)) == []


def test_a_change_is_shown_as_a_file_has_it() -> None:
    old, new = settings(), settings(**{"checkpoint.interval": "90s", "limits.buffer": "2MiB"})
    assert changes(old, new) == [
        Change("limits.buffer", "64MiB", "2MiB"),
        Change("checkpoint.interval", "1s", "90s"),
    ]


def test_a_secret_that_changed_is_a_change_and_is_not_shown() -> None:
    old, new = (settings(**{"aws.endpoints.sqs": f"http://user:{word}@queue"}) for word in ("first", "second"))
    (change,) = changes(old, new)
    assert change.key == "aws.endpoints.sqs"
    assert change.needs_restart
    assert "first" not in str(change)
    assert "second" not in str(change)


def test_the_page_has_the_table_of_the_code() -> None:
    table = PAGE.read_text().partition("| key | from when on |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", table, re.MULTILINE)
    assert dict(rows) == dict(RELOADABLE)
