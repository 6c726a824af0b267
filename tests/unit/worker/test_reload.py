"""A reload is all or nothing, and whatever comes of it is said once, in the log and as a metric."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from consumer.domain.errors import MisconfiguredResource
from consumer.operate.metrics import Metrics
from consumer.settings.load import load_settings
from consumer.settings.model import Settings
from consumer.worker.reload import MOST_PROBLEMS, Reload
from tests.unit.settings.reload_keys import MAY_CHANGE, NEEDS_RESTART, document


def logged(reload: Reload) -> list[dict[str, Any]]:
    """The events of one reload, at whatever level."""
    events: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch, capture_logs() as filtered:
        patch.setattr(
            "consumer.worker.reload.write_event",
            lambda event, **fields: events.append({"event": event, "log_level": "info", **fields}),
        )
        asyncio.run(reload.reload())
    return [*events, *map(dict, filtered)]


class File:
    """A configuration file that runs, and what reloads of it come to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.write(document())
        self.metrics = Metrics()
        self.running = self.read()
        self.applied: list[Settings] = []
        self.apply: Callable[[Settings], None] = self._count
        self._reload = Reload(self.read, lambda: self.running, self._apply, self.metrics)

    def _apply(self, settings: Settings) -> None:
        self.apply(settings)

    def _count(self, settings: Settings) -> None:
        self.running = settings
        self.applied.append(settings)

    def read(self) -> Settings:
        return load_settings(self._path, {})

    def write(self, content: Any) -> None:
        self._path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        self._path.chmod(0o600)

    def reload(self, content: Any) -> dict[str, Any]:
        """The one event of a reload of this content."""
        self.write(content)
        (event,) = logged(self._reload)
        return event

    @property
    def successful(self) -> float | None:
        return self.metrics.registry.get_sample_value("stream_consumer_config_last_reload_successful")

    @property
    def success_at(self) -> float | None:
        return self.metrics.registry.get_sample_value("stream_consumer_config_last_reload_success_timestamp_seconds")


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "config.yaml")


def test_all_that_may_change_changes_at_once(file: File) -> None:
    event = file.reload(document(**{**MAY_CHANGE, "on_failure.redact": []}))
    assert (event["event"], event["log_level"]) == ("config.reloaded", "info")
    assert set(event["changed"]) == set(MAY_CHANGE) - {"on_failure.redact"}
    assert event["changed"]["checkpoint.interval"] == {"old": "1s", "new": "2s"}
    assert file.applied == [file.read()]
    assert file.successful == 1


def test_what_needs_a_restart_is_refused_with_all_else(file: File) -> None:
    for key, value in NEEDS_RESTART.items():
        changed = Settings.model_validate(
            document(**{key: value, "logging.level": "debug"}), context={"base_dir": Path.cwd()}
        )
        before = Settings.model_validate(document(), context={"base_dir": Path.cwd()})
        applied: list[Settings] = []
        events = logged(Reload(iter([changed]).__next__, lambda before=before: before, applied.append, file.metrics))
        assert [(event["event"], event["log_level"]) for event in events] == [("config.reload_refused", "error")]
        assert events[0]["needs_restart"] == [key]
        assert applied == []
        assert file.successful == 0


def test_several_keys_that_need_a_restart_are_one_line(file: File) -> None:
    event = file.reload(document(**{"http.port": 1, "leases.duration": "20s"}))
    assert event["needs_restart"] == ["leases.duration", "http.port"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("application: [", "yaml"),
        (document(**{"limits.buffer": "1KiB"}), "limits.buffer"),
        (document(**{"retry.backoff.initial": "2h", "retry.backoff.max": "1h"}), "retry.backoff"),
        (document(**{"on_failure.redact": ["ssn"], "on_failure.format": "lambda"}), "on_failure.redact"),
        (document(**{"source.poll.max_records": 5000}), "source.poll.max_records"),
        (document(**{"logging.levle": "debug"}), "levle"),
    ],
    ids=["syntax", "range", "rule", "redaction and format", "limit of the source", "unknown"],
)
def test_a_file_with_mistakes_changes_nothing(file: File, content: Any, says: str) -> None:
    """Neither alone nor together with what could count."""
    started = file.success_at
    event = file.reload(content)
    assert (event["event"], event["log_level"]) == ("config.reload_refused", "error")
    assert any(says in problem for problem in event["problems"]), event
    assert file.applied == []
    assert (file.successful, file.success_at) == (0, started)
    assert file.reload(document(**{"logging.level": "debug"}))["event"] == "config.reloaded"
    assert file.successful == 1


def test_a_reload_is_compared_with_the_one_before_it(file: File) -> None:
    """Not with the start: what is as it was at the start is a change, and what has not changed again is none."""
    debug = document(**{"logging.level": "debug"})
    assert set(file.reload(debug)["changed"]) == {"logging.level"}
    assert file.reload(debug)["changed"] == {}
    assert file.reload(document())["changed"] == {"logging.level": {"old": "debug", "new": "info"}}
    assert [settings.logging.level for settings in file.applied] == ["debug", "info"]


def test_a_file_that_is_all_mistakes_is_one_line_of_bounded_length(file: File) -> None:
    event = file.reload(document(**{f"logging.key{number}": 1 for number in range(1000)}))
    assert (len(event["problems"]), event["count"]) == (MOST_PROBLEMS, 1000)


def test_a_file_that_is_gone_changes_nothing(file: File, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").unlink()
    events = logged(file._reload)
    assert [event["event"] for event in events] == ["config.reload_refused"]
    assert file.applied == []


@pytest.mark.parametrize("error", [MisconfiguredResource("redact names a key"), RuntimeError("a bug")])
def test_what_the_worker_refuses_does_not_count(file: File, error: Exception) -> None:
    """And is compared with again: the next reload finds the same change."""

    def refuse(settings: Settings) -> None:
        raise error

    takes_over, file.apply = file.apply, refuse
    assert file.reload(document(**{"logging.level": "debug"}))["event"] == "config.reload_refused"
    assert file.successful == 0
    file.apply = takes_over
    assert set(file.reload(document(**{"logging.level": "debug"}))["changed"]) == {"logging.level"}


def test_a_bug_behind_a_change_does_not_hide_that_it_counts(file: File) -> None:
    """The file as it was before is a change then, and is taken over."""
    takes_over = file.apply

    def stumble(settings: Settings) -> None:
        takes_over(settings)
        raise RuntimeError("a bug")

    file.apply = stumble
    assert file.reload(document(**{"logging.level": "debug"}))["event"] == "config.reload_refused"
    file.apply = takes_over
    assert set(file.reload(document())["changed"]) == {"logging.level"}
    assert file.running.logging.level == "info"


def test_a_file_that_is_as_it_was_is_a_success_without_a_change(file: File) -> None:
    event = file.reload(document())
    assert (event["event"], event["changed"]) == ("config.reloaded", {})
    assert file.applied == []


async def test_a_reload_that_is_asked_for_during_another_one_is_made_after_it(file: File) -> None:
    """The file may have changed behind the first one's reading."""
    asked, reads = asyncio.Event(), list[Settings]()
    second = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> Settings:
        reads.append(file.read())
        loop.call_soon_threadsafe(asked.set if len(reads) == 1 else second.set)
        return reads[-1]

    reloading = asyncio.create_task(Reload(read, lambda: file.running, file.apply, file.metrics).run(asked))
    asked.set()
    await second.wait()
    reloading.cancel()
    assert len(reads) == 2
