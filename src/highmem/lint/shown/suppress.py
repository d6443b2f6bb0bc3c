"""Findings that the source itself allows, with a reason.

::

    /* highmem: allow(unmap-order) both windows show the same page */

The comment speaks for its own line, for the next line of code where it stands alone, and for a
whole function where it stands before one.  Without a reason it allows nothing.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass

from highmem.findings import RULES
from highmem.lint.result import FunctionReport, LintFinding

__all__ = ["Allow", "Allowed", "allowed", "find_allows"]

_MARK = re.compile(rb"highmem\s*:\s*allow\b")
_WHOLE = re.compile(
    rb"(?P<open>/\*|//)[\s*]*highmem\s*:\s*allow\s*(?:\((?P<rules>[^)\n]{0,500})\))?(?P<rest>[^\n]*)"
)


@dataclass(frozen=True, slots=True)
class Allow:
    """One comment."""

    line: int
    """Where it begins."""
    rules: frozenset[str]
    reason: str
    lines: range
    """The lines it speaks for."""
    function: str = ""
    """The function it stands before, or empty."""
    fault: str = ""
    """Why it allows nothing, where it does not."""

    def covers(self, found: LintFinding) -> bool:
        """Whether it allows *found*."""
        if self.fault or found.rule not in self.rules:
            return False
        return found.line in self.lines or (bool(self.function) and found.function == self.function)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the comments of one file do to its findings."""

    kept: tuple[LintFinding, ...]
    allowed: tuple[tuple[LintFinding, str], ...]
    """Findings with the reason that stands in the source."""
    notes: tuple[tuple[int, str], ...]
    """Comments that allow nothing: line and why."""


def allowed(
    text: bytes,
    findings: Sequence[LintFinding],
    functions: Sequence[FunctionReport],
    wanted: frozenset[str] | None = None,
) -> Allowed:
    """Sort the *findings* of the file that holds *text* by its comments.

    Of a comment that allows other rules than those *wanted* it is not said that no finding
    needs it: nobody looked.
    """
    allows = find_allows(text, functions)
    if not allows:
        return Allowed(tuple(findings), (), ())
    kept, excused, used = [], [], set()
    for found in findings:
        by = next((allow for allow in allows if allow.covers(found)), None)
        if by is None:
            kept.append(found)
        else:
            excused.append((found, by.reason))
            used.add(by.line)
    notes = [
        (allow.line, allow.fault or "highmem: allow() that no finding needs")
        for allow in allows
        if allow.fault or (allow.line not in used and (wanted is None or allow.rules <= wanted))
    ]
    return Allowed(tuple(kept), tuple(excused), tuple(notes))


def find_allows(text: bytes, functions: Sequence[FunctionReport] = ()) -> list[Allow]:
    """Every such comment of *text*, by line."""
    if not _MARK.search(text):
        return []
    starts = [0, *(match.end() for match in re.finditer(rb"\n", text))]
    begins = sorted((function.line, function.name) for function in functions)
    return [_allow(text, match, starts, begins) for match in _WHOLE.finditer(text)]


def _allow(
    text: bytes, match: re.Match[bytes], starts: list[int], begins: list[tuple[int, str]]
) -> Allow:
    line = bisect.bisect_right(starts, match.start())
    end = _end_of_comment(text, match)
    last = bisect.bisect_right(starts, max(end - 1, 0))
    names = [
        name.strip().decode("utf-8", "replace") for name in (match["rules"] or b"").split(b",")
    ]
    rest = text[match.start("rest") : end].removesuffix(b"*/")
    reason = b" ".join(rest.replace(b"*", b" ").split()).decode("utf-8", "replace")
    lines = range(line, last + 1)
    function = ""
    if not text[starts[line - 1] : match.start()].strip():
        target = _next_code(text, end, starts)
        lines = range(line, target + 1)
        function = _function_after(text, end, last, starts, begins)
    return Allow(line, frozenset(names), reason, lines, function, _fault(names, reason))


def _end_of_comment(text: bytes, match: re.Match[bytes]) -> int:
    """Just past the comment."""
    if match["open"] == b"//":
        return match.end()
    found = text.find(b"*/", match.start())
    return found + 2 if found >= 0 else len(text)


def _fault(names: list[str], reason: str) -> str:
    unknown = [name for name in names if name not in RULES]
    if names == [""]:
        return "highmem: allow names no rule: write allow(rule) and a reason"
    if unknown:
        return f"highmem: allow({unknown[0]}): there is no such rule"
    return "" if reason else f"highmem: allow({', '.join(names)}) gives no reason"


def _next_code(text: bytes, end: int, starts: list[int]) -> int:
    """The line of the first thing after *end* that is not blank."""
    blank = re.compile(rb"\s*").match(text, end)
    assert blank is not None  # it matches nothing, too
    return bisect.bisect_right(starts, blank.end())


def _function_after(
    text: bytes, end: int, last: int, starts: list[int], begins: list[tuple[int, str]]
) -> str:
    """The function whose head follows *end* with nothing finished in between."""
    at = bisect.bisect_right(begins, (last, "\U0010ffff"))
    if at == len(begins):
        return ""
    line, name = begins[at]
    between = text[end : starts[line - 1]]
    return "" if re.search(rb"[;{}]", between) else name
