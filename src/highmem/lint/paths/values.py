# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore, no-redef"
"""Symbolic values: what an expression is worth on one path.

Values are tuples.  ``("n", 5)`` a number, ``("e",)`` some error code, ``("s",)`` a string,
``("v", name)`` what a variable held when the function began, ``("fld", place, name)`` and
``("deref", value)`` what memory held then, ``("addr", place)`` where something is,
``("c", site, age)`` what the call at that offset returned, ``("l", place, loop, age)`` what a
loop left in a place, ``("a", n, age)`` anything, ``("w", window, offset)`` an address in a
window, ``("bin", op, a, b)``, ``("un", op, a)``, ``("cond", c, a, b)``, ``("call", name, args)``.
Age 0 is this turn of the loops around, 1 an earlier one.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

from __future__ import annotations

from typing import Any

try:
    import cython
except ImportError:
    from highmem import _cython as cython

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
    "outermost",
    "rename",
    "rename_all",
    "root",
    "text_of",
    "window_of",
    "young",
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


_MANY = 1 << 15
"""What each of these remembers at the most."""
_mentioning = cython.declare(dict, {})
_leaves = cython.declare(dict, {})
_young = cython.declare(dict, {})
_names = cython.declare(dict, {})
_texts = cython.declare(dict, {})
_sizes = cython.declare(dict, {})


@cython.ccall
def mentions_window(value: tuple[Any, ...]) -> bool:
    """Whether any window is part of the value."""
    if not value:
        return False
    kind = value[0]
    if kind == "w":
        return True
    if kind == "v" or kind == "c" or kind == "n":
        return False
    known = _mentioning.get(value)
    if known is None:
        known = False
        for part in value:
            if isinstance(part, tuple) and mentions_window(part):
                known = True
                break
        _remember(_mentioning, value, known)
    return bool(known)


@cython.ccall
def leaves(value: tuple[Any, ...]) -> frozenset[tuple[Any, ...]]:
    """The symbols that it is made of."""
    known: frozenset[Any] | None = _leaves.get(value)
    if known is None:
        kind = value[0] if value else ""
        if kind in ("v", "c", "l", "a", "w"):
            known = frozenset({value})
        else:
            found: set[Any] = set()
            for part in value:
                if isinstance(part, tuple):
                    found |= leaves(part)
            known = frozenset(found)
        _remember(_leaves, value, known)
    return known


@cython.ccall
def young(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Those of its symbols that belong to this turn of a loop."""
    known: tuple[Any, ...] | None = _young.get(value)
    if known is None:
        found = [one for one in leaves(value) if one[0] in ("c", "a", "l") and one[-1] == 0]
        known = tuple(found)
        _remember(_young, value, known)
    return known


@cython.ccall
def names_of(value: tuple[Any, ...]) -> frozenset[str]:
    """Names of variables, and of members with a dot, in a value or place."""
    known: frozenset[Any] | None = _names.get(value)
    if known is None:
        kind = value[0] if value else ""
        if kind == "v":
            known = frozenset({value[1]})
        else:
            found: set[Any] = {"." + value[2]} if kind == "fld" else set()
            for part in value:
                if isinstance(part, tuple):
                    found |= names_of(part)
            known = frozenset(found)
        _remember(_names, value, known)
    return known


@cython.ccall
def text_of(value: tuple[Any, ...]) -> str:
    """The value spelt out: for an order among values, and their size."""
    known: str | None = _texts.get(value)
    if known is None:
        known = repr(value)
        _remember(_texts, value, known)
    return known


@cython.cfunc
def _size(value: tuple[Any, ...]) -> Any:
    known = _sizes.get(value)
    if known is None:
        known = 1
        for part in value:
            if isinstance(part, tuple):
                known += _size(part)
        _remember(_sizes, value, known)
    return known


@cython.cfunc
def _remember(table: dict[Any, Any], value: tuple[Any, ...], known: Any) -> None:
    if len(table) >= _MANY:
        table.clear()
    table[value] = known


@cython.ccall
def root(place: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where a place begins: ``("v", name)``, or what is dereferenced last."""
    while True:
        kind = place[0]
        if kind == "fld" or kind == "deref" or kind == "addr":
            place = place[1]
        elif kind == "bin":
            place = place[2]
        else:
            return place


@cython.ccall
def outermost(place: tuple[Any, ...]) -> tuple[Any, ...]:
    """The struct, or the element of an array, that a member is in."""
    while place[0] == "fld":
        place = place[1]
    return place


@cython.ccall
def rename(value: tuple[Any, ...], old: tuple[Any, ...], new: tuple[Any, ...]) -> tuple[Any, ...]:
    """*value* with one symbol in the place of another (windows whatever their offset)."""
    if old[0] != "w" and old not in leaves(value):
        return value
    if value == old:
        return new
    if value and value[0] == "w" and old[0] == "w" and value[1] == old[1]:
        return ("w", new[1], value[2])
    if old[0] == "w" and not mentions_window(value):
        return value
    return tuple([rename(p, old, new) if isinstance(p, tuple) else p for p in value])


@cython.ccall
def rename_all(value: tuple[Any, ...], names: dict[Any, Any]) -> tuple[Any, ...]:
    """*value* with each of these symbols, which are of this turn of a loop, replaced."""
    found: cython.bint = False
    for symbol in young(value):
        found = found or symbol in names
    if not found:
        return value
    new = names.get(value)
    if new is not None:
        return new
    return tuple([rename_all(p, names) if isinstance(p, tuple) else p for p in value])


@cython.ccall
def arithmetic(op: str, left: tuple[Any, ...], right: tuple[Any, ...]) -> tuple[Any, ...]:
    """``left op right``."""
    first: str = left[0]
    second: str = right[0]
    if first == "w" or second == "w":
        return _pointer(op, left, right)
    if first == "n" and second == "n":
        folded = _fold(op, left[1], right[1])
        if folded is not None:
            return ("n", folded)
    if op in ("+", "-", "|", "<<", ">>") and right == ZERO:
        return left
    if op == "+" and left == ZERO:
        return right
    if op in ("+", "-") and second == "n" and first == "bin" and left[1] in ("+", "-"):
        inner = left[3]
        if inner[0] == "n":
            total = (inner[1] if left[1] == "+" else -inner[1]) + (
                right[1] if op == "+" else -right[1]
            )
            return arithmetic("+", left[2], ("n", total)) if total else left[2]
    if op == "-" and second == "n":
        op, right = "+", ("n", -right[1])
    if op == "-" and left == right:
        return ZERO
    if op == "-" and first == "bin" and left[1] == "+" and right in left[2:]:
        rest: Value = left[3] if left[2] == right else left[2]
        return rest
    if op == "+" and second == "bin" and right[1] == "-" and right[3] == left:
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
    added, ``pages`` where that was pages, ``adv`` where the pointer itself was moved on, ``used``
    where something was read or written there since: then it is in the page still.
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
    if where in ("adv", "used"):
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
