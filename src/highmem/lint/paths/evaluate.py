"""Expressions to values on a path, noticing which windows are read or written through."""

from __future__ import annotations

import re
from dataclasses import dataclass

from highmem.lint.paths.state import State
from highmem.lint.paths.values import ERROR, ZERO, Value, arithmetic, as_number, number, window_of
from highmem.lint.syntax.graph import Expr, Graph
from highmem.lint.syntax.units import element_size

__all__ = ["FileFacts", "Typing", "evaluate", "place_of"]

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


def declared_type(expr: Expr, graph: Graph) -> str:
    """The type of an expression as its casts and variables tell it."""
    if expr[0] == "cast":
        return str(expr[1])
    if expr[0] == "id":
        return graph.types.get(expr[1], "")
    if expr[0] == "bin" and expr[1] in ("+", "-"):
        return declared_type(expr[2], graph)
    return ""


def evaluate(expr: Expr, state: State, graph: Graph, touched: list[Value]) -> Value:
    """The value of an expression; addresses in windows that it goes through join *touched*."""
    kind = expr[0]
    if kind == "id":
        return _variable(expr[1], state, graph)
    if kind == "num":
        return number(expr[1])
    if kind == "tmp":
        return state.env.get(expr, ("a", -expr[1], 0))
    if kind == "any":
        return ("a", expr[1], 0)
    if kind in ("fld", "deref"):
        place = place_of(expr, state, graph, touched)
        return state.env.get(place, place)
    if kind == "addr":
        return _address(expr[1], state, graph, touched)
    if kind == "cast":
        return evaluate(expr[2], state, graph, touched)
    if kind == "bin":
        left = evaluate(expr[2], state, graph, touched)
        right = evaluate(expr[3], state, graph, touched)
        if left[0] == "w" and expr[1] in ("+", "-") and isinstance(left[2], int):
            size, steps = element_size(declared_type(expr[2], graph)), as_number(right)
            if size > 1 and steps is not None:
                right = number(size * steps)
        return arithmetic(expr[1], left, right)
    if kind == "un":
        return _unary(expr, state, graph, touched)
    if kind == "cond":
        return _conditional(expr, state, graph, touched)
    if kind == "call":
        return _pure_call(expr, state, graph, touched)
    return ("s",) if kind == "str" else expr


def _variable(name: str, state: State, graph: Graph) -> Value:
    known = state.env.get(("v", name))
    if known is not None:
        return known
    if graph.types.get(name, "").endswith("[]"):
        return ("addr", ("v", name))
    return ("v", name)


def _address(place: Expr, state: State, graph: Graph, touched: list[Value]) -> Value:
    """``&place``: nothing is read through the last pointer on the way."""
    if place[0] == "fld":
        base = _address(place[1], state, graph, touched)
        if base[0] == "w":
            return ("w", base[1], "in" if base[2] != "adv" else "adv")
        inner = base[1] if base[0] == "addr" else ("deref", base)
        return ("addr", ("fld", inner, place[2]))
    if place[0] == "deref":
        return evaluate(place[1], state, graph, touched)
    if place[0] == "id":
        return ("addr", ("v", place[1]))
    return ("addr", place_of(place, state, graph, touched))


def _unary(expr: Expr, state: State, graph: Graph, touched: list[Value]) -> Value:
    operator, inner = expr[1], expr[2]
    if operator == "-" and inner[0] == "id" and _ERRNO.match(inner[1]):
        return ERROR
    value = evaluate(inner, state, graph, touched)
    if value[0] == "n":
        if operator == "!":
            return number(int(not value[1]))
        if operator == "-":
            return number(-value[1])
        if operator == "~":
            return number(~value[1])
    return ("un", operator, value)


def _conditional(expr: Expr, state: State, graph: Graph, touched: list[Value]) -> Value:
    _, condition, yes, no = expr
    test = evaluate(condition, state, graph, touched)
    first = evaluate(yes, state, graph, touched)
    second = evaluate(no, state, graph, touched)
    if test[0] == "n":
        return first if test[1] else second
    if first == second:
        return first
    for value in (first, second):
        if window_of(value) is not None:
            return ("w", value[1], "in")
    return ("cond", test, first, second)


def _pure_call(expr: Expr, state: State, graph: Graph, touched: list[Value]) -> Value:
    name = expr[1]
    values = tuple(evaluate(one, state, graph, touched) for one in expr[2])
    if name in ("ERR_PTR", "ERR_CAST"):
        return ERROR
    if name == "PTR_ERR":
        test = ("call", "IS_ERR", values)
        known = state.facts.get(test)
        return ERROR if (known and known[2]) or values == (ERROR,) else ("call", name, values)
    if name == "IS_ERR" and values and values[0][0] in ("e", "n"):
        return number(int(values[0][0] == "e"))
    return ("call", name, values)


def place_of(expr: Expr, state: State, graph: Graph, touched: list[Value]) -> Value:
    """The place that an expression names, as a key of the environment."""
    kind = expr[0]
    if kind == "id":
        return ("v", expr[1])
    if kind == "tmp":
        return expr
    if kind == "fld":
        return ("fld", place_of(expr[1], state, graph, touched), expr[2])
    if kind == "cast":
        return place_of(expr[2], state, graph, touched)
    if kind == "deref":
        pointer = evaluate(expr[1], state, graph, touched)
        if pointer[0] == "addr":
            inner: Value = pointer[1]
            array = inner[0] == "v" and graph.types.get(inner[1], "").endswith("[]")
            return ("deref", pointer) if array else inner
        if pointer[0] == "w":
            touched.append(pointer)
        if len(repr(pointer)) > _LARGE * 10:
            pointer = ("a", hash(pointer) & 0xFFFFFF, 0)
        return ("deref", pointer)
    value = evaluate(expr, state, graph, touched)
    return ("deref", ("addr", value)) if value != ZERO else ("deref", ZERO)
