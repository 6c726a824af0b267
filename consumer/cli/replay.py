"""``stream-consumer replay``: handle records again, from a time, a sequence number or a dead letter on."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import config_options
from consumer.cli.durations import position_or_ago
from consumer.cli.failures import EX_CONFIG, EX_USAGE, fail, settings_or_exit
from consumer.cli.output import echo_json, output_option, plain, table

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.domain.lease import LeaseRow
    from consumer.domain.letter_reading import ReadLetter
    from consumer.ports.leases import LeaseTable
    from consumer.ports.time import ServiceClock
    from consumer.replay.counting import Counts
    from consumer.replay.survey import Survey
    from consumer.settings.model import Settings

_ALL: Final = "all"
_SHOW_EVERY: Final = 0.2  # seconds


class _Wanted(NamedTuple):
    """What was asked for. ``since`` in Unix seconds, negative: so many seconds ago. ``number`` as the service gives
    it. ``words`` say it to people."""

    settings: Settings
    since: float
    number: str | None
    number_shard: str
    shards: frozenset[str]
    another: str | None
    is_meant: bool
    dry_run: bool
    words: str


class _Result(NamedTuple):
    found: Survey
    written: int | None
    counts: Counts | None


@click.command("replay")
@config_options
@click.option("--from", "since", metavar="TIME", help="trim_horizon, an ISO-8601 time, or how long ago (45m).")
@click.option("--from-sequence-number", "number", metavar="NUMBER", help="That record first; with one --shard.")
@click.option("--from-letter", "letter", metavar="ID|FILE", help="The records of a dead letter first.")
@click.option("--shard", "shards", multiple=True, help="This shard and all that come after it; may be repeated.")
@click.option("--as", "another", metavar="APPLICATION", help="Start another application there, beside this one.")
@click.option("--dry-run", is_flag=True, help="Count the records and show the rows; write nothing.")
@click.option("--yes", is_flag=True, help="Write it.")
@output_option
def replay(
    config: Path,
    since: str | None,
    number: str | None,
    letter: str | None,
    shards: tuple[str, ...],
    another: str | None,
    dry_run: bool,
    yes: bool,
    output: str,
) -> None:
    """Set this application back in its stream, or start another one there.

    In place, while no worker of the application runs: the rows of the chosen shards and of all that come after them are
    set back, and the next `run` handles their records again, in order. With --as the application goes on, and another
    one begins at the position: `run` it with `application: NAME` and otherwise the same config.

    Exit code 0 when the rows are written, and after a --dry-run; 2 without --yes; 78 when workers run, keys are parked,
    or the position is not in the stream any more; 69 and 77 as for run.
    """
    if sum(one is not None for one in (since, number, letter)) != 1:
        raise click.UsageError("give one of --from, --from-sequence-number and --from-letter")
    if dry_run and yes:
        raise click.UsageError("--dry-run writes nothing: it does not go with --yes")
    settings = settings_or_exit(config)
    if another is not None and another == settings.application:
        raise click.UsageError("--as is for another application: leave it out to replay in place")
    wanted = _wanted(
        settings, since, number, letter, frozenset(shards) - {_ALL}, another, is_meant=yes, dry_run=dry_run
    )

    result = answer_of(_replay(wanted), "replay.written")
    _show(wanted, result, output)
    _end(wanted, result)


def _wanted(
    settings: Settings,
    since: str | None,
    number: str | None,
    letter: str | None,
    shards: frozenset[str],
    another: str | None,
    *,
    is_meant: bool,
    dry_run: bool,
) -> _Wanted:
    if since is not None:
        return _Wanted(settings, _time(since), None, "", shards, another, is_meant, dry_run, f"from {since}")
    if letter is not None:
        found = _read_letter(Path(letter)) if Path(letter).is_file() else _find_letter(settings, letter)
        number, shard_id = found.first_number, found.shard_id
    else:
        if len(shards) != 1:
            raise click.UsageError("--from-sequence-number is a place in one shard: give it with --shard")
        (shard_id,), shards = shards, frozenset()
    if not number or not number.isdecimal():
        raise click.UsageError(f"{number!r} is not a sequence number")
    words = f"from record {number} of {shard_id}"
    return _Wanted(settings, 0.0, number, shard_id, shards, another, is_meant, dry_run, words)


def _time(text: str) -> float:
    since = position_or_ago(text)
    if since is None:
        raise click.UsageError("--from latest leaves nothing to replay")
    return since


def _read_letter(path: Path) -> ReadLetter:
    from consumer.domain.letter_reading import read_letter

    name = click.format_filename(path)
    try:
        return read_letter(path.read_bytes(), {})
    except OSError as error:
        fail(f"{name}: cannot be read: {error.strerror or error}", EX_USAGE)
    except ValueError as error:
        fail(f"{name} {error}", EX_USAGE)


def _find_letter(settings: Settings, name: str) -> ReadLetter:
    """The letter at the destination that `dlq show` shows by this name."""
    from consumer.cli.dlq.options import place_or_exit
    from consumer.cli.dlq.reach import looked
    from consumer.cli.dlq.text import ID_DIGITS, is_named
    from consumer.domain.letter_selection import Selection

    if len(name) < ID_DIGITS:
        fail(f"{name}: there is no such file, and the ID of a letter has {ID_DIGITS} characters or more", EX_USAGE)
    place = place_or_exit(settings, None)

    async def found() -> ReadLetter | None:
        async with looked(settings, place, Selection(), None, payloads=False) as look:
            return next((one.letter for one in look.gathered.letters if is_named(one, name)), None)

    letter = answer_of(found())
    if letter is None:
        fail(f"{name}: there is no such file, and no such letter in {place}: see `stream-consumer dlq list`", EX_USAGE)
    return letter


async def _replay(wanted: _Wanted) -> _Result:
    from consumer.aws.adapters import MainAdapters
    from consumer.domain.replay import Position
    from consumer.replay.counting import count
    from consumer.replay.survey import survey_for_another, survey_in_place
    from consumer.worker.clock import HeardClock, SystemClock

    settings = wanted.settings
    if wanted.another is not None:
        settings = settings.model_copy(update={"application": wanted.another})
    clock = HeardClock(SystemClock())
    async with MainAdapters(settings, lambda *_: None, clock) as adapters:
        source, store = adapters.source, adapters.store
        stream = await source.describe()
        since = wanted.since if wanted.since >= 0 else stream.server_time + wanted.since
        number = None if wanted.number is None else stream.format.book_number(wanted.number, 0)
        position = Position(since, number, wanted.number_shard)
        if wanted.another is None:
            found = await survey_in_place(source, store, position, wanted.shards)
        else:
            found = await survey_for_another(source, position, wanted.shards)
        counts = written = None
        if wanted.dry_run and not found.plan.problems:
            rows = [one.after for one in found.plan.rows if not one.after.finished]
            filters, most = settings.compiled_filters(), settings.source.poll.max_records
            counts = await count(found.source, found.stream, rows, filters, most, _progress())
        elif wanted.is_meant and not found.plan.problems:
            written = await _write(wanted, settings, store, clock, found)
        return _Result(found, written, counts)


async def _write(wanted: _Wanted, settings: Settings, store: LeaseTable, clock: ServiceClock, found: Survey) -> int:
    from consumer.replay.another_application import register_at
    from consumer.replay.run import in_place, trace_of

    if wanted.another is not None:
        return await register_at(settings, store, found, trace_of(found, clock, wanted.words))
    return await in_place(store, clock, settings.leases.duration, found, wanted.words, _waiting)


def _waiting(seconds: float) -> None:
    click.echo(f"looking for {seconds:g} s whether workers still run", err=True)


def _progress() -> Callable[[Counts], None]:
    """A line that is written over, on a terminal; nothing elsewhere."""
    shown_at = 0.0

    def show(counts: Counts) -> None:
        nonlocal shown_at
        if sys.stderr.isatty() and time.monotonic() - shown_at > _SHOW_EVERY:
            shown_at = time.monotonic()
            text = f"{counts.read} records read, {counts.records} to be replayed"
            click.echo(f"\r{text:<70}", err=True, nl=False)

    return show


# --- what is shown -----------------------------------------------------------------------------------


def _show(wanted: _Wanted, result: _Result, output: str) -> None:
    from consumer.domain.kcl_leases import some

    document = _document(wanted, result)
    if output == "json":
        echo_json(document)
        return
    click.echo(plain(f"application {document['application']}, stream {document['stream_arn']}, {wanted.words}"))
    counted = ("records", "matched") if result.counts else ()
    names = ("shard_id", "before", "after", *counted, "note")
    rows = [["SHARD", "NOW", "THEN", *map(str.upper, counted), "NOTE"]]
    rows += [[str(row.get(name, "")) for name in names] for row in document["rows"]]
    if len(rows) > 1:
        click.echo(table(rows))
    for name, why in (("passed", "had ended before"), ("left", "left the stream, and cannot be replayed")):
        if document[name]:
            click.echo(f"{len(document[name])} shards {why}: {plain(some(document[name]))}")
    if result.counts:
        click.echo(f"{result.counts.records} records, {result.counts.matched} of them pass the filters")


def _document(wanted: _Wanted, result: _Result) -> dict[str, Any]:
    plan, counts = result.found.plan, result.counts
    rows: list[dict[str, Any]] = []
    for one in plan.rows:
        row: dict[str, Any] = {
            "shard_id": one.shard_id,
            "before": "no row" if one.before is None else _row(one.before),
            "after": _row(one.after),
            "note": one.note,
        }
        if counts is not None and one.shard_id in counts.shards:
            found = counts.shards[one.shard_id]
            row |= {"records": found.records, "matched": found.matched}
        rows.append(row)
    document: dict[str, Any] = {
        "application": wanted.another or wanted.settings.application,
        "stream_arn": result.found.stream.stream_arn,
        "from": wanted.words,
        "written": result.written,
        "rows": rows,
        "passed": list(plan.passed),
        "left": list(plan.left),
        "problems": list(plan.problems),
    }
    if counts is not None:
        document |= {"records": counts.records, "matched": counts.matched}
    return document


def _row(row: LeaseRow) -> str:
    frontier = row.frontier
    if frontier.low is not None:
        return f"{row.state} after {frontier.low}"
    if frontier.first is not None:
        return f"{row.state} at {frontier.first}"
    if row.replay is not None and row.replay.since:
        return f"{row.state} from {dt.datetime.fromtimestamp(row.replay.since, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    return row.state


def _end(wanted: _Wanted, result: _Result) -> None:
    plan = result.found.plan
    if plan.problems:
        for problem in plan.problems[:-1]:
            click.echo(f"stream-consumer: {problem}", err=True)
        fail(plan.problems[-1], EX_CONFIG)
    if wanted.dry_run:
        click.echo("nothing was written (--dry-run)", err=True)
    elif result.written is None:
        fail(f"nothing was written: add --yes to write {len(plan.rows)} rows", EX_USAGE)
    else:
        name = wanted.another or wanted.settings.application
        click.echo(f"{result.written} rows written: `run` with application: {name} handles the records", err=True)
