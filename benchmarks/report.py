"""Results as text, and as a bar chart in SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

BASELINE = "naive, no-op"
_BARS = (
    "naive, no-op",
    "naive, two fields",
    "naive, both images",
    "naive, lambda in-process",
    "daemon, lambda, 2 processes",
    "daemon, both images",
    "daemon, both images, compiled",
    "daemon, both images typed",
    "daemon, two fields",
    "daemon, reads keys",
    "daemon, no-op",
    "limit",
)


def heading(about: Mapping[str, Any], load: float) -> str:
    """The machine, and how busy it is."""
    return (
        f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, {about['rounds']} rounds; "
        f"load average {load:.1f} now, and beside each row when it began"
    )


def table(medians: Mapping[str, Mapping[str, Any]]) -> str:
    """Every row with its numbers; throughput also as a multiple of the naive loop."""
    lines = []
    base = medians.get(BASELINE, {}).get("per_cpu_second")
    for name, row in medians.items():
        numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
        if base and "per_cpu_second" in numbers:
            numbers["against_naive"] = numbers["per_cpu_second"] / base
        lines.append(f"{name:34} " + "  ".join(f"{key}={short(value)}" for key, value in numbers.items()))
    return "\n".join(lines)


def verdicts(found: list[dict[str, Any]]) -> str:
    """The targets: bound, measured, ok or MISS."""
    return "\n".join(
        f"{entry['target']:75} {entry['bound']:>10}  {short(entry['measured']):>9}  {'ok' if entry['ok'] else 'MISS'}"
        for entry in found
    )


def short(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def chart(medians: Mapping[str, Mapping[str, Any]]) -> str:
    """Records per CPU-second as an SVG; empty when the run had none of its rows."""
    bars = [(name, float(medians[name]["per_cpu_second"])) for name in _BARS if name in medians]
    if not bars:
        return ""
    widest = max(value for _, value in bars)
    height = 34 * len(bars) + 54
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}">',
        "<style>text { font-family: sans-serif; font-size: 13px }</style>",
        f'<rect width="760" height="{height}" fill="#fff"/>',
        '<text x="16" y="26" font-size="15" font-weight="bold">Records per CPU-second (2 KB, both images)</text>',
    ]
    for index, (name, value) in enumerate(bars):
        y = 44 + 34 * index
        color = "#9aa5b1" if name.startswith("naive") else "#d9c58b" if name == "limit" else "#2f6fde"
        width = max(2.0, 430 * value / widest)
        parts.append(f'<text x="206" y="{y + 17}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="214" y="{y}" width="{width:.0f}" height="24" fill="{color}"/>')
        parts.append(f'<text x="{220 + width:.0f}" y="{y + 17}">{value:,.0f}</text>')
    return "\n".join([*parts, "</svg>\n"])
