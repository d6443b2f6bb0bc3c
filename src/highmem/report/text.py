"""Verdicts and rules as text: at most a screen when nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from highmem import __version__
from highmem.findings import Confidence, Finding, Level, Rule
from highmem.replay.verdict import CallerStats, Verdict
from highmem.trace.printable import printable

__all__ = ["render_rule", "render_rules", "render_verdict"]

_COLOURS = {Level.ERROR: "bold red", Level.WARNING: "bold yellow", Level.NOTE: "cyan"}
_FINDINGS_SHOWN = 20
_NOTES_SHOWN = 3


def render_verdict(verdict: Verdict, console: Console, *, quiet: bool = False) -> None:
    """Print *verdict*; with *quiet* the findings only."""
    if not quiet:
        console.print(_head(verdict))
        console.print(_numbers(verdict))
        console.print(_callers(verdict))
    for finding in verdict.findings[:_FINDINGS_SHOWN]:
        console.print(_finding(finding, verdict))
    left = len(verdict.findings) - _FINDINGS_SHOWN
    if left > 0:
        console.print(f"… and {left} more findings; --format json has all")
    if not quiet:
        console.print(_conclusion(verdict))


def _head(verdict: Verdict) -> RenderableType:
    account = verdict.account
    table = _plain_table()
    table.add_row("recording", _one_line(f"{printable(verdict.name)} ({verdict.format})"))
    read = (
        f"{account.lines:,} lines = {account.events:,} events + {account.passed_over:,} passed "
        f"over + {account.rejected:,} rejected"
    )
    if verdict.last_ns > verdict.first_ns:
        read += f"; {(verdict.last_ns - verdict.first_ns) / 1e9:.3f} s"
    table.add_row("read", read)
    for rejection in account.rejections[:3]:
        shown = f"line {rejection.line}: {rejection.reason}: {printable(rejection.text)[:60]}"
        table.add_row("", Text(shown, style="yellow"))
    if account.lost:
        table.add_row("lost", Text(f"{account.lost:,} events, as the recording says", "yellow"))
    if account.truncated:
        table.add_row("cut off", Text("the input ends in the middle", "yellow"))
    for note in account.notes[:_NOTES_SHOWN]:
        table.add_row("note", Text(printable(note), style="dim"))
    table.add_row("kernel", printable(f"{verdict.profile.title} [{verdict.profile.name}]"))
    table.add_row("", Text(printable(verdict.profile_how), style="dim"))
    return table


def _numbers(verdict: Verdict) -> RenderableType:
    table = _plain_table()
    right = Text(f"{verdict.right:,} of {verdict.judged:,} right", style="bold green")
    if verdict.wrong:
        right = Text(f"{verdict.wrong:,} of {verdict.judged:,} WRONG", style="bold red")
    if verdict.unjudged:
        reasons = "; ".join(f"{n:,} {reason}" for reason, n in verdict.not_judged.items())
        right += Text(f"; {verdict.unjudged:,} not judged ({reasons})", style="default not bold")
    table.add_row("addresses", right)
    calls = f"{verdict.map_calls:,} maps"
    if verdict.low_maps:
        calls += f" ({verdict.low_maps:,} of low memory)"
    calls += f", {verdict.unmap_calls + verdict.permanent.unmaps:,} unmaps"
    if verdict.low_unmaps:
        calls += f" ({verdict.low_unmaps:,} of low memory)"
    tasks = len(verdict.tasks)
    table.add_row("calls", calls + f", {tasks:,} task{'s' if tasks != 1 else ''}")
    table.add_row("depth", _depth(verdict))
    if verdict.permanent.maps:
        table.add_row("permanent", _permanent(verdict))
    for held in verdict.held[:4]:
        text = f"{held.address:#010x}, {held.page}, by {held.task}, line {held.line}"
        table.add_row("open at end", printable(text))
    if len(verdict.held) > 4:
        table.add_row("", f"… and {len(verdict.held) - 4:,} more")
    for kind, count in verdict.unknown.items():
        table.add_row("not known", Text(f"{count:,} {kind}", style="dim"))
    return table


def _depth(verdict: Verdict) -> str:
    limit = verdict.profile.depth_limit
    per_cpu = ", ".join(f"CPU {c.cpu}: {c.deepest}" for _, c in sorted(verdict.cpus.items())[:16])
    levels = ", ".join(f"{n:,} at {depth}" for depth, n in sorted(verdict.depths.items())[:6])
    return f"deepest {per_cpu} of {limit}; maps: {levels or 'none'}"


def _permanent(verdict: Verdict) -> str:
    stats = verdict.permanent
    return (
        f"{stats.maps:,} kmap ({stats.reused:,} found their window), {stats.windows:,} of "
        f"{stats.size:,} windows, at most {stats.most_in_use:,} in use, "
        f"{stats.in_use_at_end:,} at the end"
    )


def _callers(verdict: Verdict) -> RenderableType:
    if not verdict.callers:
        return Text("")
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("callers that map most", "maps", "deepest", "held on average", "longest"):
        table.add_column(title, justify="left" if title[0] == "c" else "right")
    for caller in _interesting(verdict.callers.values()):
        mean = _time(caller.total_ns // caller.closed) if caller.closed else "-"
        longest = "-"
        if caller.closed:
            longest = f"{_time(caller.longest_ns)} (line {caller.longest_line})"
        name = printable(caller.caller) or "(not recorded)"
        table.add_row(name, f"{caller.maps:,}", str(caller.deepest), mean, longest)
    return Padding(table, (1, 0))


def _interesting(callers: Iterable[CallerStats]) -> list[CallerStats]:
    """The four that map most, and the ones that nest deepest and hold longest."""
    every = list(callers)
    most = sorted(every, key=lambda c: -c.maps)[:4]
    deepest = max(every, key=lambda c: (c.deepest, c.maps))
    longest = max(every, key=lambda c: c.longest_ns)
    return list({id(c): c for c in [*most, deepest, longest]}.values())


def _time(ns: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= size:
            return f"{ns / size:.4g} {unit}"
    return f"{ns} ns"


def _finding(finding: Finding, verdict: Verdict) -> RenderableType:
    rule, where = finding.rule, finding.where
    place = f"{printable(verdict.name)}:{where.line}" if where.line else printable(verdict.name)
    sure = "" if finding.confidence is Confidence.CERTAIN else f" ({finding.confidence.value})"
    title = Text.assemble(
        (f"{rule.level.value}", _COLOURS[rule.level]), (f" {rule.name}", "bold"), f"{sure}  {place}"
    )
    table = _plain_table(first="dim")
    details = []
    if where.time_ns is not None:
        details.append(f"{where.time_ns / 1e9:.6f} s")
    if where.cpu is not None:
        details.append(f"CPU {where.cpu}")
    if where.task:
        details.append(printable(where.task))
    table.add_row("what", printable(finding.what))
    if details:
        table.add_row("when", ", ".join(details))
    table.add_row("this kernel", printable(finding.kernel_does))
    for number, line in enumerate(finding.evidence):
        table.add_row("evidence" if not number else "", printable(line))
    table.add_row("mend", rule.fix)
    return Padding(Group(title, Padding(table, (0, 0, 0, 2))), (0, 0, 1, 0))


def _conclusion(verdict: Verdict) -> Text:
    worth = [f for f in verdict.findings if f.rule.name != "lost-events"]
    if worth:
        count = f"{len(worth)} finding{'s' if len(worth) != 1 else ''}"
        text = Text(f"verdict: {count}", style="bold red")
    elif verdict.exit_code == 3:
        text = Text("verdict: incomplete; nothing wrong in what was recorded", "bold yellow")
    else:
        text = Text("verdict: clean", style="bold green")
    return text + Text(f"  (highmem {__version__})", style="dim not bold")


def _plain_table(first: str = "bold") -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=first, no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def render_rules(rules: Iterable[Rule], console: Console) -> None:
    """Print one line for each rule."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for rule in rules:
        table.add_row(
            Text(rule.name, style="bold"), Text(rule.level.value, _COLOURS[rule.level]), rule.title
        )
    console.print(table)


def render_rule(rule: Rule, console: Console) -> None:
    """Print everything about one rule."""
    console.print(
        Text.assemble((rule.name, "bold"), "  ", (rule.level.value, _COLOURS[rule.level]))
    )
    console.print(rule.title + "\n")
    console.print(rule.explanation + "\n")
    if rule.example:
        from rich.syntax import Syntax  # here: it takes longer to import than all the rest

        console.print(Padding(Syntax(rule.example, "c", background_color="default"), (0, 0, 0, 2)))
        console.print()
    console.print(f"Mend: {rule.fix}")
