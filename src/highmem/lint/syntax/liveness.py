# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore, no-redef"
"""Which names still matter after a block: what is dead is forgotten, so that paths meet.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

try:
    import cython
except ImportError:
    from highmem import _cython as cython

from highmem.lint.syntax.graph import Block, Expr, Graph, Instr

__all__ = ["Liveness"]

_FIRST = 1
"""A bit, as a number without a limit."""


@cython.cfunc
def _gather(expr: tuple[Any, ...], found: set[Any]) -> None:
    """The names in an expression."""
    kind: str = expr[0]
    if kind == "id":
        found.add(expr[1])
    elif kind == "tmp":
        found.add(f"#{expr[1]}")
    elif kind == "call":
        for part in expr[2]:
            _gather(part, found)
    elif kind not in ("num", "str", "any", "sizeof"):
        if kind == "fld":
            found.add("." + expr[2])
        for part in expr:
            if isinstance(part, tuple):
                _gather(part, found)


def _plain(place: Expr) -> str | None:
    if place and place[0] == "id":
        return str(place[1])
    return f"#{place[1]}" if place and place[0] == "tmp" else None


class Liveness:
    """For each block the names read later, and those that conditions read later.

    Names are bits of numbers: there are many sets, and they are joined often.
    """

    def __init__(self, graph: Graph) -> None:
        self.blocks = len(graph.blocks)
        before: list[list[int]] = [[] for _ in graph.blocks]
        for number, block in enumerate(graph.blocks):
            for target in block.targets:
                before[target].append(number)
        uses, kills, tests = self._local(graph)
        counted = Counter(name for names in tests for name in names)
        self._bit: dict[str, int] = {}
        once = {name for name, count in counted.items() if count == 1} - _copied(graph, counted)
        self.once = [not once.isdisjoint(names) for names in tests]
        """Of each block: whether its condition asks for something that no other asks for."""
        self._read = _backwards(self._bits(uses), self._bits(kills), before)
        none = [0] * len(uses)
        self._tested = _backwards(self._bits(tests), none, before)
        # A condition that nobody asks again tells nothing later.
        self._again = _backwards(self._bits([names - once for names in tests]), none, before)

    def reads(self, number: int, name: str) -> bool:
        """Whether the block or one after it reads the name."""
        return bool(self._read[number] & self._bit.get(name, 0))

    def tests(self, number: int, name: str) -> bool:
        """Whether a condition there or later reads it."""
        return bool(self._tested[number] & self._bit.get(name, 0))

    def asks(self, number: int, name: str) -> bool:
        """Whether one does, of the names that more than one condition reads."""
        return bool(self._again[number] & self._bit.get(name, 0))

    def _bits(self, sets: list[set[str]]) -> list[int]:
        bit = self._bit
        found = []
        for names in sets:
            bits = 0
            for name in names:
                if name not in bit:
                    bit[name] = _FIRST << len(bit)
                bits |= bit[name]
            found.append(bits)
        return found

    def _local(self, graph: Graph) -> tuple[list[set[str]], list[set[str]], list[set[str]]]:
        uses, kills, tests = [], [], []
        for block in graph.blocks:
            used: set[str] = set()
            killed: set[str] = set()
            for instr in block.instrs:
                used |= _read(instr) - killed
                name = _plain(instr.place) if instr.op in ("set", "declare", "call") else None
                if name is not None and name not in graph.addressed:
                    killed.add(name)
            value: set[str] = set()
            if block.value:
                _gather(block.value, value)
            used |= value - killed
            uses.append(used)
            kills.append({name for name in killed if name not in used})
            tests.append(_behind(value, block) if block.op == "if" else set())
        return uses, kills, tests


def _copied(graph: Graph, tested: Counter[str]) -> set[str]:
    """Names that conditions ask for, one of which is assigned to the other: to ask for one is to
    ask for the other again."""
    found: set[str] = set()
    for block in graph.blocks:
        for instr in block.instrs:
            if instr.op == "set" and instr.place[0] == instr.value[0] == "id":
                names = (instr.place[1], instr.value[1])
                if names[0] in tested and names[1] in tested:
                    found.update(names)
    return found


def _behind(names: set[str], block: Block) -> set[str]:
    """Names with those that the calls among them were asked about."""
    found = set(names)
    for instr in reversed(block.instrs):
        name = _plain(instr.place)
        if name is not None and name in found and name.startswith("#"):
            found |= _read(instr)
    return found


def _read(instr: Instr) -> set[str]:
    found: set[str] = set()
    for expr in (instr.value, instr.callee, *instr.arguments):
        if expr:
            _gather(expr, found)
    if instr.place and _plain(instr.place) is None:
        _gather(instr.place, found)
    return found


def _backwards(gen: list[int], kill: list[int], before: list[list[int]]) -> list[int]:
    live = list(gen)
    stack = list(range(len(gen)))
    while stack:
        number = stack.pop()
        for earlier in before[number]:
            new = live[earlier] | live[number] & ~kill[earlier]
            if new != live[earlier]:
                live[earlier] = new
                stack.append(earlier)
    return live
