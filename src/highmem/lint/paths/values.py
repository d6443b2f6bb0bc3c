"""Symbolic values: what an expression is worth on one path.

Values are tuples.  ``("n", 5)`` a number, ``("e",)`` some error code, ``("s",)`` a string,
``("v", name)`` what a variable held when the function began, ``("fld", place, name)`` and
``("deref", value)`` what memory held then, ``("addr", place)`` where something is,
``("c", site, age)`` what the call at that offset returned, ``("l", place, loop, age)`` what a
loop left in a place, ``("a", n, age)`` anything, ``("w", window, offset)`` an address in a
window, ``("bin", op, a, b)``, ``("un", op, a)``, ``("cond", c, a, b)``, ``("call", name, args)``.
Age 0 is this turn of the loops around, 1 an earlier one.
"""

from __future__ import annotations

import functools
from typing import Any

from highmem.lint.syntax.units import size_of

__all__ = [
    "ERROR",
    "PAGE_SIZE",
    "ZERO",
    "Value",
    "WindowId",
    "arithmetic",
    "as_number",
    "leaves",
    "mentions_window",
    "names_of",
    "number",
    "rename",
    "root",
    "window_of",
]

Value = tuple[Any, ...]
WindowId = tuple[int, int]
"""Offset of the call that opened it, and 0 for the last one opened there, 1 for earlier."""

ZERO: Value = ("n", 0)
ERROR: Value = ("e",)
PAGE_SIZE = 4096
"""x86, and 32-bit ARM, MIPS and PowerPC as HIGHMEM kernels are built (arch page.h)."""
_DEEP = 24
_WORDS = {
    "PAGE_SIZE": PAGE_SIZE,
    "PAGE_CACHE_SIZE": PAGE_SIZE,
    "PAGE_SHIFT": 12,
    "PAGE_CACHE_SHIFT": 12,
    "SZ_4K": 4096,
    "SZ_8K": 8192,
    "SZ_64K": 65536,
    "EFI_PAGE_SIZE": 4096,
    "HPAGE_SIZE": 1 << 21,
    "HPAGE_PMD_SIZE": 1 << 21,
    "SZ_2M": 1 << 21,
}
_MASKS = frozenset({"PAGE_MASK", "PAGE_CACHE_MASK"})


def number(value: int) -> Value:
    """A known number."""
    return ("n", value)


def window_of(value: Value) -> WindowId | None:
    """The window that an address points into."""
    return value[1] if value[0] == "w" else None


@functools.lru_cache(maxsize=1 << 15)
def _size(value: Value) -> int:
    return 1 + sum(_size(part) for part in value if isinstance(part, tuple))


@functools.lru_cache(maxsize=1 << 15)
def mentions_window(value: Value) -> bool:
    """Whether any window is part of the value."""
    if value[:1] == ("w",):
        return True
    return any(mentions_window(part) for part in value if isinstance(part, tuple))


@functools.lru_cache(maxsize=1 << 15)
def leaves(value: Value) -> frozenset[Value]:
    """The symbols that it is made of."""
    kind = value[0] if value else ""
    if kind in ("v", "c", "l", "a", "w"):
        return frozenset({value})
    found: set[Value] = set()
    for part in value:
        if isinstance(part, tuple):
            found |= leaves(part)
    return frozenset(found)


@functools.lru_cache(maxsize=1 << 15)
def names_of(value: Value) -> frozenset[str]:
    """Names of variables, and of members with a dot, in a value or place."""
    kind = value[0] if value else ""
    if kind == "v":
        return frozenset({value[1]})
    found: set[str] = {"." + value[2]} if kind == "fld" else set()
    for part in value:
        if isinstance(part, tuple):
            found |= names_of(part)
    return frozenset(found)


def root(place: Value) -> Value:
    """Where a place begins: ``("v", name)``, or what is dereferenced last."""
    while True:
        if place[0] in ("fld", "deref", "addr"):
            place = place[1]
        elif place[0] == "bin":
            place = place[2]
        else:
            return place


def rename(value: Value, old: Value, new: Value) -> Value:
    """*value* with one symbol in the place of another (windows whatever their offset)."""
    if old[0] != "w" and old not in leaves(value):
        return value
    if value == old:
        return new
    if value and value[0] == "w" and old[0] == "w" and value[1] == old[1]:
        return ("w", new[1], value[2])
    if old[0] == "w" and not mentions_window(value):
        return value
    return tuple(rename(p, old, new) if isinstance(p, tuple) else p for p in value)


def arithmetic(op: str, left: Value, right: Value) -> Value:
    """``left op right``."""
    if left[0] == "w" or right[0] == "w":
        return _pointer(op, left, right)
    if left[0] == "n" and right[0] == "n":
        folded = _fold(op, left[1], right[1])
        if folded is not None:
            return ("n", folded)
    if op in ("+", "-", "|", "<<", ">>") and right == ZERO:
        return left
    if op == "+" and left == ZERO:
        return right
    if op in ("+", "-") and right[0] == "n" and left[0] == "bin" and left[1] in ("+", "-"):
        inner = left[3]
        if inner[0] == "n":
            total = (inner[1] if left[1] == "+" else -inner[1]) + (
                right[1] if op == "+" else -right[1]
            )
            return arithmetic("+", left[2], ("n", total)) if total else left[2]
    if op == "-" and right[0] == "n":
        op, right = "+", ("n", -right[1])
    if op == "-" and left == right:
        return ZERO
    if op == "-" and left[0] == "bin" and left[1] == "+" and right in left[2:]:
        rest: Value = left[3] if left[2] == right else left[2]
        return rest
    if op == "+" and right[0] == "bin" and right[1] == "-" and right[3] == left:
        before: Value = right[2]
        return before
    if _size(left) + _size(right) > _DEEP:
        return ("a", hash((op, left, right)) & 0xFFFFFF, 0)
    return ("bin", op, left, right)


def _fold(op: str, a: int, b: int) -> int | None:
    if op in ("<<", ">>") and not 0 <= b < 64:
        return None
    if op in ("/", "%"):
        return None if b == 0 or a < 0 else (a // b if op == "/" else a % b)
    folded = {
        "+": a + b,
        "-": a - b,
        "*": a * b,
        "&": a & b,
        "|": a | b,
        "^": a ^ b,
        "==": int(a == b),
        "!=": int(a != b),
        "<": int(a < b),
        ">": int(a > b),
        "<=": int(a <= b),
        ">=": int(a >= b),
        "&&": int(bool(a) and bool(b)),
        "||": int(bool(a) or bool(b)),
    }.get(op)
    if folded is None:
        return (a << b if op == "<<" else a >> b) if op in ("<<", ">>") else None
    return folded if abs(folded) < 1 << 64 else None


def _pointer(op: str, left: Value, right: Value) -> Value:
    """Arithmetic on an address in a window.

    The offset is a number of bytes (at least) where that is known, ``in`` where something was
    added, ``pages`` where that was pages, ``adv`` where the pointer itself was moved on.
    """
    if left[0] == "w" and right[0] == "w":
        return ("bin", op, left, right)
    if op in ("==", "!=", "<", ">", "<=", ">=", "&&", "||"):
        return ("bin", op, left, right)
    window, other = (left, right) if left[0] == "w" else (right, left)
    where = window[2]
    known = as_number(other)
    if op == "&":
        mask = (
            other == ("v", "PAGE_MASK") or other[0] == "un" or other[:2] == ("v", "PAGE_CACHE_MASK")
        )
        return ("w", window[1], 0) if mask else ("bin", op, left, right)
    if op not in ("+", "-", "|") or (op == "-" and right[0] == "w"):
        return ("bin", op, left, right)
    if where == "adv":
        # Going back by what it went forward, or by one to the last element, is how it is done
        # right; which of these it is cannot be told, so it counts as right.
        return ("w", window[1], "adv" if op == "+" else "in")
    if isinstance(where, int) and known is not None:
        return ("w", window[1], where + (known if op != "-" else -known))
    return ("w", window[1], "pages" if _whole_pages(other) else "in")


def _whole_pages(value: Value) -> bool:
    """``i * PAGE_SIZE`` and ``i << PAGE_SHIFT``."""
    if value[0] != "bin":
        return False
    left, right = as_number(value[2]), as_number(value[3])
    if value[1] == "*":
        return (left is None and right == PAGE_SIZE) or (right is None and left == PAGE_SIZE)
    return value[1] == "<<" and left is None and right == 12


def as_number(value: Value) -> int | None:
    """What a value is on a machine of 4 KiB pages, if it is constant."""
    if value[0] == "n":
        return int(value[1])
    if value[0] == "v":
        return _WORDS.get(value[1])
    if value[0] == "sizeof":
        return size_of(value[1])
    if value[0] == "bin":
        left, right = as_number(value[2]), as_number(value[3])
        if left is not None and right is not None:
            return _fold(value[1], left, right)
    return None
