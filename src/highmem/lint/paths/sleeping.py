"""Which of a file's own functions may sleep, and through which call."""

from __future__ import annotations

import re
from collections.abc import Mapping

from highmem.lint.api import ApiTable
from highmem.lint.syntax.source import Function

__all__ = ["WAITS", "sleeping_functions"]

_ROUNDS = 3
WAITS = re.compile(
    r"GFP_KERNEL|GFP_NOFS|GFP_NOIO|GFP_USER|GFP_HIGHUSER|__GFP_WAIT|__GFP_DIRECT_RECLAIM"
    r"|__GFP_RECLAIM|GFP_TEMPORARY"
)
_KNOWS = re.compile(r"\b(?:in_atomic|in_interrupt|irqs_disabled|nowait|GFP_ATOMIC|gfp|atomic)\b")
_CONDITION = re.compile(r"\b(?:if|else|while|for|switch|case|return)\b|\?|&&|\|\|")
_OPENS = re.compile(r"\s*\(")
_EARLY = re.compile(r"\breturn\b|\bgoto\b")
# User memory sleeps only where it is not there.
_SELDOM = ("copy_", "get_user", "put_user", "clear_user", "__copy", "filldir")


def sleeping_functions(
    functions: Mapping[str, Function], calls: Mapping[str, frozenset[str]], table: ApiTable
) -> dict[str, tuple[tuple[str, ...], bool]]:
    """Function name to the chain of calls that sleeps, and whether each is on every path."""
    known: dict[str, tuple[tuple[str, ...], bool]] = {}
    risky = table.sleepers.keys() | table.gfp.keys()
    for name, function in functions.items():
        direct = calls[name] & risky
        found = [_direct(function.text, one, table) for one in sorted(direct)]
        best = max((one for one in found if one is not None), key=lambda one: one[1], default=None)
        if best is not None:
            known[name] = best
    for _ in range(_ROUNDS):
        more: dict[str, tuple[tuple[str, ...], bool]] = {}
        for name, function in functions.items():
            if name in known:
                continue
            for callee in sorted((calls[name] & known.keys()) - {name}):
                chain, surely = known[callee]
                here = surely and _always(function.text, callee)
                if name not in more or (here and not more[name][1]):
                    more[name] = ((callee, *chain), here)
        if not more:
            break
        known.update(more)
    return known


def _direct(text: str, name: str, table: ApiTable) -> tuple[tuple[str, ...], bool] | None:
    if name.startswith(_SELDOM):
        return None
    if name in table.gfp:
        calls = re.findall(rf"{name}(?<!\w{name})\s*\(([^;]*);", text)
        if not any(WAITS.search(one) for one in calls):
            return None
    return (name,), _always(text, name)


def _always(text: str, name: str) -> bool:
    """Whether the call is a statement of the function's outermost block, and nothing before it
    leaves the function or asks whether sleeping is allowed."""
    at = _first_call(text, name)
    if at < 0:
        return False
    before = text[:at]
    if before.count("{") - before.count("}") != 1 or _EARLY.search(before):
        return False
    statement = re.split(r"[;{}]", before)[-1]
    return _CONDITION.search(statement) is None and _KNOWS.search(text) is None


def _first_call(text: str, name: str) -> int:
    """Where the function is called first, or -1.  A pattern for each name costs more."""
    at = text.find(name)
    while at >= 0:
        whole = not at or not (text[at - 1].isalnum() or text[at - 1] == "_")
        if whole and _OPENS.match(text, at + len(name)):
            return at
        at = text.find(name, at + 1)
    return -1
