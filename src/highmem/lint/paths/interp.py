# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore, no-redef"
"""Follows the paths of one function and keeps what is known on each.

States that know the same meet; what is no longer read is forgotten; a loop is followed until
its states repeat, its counters being unknown from the second turn on.  The work is bounded:
past the budget paths are merged, then given up, and the function counts as partial.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

try:
    import cython
except ImportError:
    from highmem import _cython as cython

from highmem.lint.paths.facts import assume, carry_over
from highmem.lint.paths.forget import KNOWN, Forgetting
from highmem.lint.paths.state import State
from highmem.lint.paths.values import ZERO, Value, leaves, root
from highmem.lint.rules.calls import Calls
from highmem.lint.syntax.graph import Block, Expr, Instr
from highmem.lint.syntax.liveness import Liveness

__all__ = ["COMPILED", "TOO_MANY", "Interpreter"]

COMPILED: bool = bool(cython.compiled)

_LOOKS = 3
"""Different states of one block in a function that opens no window."""
_STATES = 24
"""Different states that one block is entered with before facts are dropped."""
_WORK = 40_000
"""What one function may cost, in instructions and things known; some 2 s at the most."""
_SIZE = 9_000_000
TOO_MANY = "too many paths"
"""Why a function is not fully analysed of which some paths were given up."""


class Interpreter(Calls):
    """Runs one graph; findings and exits are collected on the way."""

    def run(self) -> None:
        """Follow every path."""
        blocks = self.graph.blocks
        size = len(blocks)
        if size * (size + len(self.graph.types)) > _SIZE:
            self.partial(f"{size} branches are more than is allowed for one function")
            return
        self.heads: dict[int, list[int]] = {}
        for loop in self.graph.loops:
            self.heads.setdefault(loop.head, []).append(loop.number)
        self.live = Liveness(self.graph)
        self.forgetting = Forgetting(
            self.live,
            self.graph.addressed,
            frozenset(self.returned),
            self.page_sites(),
            self.unasked(),
        )
        self.keys: list[set[object]] = [set() for _ in blocks]
        """What each block was entered with."""
        self.merged: list[set[object]] = [set() for _ in blocks]
        """The same, after facts were dropped."""
        costs = [4 + len(block.instrs) + 4 * len(block.loops) for block in blocks]
        entered = self._entered
        if not self._maps():
            entered = self._looked_at
            # Only a large function can come to its limit without maps: it is run in full.
            small = _LOOKS * sum(costs) <= _WORK // 4
            self.wanted = self._before_checks() if small else frozenset(range(size))
        self._follow(entered, costs)

    def _follow(self, entered: Callable[[int, State], bool], costs: list[int]) -> None:
        work = deque([(0, State({}, {}, (), {}))])
        work_done = 0
        while work:
            number, state = work.popleft()
            if not entered(number, state):
                continue
            known = len(state.env) + len(state.facts) + 4 * len(state.windows)
            work_done += costs[number] + known // 4
            if work_done > _WORK:
                self.partial("more work than is allowed for one function")
                break
            work.extend(self._block(number, state))

    def _maps(self) -> bool:
        """Whether anything in the function may open or close a window."""
        names = self.table.names()
        for name in self.calls.values():
            if not name or name in names or ((known := self.summary_of(name)) and known.matters):
                return True
        return False

    def _before_checks(self) -> frozenset[int]:
        """Blocks from which a call that is judged without a window can still come."""
        blocks = self.graph.blocks
        before: list[list[int]] = [[] for _ in blocks]
        stack = []
        for number, block in enumerate(blocks):
            for target in block.targets:
                before[target].append(number)
            if any(instr.op == "call" and self.judged(instr) for instr in block.instrs):
                stack.append(number)
        found = set(stack)
        while stack:
            for earlier in before[stack.pop()]:
                if earlier not in found:
                    found.add(earlier)
                    stack.append(earlier)
        return frozenset(found)

    def _looked_at(self, number: int, state: State) -> bool:
        """Whether to run the block, in a function without windows.

        Only where pages come from matters: a few looks at each block are enough; and where
        nothing is judged any more, it is enough to know that the function ends.
        """
        keys = self.keys[number]
        count = len(keys)
        if count >= _LOOKS or (self.ends and number not in self.wanted):
            return False
        state.facts = {}
        keys.add((self.forgetting.places(number, state.env, state.windows), state.locks))
        return len(keys) > count

    def _entered(self, number: int, state: State) -> bool:
        """Whether to run the block with the state: not where it was run with the same."""
        keys = self.keys[number]
        count = len(keys)
        if count >= _STATES:
            return self._entered_merged(number, state)
        places = self.forgetting.places(number, state.env, state.windows)
        if state.windows:
            self.forgetting.windows(state)
        facts = self.forgetting.facts(number, state)
        keys.add(self.forgetting.whole(places, facts, state))
        return len(keys) > count

    def _entered_merged(self, number: int, state: State) -> bool:
        """The same, where so many states came already that they must know less to meet."""
        merged = self.merged[number]
        if len(merged) >= 2 * _STATES and TOO_MANY in self.reasons:
            return False
        forgetting = self.forgetting
        if len(merged) >= _STATES and len(state.windows) <= KNOWN:
            # What is dead changes nothing about what is dropped: only the rest is looked at.
            state.drop_unknown(all_facts=True)
            places = forgetting.places(number, state.env, state.windows)
            forgetting.windows(state)
            key = forgetting.whole(places, frozenset(), state)
        else:
            forgetting.places(number, state.env, state.windows)
            forgetting.windows(state)
            forgetting.facts(number, state)
            state.drop_unknown(all_facts=len(merged) >= _STATES)
            key = forgetting.key(state)
        if key in merged or key in self.keys[number]:
            return False
        if len(merged) >= 2 * _STATES:
            self.partial(TOO_MANY)
            return False
        merged.add(key)
        return True

    def _block(self, number: int, state: State) -> list[tuple[int, State]]:
        block = self.graph.blocks[number]
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
        yes, no = block.targets
        told = state.windows and block.end
        other = state.copy()
        taken = [(True, yes, state)] if assume(state, value, True) else []
        if not (taken and self._runs(number, value)) and assume(other, value, False):
            taken.append((False, no, other))
        both = len(taken) == 2
        found: list[tuple[int, State]] = []
        for truth, target, after in taken:
            if both:
                if after.windows:
                    alone = self.live.once[number]
                    self.passed_by(after, number, no if truth else yes, target, alone=alone)
                if told:
                    after.note(block.start, "yes" if truth else "no", block.end)
            found += self._to(number, target, after)
        return found

    def _runs(self, number: int, value: Value) -> bool:
        """Whether it asks if a loop begins that counts from 0 to a constant in capitals, or uses
        up the length of a scatterlist's entry or of a bio_vec.

        Nobody writes such a loop to have it run not even once, and no entry is empty.
        """
        if number not in self.heads:
            return False
        if value[:2] in (("bin", ">"), ("bin", "!=")) and value[3] == ZERO:
            value = value[2]
        if value[0] == "fld":
            return value[2] in ("length", "bv_len")
        if value[:3] != ("bin", "<", ZERO):
            return False
        names = leaves(value[3])
        return bool(names) and all(
            one[0] == "v" and one[1].isupper() and one[1] not in self.graph.locals for one in names
        )

    def _to(self, number: int, target: int, state: State) -> list[tuple[int, State]]:
        """Go to a block; along a back edge the loop's counters become unknown."""
        for loop in self.heads.get(target, ()):
            if loop in self.graph.blocks[number].loops:
                self._turn(loop, state)
        return [(target, state)]

    def _turn(self, loop: int, state: State) -> None:
        symbols = state.young()
        earlier = {one: (*one[:-1], 1) for one in symbols if self._made_in(one, loop)}
        if earlier:
            state.replace_symbols(earlier)
        touched: list[Value] = []
        for place in self.graph.loops[loop].assigned:
            if place not in self.graph.loops[loop].stepped:
                continue
            key = self.place(place, state, touched)
            self._step_over(place, key, loop, state)

    def _step_over(self, place: Expr, key: Value, loop: int, state: State) -> None:
        old = state.env.get(key)
        if old is not None and old[0] == "w":
            window = state.windows.get(old[1])
            if old[2] == "used":  # since it was moved on
                return
            if window is not None and loop not in self.loops_of(window.id[0]):
                state.env[key] = ("w", old[1], "adv" if self.goes_on(place, loop) else "in")
            return
        new: Value = ("l", key, loop, 0)
        state.env[key] = new
        if old is not None:
            # What the loop's condition may ask for next.
            carry_over(state, old, new, self.counts_up(place, loop))

    def counts_up(self, place: Expr, loop: int) -> bool:
        """Whether all that the loop does to the place is ``++``."""
        key = (place, loop)
        known = self._counters.get(key)
        if known is None:
            steps = [
                instr.detail
                for block in self.graph.blocks
                if loop in block.loops
                for instr in block.instrs
                if instr.op == "set" and instr.place == place
            ]
            plain = place[0] == "id" and place[1] not in self.graph.addressed
            known = self._counters[key] = plain and set(steps) == {"++"}
        return known

    def goes_on(self, place: Expr, loop: int) -> bool:
        """Whether the loop moves the pointer forward, and may leave it past the page."""
        if place in self.forward.get(loop, ()):
            return True
        return place[0] != "id" and place not in self.checked.get(loop, ())

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
