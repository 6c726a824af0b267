"""The status page: one HTML document without scripts or external assets, and the same as JSON.

Every value is escaped, also those that should be harmless: table names, notes and error texts come from outside.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
from html import escape
from typing import Any, Final

from consumer.operate.status import ShardStatus, Status, StatusBoard

REFRESH_SECONDS: Final = 5
MAX_ROWS: Final = 500  # the page stays readable, and small enough for its time-out, on streams with many shards
DASH: Final = "–"

_STYLE: Final = """
:root{color-scheme:light dark}
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
h1{font-size:1.3rem;margin:0}h2{font-size:1rem;margin:1.6rem 0 .4rem}
.ok{color:#18794e}.bad{color:#c62828;font-weight:600}.dim{opacity:.7}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #8884;vertical-align:top;overflow-wrap:anywhere}
th{font-weight:600;white-space:nowrap}.n{text-align:right}.n,.w{white-space:nowrap}
tr.mine td:first-child{border-left:3px solid #18794e}
"""


def status_json(board: StatusBoard) -> bytes:
    """Everything the page shows, for scripts. Times are Unix seconds."""
    healthy, health = board.health()
    ready, readiness = board.readiness()
    body: dict[str, Any] = {
        "healthy": healthy,
        "health": health,
        "ready": ready,
        "readiness": readiness,
        "progress_age": round(board.progress_age, 3),
        "errors": [dataclasses.asdict(error) for error in board.errors],
    }
    if board.status is not None:
        body |= dataclasses.asdict(board.status)
        body["shards"] = [{name: _finite(value) for name, value in shard.items()} for shard in body["shards"]]
    return json.dumps(body, default=str).encode("ascii")


def status_page(board: StatusBoard) -> bytes:
    """The page for people."""
    status = board.status
    title = "stream-consumer" if status is None else f"{status.application} on {status.table}"
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        f'<meta http-equiv=refresh content="{REFRESH_SECONDS}"><meta name=viewport content="width=device-width">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        _verdict(board),
    ]
    if status is None:
        parts.append("<p>Starting: there is nothing to show yet.</p>")
    else:
        parts += [_about(status), _totals(status), _shards(status.shards)]
    parts += [_errors(board), "<p class=dim><a href=/status.json>status.json</a> · <a href=/metrics>metrics</a></p>"]
    parts.append("</body></html>")
    return "".join(parts).encode("utf-8", "replace")


def _verdict(board: StatusBoard) -> str:
    healthy, health = board.health()
    ready, readiness = board.readiness()
    return (
        f"<p><span class={'ok' if healthy else 'bad'}>{'healthy' if healthy else escape(health)}</span> · "
        f"<span class={'ok' if ready else 'bad'}>{escape(readiness)}</span></p>"
    )


def _about(status: Status) -> str:
    mine = sum(shard.mine for shard in status.shards)
    lags = [shard.lag for shard in status.shards if shard.lag is not None]
    rows = {
        "worker": status.incarnation,
        "workers": str(status.workers),
        "shards": f"{mine} here, {len(status.shards)} in all",
        "lag here": _seconds(max(lags, default=None)),
        "parked keys": _parked(status),
        "stream": status.stream_arn or DASH,
        "version": status.version or DASH,
        "started": _time(status.started_at),
        "updated": _time(status.updated_at),
    }
    return "<table>" + "".join(f"<tr><th>{k}</th><td>{escape(v)}</td></tr>" for k, v in rows.items()) + "</table>"


def _parked(status: Status) -> str:
    if not status.parked_keys:
        return "none"
    since = _time(status.oldest_parked) if status.oldest_parked else "unknown"
    return f"{status.parked_keys:,}, the first since {since}; stream-consumer dlq redrive brings them back"


def _totals(status: Status) -> str:
    if not status.totals:
        return ""
    names = "".join(f"<th class=n>{escape(name.replace('_', ' '))}</th>" for name in status.totals)
    values = "".join(f"<td class=n>{value:,}</td>" for value in status.totals.values())
    return f"<h2>Since the start</h2><table><tr>{names}</tr><tr>{values}</tr></table>"


def _shards(shards: tuple[ShardStatus, ...]) -> str:
    head = (
        "<h2>Shards</h2><table><tr><th>shard</th><th>state</th><th>owner</th><th class=n>epoch</th><th class=n>lag</th>"
        "<th class=n>in flight</th><th class=n>retrying keys</th><th class=n>deferred keys</th>"
        "<th class=n>parked keys</th><th class=n>checkpoint age</th><th>note</th></tr>"
    )
    ordered = sorted(shards, key=lambda shard: (not shard.mine, shard.state == "done", shard.shard_id))
    rows = "".join(_shard_row(shard) for shard in ordered[:MAX_ROWS])
    more = f"<p class=dim>and {len(shards) - MAX_ROWS} more</p>" if len(shards) > MAX_ROWS else ""
    return f"{head}{rows}</table>{more}"


def _shard_row(shard: ShardStatus) -> str:
    alarming = shard.state in ("halted", "quarantined")
    owner = "this worker" if shard.mine else (shard.owner or DASH)
    return (
        f"<tr{' class=mine' if shard.mine else ''}><td>{escape(shard.shard_id)}</td>"
        f"<td{' class=bad' if alarming else ''}>{escape(shard.state)}</td><td>{escape(owner)}</td>"
        f"<td class=n>{shard.epoch}</td><td class=n>{_seconds(shard.lag)}</td>"
        f"<td class=n>{_count(shard.in_flight)}</td><td class=n>{_count(shard.retrying_keys)}</td>"
        f"<td class=n>{_count(shard.deferred_keys)}</td><td class=n>{_count(shard.parked_keys)}</td>"
        f"<td class=n>{_seconds(shard.checkpoint_age)}</td>"
        f"<td{' class=bad' if shard.breaker in ('probing', 'open') else ''}>{escape(shard.note)}</td></tr>"
    )


def _errors(board: StatusBoard) -> str:
    errors = board.errors
    if not errors:
        return "<h2>Recent errors</h2><p class=dim>none</p>"
    rows = "".join(
        f"<tr><td class=w>{_time(error.at)}</td><td class=w>{escape(error.event)}{_times(error.count)}</td>"
        f"<td>{escape(error.detail)}</td></tr>"
        for error in errors
    )
    return f"<h2>Recent errors</h2><table><tr><th>time</th><th>event</th><th>detail</th></tr>{rows}</table>"


def _times(count: int) -> str:
    return f" x{count}" if count > 1 else ""


def _count(value: int | None) -> str:
    return DASH if value is None else f"{value:,}"


def _seconds(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return DASH
    if value < 120:
        return f"{value:.1f}s"
    minutes, hours = value / 60, value / 3600
    return f"{minutes:.0f}m" if minutes < 120 else f"{hours:.1f}h"


def _time(seconds: float) -> str:
    if not seconds:
        return DASH
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
