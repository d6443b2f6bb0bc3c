"""The findings that a change is to blame for.

A finding counts when the change touches it or a step of its path.  Conversions from one family
to another are where many real bugs were born, so one more thing is looked for: a file in which
the change took away the last map of a family and left its unmaps, or the other way round.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from highmem.findings import RULES, Confidence
from highmem.lint.api import ApiTable
from highmem.lint.result import LintFinding, Step
from highmem.lint.shown.patch import Changed

__all__ = ["left_halves", "touched"]

_COMMENT = re.compile(rb"/\*.*?\*/|//[^\n]*|\"(?:[^\"\\\n]|\\.)*\"", re.DOTALL)


def touched(findings: Iterable[LintFinding], change: Changed) -> list[LintFinding]:
    """Those of one file's *findings* whose place or path the change touches."""
    return [found for found in findings if not change.lines.isdisjoint(_lines_of(found))]


def _lines_of(found: LintFinding) -> set[int]:
    return {*range(found.line, found.end_line + 1), *(step.line for step in found.steps)}


def left_halves(text: bytes, change: Changed, table: ApiTable) -> list[LintFinding]:
    """What is left in *text*, the file after the change, of pairs that it altered on one side."""
    opens: Mapping[str, str] = {name: call.family for name, call in table.opens.items()}
    closes: Mapping[str, str] = {name: call.family for name, call in table.closes.items()}
    found: list[LintFinding] = []
    code = _COMMENT.sub(_blanks, text)
    for taken, left, side in ((opens, closes, "map"), (closes, opens, "unmap")):
        for family in sorted(_altered(code, change, taken)):
            if _count(code, left)[family]:
                found += _remaining(text, code, change, family, left, side)
    return found


def _altered(code: bytes, change: Changed, calls: Mapping[str, str]) -> set[str]:
    """Families of which the change took the last of *calls* away."""
    now = _count(code, calls)
    gone = _count(b"\n".join(change.removed), calls)
    come = _count(b"\n".join(change.added), calls)
    return {family for family in gone if not now[family] and gone[family] > come[family]}


def _count(code: bytes, calls: Mapping[str, str]) -> Counter[str]:
    names = re.finditer(rb"\b([A-Za-z_]\w*)\s*\(", code)
    return Counter(calls[name] for m in names if (name := m[1].decode()) in calls)


def _remaining(
    text: bytes, code: bytes, change: Changed, family: str, calls: Mapping[str, str], side: str
) -> list[LintFinding]:
    names = [name for name, of in calls.items() if of == family]
    pattern = re.compile(rb"\b(%s)\s*\(" % b"|".join(name.encode() for name in sorted(names)))
    rule = RULES["mismatched-pair"]
    found = []
    for match in pattern.finditer(code):
        start = code.rfind(b"\n", 0, match.start()) + 1
        end = code.find(b"\n", match.end())
        line = code.count(b"\n", 0, match.start()) + 1
        statement = text[start : end if end >= 0 else None].decode("utf-8", "replace")
        name = match[1].decode()
        what = f"the change took away the last {side} call of this family here, {name}() is left"
        step = Step(
            min(change.lines, default=line), 1, f"the {side} calls are changed here or near"
        )
        found.append(
            LintFinding(
                rule=rule.name,
                path=change.path,
                line=line,
                column=match.start() - start + 1,
                end_line=line,
                end_column=match.end(1) - start + 1,
                function="",
                what=what,
                kernel_does="whatever the other call does with a window that is not of its family",
                steps=(step,),
                confidence=Confidence.LIKELY,
                fix=rule.fix,
                statement=" ".join(statement.split()),
            )
        )
    return found


def _blanks(match: re.Match[bytes]) -> bytes:
    """Comments and strings become blanks, so that positions stay."""
    return re.sub(rb"[^\n]", b" ", match[0])
