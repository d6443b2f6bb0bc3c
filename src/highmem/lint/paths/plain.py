"""What the text of a function alone decides about its calls of page_address() and its kin.

Most of them ask for the address of a page that the function got from a call that gives no high
memory: no path needs to be followed to see that.  Whatever is less plain is not decided here.
"""

from __future__ import annotations

import re

from highmem.lint.api import ApiTable
from highmem.lint.rules.pageaddr import ADDRESS_CALLS, HIGH_FLAGS, HIGH_PAGES, TESTS_HIGH

__all__ = ["plainly_low"]

_NAMES = "|".join(sorted(ADDRESS_CALLS))
_CALL = re.compile(rf"\b({_NAMES})\b\s*(?:\(\s*(\w+)\s*\))?")
_FAR = 40
"""White space that may be around an operator."""
_WORD = re.compile(r"\w")
_INSIDE = re.compile(r"(?:\w|\.\s*|->\s*)\Z")
"""Before what is a part of a longer name, or a member."""
_ADDRESS_OF = re.compile(r"(?<!&)(?:&&)*&[\s(]*\Z")
_ARROW = re.compile(r"\s*->")
_SET = re.compile(r"\s*=(?!=)")
_VALUE = re.compile(r"\s*=\s*(?:NULL|([A-Za-z_]\w*)\s*\()")
_PAREN = re.compile(r"[()]")
_ENDS = re.compile(r"\s*[;,)]")
_GIVE_ANYTHING = frozenset(
    {"likely", "unlikely", "READ_ONCE", "ACCESS_ONCE", "__force", "xchg1", "RETURN", "GOTO"}
)
"""What stands for its argument, or for something else than a call (syntax/expressions.py)."""


def plainly_low(text: str, parameters: tuple[str, ...], table: ApiTable) -> bool:
    """Whether no page_address() of the function, whose *text* is its body, can be reported."""
    if TESTS_HIGH.search(text):
        return True
    pages = set()
    for found in _CALL.finditer(text):
        name, page = found.groups()
        if name == "sg_virt" or page is None:
            return False
        pages.add(page)
    if HIGH_FLAGS.search(text):
        return False
    return all(page not in parameters and _only_low(page, text, table) for page in pages)


def _only_low(page: str, text: str, table: ApiTable) -> bool:
    """Whether the variable only gets what calls return, none of which gives high memory."""
    at = text.find(page)
    while at >= 0:
        end = at + len(page)
        if not (_WORD.match(text, end) or _INSIDE.search(text, max(0, at - _FAR), at)):
            taken = _ADDRESS_OF.search(text, max(0, at - _FAR), at) and not _ARROW.match(text, end)
            if taken or (_SET.match(text, end) and not _set_low(text, end, table)):
                return False
        at = text.find(page, end)
    return True


def _set_low(text: str, at: int, table: ApiTable) -> bool:
    """Whether what follows the name there assigns what one call returns, and no high memory."""
    value = _VALUE.match(text, at)
    if value is None:
        return False
    name, end = value.group(1), value.end()
    if name in HIGH_PAGES or name in table.accesses or name in _GIVE_ANYTHING:
        return False
    return _ENDS.match(text, end if name is None else _closed(text, end - 1)) is not None


def _closed(text: str, at: int) -> int:
    """Just past the parenthesis that closes the one at an offset."""
    depth = 0
    for found in _PAREN.finditer(text, at):
        depth += 1 if found.group() == "(" else -1
        if not depth:
            return found.end()
    return len(text)
