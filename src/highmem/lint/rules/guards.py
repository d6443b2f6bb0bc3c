"""Conditional unmaps: ``if (x) kunmap(page);`` passed by with the window open."""

from __future__ import annotations

from highmem.lint.paths.context import Context
from highmem.lint.paths.state import State

__all__ = ["Guards"]

_REACH = 12
"""Blocks of an arm that are looked at."""


class Guards(Context):
    """Knows which branches go around an unmap."""

    def closers_in(self, number: int) -> set[str]:
        """Families that a block unmaps."""
        found = set()
        for instr in self.graph.blocks[number].instrs:
            if instr.op == "call":
                found |= self.closes_of(instr.detail or self.method(instr.callee))
        return found

    def closes_of(self, name: str) -> set[str]:
        """Families that a call unmaps."""
        close = self.table.closes.get(name)
        if close is not None:
            return {close.family, *close.also}
        iterator = self.table.iterators.get(name)
        if iterator is not None and iterator.does != "open":
            return {iterator.family}
        summary = self.summary_of(name)
        return {one[1] for one in summary.closes} if summary is not None else set()

    def passed_by(self, state: State, number: int, other: int, target: int, *, alone: bool) -> None:
        """The branch not taken may unmap and come back to the one taken.

        *alone*: no other condition asks the same, so the map call hardly depends on it.
        """
        if not state.windows:
            return
        key = (other, target)
        if key not in self._arms:
            self._arms[key] = self._arm(other, target)
        families = self._arms[key]
        for window in state.open_windows() if families else ():
            if window.family in families and window.guarded != "possible":
                sure = self._surely_before(window.id[0], number) or alone
                how = "likely" if sure else "possible"
                state.change(window, guarded=how)

    def _arm(self, other: int, target: int) -> set[str]:
        """Families unmapped between *other* and *target*, where the one leads to the other."""
        families: set[str] = set()
        stack, seen, joins = [other], {other, target}, False
        while stack and len(seen) < _REACH:
            number = stack.pop()
            families |= self.closers_in(number)
            for after in self.graph.blocks[number].targets:
                joins = joins or after == target
                if after not in seen and after not in self._heads:
                    seen.add(after)
                    stack.append(after)
        return families if joins else set()

    def _surely_before(self, site: int, number: int) -> bool:
        """Whether every way to a block goes through the call at *site*."""
        key = (site, number)
        if key not in self._before:
            home = self._block_of(site)
            stack, seen = [0], {0}
            while stack:
                one = stack.pop()
                if one == home:
                    continue
                for after in self.graph.blocks[one].targets:
                    if after not in seen:
                        seen.add(after)
                        stack.append(after)
            self._before[key] = number == home or number not in seen or home == 0
        return self._before[key]

    def _block_of(self, site: int) -> int:
        for number, block in enumerate(self.graph.blocks):
            if any(instr.start == site and instr.op == "call" for instr in block.instrs):
                return number
        return 0

    def note_closers(self) -> None:
        """Which families this function unmaps anywhere, and in which loops."""
        self.closing_loops: list[set[int]] = []
        self._heads = {loop.head for loop in self.graph.loops}
        for block in self.graph.blocks:
            for instr in block.instrs:
                name = instr.detail or self.method(instr.callee)
                families = self.closes_of(name) if instr.op == "call" else set()
                if families:
                    self.closed_families |= families
                    self.closing_loops.append(set(block.loops))
