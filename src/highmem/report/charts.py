"""Histograms as SVG with a table beside each, for the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from highmem.replay.histogram import upper_end

__all__ = ["bars", "depth_rows", "hold_rows", "time_text"]

_LIFT = 0.2
"""Decades that the scale begins below 1, so that a single window is a bar of some height."""
_HEIGHT, _FOOT, _HEAD, _LEFT = 170, 34, 18, 44


def time_text(ns: float) -> str:
    """A time for people: four digits at most, and its unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.4g} {unit}"
    return f"{ns:.4g} ns"


def depth_rows(depths: Mapping[int, int]) -> list[tuple[str, int]]:
    """How many maps reached each depth, none left out."""
    return [(str(depth), depths.get(depth, 0)) for depth in range(1, max(depths, default=0) + 1)]


def hold_rows(holds: Mapping[int, int]) -> list[tuple[str, int]]:
    """How many windows were held how long, in steps of 1, 2, 5, 10 …: each row says up to
    which time.  Times of 0, shorter than a step of the recording's clock, have a row of their
    own."""
    counts: dict[int, int] = {}
    for bucket, count in holds.items():
        edge = _edge(upper_end(bucket))
        counts[edge] = counts.get(edge, 0) + count
    rows = [("0", counts.pop(0))] if 0 in counts else []
    edge = min(counts, default=0)
    while counts and edge <= max(counts):
        rows.append((f"≤ {time_text(edge)}", counts.get(edge, 0)))
        edge = _edge(edge + 1)
    return rows


def _edge(ns: int) -> int:
    """The first of 0, 1, 2, 5, 10, 20 … ns that is not less than *ns*."""
    if ns <= 0:
        return 0
    decade = 1
    while True:
        for digit in (1, 2, 5):
            if ns <= digit * decade:
                return digit * decade
        decade *= 10


def bars(rows: Sequence[tuple[str, int]], title: str, first: str, second: str) -> str:
    """A histogram of *rows*, and its table for those who do not see it.

    Counts are drawn on a logarithmic scale: one window held too long counts as much for the
    reader as the thousands that were not.
    """
    if not rows:
        return '<p class="none">Nothing to show.</p>'
    return _svg(rows, title) + _table(rows, title, first, second)


def _svg(rows: Sequence[tuple[str, int]], title: str) -> str:
    step = min(90, max(46, 560 // len(rows)))
    width = _LEFT + step * len(rows) + 10
    decades = max(1, math.ceil(math.log10(max(count for _, count in rows) + 1)))
    plot = _HEIGHT - _FOOT - _HEAD
    parts = []
    for decade in range(decades + 1):
        y = _HEAD + plot * (1 - (decade + _LIFT) / (decades + _LIFT))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = f"{10**decade:,}" if decade < 4 else f"10{_superscript(decade)}"
        parts.append(f'<text class="axis" x="{_LEFT - 5}" y="{y + 4:.1f}">{label}</text>')
    for number, (label, count) in enumerate(rows):
        share = (math.log10(count) + _LIFT) / (decades + _LIFT) if count else 0
        tall = plot * share
        x, y = _LEFT + number * step + 3, _HEAD + plot - tall
        middle = x + (step - 6) / 2
        parts.append(
            f'<g><title>{escape(label)}: {count:,}</title><rect class="bar" x="{x}" y="{y:.1f}" '
            f'width="{step - 6}" height="{tall:.1f}"/>'
        )
        if count:
            shown = f"{count:,}" if count < 10_000 else f"{count / 1000:,.0f}k"
            parts.append(f'<text class="count" x="{middle:.1f}" y="{y - 4:.1f}">{shown}</text>')
        text = escape(label.removeprefix("≤ "))
        parts.append(f'<text class="tick" x="{middle:.1f}" y="{_HEIGHT - 18}">{text}</text></g>')
    return (
        f'<svg class="chart" viewBox="0 0 {width} {_HEIGHT}" width="{width}" height="{_HEIGHT}" '
        f'role="img" aria-label="{escape(title)}; the same numbers are in the table below">'
        + "".join(parts)
        + "</svg>"
    )


def _superscript(number: int) -> str:
    return "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(number))


def _table(rows: Sequence[tuple[str, int]], title: str, first: str, second: str) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td class="n">{count:,}</td></tr>'
        for label, count in rows
    )
    return (
        f"<details><summary>{escape(title)} as a table</summary><table><thead><tr>"
        f'<th scope="col">{escape(first)}</th><th scope="col" class="n">{escape(second)}</th>'
        f"</tr></thead><tbody>{body}</tbody></table></details>"
    )
