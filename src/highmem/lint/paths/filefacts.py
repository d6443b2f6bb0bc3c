"""What the text of a whole file says about members of structs."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from highmem.lint.api import ApiTable
from highmem.lint.paths.evaluate import FileFacts
from highmem.lint.syntax.source import Source
from highmem.lint.syntax.text import chooser

__all__ = ["file_facts"]

# Python searches for what a pattern begins with, if that is plain text: \b would not be.
_PAGE_MEMBER = re.compile(
    r"struct(?<!\wstruct)\s+page\s*\*+\s*(?:const\s*)?(\w+)\s*(?:\[[^\]]*\])?\s*;"
)
_TYPE_BEFORE = re.compile(r"(?:^|[;{}\n])\s*(?:const\s+)?(\w[\w\s]*?)\s*\**\s*$")
_ASSIGNED = re.compile(r"(?:->|\.)(\w+)\s*(?:\[[^\]]*\])?\s*=\s*(?:\([^()]*\)\s*)?$")
_OWN_LIST = re.compile(r"sg_(?:init_one|set_buf)\s*\([^,;()]*(?:->|\.)(\w+)\s*(?:\[[^\]]*\])?\s*,")
_MEMBER = re.compile(r"(?:->|\.)(\w+)\s*(?=[-+,)\[])")
_LOOK_BACK = 120
_LONGEST_CALL = 400


def file_facts(source: Source, table: ApiTable) -> FileFacts:
    """Members assigned from map calls, declared as pages, given to unmap calls."""
    code = source.code
    names = set(_chooser((*table.opens, *table.closes, *table.page_fields))(code))
    opens = {name: one for name, one in table.opens.items() if name in names}
    addresses = [n for n, o in opens.items() if not table.families[o.family].quiet]
    window_fields = {}
    for name, call in _calls_in(code, addresses):
        found = _ASSIGNED.search(code, max(0, call.start() - _LOOK_BACK), call.start())
        if found:
            window_fields[found.group(1)] = table.opens[name].family
    closed = {
        (member, table.families[table.closes[name].family].by)
        for name, call in _calls_in(code, [name for name in table.closes if name in names])
        for member in _MEMBER.findall(code, call.end(), _end(code, call.end()))
    }
    pages = frozenset(_PAGE_MEMBER.findall(code)) - window_fields.keys()
    others = _declared_otherwise(code, table.page_fields & names) - pages
    return FileFacts(
        window_fields,
        pages,
        others | window_fields.keys(),
        frozenset(one.family for one in opens.values()),
        frozenset(member for member, _ in closed),
        frozenset(member for member, by in closed if by == "page"),
        frozenset(_OWN_LIST.findall(code)),
    )


_chooser = functools.cache(chooser)


def _calls_in(code: str, names: Iterable[str]) -> list[tuple[str, re.Match[str]]]:
    """Calls of these functions, in order."""
    found = [(name, call) for name in names for call in _word(name, r"\s*\(").finditer(code)]
    return sorted(found, key=lambda one: one[1].start())


@functools.cache
def _word(name: str, after: str) -> re.Pattern[str]:
    """The pattern of a whole word with something after it."""
    word = re.escape(name)
    return re.compile(rf"{word}(?<!\w{word}){after}" if name[0].isidentifier() else word + after)


def _declared_otherwise(code: str, names: Iterable[str]) -> frozenset[str]:
    """Of these members the ones that some struct of the file declares as no page."""
    found = set()
    for name in names:
        for member in _word(name, r"\s*(?:\[[^\]]*\])?\s*;").finditer(code):
            kind = _TYPE_BEFORE.search(code, max(0, member.start() - _LOOK_BACK), member.start())
            if kind and kind.group(1).split() not in (["struct", "page"], ["return"], ["goto"]):
                found.add(name)
                break
    return frozenset(found)


def _end(code: str, start: int) -> int:
    """Where a call's statement ends."""
    end = code.find(";", start)
    return end if 0 <= end < start + _LONGEST_CALL else start
