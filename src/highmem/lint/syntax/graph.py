"""The control-flow graph of one function, in a small language of its own.

Expressions are tuples, equal when they read the same: ``("id", name)``, ``("num", n)``,
``("str",)``, ``("fld", place, name)``, ``("deref", e)``, ``("addr", place)``,
``("bin", op, a, b)``, ``("un", op, a)``, ``("cast", type, e)``, ``("cond", c, a, b)``,
``("call", name, arguments)`` (only in conditions, taken to answer alike when asked alike),
``("tmp", n)`` (the result of a call or a choice made before) and ``("any", n)``.
They have no effects: calls and assignments are instructions of their own, in C's order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Block",
    "Expr",
    "Graph",
    "Instr",
    "Loop",
    "add_goto_loops",
    "children",
    "mentions",
    "names_in",
    "written",
]

Expr = tuple[Any, ...]


@dataclass(slots=True)
class Instr:
    """One step.

    ``set`` writes *value* to *place* (``detail``: the operator); ``call`` calls *detail* with
    *arguments* and leaves the result in *place*; ``use`` evaluates *value*; ``declare`` makes
    *place* anew; ``each`` lets a loop macro choose *arguments* anew; ``jump`` is only
    there to be seen.
    """

    op: str
    start: int
    end: int
    place: Expr = ()
    value: Expr = ()
    detail: str = ""
    arguments: tuple[Expr, ...] = ()
    callee: Expr = ()
    """What is called, where it is no plain name."""
    used: bool = True
    """Whether the result of a call is used."""


@dataclass(slots=True)
class Loop:
    """One loop: where it begins and what it writes."""

    number: int
    head: int
    line_offset: int
    assigned: frozenset[Expr] = frozenset()
    """Places written in it, as expressions."""
    stepped: frozenset[Expr] = frozenset()
    """Of these, the ones that count: they are increased, decreased or made from themselves."""


@dataclass(slots=True)
class Block:
    """Instructions without a branch, and what comes after them."""

    instrs: list[Instr] = field(default_factory=list)
    op: str = "end"
    """``goto``, ``if`` (on *value*), ``return`` (*value*), ``end`` of the function, ``halt``."""
    value: Expr | None = None
    targets: tuple[int, ...] = ()
    start: int = 0
    end: int = 0
    loops: tuple[int, ...] = ()
    """Numbers of the loops that it is in, outermost first."""


@dataclass(slots=True)
class Graph:
    """A function: block 0 is its entry."""

    blocks: list[Block]
    loops: list[Loop]
    types: dict[str, str]
    """Declared type of parameters and local variables, with one ``*`` for each level."""
    parameters: tuple[str, ...]
    locals: frozenset[str]
    """Parameters and local variables."""
    addressed: frozenset[str]
    """Those whose address is taken."""
    problems: list[tuple[int, str]]
    """Offset and cause of what could not be read."""


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expressions that it is made of."""
    kind = expr[0]
    if kind == "call":
        return tuple(expr[2])
    if kind in ("id", "num", "str", "tmp", "any", "sizeof"):
        return ()
    return tuple(part for part in expr[1:] if isinstance(part, tuple))


def names_in(expr: Expr) -> set[str]:
    """Every name of a variable or member in it."""
    found: set[str] = set()
    stack = [expr]
    while stack:
        one = stack.pop()
        if one[0] == "id":
            found.add(one[1])
        elif one[0] == "fld":
            found.add("." + one[2])
        stack.extend(children(one))
    return found


def written(graph: Graph, loop: Loop) -> None:
    """Fill in what the loop writes."""
    assigned: set[Expr] = set()
    stepped: set[Expr] = set()
    for block in graph.blocks:
        if loop.number not in block.loops:
            continue
        for instr in block.instrs:
            if instr.op == "set":
                assigned.add(instr.place)
                if instr.detail != "=" or mentions(instr.value, instr.place):
                    stepped.add(instr.place)
            elif instr.op == "each":
                assigned.update(instr.arguments)
            for argument in instr.arguments:
                if argument[0] == "addr" and instr.op == "call":
                    assigned.add(argument[1])
    loop.assigned, loop.stepped = frozenset(assigned), frozenset(stepped)


def add_goto_loops(graph: Graph, labels: Iterable[int]) -> None:
    """Make loops of what ``goto`` repeats: a label that is reached again from itself."""
    before: list[list[int]] = [[] for _ in graph.blocks]
    for number, block in enumerate(graph.blocks):
        for target in block.targets:
            before[target].append(number)
    for head in sorted(labels):
        after = _reached(graph, head)
        back = [number for number in before[head] if number in after]
        if not back:
            continue
        body, stack = {head}, back
        while stack:
            number = stack.pop()
            if number not in body:
                body.add(number)
                stack.extend(before[number])
        loop = Loop(len(graph.loops), head, graph.blocks[head].start)
        graph.loops.append(loop)
        for number in body & (after | {head}):
            graph.blocks[number].loops = (*graph.blocks[number].loops, loop.number)


def _reached(graph: Graph, start: int) -> set[int]:
    """Blocks that follow *start*, itself only where it follows itself."""
    found: set[int] = set()
    stack = list(graph.blocks[start].targets)
    while stack:
        number = stack.pop()
        if number not in found:
            found.add(number)
            stack.extend(graph.blocks[number].targets)
    return found


def mentions(expr: Expr, place: Expr) -> bool:
    """Whether a place is part of an expression."""
    stack = [expr]
    while stack:
        one = stack.pop()
        if one == place:
            return True
        stack.extend(children(one))
    return False
