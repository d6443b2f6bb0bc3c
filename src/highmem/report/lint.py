"""What lint found, for people, compilers' readers and GitHub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from highmem import __version__
from highmem.findings import RULES, Confidence, Level
from highmem.lint.result import LintFinding
from highmem.lint.shown.excerpt import Excerpts
from highmem.lint.shown.select import Shown
from highmem.trace.printable import printable

__all__ = [  # table
    "gcc_lines",
    "github_lines",
    "level_of",
    "lint_document",
    "render_lint",
    "summary_lines",
]

_COLOURS = {Level.ERROR: "bold red", Level.WARNING: "bold yellow", Level.NOTE: "bold cyan"}
_WIDEST = 100
_SHOWN_REASONS = 5


def level_of(found: LintFinding) -> Level:
    """How loud a finding is: one that is not certain is no error."""
    level = RULES[found.rule].level
    if level is Level.ERROR and found.confidence is not Confidence.CERTAIN:
        return Level.WARNING
    return level


def gcc_lines(shown: Shown) -> Iterator[str]:
    """One line a finding and one for each step, as gcc prints diagnostics."""
    for found in shown.findings:
        path = printable(found.path)
        yield (
            f"{path}:{found.line}:{found.column}: {level_of(found).value}: "
            f"{printable(found.what)} [{_tag(found)}]"
        )
        for step in found.steps:
            yield f"{path}:{step.line}:{step.column}: note: {printable(step.text)}"


def _tag(found: LintFinding) -> str:
    sure = "" if found.confidence is Confidence.CERTAIN else f", {found.confidence.value}"
    return found.rule + sure


def github_lines(shown: Shown) -> Iterator[str]:
    """Workflow commands that GitHub shows beside the lines of a change."""
    words = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "notice"}
    for found in shown.findings:
        place = ",".join(
            f"{name}={_property(str(value))}"
            for name, value in (
                ("file", found.path),
                ("line", found.line),
                ("endLine", found.end_line),
                ("col", found.column),
                ("title", f"highmem: {_tag(found)}"),
            )
        )
        text = [printable(found.what), f"HIGHMEM kernels: {printable(found.kernel_does)}"]
        text += [f"line {step.line}: {printable(step.text)}" for step in found.steps]
        text.append(f"Mend: {printable(found.fix)}")
        yield f"::{words[level_of(found)]} {place}::{_data(chr(10).join(text))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(printable(text)).replace(":", "%3A").replace(",", "%2C")


def lint_document(shown: Shown, marks: Sequence[str]) -> dict[str, Any]:
    """Everything, for JSON; *marks* are the fingerprints of the findings shown."""
    report = shown.report
    return {
        "highmem": __version__,
        "summary": {**report.counts(), "shown": len(shown.findings)},
        "findings": [
            {**found.to_dict(), "fingerprint": mark}
            for found, mark in zip(shown.findings, marks, strict=True)
        ],
        "allowed": [
            {**found.to_dict(), "reason": reason} for found, reason in shown.allowed
        ],
        "hidden": dict(sorted(shown.hidden.items())),
        "rejected": [{"path": path, "why": why} for path, why in shown.rejected],
        "partial": [
            {"path": one.path, "function": function.name, "line": function.line,
             "reasons": list(function.reasons)}
            for one in report.files for function in one.functions if function.status == "partial"
        ],
        "notes": list(shown.notes),
    }  # fmt: skip


def render_lint(shown: Shown, console: Console, excerpts: Excerpts, *, quiet: bool = False) -> None:
    """Print each finding with its path through the source, then, unless *quiet*, what was read."""
    for found in shown.findings:
        console.print(_title(found))
        console.print(Padding(_body(found, excerpts), (0, 0, 1, 2)))
    if not quiet:
        for line in summary_lines(shown):
            console.print(Text(line))


def _title(found: LintFinding) -> Text:
    level = level_of(found)
    inside = f"  in {printable(found.function)}()" if found.function else ""
    sure = "" if found.confidence is Confidence.CERTAIN else f" ({found.confidence.value})"
    return Text.assemble(
        (level.value, _COLOURS[level]),
        (f" {found.rule}", "bold"),
        f"{sure}  {printable(found.path)}:{found.line}:{found.column}{inside}",
    )


def _body(found: LintFinding, excerpts: Excerpts) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("what", printable(found.what))
    steps = Table.grid(padding=(0, 2, 0, 0))
    steps.add_column(justify="right", style="dim")
    steps.add_column(no_wrap=True, overflow="ellipsis", max_width=_WIDEST // 2)
    steps.add_column(style="cyan", overflow="fold")
    for step in found.steps:
        source = printable(excerpts.line(found.path, step.line).strip(), _WIDEST)
        steps.add_row(str(step.line), Text(source), printable(step.text))
    if not any(step.line == found.line for step in found.steps):
        here = excerpts.line(found.path, found.line).strip()
        steps.add_row(str(found.line), Text(printable(here, _WIDEST)), "here")
    table.add_row("path", steps)
    table.add_row("HIGHMEM", printable(found.kernel_does))
    table.add_row("mend", printable(found.fix))
    return table


def summary_lines(shown: Shown) -> Iterator[str]:
    """What was read, what was not analysed and why, what is not shown."""
    counts = shown.report.counts()
    files = "file" if counts["files"] == 1 else "files"
    yield (
        f"read {counts['files']:,} {files} = {counts['analysed']:,} analysed + "
        f"{counts['skipped']:,} without such calls + {counts['rejected']:,} rejected"
    )
    yield (
        f"{counts['functions']:,} functions with mapping calls: {counts['full']:,} fully analysed, "
        f"{counts['partial']:,} partly; {counts['mapping_calls']:,} calls"
    )
    yield from _partial_lines(shown)
    for path, why in shown.rejected:
        yield f"rejected {printable(path)}: {printable(why)}"
    if shown.allowed:
        yield f"{len(shown.allowed):,} allowed in the source"
    for why, count in sorted(shown.hidden.items()):
        yield f"{count:,} not shown: {why}"
    yield from map(printable, shown.notes)
    number = len(shown.findings)
    how = "nothing found" if not number else f"{number:,} finding{'s' if number != 1 else ''}"
    yield f"lint: {how}  (highmem {__version__})"


def _partial_lines(shown: Shown) -> Iterator[str]:
    """Why functions were analysed in part, the most frequent reasons first."""
    reasons: dict[str, int] = {}
    for one in shown.report.files:
        for function in one.functions:
            for reason in set(function.reasons):
                reasons[reason] = reasons.get(reason, 0) + 1
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    for reason, count in ranked[:_SHOWN_REASONS]:
        yield f"  {count:,} partly: {printable(reason)}"
    if len(ranked) > _SHOWN_REASONS:
        yield f"  and {len(ranked) - _SHOWN_REASONS} more reasons (--format json lists all)"
