"""A verdict as one self-contained page: no network, light and dark, keyboard, screen reader.

The page is made of the files in ``page/``; every text that comes from a recording goes
through :func:`html.escape` or JSON in which ``<`` is escaped, and its scripts only ever set
text, never markup.  A content security policy forbids the network and every script and
style but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib import resources
from string import Template
from typing import Any, TextIO

from highmem import __version__
from highmem.findings import Confidence, Finding
from highmem.kernel.layout import Layout
from highmem.kernel.profile import Era
from highmem.replay.mappings import Mappings
from highmem.replay.verdict import CallerStats, Verdict
from highmem.report.charts import bars, depth_rows, hold_rows, time_text
from highmem.report.timeline import Lane, Timeline
from highmem.report.windows import NO_CALLER

__all__ = ["Page"]

_MOST_FINDINGS = 500
_MOST_CALLERS = 1000
_MOST_TASKS = 200


class Page:
    """A sink that collects what the page shows; its size is bounded (see ``timeline``)."""

    def __init__(self, most_exact: int | None = None) -> None:
        self._timeline = Timeline() if most_exact is None else Timeline(most_exact)

    def begin(self, layout: Layout) -> None:
        """Windows have numbers from now on."""
        self._timeline.begin(layout)

    def add(self, mappings: Mappings) -> None:
        """The next batch."""
        self._timeline.add(mappings)

    def write(self, verdict: Verdict, stream: TextIO) -> None:
        """Write the whole page."""
        page = resources.files("highmem.report") / "page"
        style, script, frame = (
            (page / name).read_text("utf-8") for name in ("page.css", "page.js", "page.html")
        )
        lanes = self._timeline.lanes()
        word, state = _state(verdict)
        parts = {
            "policy": _policy(style, script),
            "style": style,
            "script": script,
            "name": escape(verdict.name),
            "state": state,
            "word": escape(word),
            "version": escape(__version__),
            "summary": _summary(verdict),
            "findings": _findings(verdict),
            "lanes": _lanes(lanes, self._timeline.last_ns - self._timeline.first_ns),
            "depth": bars(depth_rows(verdict.depths), "Nesting depth", "depth", "maps"),
            "holds": bars(hold_rows(verdict.holds), "Hold times", "held", "windows"),
            "hold_note": escape(_hold_note(verdict)),
            "callers": _callers(verdict),
            "tasks": _tasks(verdict),
            "data": _json(self._data(verdict, lanes)),
        }
        stream.write(Template(frame).substitute(parts))

    def _data(self, verdict: Verdict, lanes: list[Lane]) -> dict[str, Any]:
        timeline = self._timeline
        return {
            "first": timeline.first_ns,
            "last": max(timeline.last_ns, timeline.first_ns + 1),
            "mappings": timeline.mappings,
            "lanes": [
                {
                    "cpu": lane.cpu,
                    "name": lane.name,
                    # Thin lines for what would fill the page: permanent windows, and windows of
                    # which no unmap was recorded.
                    "thin": lane.cpu < 0 or lane.mappings == lane.open_at_end,
                }
                for lane in lanes
            ],
            "levels": timeline.levels(lanes) if lanes else [],
            "exact": timeline.exact(lanes),
            "findings": [
                {
                    "rule": found.rule.name,
                    "level": found.rule.level.value,
                    "ns": found.where.time_ns,
                    "cpu": found.where.cpu,
                    "address": found.where.address,
                }
                for found in verdict.findings[:_MOST_FINDINGS]
            ],
        }


def _policy(style: str, script: str) -> str:
    hashes = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in (("style", style), ("script", script))
    }
    return (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; "
        f"style-src 'sha256-{hashes['style']}'; base-uri 'none'; form-action 'none'"
    )


def _json(value: Any) -> str:
    """JSON that can stand inside a script element whatever its texts are."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _state(verdict: Verdict) -> tuple[str, str]:
    """The verdict in a word, and the class that colours it."""
    worth = [found for found in verdict.findings if found.rule.name != "lost-events"]
    if worth:
        return f"{len(worth):,} finding{'s' if len(worth) != 1 else ''}", "bad"
    if verdict.exit_code == 3:
        return "incomplete; nothing wrong in what was recorded", "warn"
    return "clean", "good"


def _summary(verdict: Verdict) -> str:
    account = verdict.account
    rows = [
        ("Kernel", f"{verdict.profile.title} [{verdict.profile.name}]"),
        ("Profile", verdict.profile_how),
        (
            "Read",
            f"{account.lines:,} lines ({verdict.format}) = {account.events:,} events + "
            f"{account.passed_over:,} passed over + {account.rejected:,} rejected",
        ),
        ("Duration", time_text(max(0, verdict.last_ns - verdict.first_ns))),
        ("Addresses", _addresses(verdict)),
        (
            "Calls",
            f"{verdict.map_calls:,} maps ({verdict.low_maps:,} of low memory), "
            f"{verdict.unmap_calls + verdict.permanent.unmaps:,} unmaps "
            f"({verdict.low_unmaps:,} of low memory)",
        ),
        ("Depth", _depth(verdict)),
    ]
    if verdict.permanent.maps:
        stats = verdict.permanent
        rows.append(
            (
                "Permanent",
                f"{stats.maps:,} kmap ({stats.reused:,} found their window), {stats.windows:,} of "
                f"{stats.size:,} windows, at most {stats.most_in_use:,} in use",
            )
        )
    if account.lost:
        rows.append(("Lost", f"{account.lost:,} events, as the recording says"))
    if account.truncated:
        rows.append(("Cut off", "the input ends in the middle"))
    rows += [("Rejected", f"line {r.line}: {r.reason}: {r.text}") for r in account.rejections[:3]]
    unknown = [f"{count:,} {kind}" for kind, count in verdict.unknown.items()]
    many = "".join(f"<dd>{escape(line)}</dd>" for line in unknown)
    return "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in rows) + (
        f"<div><dt>Not known</dt>{many}</div>" if many else ""
    )


def _addresses(verdict: Verdict) -> str:
    text = f"{verdict.right:,} of {verdict.judged:,} predicted right"
    if verdict.wrong:
        text += f", {verdict.wrong:,} WRONG"
    if verdict.unjudged:
        reasons = "; ".join(f"{n:,} {reason}" for reason, n in verdict.not_judged.items())
        text += f"; {verdict.unjudged:,} not judged ({reasons})"
    return text


def _depth(verdict: Verdict) -> str:
    cpus = ", ".join(f"CPU {c.cpu}: {c.deepest}" for _, c in sorted(verdict.cpus.items()))
    return f"deepest {cpus} of {verdict.profile.depth_limit}" if cpus else "no window was opened"


def _findings(verdict: Verdict) -> str:
    if not verdict.findings:
        return '<p class="none">Nothing found.</p>'
    shown = verdict.findings[:_MOST_FINDINGS]
    items = "".join(_finding(found, number) for number, found in enumerate(shown))
    left = len(verdict.findings) - len(shown)
    more = f'<p class="none">… and {left:,} more; --format json has all.</p>' if left else ""
    return f'<ol class="findings">{items}</ol>{more}'


def _finding(found: Finding, number: int) -> str:
    where, rule = found.where, found.rule
    place = [f"line {where.line:,}"] if where.line is not None else []
    if where.time_ns is not None:
        place.append(f"{where.time_ns / 1e9:.6f} s")
    if where.cpu is not None:
        place.append(f"CPU {where.cpu}")
    if where.task:
        place.append(where.task)
    sure = "" if found.confidence is Confidence.CERTAIN else f" ({found.confidence.value})"
    evidence = "".join(f"<li>{escape(line)}</li>" for line in found.evidence)
    show = (
        f'<button type="button" class="show" data-finding="{number}">Show in the timeline</button>'
        if where.time_ns is not None
        else ""
    )
    return (
        f'<li class="finding {rule.level.value}"><h3><span class="level">{rule.level.value}</span> '
        f"{escape(rule.name)}{sure}</h3>"
        f'<p class="where">{escape(" · ".join(place))}</p><p>{escape(found.what)}</p>'
        f"<dl><div><dt>This kernel</dt><dd>{escape(found.kernel_does)}</dd></div>"
        + (
            f'<div><dt>Evidence</dt><dd><ul class="lines">{evidence}</ul></dd></div>'
            if evidence
            else ""
        )
        + f"<div><dt>Mend</dt><dd>{escape(rule.fix)}</dd></div></dl>{show}</li>"
    )


def _hold_note(verdict: Verdict) -> str:
    text = "From the map call's entry to the unmap's, windows whose unmap was recorded. "
    if verdict.profile.era is Era.LOCAL:
        return text + (
            "A window of kmap_atomic() is open with preemption off for all that time; one of "
            "kmap_local_page() only keeps its task on its CPU. From 5.11 on the recorded "
            "functions are the same for both."
        )
    return text + (
        "Every one of these windows is kmap_atomic()'s, but the permanent ones: for that time "
        "preemption and page faults were off on its CPU."
    )


def _callers(verdict: Verdict) -> str:
    callers = sorted(verdict.callers.values(), key=lambda c: (-c.maps, c.caller))
    if not callers:
        return '<p class="none">The recording names no callers.</p>'
    rows = "".join(_caller(caller) for caller in callers[:_MOST_CALLERS])
    heads = (
        ("caller", "s"), ("maps", "n"), ("deepest", "n"), ("held p50", "n"), ("held p99", "n"),
        ("held longest", "n"), ("at line", "n"),
    )  # fmt: skip
    cells = "".join(
        f'<th scope="col" class="{kind}"'
        + (' aria-sort="descending"' if name == "maps" else "")
        + f'><button type="button" class="sort">{name}</button></th>'
        for name, kind in heads
    )
    cut = len(callers) - _MOST_CALLERS
    more = f'<p class="none">… and {cut:,} more callers.</p>' if cut > 0 else ""
    return (
        f'<table id="callers-table" class="sortable"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{rows}</tbody></table>{more}"
    )


def _caller(caller: CallerStats) -> str:
    row = caller.to_dict()
    name = caller.caller or NO_CALLER
    cells = [(f"{caller.maps:,}", caller.maps), (str(caller.deepest), caller.deepest)]
    if caller.closed:
        cells += [(time_text(row[key]), row[key]) for key in ("p50_ns", "p99_ns", "longest_ns")]
        cells.append((f"{caller.longest_line:,}", caller.longest_line))
    else:
        cells += [("-", -1)] * 4
    numbers = "".join(f'<td class="n" data-value="{value}">{text}</td>' for text, value in cells)
    return (
        f'<tr><th scope="row"><button type="button" class="pick" aria-pressed="false">'
        f"{escape(name)}</button></th>{numbers}</tr>"
    )


def _tasks(verdict: Verdict) -> str:
    tasks = sorted(verdict.tasks.values(), key=lambda t: (-t.maps, t.task))
    rows = "".join(
        f'<tr><th scope="row">{escape(task.task)}</th><td class="n">{task.maps:,}</td>'
        f'<td class="n">{task.deepest}</td></tr>'
        for task in tasks[:_MOST_TASKS]
    )
    cut = len(tasks) - _MOST_TASKS
    more = f'<p class="none">… and {cut:,} more tasks.</p>' if cut > 0 else ""
    return (
        '<table><thead><tr><th scope="col">task</th><th scope="col" class="n">maps</th>'
        f'<th scope="col" class="n">deepest</th></tr></thead><tbody>{rows}</tbody></table>{more}'
    )


def _lanes(lanes: list[Lane], duration: int) -> str:
    """The timeline as a table."""
    rows = "".join(
        f'<tr><th scope="row">{escape(_lane_name(lane))}</th><td class="n">{lane.mappings:,}</td>'
        f'<td class="n">{time_text(lane.longest_ns)}</td>'
        f'<td class="n">{lane.open_at_end:,}</td></tr>'
        for lane in lanes
    )
    return (
        f"<p>{len(lanes):,} windows over {time_text(max(0, duration))}.</p>"
        '<table><thead><tr><th scope="col">window</th><th scope="col" class="n">mappings</th>'
        '<th scope="col" class="n">held longest</th><th scope="col" class="n">open at the end</th>'
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )


def _lane_name(lane: Lane) -> str:
    return f"CPU {lane.cpu}, {lane.name}" if lane.cpu >= 0 else lane.name
