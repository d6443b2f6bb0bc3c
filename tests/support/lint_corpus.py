"""Reads the functions and the expected findings of the C files in tests/lint/corpus.

``/* expect: rule */`` on a line: the function must have a finding of that rule there (or with a
step there), certain or likely; ``rule?`` takes any confidence, ``rule|other`` either rule.
``/* may: rule */`` allows one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CORPUS", "Expected", "Written", "read_functions"]

CORPUS = Path(__file__).parent.parent / "lint" / "corpus"
_HEAD = re.compile(r"^\w[^;=]*?(\w+)\(")
_MARK = re.compile(r"/\* (expect|may): ([a-z|-]+\??(?:, [a-z|-]+\??)*) \*/")


@dataclass(frozen=True, slots=True)
class Expected:
    """One finding that must be there."""

    line: int
    rules: frozenset[str]
    any_confidence: bool


@dataclass(frozen=True, slots=True)
class Written:
    """One function of a corpus file."""

    file: str
    name: str
    first: int
    last: int
    expected: tuple[Expected, ...]
    allowed: frozenset[str]


def _marks(lines: list[str], first: int, last: int, kind: str) -> list[tuple[int, str]]:
    return [
        (number, rule)
        for number in range(first, last + 1)
        for found in _MARK.finditer(lines[number - 1])
        if found[1] == kind
        for rule in found[2].split(", ")
    ]


def read_functions(path: Path) -> list[Written]:
    """The functions of a file: a head that starts in column one, its braces alone there."""
    lines = path.read_text(encoding="utf-8").splitlines()
    functions = []
    for number, line in enumerate(lines, 1):
        if line != "{":
            continue
        first = number - 1
        while lines[first - 1][:1].isspace():
            first -= 1
        last = lines.index("}", number) + 1
        head = _HEAD.match(lines[first - 1])
        assert head, f"{path.name}:{first}: no head of a function"
        expected = tuple(
            Expected(at, frozenset(rule.removesuffix("?").split("|")), rule.endswith("?"))
            for at, rule in _marks(lines, first, last, "expect")
        )
        allowed = frozenset(rule for _, rule in _marks(lines, first, last, "may"))
        functions.append(Written(path.name, head[1], first, last, expected, allowed))
    return functions
