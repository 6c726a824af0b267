"""What is wrong, worst first: from a snapshot to sentences for the person who was woken up. Pure.

Each problem is one sentence, what helps, and where there is one the command for it. The limits are those of
``deploy/prometheus/alerts.yaml``, or tighter: who looks at the page wants to know before the alert.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from shlex import quote
from typing import Final, Literal

from consumer.operate.error_groups import ErrorGroup
from consumer.operate.problem import (
    CONFIG,
    CONFIG_FILE,
    SEVERITIES,
    Problem,
    Severity,
    age,
    counted,
    ids_of,
    of_kinds,
    shards_in_words,
    time_in_words,
)
from consumer.operate.status import SLOW, Status
from consumer.operate.stuck_keys import stuck_elsewhere, stuck_keys

HEADROOM: Final = 12 * 3600.0  # seconds to the trimming of the oldest unsettled record
LAG: Final = 300.0  # seconds
FREE: Final = 60.0  # seconds that a lease may have no owner
CHECKPOINT: Final = 60.0  # seconds that a checkpoint may be old
CLOCK: Final = 60.0  # seconds by which the clocks may differ
CREDENTIALS: Final = 240.0  # seconds that credentials are still valid
THROTTLED: Final = 0.1  # throttles a second, over the last points
RECENT: Final = 900.0  # seconds that an error counts as recent
LOSSES: Final = frozenset({"shard.gap", "keys.trimmed"})  # events of records that nobody will ever handle
NAMED: Final = 5  # shards of a problem that are named


@dataclass(frozen=True, slots=True)
class Verdict:
    """``headline`` is one sentence. Worst problems first."""

    headline: str
    problems: tuple[Problem, ...] = ()

    @property
    def severity(self) -> Severity | Literal["ok"]:
        """Of the worst problem."""
        return self.problems[0].severity if self.problems else "ok"


def judge(
    status: Status | None,
    health: tuple[bool, str],
    readiness: tuple[bool, str],
    errors: Sequence[ErrorGroup] = (),
    *,
    config_file: str = CONFIG_FILE,
) -> Verdict:
    """``health`` and ``readiness`` as the status board gives them. ``config_file`` is the one that commands name."""
    found = list(_of_process(status, health, readiness))
    if status is not None:
        for look in _LOOKS:
            found += look(status)
        found += _lost(status, errors, found)
        found += _recent_errors(status, errors, found)
    found = [_to_be_shown(problem, config_file) for problem in found]
    found.sort(key=lambda problem: SEVERITIES.index(problem.severity))  # stable: their order within a severity is ours
    if not found:
        return Verdict(_all_is_well(status))
    more = len(found) - 1
    tail = f" And {counted(more, 'other problem')}." if more else ""
    return Verdict(found[0].text + tail, tuple(found))


def _to_be_shown(problem: Problem, config_file: str) -> Problem:
    command = problem.command.replace(CONFIG_FILE, quote(config_file))
    return replace(problem, shards=problem.shards[:NAMED], command=command)


def _of_process(status: Status | None, health: tuple[bool, str], readiness: tuple[bool, str]) -> Iterator[Problem]:
    if not health[0]:
        yield Problem(
            "critical",
            "unhealthy",
            f"This worker does not work any more: {health[1]}.",
            "Restart the process; /healthz fails, so its supervisor should do so by itself. The log has the stack.",
        )
    if readiness[0]:
        return
    if readiness[1] == "stopping":
        yield Problem("info", "stopping", "This worker is stopping: it gives its leases to the others.", "Nothing.")
    elif status is None:
        yield Problem("info", "starting", f"Starting: {readiness[1]}.", "It goes on by itself; the log says more.")
    else:
        yield Problem(
            "critical",
            "blocked",
            f"Nothing can work at present: {readiness[1]}.",
            "See shard.read_failed and session.renew_failed in the log; check-config says what is missing.",
            f"stream-consumer check-config {CONFIG_FILE} --aws",
        )


# --- what needs a decision, or loses records ------------------------------------------------------------


def _halted(status: Status) -> Iterator[Problem]:
    if halted := ids_of(shard for shard in status.shards if shard.state == "halted"):
        yield Problem(
            "critical",
            "halted",
            f"{shards_in_words(halted)} stopped: records were trimmed before they were read.",
            "Find out what was lost (rows gap# in the lease table). Then set source.on_gap: continue and restart: "
            "the shard goes on with the oldest record that is left.",
            f"stream-consumer leases show {quote(halted[0])} {CONFIG}",
            shards=halted,
        )


def _quarantined(status: Status) -> Iterator[Problem]:
    if found := ids_of(shard for shard in status.shards if shard.state == "quarantined"):
        yield Problem(
            "critical",
            "quarantined",
            f"{shards_in_words(found)} quarantined: the stored checkpoint cannot be read.",
            "The note of the shard says what was found. Mend the row in the lease table, or restore the table.",
            f"stream-consumer leases show {quote(found[0])} {CONFIG}",
            shards=found,
        )


def _about_to_lose(status: Status) -> Iterator[Problem]:
    near = [one for one in status.shards if one.headroom is not None and one.headroom < HEADROOM]
    if near:
        least = min(one.headroom for one in near if one.headroom is not None)
        when = f"in {time_in_words(least)}" if least > 0 else "by now"
        yield Problem(
            "critical",
            "headroom",
            f"Records that are not settled are trimmed by AWS {when}, in {shards_in_words(ids_of(near))}.",
            "What the table below says of these shards comes first: after that moment their records are lost.",
            shards=ids_of(near),
        )


def _breakers(status: Status) -> Iterator[Problem]:
    opened = [one for one in status.shards if one.breaker in ("open", "probing")]
    if opened:
        kinds = sorted({one.last_error for one in opened if one.last_error})
        yield Problem(
            "critical",
            "breaker",
            f"The breaker of {shards_in_words(ids_of(opened))} is open: most of what is tried fails{of_kinds(kinds)}.",
            "Mend the handler, or what it depends on; the shards go on by themselves. See breaker.opened in the log.",
            shards=ids_of(opened),
        )


def _refused_letters(status: Status) -> Iterator[Problem]:
    if status.letters_waiting:
        shards = ids_of(one for one in status.shards if one.slow_because == "destination")
        yield Problem(
            "critical",
            "letters_refused",
            f"{counted(status.letters_waiting, 'dead letter')} refused by the destination, and tried again.",
            "Check that on_failure.destination is there and may be written: dead_letter.refused in the log says why.",
            f"stream-consumer check-config {CONFIG_FILE} --aws",
            shards,
        )


def _paused(status: Status) -> Iterator[Problem]:
    if found := ids_of(one for one in status.shards if one.slow_because == "paused"):
        yield Problem(
            "critical",
            "paused",
            f"{shards_in_words(found)} paused: so many keys fail that nothing new is started.",
            "It is most likely the handler that fails, not a record: see batch.failed in the log.",
            shards=found,
        )
    if found := ids_of(one for one in status.shards if one.slow_because == "parked_full"):
        yield Problem(
            "critical",
            "parked_full",
            f"{shards_in_words(found)} paused: as many keys are parked, or letters of one, as there may be.",
            "Mend the handler, then bring the parked keys back.",
            f"stream-consumer dlq redrive {CONFIG}",
            found,
        )


def _unreadable(status: Status) -> Iterator[Problem]:
    if found := ids_of(one for one in status.shards if one.slow_because in ("denied", "read_fails")):
        yield Problem(
            "critical",
            "unreadable",
            f"{shards_in_words(found)} cannot be read.",
            "The note of the shard has the answer of AWS; check-config compares what the role may do.",
            f"stream-consumer check-config {CONFIG_FILE} --aws",
            found,
        )


def _free(status: Status) -> Iterator[Problem]:
    if status.free_leases and status.free_for >= FREE:
        yield Problem(
            "critical",
            "free_leases",
            f"{counted(status.free_leases, 'shard')} without an owner, the first for {time_in_words(status.free_for)}.",
            "Start more workers, or raise limits.max_shards: those that run take no more.",
        )


# --- what gets worse -------------------------------------------------------------------------------------


def _lagging(status: Status) -> Iterator[Problem]:
    late = [one for one in status.shards if (one.lag or 0.0) > LAG]
    if late:
        worst = max(late, key=lambda one: one.lag or 0.0)
        why = f" ({SLOW[worst.slow_because]})" if worst.slow_because else ""
        yield Problem(
            "warning",
            "lag",
            f"{shards_in_words(ids_of(late))} behind, the worst by {time_in_words(worst.lag or 0.0)}{why}.",
            "The column 'why' says what each of them waits for; docs/performance.md has the sizing.",
            shards=ids_of(sorted(late, key=lambda one: -(one.lag or 0.0))),
        )


def _parked(status: Status) -> Iterator[Problem]:
    if status.parked_keys:
        since = f", the first {time_in_words(age(status, status.oldest_parked))} ago" if status.oldest_parked else ""
        yield Problem(
            "warning",
            "parked_keys",
            f"{counted(status.parked_keys, 'key')} parked{since}.",
            "Mend the handler first, then bring them back: their records wait at the destination, in order.",
            f"stream-consumer dlq redrive {CONFIG}",
        )


def _checkpoints(status: Status) -> Iterator[Problem]:
    if found := ids_of(one for one in status.shards if (one.checkpoint_age or 0.0) > CHECKPOINT):
        yield Problem(
            "warning",
            "checkpoints",
            f"The checkpoints of {shards_in_words(found)} are not written.",
            "Work goes on and would be repeated after a crash: see checkpoint.failed in the log, and the lease table.",
            shards=found,
        )


def _clock(status: Status) -> Iterator[Problem]:
    if abs(status.clock_ahead) > CLOCK:
        side = "ahead of" if status.clock_ahead > 0 else "behind"
        yield Problem(
            "warning",
            "clock",
            f"The clock of this machine is {time_in_words(abs(status.clock_ahead))} {side} the one of AWS.",
            "Set it (chrony, systemd-timesyncd): until then no record is given up for its age.",
        )


def _credentials(status: Status) -> Iterator[Problem]:
    if status.credentials_end is not None and status.credentials_end - status.updated_at < CREDENTIALS:
        left = status.credentials_end - status.updated_at
        text = f"end in {time_in_words(left)} and were not renewed" if left > 0 else "have ended"
        yield Problem(
            "warning",
            "credentials",
            f"The AWS credentials {text}.",
            "See credentials in the log, and whether their provider (instance, task or pod role) answers.",
        )


def _throttled(status: Status) -> Iterator[Problem]:
    recent = [rate for rate in status.history.throttles[-6:] if rate is not None]
    if recent and sum(recent) / len(recent) > THROTTLED:
        yield Problem(
            "warning",
            "throttled",
            f"AWS throttles {sum(recent) / len(recent):.1f} calls a second.",
            "Another consumer reads the stream (a shard takes five reads a second), or the lease table is too small.",
        )


# --- what to know ----------------------------------------------------------------------------------------


def _versions(status: Status) -> Iterator[Problem]:
    versions = Counter(worker.version for worker in status.fleet if worker.version)
    if len(versions) > 1:
        listed = ", ".join(f"{version} ({counted(n, 'worker')})" for version, n in sorted(versions.items()))
        yield Problem(
            "info", "versions", f"Different versions run: {listed}.", "Usual during a deployment, for a while."
        )


def _backlog(status: Status) -> Iterator[Problem]:
    """Those of parked keys are told of with their keys."""
    if status.dead_letter_backlog and not status.parked_keys:
        yield Problem(
            "info",
            "dead_letter_backlog",
            f"{counted(status.dead_letter_backlog, 'dead letter')} at the destination, to be brought back or purged.",
            "A queue forgets them after its retention: see which they are, mend the handler, redrive them.",
            f"stream-consumer dlq list {CONFIG}",
        )


def _lost(status: Status, errors: Sequence[ErrorGroup], found: Sequence[Problem]) -> Iterator[Problem]:
    """With source.on_gap: continue nothing stops, and the loss would be an error among others."""
    lost = [group for group in _recent(status, errors) if group.event in LOSSES]
    if lost and not any(problem.code == "halted" for problem in found):
        yield Problem(
            "critical",
            "lost_records",
            "Records were trimmed before they were read, in the last 15 minutes: they are lost.",
            "The rows gap# in the lease table say which. Find out why the worker was so far behind.",
            shards=tuple(dict.fromkeys(group.shard_id for group in lost if group.shard_id)),
        )


def _recent(status: Status, errors: Sequence[ErrorGroup]) -> list[ErrorGroup]:
    return [group for group in errors if status.reported_at - group.last < RECENT]


def _recent_errors(status: Status, errors: Sequence[ErrorGroup], found: Sequence[Problem]) -> Iterator[Problem]:
    """Errors are the symptom; they are named when nothing else is."""
    recent = _recent(status, errors)
    if recent and not found:
        last = recent[0]
        kind = f" ({last.type})" if last.type else ""
        yield Problem(
            "info",
            "errors",
            f"{counted(len(recent), 'kind')} of errors in the last 15 minutes, the last one {last.event}{kind}.",
            "See the errors below; the log has their texts.",
            f"stream-consumer dlq list {CONFIG}" if last.event.startswith("dead_letter.") else "",
        )


_LOOKS: Final[tuple[Callable[[Status], Iterator[Problem]], ...]] = (
    _halted,
    _quarantined,
    _about_to_lose,
    _refused_letters,
    _breakers,
    _paused,
    _unreadable,
    _free,
    stuck_keys,
    stuck_elsewhere,
    _lagging,
    _parked,
    _checkpoints,
    _clock,
    _credentials,
    _throttled,
    _versions,
    _backlog,
)


# --- words -----------------------------------------------------------------------------------------------


def _all_is_well(status: Status | None) -> str:
    if status is None:
        return "Ready."
    mine = sum(shard.mine for shard in status.shards)
    owned = sum(shard.owner is not None for shard in status.shards)
    if not mine:
        return f"Healthy: this worker stands by; {owned} of {counted(len(status.shards), 'shard')} owned by others."
    shards = counted(len(status.shards), "shard")
    return f"Healthy: {owned} of {shards} owned, {mine} of them here, where nothing waits."
