"""What the text of a whole file says about members of structs."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

from highmem.lint.api import ApiTable
from highmem.lint.paths.evaluate import FileFacts
from highmem.lint.syntax.source import Source

__all__ = ["file_facts"]

_PAGE_MEMBER = re.compile(r"\bstruct\s+page\s*\*+\s*(?:const\s*)?(\w+)\s*(?:\[[^\]]*\])?\s*;")
_TYPE_BEFORE = re.compile(r"(?:^|[;{}\n])\s*(?:const\s+)?(\w[\w\s]*?)\s*\**\s*$")
_ASSIGNED = re.compile(r"(?:->|\.)(\w+)\s*(?:\[[^\]]*\])?\s*=\s*(?:\([^()]*\)\s*)?$")
_MEMBER = re.compile(r"(?:->|\.)(\w+)\s*(?=[-+,)\[])")
_LOOK_BACK = 120
_LONGEST_CALL = 400


def file_facts(source: Source, table: ApiTable) -> FileFacts:
    """Members assigned from map calls, declared as pages, given to unmap calls."""
    code = source.code
    opens = {n: o for n, o in table.opens.items() if n in code}
    addresses = [n for n, o in opens.items() if not table.families[o.family].quiet]
    window_fields = {}
    for call in _calls_in(code, addresses):
        found = _ASSIGNED.search(code, max(0, call.start() - _LOOK_BACK), call.start())
        if found:
            window_fields[found.group(1)] = table.opens[call.group(1)].family
    closed = {
        member
        for call in _calls_in(code, [name for name in table.closes if name in code])
        for member in _MEMBER.findall(code, call.end(), _end(code, call.end()))
    }
    pages = frozenset(_PAGE_MEMBER.findall(code)) - window_fields.keys()
    others = _declared_otherwise(code, table.page_fields) - pages
    return FileFacts(
        window_fields,
        pages,
        others | window_fields.keys(),
        frozenset(one.family for one in opens.values()),
        frozenset(closed),
    )


def _calls_in(code: str, names: list[str]) -> Iterator[re.Match[str]]:
    """Calls of these functions, which the code is known to name."""
    return _pattern(tuple(names)).finditer(code) if names else iter(())


@functools.cache
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    every = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    return re.compile(rf"\b({every})\s*\(")


def _declared_otherwise(code: str, names: Iterable[str]) -> frozenset[str]:
    """Of these members the ones that some struct of the file declares as no page."""
    found = set()
    declared = rf"\b({'|'.join(map(re.escape, sorted(names)))})\s*(?:\[[^\]]*\])?\s*;"
    for member in re.finditer(declared, code):
        kind = _TYPE_BEFORE.search(code, max(0, member.start() - _LOOK_BACK), member.start())
        if kind and kind.group(1).split() not in (["struct", "page"], ["return"], ["goto"]):
            found.add(member.group(1))
    return frozenset(found)


def _end(code: str, start: int) -> int:
    """Where a call's statement ends."""
    end = code.find(";", start)
    return end if 0 <= end < start + _LONGEST_CALL else start
