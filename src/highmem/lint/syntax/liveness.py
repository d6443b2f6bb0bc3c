"""Which names still matter after a block: what is dead is forgotten, so that paths meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from highmem.lint.syntax.graph import Block, Expr, Graph, Instr, children

__all__ = ["Liveness"]


def _names(expr: Expr) -> set[str]:
    found: set[str] = set()
    stack = [expr] if expr else []
    while stack:
        one = stack.pop()
        if one[0] == "id":
            found.add(one[1])
        elif one[0] == "tmp":
            found.add(f"#{one[1]}")
        elif one[0] == "fld":
            found.add("." + one[2])
        stack.extend(children(one))
    return found


def _plain(place: Expr) -> str | None:
    if place and place[0] == "id":
        return str(place[1])
    return f"#{place[1]}" if place and place[0] == "tmp" else None


class Liveness:
    """For each block the names read later, and those that conditions read later."""

    def __init__(self, graph: Graph) -> None:
        self.read: list[frozenset[str]] = []
        self.tested: list[frozenset[str]] = []
        self.again: list[frozenset[str]] = []
        """Of these, the ones that more than one condition reads."""
        before: list[list[int]] = [[] for _ in graph.blocks]
        for number, block in enumerate(graph.blocks):
            for target in block.targets:
                before[target].append(number)
        uses, kills, tests = self._local(graph)
        counted = Counter(name for names in tests for name in names)
        # A condition that nobody asks again tells nothing later.
        again = [{name for name in names if counted[name] > 1} for names in tests]
        self.read = _backwards(uses, kills, before, graph)
        self.once = [any(counted[name] == 1 for name in names) for names in tests]
        """Of each block: whether its condition asks for something that no other asks for."""
        empty: list[set[str]] = [set() for _ in graph.blocks]
        self.tested = _backwards(tests, empty, before, graph)
        self.again = _backwards(again, empty, before, graph)

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
            value = _names(block.value) if block.value is not None else set()
            used |= value - killed
            uses.append(used)
            kills.append({name for name in killed if name not in used})
            tests.append(_behind(value, block) if block.op == "if" else set())
        return uses, kills, tests


def _behind(names: set[str], block: Block) -> set[str]:
    """Names with those that the calls among them were asked about."""
    found = set(names)
    for instr in reversed(block.instrs):
        name = _plain(instr.place)
        if name is not None and name in found and name.startswith("#"):
            found |= _read(instr)
    return found


def _read(instr: Instr) -> set[str]:
    found = _names(instr.value) | _names(instr.callee)
    for argument in instr.arguments:
        found |= _names(argument)
    if _plain(instr.place) is None:
        found |= _names(instr.place)
    return found


def _backwards(
    gen: list[set[str]], kill: list[set[str]], before: list[list[int]], graph: Graph
) -> list[frozenset[str]]:
    live = [set(names) for names in gen]
    work: Iterable[int] = list(range(len(gen) - 1, -1, -1))
    stack = list(work)[::-1]
    while stack:
        number = stack.pop()
        for earlier in before[number]:
            new = live[number] - kill[earlier]
            if not new <= live[earlier]:
                live[earlier] |= new
                stack.append(earlier)
    return [frozenset(names) for names in live]
