"""Follows the paths of one function and keeps what is known on each.

States that know the same meet; what is no longer read is forgotten; a loop is followed until
its states repeat, its counters being unknown from the second turn on.  The work is bounded:
past the budget paths are merged, then given up, and the function counts as partial.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from highmem.lint.paths.facts import assume
from highmem.lint.paths.state import State
from highmem.lint.paths.values import PAGE_SIZE, Value, leaves, mentions_window, names_of, root
from highmem.lint.rules.calls import Calls
from highmem.lint.syntax.graph import Block, Instr
from highmem.lint.syntax.liveness import Liveness

__all__ = ["Interpreter"]

_LOOKS = 3
"""Different states of one block in a function that opens no window."""
_STATES = 24
"""Different states that one block is entered with before facts are dropped."""
_PAGE_WORDS = frozenset({"PAGE_SIZE", "PAGE_CACHE_SIZE"})
_WORK = 40_000
"""What one function may cost, in instructions and things known; some 2 s at the most."""
_SIZE = 9_000_000
_KNOWN = 48
"""Facts and windows that a state keeps."""


@dataclass(slots=True)
class _Seen:
    keys: set[object]
    merged: set[object]


class Interpreter(Calls):
    """Runs one graph; findings and exits are collected on the way."""

    def run(self) -> None:
        """Follow every path."""
        size = len(self.graph.blocks)
        if size * (size + len(self.graph.types)) > _SIZE:
            self.partial(f"{size} branches are more than is allowed for one function")
            return
        self.heads: dict[int, list[int]] = {}
        for loop in self.graph.loops:
            self.heads.setdefault(loop.head, []).append(loop.number)
        self.live = Liveness(self.graph)
        self.light = not self._maps()
        seen: dict[int, _Seen] = {}
        work = deque([(0, State({}, {}, (), {}))])
        work_done = 0
        while work:
            number, state = work.popleft()
            entry = self._entered(number, state, seen)
            if entry is None:
                continue
            work_done += self._cost(number, entry)
            if work_done > _WORK:
                self.partial("more work than is allowed for one function")
                break
            work.extend(self._block(number, entry))

    def _cost(self, number: int, state: State) -> int:
        """Of running a block once."""
        known = len(state.env) + len(state.facts) + 4 * len(state.windows)
        block = self.graph.blocks[number]
        return 4 + len(block.instrs) + known // 4 + 4 * len(block.loops)

    def _maps(self) -> bool:
        """Whether anything in the function opens or closes a window."""
        names = self.table.names()
        for name in self.calls.values():
            summary = self.summaries.get(name, self.source.path) if name else None
            if not name or name in names or (summary is not None and summary.matters):
                return True
        return False

    def _entered(self, number: int, state: State, seen: dict[int, _Seen]) -> State | None:
        """The state to run the block with, or None where it was run with the same."""
        self._forget_dead(number, state)
        if self.light and not state.windows:
            # Only where pages come from matters: one look at each block is enough.
            state.facts = {}
            known = seen.setdefault(number, _Seen(set(), set()))
            if len(known.keys) >= _LOOKS:
                return None
        known = seen.setdefault(number, _Seen(set(), set()))
        if len(known.keys) >= _STATES:
            state.drop_unknown(all_facts=len(known.merged) >= _STATES)
            key: object = state.key()
            if key in known.merged or key in known.keys:
                return None
            if len(known.merged) >= 2 * _STATES:
                self.partial("too many paths")
                return None
            known.merged.add(key)
            return state
        key = state.key()
        if key in known.keys:
            return None
        known.keys.add(key)
        return state

    def _forget_dead(self, number: int, state: State) -> None:
        read, tested = self.live.read[number], self.live.tested[number]
        shown = {window.what for window in state.windows.values()}
        kept: dict[Value, Value] = {}
        for place, value in state.env.items():
            kind = place[0]
            if kind == "v":
                name = place[1]
                alive = name in read or name in self.graph.addressed
                if value[0] in ("n", "e") and name not in tested:
                    alive = alive and value[0] == "n" and name in self.returned
            elif kind == "tmp":
                alive = f"#{place[1]}" in read
            else:
                alive = (
                    mentions_window(value)
                    or value in shown
                    or (kind == "fld" and "." + place[2] in tested)
                    or (value[0] == "c" and self.calls.get(value[1]) in self.table.page_calls)
                )
            if alive:
                kept[place] = value
        state.env = kept
        if state.facts:
            self._forget_facts(state, self.live.again[number])
        many = len(state.windows) > _KNOWN
        if len(state.facts) > _KNOWN:
            state.facts = dict(list(state.facts.items())[-_KNOWN:])
        for window in list(state.windows.values()):
            old = window.id[1] and not state.holders(window.id)
            if window.status != "open" and (many or (old and window.status == "closed")):
                state.windows.pop(window.id)

    def _forget_facts(self, state: State, tested: frozenset[str]) -> None:
        held: set[Value] = set()
        anywhere: set[Value] = set()
        for place, value in state.env.items():
            if value[0] not in ("n", "e"):
                anywhere |= leaves(value)
                if names_of(place) & tested or place[0] == "tmp":
                    held |= leaves(value)
        for window in state.windows.values():
            held |= leaves(window.what)
        state.facts = {
            key: fact
            for key, fact in state.facts.items()
            if self._worth(key, fact, held, tested)
            or (key[:2] == ("call", "IS_ERR") and leaves(key) <= anywhere)
        }

    def _worth(
        self, key: Value, fact: tuple[int, int, bool], held: set[Value], tested: frozenset[str]
    ) -> bool:
        """Whether somebody can still ask for the fact."""
        if key[0] == "p" and names_of(key) & _PAGE_WORDS:
            return True
        if key[0] != "p" and 0 < fact[1] <= PAGE_SIZE:
            return True
        known = all(leaf in held or (leaf[0] == "v" and leaf[1] in tested) for leaf in leaves(key))
        return known and all(name in tested for name in names_of(key) if name[0] == ".")

    def _block(self, number: int, state: State) -> list[tuple[int, State]]:
        block = self.graph.blocks[number]
        state = state.copy()
        for instr in block.instrs:
            self.step(instr, state, block)
        if block.op == "goto":
            return self._to(number, block.targets[0], state)
        if block.op == "if" and block.value is not None:
            return self._if(number, block, state)
        if block.op in ("return", "end"):
            value = self.value(block.value, state, block) if block.value is not None else None
            self.at_exit(state, block, value)
        return []

    def _if(self, number: int, block: Block, state: State) -> list[tuple[int, State]]:
        assert block.value is not None
        value = self.value(block.value, state, block)
        taken = []
        for truth, target in zip((True, False), block.targets, strict=True):
            after = state.copy()
            if assume(after, value, truth):
                taken.append((truth, target, after))
        both = len(taken) == 2
        found: list[tuple[int, State]] = []
        for truth, target, after in taken:
            if both:
                other = block.targets[1 if truth else 0]
                alone = self.live.once[number]
                self.passed_by(after, number, other, target, alone=alone)
                if block.end and state.windows:
                    after.note(block.start, "yes" if truth else "no", block.end)
            found += self._to(number, target, after)
        return found

    def _to(self, number: int, target: int, state: State) -> list[tuple[int, State]]:
        """Go to a block; along a back edge the loop's counters become unknown."""
        for loop in self.heads.get(target, ()):
            if loop in self.graph.blocks[number].loops:
                self._turn(loop, state)
        return [(target, state)]

    def _turn(self, loop: int, state: State) -> None:
        symbols: set[Value] = set()
        for place, value in state.env.items():
            symbols |= leaves(place) | leaves(value)
        for window in state.windows.values():
            symbols |= leaves(window.what)
        for key in state.facts:
            symbols |= leaves(key)
        for symbol in symbols:
            if symbol[0] in ("c", "a", "l") and symbol[-1] == 0 and self._made_in(symbol, loop):
                state.replace_symbol(symbol, (*symbol[:-1], 1))
        touched: list[Value] = []
        for place in self.graph.loops[loop].assigned:
            if place not in self.graph.loops[loop].stepped:
                continue
            key = self.place(place, state, touched)
            self._step_over(key, loop, state)

    def _step_over(self, key: Value, loop: int, state: State) -> None:
        old = state.env.get(key)
        if old is not None and old[0] == "w":
            window = state.windows.get(old[1])
            if window is not None and loop not in self.loops_of(window.id[0]):
                state.env[key] = ("w", old[1], "adv" if self.goes_on(key, loop) else "in")
            return
        state.env[key] = ("l", key, loop, 0)

    def goes_on(self, key: Value, loop: int) -> bool:
        """Whether the loop moves the pointer forward."""
        if key[0] != "v":
            return True
        return ("id", key[1]) in self.forward.get(loop, set())

    def _made_in(self, symbol: Value, loop: int) -> bool:
        if symbol[0] == "l":
            return loop == symbol[2] or loop in self.outer_loops(symbol[2])
        return loop in self.loops_of(symbol[1])

    def step(self, instr: Instr, state: State, block: Block) -> None:
        """One instruction."""
        if instr.op == "set":
            self.on_set(instr, state)
        elif instr.op == "call":
            self.on_call(instr, state, block)
        elif instr.op == "declare":
            state.env.pop(("v", instr.place[1]), None)
            for place in [one for one in state.env if root(one) == ("v", instr.place[1])]:
                del state.env[place]
        elif instr.op == "jump":
            if state.windows:
                state.note(instr.start, instr.detail)
        elif instr.op == "each":
            for argument in instr.arguments:
                if argument[1] in self.graph.locals and block.loops:
                    key: Value = ("v", argument[1])
                    state.env[key] = ("l", key, block.loops[-1], 0)
        else:
            touched: list[Value] = []
            self.evaluate(instr.value, state, touched)
            self.check_access(touched, state, instr.start, instr.end)
