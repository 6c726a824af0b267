"""Every alert of ``deploy/prometheus/alerts.yaml``, alone: it fires for its reason, for the application that has it,
through a deploy and through a shard that is replaced, and it stays silent for all that a healthy fleet does.

``test_alerts.py`` has recorded runs of a whole fleet; here the series are written down, one value a minute.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from consumer.operate.metrics import Metrics
from consumer.operate.status import ShardStatus
from tests.support.commands import require_command
from tests.support.promtool import ROOT, RULES, needs_promtool, run_rule_tests

RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}
P = "stream_consumer_"

MINUTES = 60
DEPLOY = 21  # the minute in which every process starts anew, with counters at 0
CHURN = 31  # the minute from which a shard is finished, and its child there

Values = list[float | None]
"""Of one series, by the minute; None where there is none."""
Series = dict[str, Values]


def each(value: Callable[[int], float | None]) -> Values:
    return [value(minute) for minute in range(MINUTES)]


def constant(value: float) -> Values:
    return [value] * MINUTES


def since(minute: int, value: float, before: float = 0.0, until: int = MINUTES) -> Values:
    return each(lambda at: value if minute <= at < until else before)


def counter(per_minute: float, first: int = 0) -> Values:
    """One that grows from minute ``first`` on, and starts anew with its process."""
    return each(lambda at: per_minute * max(0, at - max(first, DEPLOY if at >= DEPLOY else 0)) + 7 * (at < DEPLOY))


def fleet(name: str) -> Series:
    """A healthy application of two workers, in the job that all share."""
    found: Series = {}
    for worker in (f"{name}-1", f"{name}-2"):
        target = f'job="consumers",instance="{worker}"'
        labels = f'{target},application="{name}",table="orders"'
        found[f"up{{{target}}}"] = constant(1)
        found[f"process_start_time_seconds{{{target}}}"] = since(DEPLOY, 2000, before=1000)
        for metric, values in {
            'build_info{version="1"}': constant(1),
            'records_total{result="handled"}': counter(600),
            'dead_letters_total{reason="RetryAttemptsExhausted"}': counter(0),
            'dead_letters_refused_total{reason="denied"}': counter(0),
            'dead_letters_refused_total{reason="unfit"}': counter(1),
            "dead_letters_waiting{}": since(5, 1, until=6),
            "dead_letter_backlog{}": constant(3),
            "gaps_total{}": counter(0),
            "retrying_keys{}": constant(1),
            "paused_shards{}": since(5, 1, until=6),
            "oldest_parked_seconds{}": constant(3600),
            "handler_saturation{}": constant(0.95),
            "clock_ahead_seconds{}": constant(-0.5),
            "credentials_expiry_seconds{}": each(lambda at: 3600 - 60 * (at % 55)),
            "config_last_reload_successful{}": constant(1),
            'throttles_total{operation="GetRecords"}': counter(1),
            'leases{state="free"}': since(DEPLOY, 1, until=DEPLOY + 3),
            'shards{state="halted"}': constant(0),
        }.items():
            metric_name, own = metric[:-1].split("{")
            found[f"{P}{metric_name}{{{labels}{',' * bool(own)}{own}}}"] = values
        for metric, value in {
            "lag_seconds": 30.0,
            "oldest_unsettled_seconds": 30.0,
            "failing_seconds": 20.0,
            "iterator_age_seconds": 1.0,
            "retention_headroom_seconds": 86370.0,
            "checkpoint_age_seconds": 1.0,
            "breaker_state": 0.0,
            "hot_key_share": 0.9,
        }.items():
            for shard in ("parent", "child"):
                found[f'{P}{metric}{{{labels},shard="{worker}-{shard}"}}'] = _while(shard, constant(value))
    return found


def _while(shard: str, values: Values) -> Values:
    return [value if (at < CHURN) == (shard == "parent") else None for at, value in enumerate(values)]


def change(series: Series, name: str, values: Values, where: str = "sick") -> None:
    """Give these values to the series of ``name`` with ``where`` in their labels; those of a shard end with it."""
    found = [key for key in series if key.startswith(name + "{") and where in key]
    assert found, (name, where)
    for key in found:
        shard = re.search(r'shard=".*-(parent|child)"', key)
        series[key] = _while(shard[1], values) if shard else values


def stop(series: Series, minute: int, where: str, *, is_found: bool) -> None:
    """Processes with ``where`` in their labels end in this minute; ``is_found``: they are still looked for."""
    for key in [key for key in series if where in key]:
        if key.startswith("up{") and is_found:
            series[key] = since(minute, 0, before=1)
        else:
            series[key] = [value if at < minute else None for at, value in enumerate(series[key])]


def judge(folder: Path, series: Series, expected: Mapping[int, set[str]]) -> None:
    """Which alerts fire, all of them, at these minutes; each with its application behind a slash."""

    def sample(alert: str) -> dict[str, object]:
        name, _, application = alert.partition("/")
        labels = f'alertname="StreamConsumer{name}"' + (f',application="{application}"' if application else "")
        return {"labels": f"{{{labels}}}", "value": 1}

    test = {
        "interval": "1m",
        "input_series": [
            {"series": key, "values": " ".join("stale" if value is None else f"{value:g}" for value in values)}
            for key, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'max by (alertname, application) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": [sample(alert) for alert in sorted(alerts)],
            }
            for minute, alerts in expected.items()
        ],
    }
    run_rule_tests(folder, [test], "1m")


def falling(start: float, per_minute: float) -> Values:
    return each(lambda at: start - per_minute * at)


def growing(first: int, per_minute: float = 60.0) -> Values:
    return each(lambda at: max(0, at - first) * per_minute)


REFUSED = 'sick-1",application="sick",table="orders",reason="denied'
_BEHIND = since(5, 100, before=30)
_OLD = growing(4)

# For each alert: what is different in the application ``sick``, and what fires there, at which minute.
CASES: dict[str, tuple[list[tuple[str, Values, str]], dict[int, str]]] = {
    "AboutToLoseRecords": (
        [("retention_headroom_seconds", falling(86400, 2000), "sick-1")],
        {21: "", 24: "AboutToLoseRecords", 32: "AboutToLoseRecords", 50: "AboutToLoseRecords"},
    ),
    "Gap": ([("gaps_total", since(10, 8, before=7), "sick-1")], {9: "", 11: "Gap", 18: "Gap", 22: ""}),
    "ShardStopped": ([("shards", since(5, 1), "sick")], {5: "", 8: "ShardStopped", 50: "ShardStopped"}),
    "ShardPaused": ([("paused_shards", since(5, 1), "sick-2")], {6: "", 9: "ShardPaused", 50: "ShardPaused"}),
    "BreakerOpen": (
        [("breaker_state", each(lambda at: (at >= 5) + (5 <= at < 40) - (at >= 50)), "sick-2")],
        {5: "", 8: "BreakerOpen", 33: "BreakerOpen", 45: "BreakerOpen", 52: ""},
    ),
    "Restarting": (
        [("process_start_time_seconds", each(lambda at: 1000.0 * (at // 3)), "sick-1")],
        {9: "", 15: "Restarting", 50: "Restarting"},
    ),
    "ShardWithoutOwner": (
        [('leases', since(5, 2), "sick")],
        {9: "", 12: "ShardWithoutOwner", 50: "ShardWithoutOwner"},
    ),
    "StuckKey": (
        [("failing_seconds", each(lambda at: 60.0 * max(0, at - max(4, DEPLOY * (at >= DEPLOY)))), "sick-1")],
        {4: "", 8: "StuckKey", 21: "StuckKey", 23: "StuckKey", 34: "StuckKey", 58: "StuckKey"},
    ),
    "DeadLettersRefused": (
        [
            ("dead_letters_refused_total", counter(2, first=5), REFUSED),
            ("dead_letters_waiting", since(5, 3), "sick-1"),
        ],
        {9: "", 13: "DeadLettersRefused", 22: "DeadLettersRefused", 25: "DeadLettersRefused", 58: "DeadLettersRefused"},
    ),
    "DeadLetters": (
        [("dead_letters_total", since(10, 8, before=7, until=DEPLOY), "sick-1")],
        {9: "", 11: "DeadLetters", 18: "DeadLetters"},
    ),
    "KeyParkedForDays": (
        [("oldest_parked_seconds", growing(0, 86400 / 10), "sick")],
        {40: "", 50: "KeyParkedForDays"},
    ),
    "Lag": (
        [
            ("lag_seconds", _OLD, "sick-1"),
            ("handler_saturation", constant(0.2), "sick"),
            ("hot_key_share", constant(0.2), "sick"),
        ],
        {15: "", 22: "Lag", 35: "Lag", 58: "Lag"},
    ),
    "HandlerSaturated": (
        [("lag_seconds", _BEHIND, "sick-1"), ("hot_key_share", constant(0.2), "sick")],
        {18: "", 22: "HandlerSaturated", 35: "HandlerSaturated", 58: "HandlerSaturated"},
    ),
    "HotKey": (
        [("lag_seconds", _BEHIND, "sick-1"), ("handler_saturation", constant(0.2), "sick")],
        {18: "", 22: "HotKey", 30: "HotKey", 40: "", 50: "HotKey"},
    ),
    "CheckpointsStuck": (
        [("checkpoint_age_seconds", _OLD, "sick-1")],
        {6: "", 9: "CheckpointsStuck", 29: "CheckpointsStuck"},
    ),
    "CredentialsEnd": (
        [("credentials_expiry_seconds", falling(3600, 120), "sick-2")],
        {27: "", 31: "CredentialsEnd", 50: "CredentialsEnd"},
    ),
    "Clock": ([("clock_ahead_seconds", since(5, -90), "sick-2")], {6: "", 9: "Clock", 50: "Clock"}),
    "ConfigRefused": (
        [("config_last_reload_successful", since(5, 0, before=1, until=DEPLOY), "sick-1")],
        {9: "", 12: "ConfigRefused", 20: "ConfigRefused", 24: ""},
    ),
    "Throttled": (
        [("throttles_total", counter(30), "sick")],
        {10: "", 19: "Throttled", 26: "Throttled", 50: "Throttled"},
    ),
}  # fmt: skip

_OTHERS = {"Absent", "Down", "WorkerDown"}  # they are about series that are not there
_OF_DAYS = {"DeadLettersLeft"}


@needs_promtool
@pytest.mark.parametrize("name", CASES)
def test_it_fires_for_its_reason_and_its_application(name: str, tmp_path: Path) -> None:
    series = fleet("sick") | fleet("well")
    changes, fires = CASES[name]
    for metric, values, where in changes:
        change(series, metric if metric.startswith("process") else P + metric, values, where)
    judge(tmp_path, series, {at: {f"{alert}/sick" for alert in alerts.split()} for at, alerts in fires.items()})
    assert any(name in alerts for alerts in fires.values())


@needs_promtool
def test_a_healthy_fleet_is_left_in_peace(tmp_path: Path) -> None:
    """Through a deploy, which starts all counters at 0 and leaves shards alone for a while, and through a new shard."""
    judge(tmp_path, fleet("well"), {minute: set() for minute in range(1, MINUTES, 2)})


@needs_promtool
@pytest.mark.parametrize("is_found", [True, False], ids=["it does not answer", "its targets are gone"])
def test_one_application_that_is_down_beside_others_in_its_job(tmp_path: Path, is_found: bool) -> None:
    series = fleet("sick") | fleet("well")
    stop(series, 10, "sick", is_found=is_found)
    judge(tmp_path, series, {14: set(), 17: {"Down/sick"}, 58: {"Down/sick"}})


@needs_promtool
def test_one_worker_that_is_down_beside_others_of_its_application(tmp_path: Path) -> None:
    series = fleet("sick") | fleet("well")
    stop(series, 10, "sick-2", is_found=True)
    judge(tmp_path, series, {19: set(), 22: {"WorkerDown/sick"}, 58: {"WorkerDown/sick"}})


@needs_promtool
def test_a_fleet_that_scales_in_is_no_alert(tmp_path: Path) -> None:
    series = fleet("sick")
    stop(series, 10, "sick-2", is_found=False)
    judge(tmp_path, series, {minute: set() for minute in (15, 25, 58)})


@needs_promtool
def test_no_series_at_all(tmp_path: Path) -> None:
    judge(tmp_path, {}, {4: set(), 6: {"Absent"}, 58: {"Absent"}})


@needs_promtool
def test_a_stuck_key_of_a_quiet_table(tmp_path: Path) -> None:
    """Nothing else is handled that would tell it from a handler that fails for everything, and there is no need to."""
    series = fleet("sick")
    for metric in ("failing_seconds", "oldest_unsettled_seconds", "lag_seconds"):
        change(series, P + metric, _OLD)
    change(series, P + "records_total", counter(0))
    for metric in ("handler_saturation", "hot_key_share"):
        change(series, P + metric, constant(0.2))
    expected = {4: set(), 8: {"StuckKey/sick"}, 12: {"StuckKey/sick"}, 22: {"StuckKey/sick", "Lag/sick"}}
    judge(tmp_path, series, expected)


@needs_promtool
@pytest.mark.parametrize(("metric", "alert"), [("breaker_state", "BreakerOpen"), ("paused_shards", "ShardPaused")])
def test_a_handler_that_fails_is_no_stuck_key(tmp_path: Path, metric: str, alert: str) -> None:
    """Its keys fail for long, and still for a moment when it is over."""
    series = fleet("sick")
    change(series, P + "failing_seconds", each(lambda at: 60.0 * (at - 4) if 5 <= at < 18 else 0))
    change(series, P + metric, since(5, 1, until=18))
    judge(tmp_path, series, {4: set(), 8: {f"{alert}/sick"}, 17: {f"{alert}/sick"}, 18: set(), 19: set(), 20: set()})


@needs_promtool
def test_a_fleet_that_reads_too_slowly_has_no_stuck_key(tmp_path: Path) -> None:
    """Its oldest record is old, and keys are retried as always: but what waits was not read yet."""
    series = fleet("sick")
    for metric in ("oldest_unsettled_seconds", "lag_seconds", "iterator_age_seconds"):
        change(series, P + metric, _OLD)
    for metric in ("handler_saturation", "hot_key_share"):
        change(series, P + metric, constant(0.2))
    judge(tmp_path, series, {12: set(), 22: {"Lag/sick"}, 58: {"Lag/sick"}})


@needs_promtool
def test_letters_that_are_sent_in_another_form_are_no_refusal(tmp_path: Path) -> None:
    """What does not fit into the destination is refused as it is, and written otherwise, while others are under way."""
    series = fleet("sick")
    change(series, P + "dead_letters_waiting", constant(1))
    judge(tmp_path, series, {minute: set() for minute in (9, 20, 58)})


@needs_promtool
def test_letters_that_nobody_brings_back(tmp_path: Path) -> None:
    """Found by one worker or both, through half an hour without an answer. A queue that is emptied every other day is
    left in peace."""

    def queue(application: str, worker: int, values: Callable[[int], float | None]) -> dict[str, object]:
        labels = f'job="consumers",instance="{application}-{worker}",application="{application}",table="orders"'
        found = [values(minute) for minute in range(0, 5 * 1440, 10)]
        told = ["stale" if value is None else f"{value:g}" for value in found]
        return {"series": f"{P}dead_letter_backlog{{{labels}}}", "values": " ".join(told)}

    def left(minute: int) -> float | None:
        return None if 600 <= minute < 630 else 4 if minute >= 60 else 0

    def fires(hours: float, applications: list[str]) -> dict[str, object]:
        expr = 'max by (application) (ALERTS{alertname="StreamConsumerDeadLettersLeft",alertstate="firing"})'
        samples = [{"labels": f'{{application="{name}"}}', "value": 1} for name in applications]
        return {"expr": expr, "eval_time": f"{hours * 60:g}m", "exp_samples": samples}

    test = {
        "interval": "10m",
        "input_series": [
            queue("sick", 1, lambda minute: left(minute) if minute < 2000 else None),
            queue("sick", 2, lambda minute: left(minute) if minute >= 1900 else None),
            queue("well", 1, lambda minute: 0 if minute % 2800 < 70 else 9),
        ],
        "promql_expr_test": [fires(48.5, []), fires(49.5, ["sick"]), fires(119, ["sick"])],
    }
    run_rule_tests(tmp_path, [test], "10m")


# --- without promtool


def test_every_alert_is_tried_here() -> None:
    assert {f"StreamConsumer{name}" for name in CASES.keys() | _OTHERS | _OF_DAYS} == set(ALERTS)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"} == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
        text = (RUNBOOKS / f"{name}.md").read_text()
        assert text.startswith(f"# {name}\n")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["What it means", "How to look", "What to do"]
        assert "```" in text, "exact commands"


def test_every_metric_event_and_field_that_a_runbook_names_exists() -> None:
    exposed = set(re.findall(r"^# TYPE (\S+)", Metrics().render()[0].decode(), re.MULTILINE))
    events = set(re.findall(r"^\| `([a-z_]+\.[a-z_.]+)`", (ROOT / "docs" / "log-events.md").read_text(), re.MULTILINE))
    fields = {field.name for field in dataclasses.fields(ShardStatus)}
    for page in RUNBOOKS.glob("*.md"):
        text = page.read_text()
        for name in re.findall(rf"{P}\w+[a-z]\b", text):
            assert any(metric.startswith(name) for metric in exposed), (page.name, name)
        greps = " ".join(re.findall(r"journalctl .*grep .*'(.*)'", text))
        assert set(re.findall(r"[a-z_]+\.[a-z_]+", greps)) <= events, page.name
        filters = " ".join(re.findall(r"jq '\.shards\[\] \|(.*)'", text))
        named = set(re.findall(r"\.([a-z_]+)", filters)) | set(
            re.findall(r"[a-z_]+", " ".join(re.findall(r"{(.*)}", filters)))
        )
        assert named <= fields, (page.name, named - fields)


COMMANDS = sorted(
    {
        command.strip()
        for page in RUNBOOKS.glob("*.md")
        for command in re.findall(r"^ *stream-consumer ([^|\n#]+)", page.read_text(), re.MULTILINE)
    }
)


@pytest.mark.parametrize("typed", COMMANDS)
def test_every_command_of_a_runbook_is_taken(typed: str) -> None:
    require_command(typed)


def test_every_link_of_a_runbook_leads_somewhere() -> None:
    for page in RUNBOOKS.glob("*.md"):
        for target, anchor in re.findall(r"\]\(([\w./-]+\.md)(?:#([\w-]+))?\)", page.read_text()):
            found = (RUNBOOKS / target).resolve()
            assert found.exists(), (page.name, target)
            lines = [line.lstrip("# ").lower() for line in found.read_text().splitlines() if line.startswith("#")]
            assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", line).replace(" ", "-") for line in lines], anchor
