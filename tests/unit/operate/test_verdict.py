"""What the status page says first: one sentence for each thing that is wrong, worst first."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from consumer.domain.lease import MOST_FAILING
from consumer.operate.error_groups import ErrorGroup
from consumer.operate.history import Past
from consumer.operate.problem import SEVERITIES
from consumer.operate.status import SLOW, KeyStatus, ShardStatus, SlowReason, Status, WorkerStatus
from consumer.operate.stuck_keys import STUCK
from consumer.operate.verdict import (
    CHECKPOINT,
    CLOCK,
    CREDENTIALS,
    FREE,
    HEADROOM,
    LAG,
    NAMED,
    RECENT,
    THROTTLED,
    Verdict,
    judge,
)
from tests.support.commands import require_command

NOW = 1_764_000_000.0
WELL, READY = (True, "ok"), (True, "ready")


def shard(number: int = 1, **values: Any) -> ShardStatus:
    usual: dict[str, Any] = {
        "lag": 0.4,
        "headroom": 86_399.0,
        "checkpoint_age": 0.5,
        "breaker": "closed",
        "owner": "me",
    }
    return replace(ShardStatus(f"shard-{number}", "open", mine=True), **{**usual, **values})


def status(*shards: ShardStatus, **values: Any) -> Status:
    return replace(Status("orders", "orders", "me", updated_at=NOW, shards=shards or (shard(),)), **values)


def verdict(found: Status | None) -> Verdict:
    return judge(found, WELL, READY)


def test_a_healthy_worker_is_one_calm_sentence() -> None:
    found = verdict(status(shard(1), shard(2), replace(shard(3), mine=False, owner="other", lag=None)))
    assert found.headline == "Healthy: 3 of 3 shards owned, 2 of them here, where nothing waits."
    assert (found.severity, found.problems) == ("ok", ())
    idle = verdict(status(ShardStatus("s", "open", owner="other")))
    assert idle.headline == "Healthy: this worker stands by; 1 of 1 shard owned by others."


def key(age: float) -> KeyStatus:
    return KeyStatus("digest", "retrying", "shard-1", NOW - age)


WRONG: list[tuple[str, str, Status, str]] = [
    (
        "halted",
        "critical",
        status(shard(state="halted")),
        "1 shard stopped: records were trimmed before they were read.",
    ),
    (
        "quarantined",
        "critical",
        status(shard(1, state="quarantined"), shard(2, state="quarantined")),
        "2 shards quarantined",
    ),
    (
        "headroom",
        "critical",
        status(shard(headroom=3_600.0)),
        "Records that are not settled are trimmed by AWS in 60 min, in 1 shard.",
    ),
    ("headroom", "critical", status(shard(headroom=-5.0)), "trimmed by AWS by now"),
    (
        "breaker",
        "critical",
        status(shard(breaker="probing", last_error="KeyError")),
        "of 1 shard is open: most of what is tried fails (KeyError).",
    ),
    ("letters_refused", "critical", status(letters_waiting=3), "3 dead letters refused by the destination"),
    ("paused", "critical", status(shard(slow_because="paused")), "1 shard paused: so many keys fail"),
    ("parked_full", "critical", status(shard(slow_because="parked_full")), "as many keys are parked"),
    ("unreadable", "critical", status(shard(slow_because="denied")), "1 shard cannot be read."),
    ("unreadable", "critical", status(shard(slow_because="read_fails")), "1 shard cannot be read."),
    ("free_leases", "critical", status(free_leases=2, free_for=61.0), "2 shards without an owner, the first for 61 s."),
    (
        "stuck_keys",
        "warning",
        status(shard(retrying_keys=7, failing_for=1_080.0, last_error="ValueError"), keys=(key(1_085),)),
        "7 keys of shard-1 failing again and again, the first for 18 min (ValueError).",
    ),
    (
        "stuck_keys",
        "warning",
        status(shard(1, retrying_keys=1, failing_for=11.0), shard(2, retrying_keys=2, failing_for=40.0)),
        "3 keys of 2 shards failing again and again, the first for 40 s.",
    ),
    (
        "stuck_keys",
        "warning",
        status(shard(retrying_keys=0, failing_for=60.0)),
        "A batch of shard-1 failing again and again, the first for 60 s.",
    ),
    (
        "stuck_keys_elsewhere",
        "warning",
        status(fleet=(WorkerStatus("me", mine=True), WorkerStatus("other", failing=("shard-9",)))),
        "Keys of shard-9 failing again and again at another worker, other.",
    ),
    (
        "stuck_keys_elsewhere",
        "warning",
        status(fleet=(WorkerStatus("other", failing=tuple(f"shard-{number}" for number in range(MOST_FAILING))),)),
        "Keys of 5 shards or more failing again and again at another worker, other.",
    ),
    (
        "lag",
        "warning",
        status(shard(lag=720.0, slow_because="room")),
        "behind, the worst by 12 min (it waits for room in limits.buffer).",
    ),
    (
        "parked_keys",
        "warning",
        status(parked_keys=2, oldest_parked=NOW - 5_400),
        "2 keys parked, the first 90 min ago.",
    ),
    ("checkpoints", "warning", status(shard(checkpoint_age=61.0)), "The checkpoints of 1 shard are not written."),
    ("clock", "warning", status(clock_ahead=-300.0), "The clock of this machine is 5 min behind the one of AWS."),
    (
        "credentials",
        "warning",
        status(credentials_end=NOW + 60),
        "The AWS credentials end in 60 s and were not renewed.",
    ),
    ("credentials", "warning", status(credentials_end=NOW - 1), "The AWS credentials have ended."),
    (
        "dead_letter_backlog",
        "info",
        status(dead_letter_backlog=1_200),
        "1,200 dead letters at the destination, to be brought back or purged.",
    ),
    ("throttled", "warning", status(history=Past(throttles=(0.0, None, 2.0))), "AWS throttles 1.0 calls a second."),
    (
        "versions",
        "info",
        status(fleet=(WorkerStatus("a", version="1"), WorkerStatus("b", version="2"), WorkerStatus("c"))),
        "Different versions run: 1 (1 worker), 2 (1 worker).",
    ),
]


@pytest.mark.parametrize(
    ("code", "severity", "found", "text"), WRONG, ids=[f"{code} {text}" for code, _, _, text in WRONG]
)
def test_each_thing_that_is_wrong_has_its_sentence(code: str, severity: str, found: Status, text: str) -> None:
    judged = verdict(found)
    assert [problem.code for problem in judged.problems] == [code]
    (problem,) = judged.problems
    assert text in problem.text
    assert (judged.headline, judged.severity, problem.severity) == (problem.text, severity, severity)
    assert problem.help.endswith(".")


FINE: list[Status] = [
    status(shard(headroom=50_000.0)),
    status(free_leases=1, free_for=5.0),
    status(shard(retrying_keys=1, failing_for=9.0), keys=(key(30_000),)),
    status(fleet=(WorkerStatus("me", mine=True, failing=("shard-1",)),)),
    status(keys=(replace(key(9_999), state="parked"),)),
    status(shard(lag=299.0)),
    status(shard(checkpoint_age=10.0)),
    status(clock_ahead=30.0),
    status(dead_letter_backlog=0),
    status(credentials_end=NOW + 3_600),
    status(history=Past(throttles=(5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))),
    status(fleet=(WorkerStatus("a", version="1"), WorkerStatus("b", version="1"), WorkerStatus("c"))),
]


@pytest.mark.parametrize("found", FINE)
def test_what_is_usual_is_no_problem(found: Status) -> None:
    assert verdict(found).problems == ()


def test_letters_of_parked_keys_are_told_of_once() -> None:
    found = verdict(status(dead_letter_backlog=7, parked_keys=2))
    assert [problem.code for problem in found.problems] == ["parked_keys"]


def test_the_worst_comes_first_and_the_others_are_counted() -> None:
    everything = status(
        shard(1, lag=900.0), shard(2, breaker="open"), shard(3, state="halted"), parked_keys=1, clock_ahead=90.0
    )
    found = verdict(everything)
    assert [problem.code for problem in found.problems] == ["halted", "breaker", "lag", "parked_keys", "clock"]
    assert found.headline == "1 shard stopped: records were trimmed before they were read. And 4 other problems."
    ranks = [SEVERITIES.index(problem.severity) for problem in found.problems]
    assert ranks == sorted(ranks)


def test_only_some_shards_of_a_problem_are_named() -> None:
    (problem,) = verdict(status(*(shard(n, state="halted") for n in range(100)))).problems
    assert problem.text.startswith("100 shards stopped")
    assert len(problem.shards) == NAMED


def test_what_endless_retries_mean_is_said() -> None:
    stuck = status(shard(retrying_keys=1, failing_for=3_600.0), keys=(key(3_600),))
    assert "max_retry_attempts is -1" in verdict(replace(stuck, endless_retries=True)).problems[0].help
    assert "-1" not in verdict(stuck).problems[0].help


def test_the_command_prints_the_records_from_the_failing_one_on() -> None:
    """Of the shard in which a key has failed for longest; where no time is known, what the lease table has."""
    older = replace(key(90), shard_id="shard-2")
    found = status(
        shard(1, retrying_keys=1, failing_for=20.0), shard(2, retrying_keys=1, failing_for=60.0), keys=(key(25), older)
    )
    (problem,) = verdict(found).problems
    begin = datetime.fromtimestamp(NOW - 90, UTC).isoformat().replace("+00:00", "Z")
    wanted = ["tail", "--shard", "shard-2", "--from", begin, "--limit", "100", "--config", "consumer.yaml"]
    assert shlex.split(problem.command)[1:] == wanted
    assert problem.shards == ("shard-2", "shard-1")
    (problem,) = verdict(replace(found, keys=(replace(older, since=0.0),))).problems
    assert shlex.split(problem.command)[1:4] == ["leases", "show", "shard-2"]


def test_a_breaker_that_is_open_says_it_all() -> None:
    broken = shard(breaker="open", retrying_keys=30, failing_for=90.0)
    assert [problem.code for problem in verdict(status(broken)).problems] == ["breaker"]


def test_the_process_itself_comes_before_everything() -> None:
    found = judge(status(shard(state="halted")), (False, "wedged: no progress for 60s"), READY)
    assert found.headline.startswith("This worker does not work any more: wedged: no progress for 60s.")
    blocked = judge(status(), WELL, (False, "no shard of this worker can be read: denied"))
    assert (blocked.severity, blocked.problems[0].code) == ("critical", "blocked")
    starting = judge(None, WELL, (False, "the lease table was not reached yet"))
    assert (starting.severity, starting.headline) == ("info", "Starting: the lease table was not reached yet.")
    assert judge(status(), WELL, (False, "stopping")).severity == "info"


def test_what_loses_records_comes_before_a_stop() -> None:
    found = judge(status(shard(state="halted")), WELL, (False, "stopping"))
    assert [problem.code for problem in found.problems] == ["halted", "stopping"]


def test_the_worst_lag_and_its_reason_are_named() -> None:
    late = [shard(1, lag=400.0, slow_because="handler"), shard(2, lag=9_000.0), shard(3, lag=700.0)]
    (problem,) = verdict(status(*late)).problems
    assert problem.text == "3 shards behind, the worst by 2 h."
    assert problem.shards == ("shard-2", "shard-3", "shard-1")


def test_errors_are_named_when_nothing_explains_them() -> None:
    letters = ErrorGroup("dead_letter.sent", "ValueError", 3, NOW - 60, NOW - 5)
    (problem,) = judge(status(), WELL, READY, [letters]).problems
    assert "the last one dead_letter.sent (ValueError)" in problem.text
    assert problem.command.startswith("stream-consumer dlq list")
    assert judge(status(), WELL, READY, [replace(letters, last=NOW - 1_000)]).problems == ()
    assert [one.code for one in judge(status(parked_keys=1), WELL, READY, [letters]).problems] == ["parked_keys"]


def test_lost_records_are_said_whatever_else_is_wrong() -> None:
    """With source.on_gap: continue nothing stands still; a halted shard says it itself."""
    gap = ErrorGroup("shard.gap", "", 1, NOW - 60, NOW - 60, shard_id="shard-7")
    found = judge(status(parked_keys=1), WELL, READY, [gap])
    assert [(one.code, one.severity) for one in found.problems] == [
        ("lost_records", "critical"),
        ("parked_keys", "warning"),
    ]
    assert found.problems[0].shards == ("shard-7",)
    assert [one.code for one in judge(status(shard(state="halted")), WELL, READY, [gap]).problems] == ["halted"]
    assert judge(status(), WELL, READY, [replace(gap, last=NOW - 1_000)]).problems == ()


@pytest.mark.parametrize("ahead", [-59.0, 59.0])
def test_errors_are_as_old_as_this_machine_says(ahead: float) -> None:
    """They have its time, and the report that of AWS."""
    letters = ErrorGroup("dead_letter.sent", "ValueError", 3, NOW, NOW + ahead - RECENT + 10)
    assert [one.code for one in judge(status(clock_ahead=ahead), WELL, READY, [letters]).problems] == ["errors"]
    old = replace(letters, last=NOW + ahead - RECENT - 10)
    assert judge(status(clock_ahead=ahead), WELL, READY, [old]).problems == ()


def test_the_limits_are_those_of_the_alerts_or_tighter() -> None:
    """Who looks at the page when an alert rings must see why. Each alert's own expression is what is compared."""
    rules = yaml.safe_load((Path(__file__).parents[3] / "deploy" / "prometheus" / "alerts.yaml").read_text())
    alerts = {rule["alert"].removeprefix("StreamConsumer"): rule for rule in rules["groups"][0]["rules"]}

    def limit(alert: str, metric: str) -> float:
        found = re.search(rf"{metric}[^<>]*[<>] ([0-9.]+)(?: \* ([0-9]+))?", alerts[alert]["expr"])
        assert found is not None, alert
        return float(found[1]) * float(found[2] or 1)

    assert limit("AboutToLoseRecords", "retention_headroom_seconds") <= HEADROOM
    assert limit("Lag", "lag_seconds") >= LAG
    assert limit("StuckKey", "failing_seconds") >= STUCK
    assert limit("CheckpointsStuck", "checkpoint_age_seconds") >= CHECKPOINT
    assert limit("Clock", "clock_ahead_seconds") >= CLOCK
    assert limit("CredentialsEnd", "credentials_expiry_seconds") <= CREDENTIALS
    assert limit("Throttled", "throttles_total") >= THROTTLED
    minutes = re.fullmatch(r"(\d+)m", alerts["ShardWithoutOwner"]["for"])
    assert minutes is not None
    assert int(minutes[1]) * 60 >= FREE


def test_commands_name_the_file_of_the_worker_and_can_be_pasted() -> None:
    """Whatever is in a row of the lease table: it is an argument, and no command of its own."""
    hostile = "shard; touch /tmp/x $(id) `id`"
    halted = status(replace(shard(state="halted"), shard_id=hostile), parked_keys=1)
    found = judge(halted, WELL, READY, config_file="/etc/stream consumer/config.yaml").problems
    assert [shlex.split(one.command)[1:] for one in found] == [
        ["leases", "show", hostile, "--config", "/etc/stream consumer/config.yaml"],
        ["dlq", "redrive", "--config", "/etc/stream consumer/config.yaml"],
    ]


def test_every_command_exists_with_its_options() -> None:
    commands = {problem.command for _, _, found, _ in WRONG for problem in verdict(found).problems} - {""}
    assert commands
    for command in commands:
        assert command.startswith("stream-consumer ")
        require_command(command.removeprefix("stream-consumer "))


def test_every_reason_has_its_words() -> None:
    assert set(SLOW) == set(get_args(SlowReason))
