# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore, no-redef"
"""Expressions to values on a path, noticing which windows are read or written through.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

try:
    import cython
except ImportError:
    from highmem import _cython as cython

from highmem.lint.paths.values import (
    ERROR,
    ZERO,
    arithmetic,
    as_number,
    root,
    text_of,
    window_of,
)
from highmem.lint.syntax.graph import Expr, Graph
from highmem.lint.syntax.units import element_size

__all__ = ["FileFacts", "Names", "Typing", "evaluate", "forget_members", "place_of"]

_ERRNO = re.compile(r"E[A-Z][A-Z0-9]+$")
_LARGE = 40


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the whole file says about its members, whichever function says it."""

    window_fields: dict[str, str]
    """Members that some function assigns from a map call, with its family."""
    page_fields: frozenset[str]
    """Members declared as ``struct page *``."""
    other_fields: frozenset[str]
    """Members declared as something else only."""
    maps: frozenset[str] = frozenset()
    """Families that anything in the file maps."""
    closed_fields: frozenset[str] = frozenset()
    """Members that some function gives to an unmap call."""
    closed_pages: frozenset[str] = frozenset()
    """Of these, the ones that are the page."""
    own_lists: frozenset[str] = frozenset()
    """Members that are scatterlists into which some function puts memory of the kernel's."""


class Typing:
    """Types as far as the declarations in sight tell them."""

    def __init__(self, graph: Graph, facts: FileFacts, known_page_fields: frozenset[str]) -> None:
        self.types = graph.types
        self.pages = facts.page_fields | (known_page_fields - facts.other_fields)
        self.windows = facts.window_fields

    def type_of(self, expr: Expr) -> str:
        """The declared type, or nothing."""
        kind = expr[0]
        if kind == "id":
            return self.types.get(expr[1], "")
        if kind == "fld":
            if expr[2] in self.windows:
                return "void *"
            if expr[2] not in self.pages:
                return ""
            return "struct page **" if expr[2].endswith("pages") else "struct page *"
        if kind == "deref":
            inner = self.type_of(expr[1])
            return re.sub(r"\s*(\*|\[\])$", "", inner) if inner[-1:] in ("*", "]") else ""
        if kind == "bin" and expr[1] in ("+", "-"):
            return self.type_of(expr[2])
        if kind == "cast":
            return str(expr[1])
        if kind == "cond":
            return self.type_of(expr[2])
        return ""

    def is_page(self, expr: Expr) -> bool:
        """Whether the expression is a ``struct page *``, casts to void put aside."""
        while expr[0] == "cast":
            if "page" in expr[1]:
                break
            expr = expr[2]
        if expr[0] == "addr":
            return re.fullmatch(r"struct page( \[\])?", self.type_of(expr[1])) is not None
        return re.fullmatch(r"(const )?struct page \*", self.type_of(expr)) is not None


@cython.cclass
class Names:
    """What the names of a function are declared as."""

    types = cython.declare(dict, visibility="public")
    arrays = cython.declare(frozenset, visibility="public")

    def __init__(self, types: dict[str, str]) -> None:
        self.types = types
        self.arrays = frozenset([name for name, kind in types.items() if kind.endswith("[]")])


@cython.cfunc
def _declared_type(expr: tuple[Any, ...], names: Names) -> str:
    """The type of an expression as its casts and variables tell it."""
    if expr[0] == "cast":
        return str(expr[1])
    if expr[0] == "id":
        return str(names.types.get(expr[1], ""))
    if expr[0] == "bin" and expr[1] in ("+", "-"):
        return _declared_type(expr[2], names)
    return ""


@cython.ccall
def evaluate(
    expr: tuple[Any, ...],
    env: dict[Any, Any],
    facts: dict[Any, Any],
    names: Names,
    touched: list[Any],
) -> tuple[Any, ...]:
    """The value of an expression; addresses in windows that it goes through join *touched*."""
    kind: str = expr[0]
    known: tuple[Any, ...] | None
    if kind == "id":
        place: tuple[Any, ...] = ("v", expr[1])
        known = env.get(place)
        if known is not None:
            return known
        return ("addr", place) if expr[1] in names.arrays else place
    if kind == "num":
        return ("n", expr[1])
    if kind == "fld" or kind == "deref":
        place = place_of(expr, env, facts, names, touched)
        known = env.get(place)
        return _member(place, env) if known is None else known
    if kind == "tmp":
        known = env.get(expr)
        return ("a", -expr[1], 0) if known is None else known
    if kind == "any":
        return ("a", expr[1], 0)
    if kind == "addr":
        return _address(expr[1], env, facts, names, touched)
    if kind == "cast":
        return evaluate(expr[2], env, facts, names, touched)
    if kind == "bin":
        return _binary(expr, env, facts, names, touched)
    if kind == "un":
        return _unary(expr, env, facts, names, touched)
    if kind == "cond":
        return _conditional(expr, env, facts, names, touched)
    if kind == "call":
        return _pure_call(expr, env, facts, names, touched)
    return ("s",) if kind == "str" else expr


@cython.cfunc
def _member(place: tuple[Any, ...], env: dict[Any, Any]) -> tuple[Any, ...]:
    """What a place holds that nobody has written: of a struct that a call or a loop has filled,
    the member of that."""
    if place[0] == "fld" and place[1][0] == "v":
        whole: tuple[Any, ...] | None = env.get(place[1])
        if whole is not None and (whole[0] == "l" or whole[0] == "c"):
            return ("fld", whole, place[2])
    return place


@cython.cfunc
def _binary(
    expr: tuple[Any, ...],
    env: dict[Any, Any],
    facts: dict[Any, Any],
    names: Names,
    touched: list[Any],
) -> tuple[Any, ...]:
    left = evaluate(expr[2], env, facts, names, touched)
    right = evaluate(expr[3], env, facts, names, touched)
    if left[0] == "w" and expr[1] in ("+", "-") and isinstance(left[2], int):
        size, steps = element_size(_declared_type(expr[2], names)), as_number(right)
        if size > 1 and steps is not None:
            right = ("n", size * steps)
    return arithmetic(expr[1], left, right)


@cython.cfunc
def _address(
    place: tuple[Any, ...],
    env: dict[Any, Any],
    facts: dict[Any, Any],
    names: Names,
    touched: list[Any],
) -> tuple[Any, ...]:
    """``&place``: nothing is read through the last pointer on the way."""
    kind: str = place[0]
    if kind == "fld":
        base = _address(place[1], env, facts, names, touched)
        if base[0] == "w":
            return ("w", base[1], "in" if base[2] != "adv" else "adv")
        inner = base[1] if base[0] == "addr" else ("deref", base)
        return ("addr", ("fld", inner, place[2]))
    if kind == "deref":
        return evaluate(place[1], env, facts, names, touched)
    if kind == "id":
        return ("addr", ("v", place[1]))
    return ("addr", place_of(place, env, facts, names, touched))


@cython.cfunc
def _unary(
    expr: tuple[Any, ...],
    env: dict[Any, Any],
    facts: dict[Any, Any],
    names: Names,
    touched: list[Any],
) -> tuple[Any, ...]:
    operator: str = expr[1]
    inner: tuple[Any, ...] = expr[2]
    if operator == "-" and inner[0] == "id" and _ERRNO.match(inner[1]):
        return ERROR
    value = evaluate(inner, env, facts, names, touched)
    if value[0] == "n":
        if operator == "!":
            return ("n", int(not value[1]))
        if operator == "-":
            return ("n", -value[1])
        if operator == "~":
            return ("n", ~value[1])
    return ("un", operator, value)


@cython.cfunc
def _conditional(
    expr: tuple[Any, ...],
    env: dict[Any, Any],
    facts: dict[Any, Any],
    names: Names,
    touched: list[Any],
) -> tuple[Any, ...]:
    test = evaluate(expr[1], env, facts, names, touched)
    first = evaluate(expr[2], env, facts, names, touched)
    second = evaluate(expr[3], env, facts, names, touched)
    if test[0] == "n":
        return first if test[1] else second
    if first == second:
        return first
    for value in (first, second):
        if window_of(value) is not None:
            return ("w", value[1], "in")
    return ("cond", test, first, second)


@cython.cfunc
def _pure_call(
    expr: tuple[Any, ...],
    env: dict[Any, Any],
    facts: dict[Any, Any],
    names: Names,
    touched: list[Any],
) -> tuple[Any, ...]:
    name: str = expr[1]
    values = tuple([evaluate(one, env, facts, names, touched) for one in expr[2]])
    if name in ("ERR_PTR", "ERR_CAST"):
        return ERROR
    if name == "PTR_ERR":
        known = facts.get(("call", "IS_ERR", values))
        return ERROR if (known and known[2]) or values == (ERROR,) else ("call", name, values)
    if name == "IS_ERR" and values and values[0][0] in ("e", "n"):
        return ("n", int(values[0][0] == "e"))
    return ("call", name, values)


@cython.ccall
def place_of(
    expr: tuple[Any, ...],
    env: dict[Any, Any],
    facts: dict[Any, Any],
    names: Names,
    touched: list[Any],
) -> tuple[Any, ...]:
    """The place that an expression names, as a key of the environment."""
    kind: str = expr[0]
    if kind == "id":
        return ("v", expr[1])
    if kind == "tmp":
        return expr
    if kind == "fld":
        return ("fld", place_of(expr[1], env, facts, names, touched), expr[2])
    if kind == "cast":
        return place_of(expr[2], env, facts, names, touched)
    if kind == "deref":
        pointer = evaluate(expr[1], env, facts, names, touched)
        what: str = pointer[0]
        if what == "addr":
            inner: tuple[Any, ...] = pointer[1]
            return ("deref", pointer) if inner[0] == "v" and inner[1] in names.arrays else inner
        if what == "w":
            touched.append(pointer)
        elif (what != "v" or len(pointer[1]) > _LARGE) and len(text_of(pointer)) > _LARGE * 10:
            pointer = ("a", hash(pointer) & 0xFFFFFF, 0)
        return ("deref", pointer)
    value = evaluate(expr, env, facts, names, touched)
    return ("deref", ("addr", value)) if value != ZERO else ("deref", ZERO)


@cython.ccall
def forget_members(env: dict[Any, Any], place: tuple[Any, ...]) -> None:
    """Forget the members of what is written as a whole."""
    kind: str = place[0]
    if kind == "fld" or kind == "deref" or kind == "addr" or kind == "bin":
        return  # no place begins there
    old: list[Any] = []
    other: tuple[Any, ...]
    for other in env:
        if other[0] == "fld" and root(other) == place:
            old.append(other)
    for other in old:
        del env[other]
