# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore, no-redef"
"""What the analysis of one function stands on: graph, tables, file, and where findings go.

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

from highmem.findings import Confidence
from highmem.lint.api import ApiTable, Family
from highmem.lint.paths.evaluate import FileFacts, Names, Typing, evaluate, place_of
from highmem.lint.paths.state import State, Trail, Window
from highmem.lint.paths.summaries import Summaries, Summary, portable
from highmem.lint.paths.values import Value, WindowId, outermost, window_of
from highmem.lint.syntax.graph import Block, Expr, Graph, Instr, mentions, names_in
from highmem.lint.syntax.source import Function, Source

__all__ = ["CONFIDENCE", "RELEASES", "Context", "Raw", "weaker"]

CONFIDENCE = (Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE)
RELEASES = re.compile(
    r"unmap|release|free|destroy|clean|complete"
    r"|(?:^|_)(?:put|done|finish|fini|end|stop|drop|abort|close|set|attach|enqueue|store)(?:_|$)"
)
"""Names of functions that may unmap, or keep, what they are given."""

_MANY = 1 << 15


def weaker(*confidences: Confidence) -> Confidence:
    """The weakest of them."""
    return max(confidences, key=CONFIDENCE.index)


@dataclass(frozen=True, slots=True)
class Raw:
    """A finding before its text is made."""

    rule: str
    start: int
    end: int
    what: str
    confidence: Confidence
    trail: Trail | None
    since: int
    """Offset where the window was opened; -1 where none is concerned."""
    family: str


_known_names: list[tuple[ApiTable, dict[str, Any]]] = []


def _abouts_of(table: ApiTable) -> dict[str, Any]:
    """What is known of calls by their names alone; the same for all functions of a run."""
    if not _known_names or _known_names[0][0] is not table or len(_known_names[0][1]) > _MANY:
        _known_names[:] = [(table, {})]
    return _known_names[0][1]


class Context:
    """Shared by everything that runs on one graph."""

    def __init__(
        self,
        graph: Graph,
        function: Function,
        source: Source,
        table: ApiTable,
        summaries: Summaries,
        facts: FileFacts,
    ) -> None:
        self.graph = graph
        self.function = function
        self.source = source
        self.table = table
        self.summaries = summaries
        self.facts = facts
        self.typing = Typing(graph, facts, table.page_fields)
        self.found: dict[tuple[str, int, int], Raw] = {}
        self.reasons: list[str] = []
        self.calls: dict[int, str] = {}
        """Name of the function called at an offset."""
        self.flags: dict[int, str] = {}
        """GFP flags and slots: the names in the last argument of the call at an offset."""
        self._site_loops: dict[int, tuple[int, ...]] = {}
        self.forward: dict[int, set[Expr]] = {}
        """Pointers that a loop moves on."""
        self.checked: dict[int, set[Expr]] = {}
        """The same, where something is read there at once: so it is in the page still."""
        self.fields: dict[str, set[str]] = {}
        """Members of local structs that are read or written."""
        self.closed_families: set[str] = set()
        """Families that the function unmaps anywhere."""
        self.ends: list[Any] = []
        self.used_sites: set[int] = set()
        self.returned: set[str] = set()
        """Variables that the function returns."""
        self.null_tested: set[str] = set()
        """Variables that conditions ask whether they are there."""
        self.address_tested: set[Expr] = set()
        """Pages of which conditions ask whether page_address() answers."""
        self.named_after: dict[int, str] = {}
        """Variable that takes the result of the call at an offset."""
        self.slots_by_name: bool | None = None
        """Whether kmap_atomic() takes the slot that it is told; None where that is not known."""
        self.asked: set[str] = set()
        """Unknown functions called where nothing may sleep."""
        self.closed_sites: set[int] = set()
        self.may_close: set[tuple[Value, str]] = set()
        """Addresses or pages from outside that some path may unmap, with the family."""
        self.against: dict[int, dict[str, None]] = {}
        """Calls to map and what speaks against converting them."""
        self.names = Names(graph.types)
        self._abouts = _abouts_of(table)
        self._summaries: dict[str, Summary | None] = {}
        self._nearby: dict[str, bool] = {}
        self._counters: dict[tuple[Expr, int], bool] = {}
        self._arms: dict[tuple[int, int], set[str]] = {}
        self._before: dict[tuple[int, int], bool] = {}
        self._scan()

    def _scan(self) -> None:
        for block in self.graph.blocks:
            made: dict[Expr, int] = {}
            for instr in block.instrs:
                self._site_loops[instr.start] = block.loops
                if instr.op == "call":
                    made[instr.place] = instr.start
                    self._scan_call(instr, block)
                elif instr.op == "set":
                    self._scan_set(instr, block, made)
                for expr in (instr.value, instr.place, instr.callee, *instr.arguments):
                    if expr:
                        _look_at(expr, block.loops, self._site_loops, self.fields)
            if block.value:
                _look_at(block.value, block.loops, self._site_loops, self.fields)
                if block.op == "return":
                    self.returned |= names_in(block.value)
                elif block.value in made:
                    tested = next(i for i in block.instrs if i.place == block.value)
                    self.address_tested.update(tested.arguments[:1])
                elif block.value[0] == "id":
                    self.null_tested.add(block.value[1])
                elif block.value[0] == "bin" and block.value[3] == ("num", 0):
                    self.null_tested |= names_in(block.value[2])

    def _scan_call(self, instr: Instr, block: Block) -> None:
        self.calls[instr.start] = instr.detail
        # A name that two arguments have is there twice.
        flags: list[str] = []
        for one in instr.arguments:
            names: set[str] = set()
            _flags_in(one, names)
            flags += names
        flags.sort()
        self.flags[instr.start] = "|".join(flags)
        self._site_loops[-instr.place[1]] = block.loops

    def _scan_set(self, instr: Instr, block: Block, made: dict[Expr, int]) -> None:
        value = instr.value
        while value[0] == "cast":
            value = value[2]
        if value in made and instr.place[0] == "id":
            self.named_after[made[value]] = instr.place[1]
        if instr.detail in ("++", "+=") or _added_to(instr.value, instr.place):
            into = self.checked if _goes_through(block, instr) else self.forward
            for loop in block.loops:
                into.setdefault(loop, set()).add(instr.place)

    def loops_of(self, site: int) -> tuple[int, ...]:
        """Loops around the call, or the choice, at an offset."""
        return self._site_loops.get(site, ())

    def outer_loops(self, loop: int) -> tuple[int, ...]:
        """Loops around a loop."""
        inside = self.graph.blocks[self.graph.loops[loop].head].loops
        return tuple(one for one in inside if one != loop)

    def summary_of(self, name: str) -> Summary | None:
        """What is known of the function that a call here means."""
        try:
            return self._summaries[name]
        except KeyError:
            found = self._summaries[name] = self.summaries.get(name, self.source.path)
            return found

    def partial(self, why: str) -> None:
        """Note why the function is not fully analysed."""
        if why not in self.reasons:
            self.reasons.append(why)

    # Values.

    def evaluate(self, expr: Expr, state: State, touched: list[Value]) -> Value:
        """The value of an expression on a path."""
        return evaluate(expr, state.env, state.facts, self.names, touched)

    def place(self, expr: Expr, state: State, touched: list[Value]) -> Value:
        """The place that an expression names."""
        return place_of(expr, state.env, state.facts, self.names, touched)

    def outside(self, place: Value) -> bool:
        """Whether others can read the place after the function has returned."""
        place = outermost(place)
        if place[0] == "v":
            return place[1] not in self.graph.locals
        if place[0] != "deref":
            return False
        pointer = place[1]
        while pointer[0] == "bin":
            pointer = pointer[2]
        if pointer[0] == "addr":
            return self.outside(pointer[1])
        return bool(pointer[0] != "w")

    def from_parameter(self, value: Value) -> bool:
        """Whether a value came in with the parameters, as one or in what one points to."""
        while value[0] == "bin" and value[1] in ("+", "-", "&"):
            value = value[2]
        return portable(value, self.graph.parameters)

    def method(self, callee: Expr) -> str:
        """``buf->ops->map`` for what is called through a table of functions."""
        if callee[:1] == ("deref",):
            callee = callee[1]
        if callee[:1] != ("fld",):
            return ""
        names = [str(callee[2])]
        owner: Expr = callee[1]
        while owner[0] in ("deref", "fld", "id") and len(names) < 3:
            if owner[0] != "deref":
                names.append(str(owner[-1]))
            owner = owner[1] if owner[0] != "id" else ("end",)
        full = "->".join(reversed(names))
        if full in self.table.opens or full in self.table.closes:
            return full
        # What somebody's table calls kunmap is not the kernel's.
        table = self.table
        own = names[0] in table.opens or names[0] in table.closes or names[0] in table.iterators
        return full if own else names[0]

    # Findings.

    def family(self, window: Window) -> Family:
        """The family of a window."""
        return self.table.families[window.family]

    def confidence(self, window: Window, state: State) -> Confidence:
        """How sure a finding about an open window can be."""
        found = Confidence.CERTAIN
        if window.id[1] or window.nullable:
            found = Confidence.LIKELY
        if state.merged:
            found = Confidence.POSSIBLE  # what a condition said may be forgotten
        if window.given:
            given = Confidence.POSSIBLE if RELEASES.search(window.given) else Confidence.LIKELY
            found = weaker(found, given)
        if window.guarded:
            found = weaker(found, Confidence(window.guarded))
        return found

    def report(
        self,
        rule: str,
        span: tuple[int, int],
        what: str,
        confidence: Confidence,
        state: State,
        window: Window | None = None,
    ) -> None:
        """Note a finding; of the same one on several paths the surest stays."""
        since = window.id[0] if window is not None else -1
        key = (rule, span[0], since)
        old = self.found.get(key)
        if old is None or CONFIDENCE.index(confidence) < CONFIDENCE.index(old.confidence):
            family = window.family if window is not None else ""
            raw = Raw(rule, span[0], span[1], what, confidence, state.trail, since, family)
            self.found[key] = raw

    def say(self, value: Value) -> str:
        """A value in C, as well as it can be."""
        kind = value[0]
        if kind == "v":
            return str(value[1])
        if kind == "fld":
            base = value[1]
            if base[0] == "deref":
                return f"{self.say(base[1])}->{value[2]}"
            return f"{self.say(base)}.{value[2]}"
        if kind == "deref":
            return f"*{self.say(value[1])}"
        if kind == "addr":
            return f"&{self.say(value[1])}"
        if kind == "c":
            return f"{self.calls.get(value[1], '?') or '?'}()"
        if kind == "l":
            return self.say(value[1])
        if kind == "call":
            return f"{value[1]}({', '.join(map(self.say, value[2]))})"
        if kind == "n":
            return str(value[1])
        if kind == "bin":
            return f"{self.say(value[2])} {value[1]} {self.say(value[3])}"
        return "…"

    def named(self, window: Window, state: State) -> str:
        """What a message calls a window."""
        holders = [p for p in state.holders(window.id) if p[0] == "v" and p[1] in self.graph.locals]
        name = f"{holders[0][1]}, " if holders else ""
        line = self.source.position(window.id[0])[0]
        return f"the window of {window.call}() in line {line} ({name}{self.say(window.what)})"

    def lost(self, window: WindowId, state: State) -> bool:
        """Whether no place holds the address any more."""
        return not any(window_of(value) == window for value in state.env.values())


@cython.cfunc
def _look_at(
    expr: tuple[Any, ...],
    loops: tuple[Any, ...],
    sites: dict[Any, Any],
    fields: dict[Any, Any],
) -> None:
    """Note the choices and the members of local structs in an expression."""
    kind = expr[0]
    if kind == "id" or kind == "num" or kind == "tmp" or kind == "str":
        return
    if kind == "any":
        sites[expr[1]] = loops
    elif kind == "fld" and expr[1][0] == "id":
        fields.setdefault(expr[1][1], set()).add(expr[2])
    for part in expr:
        if isinstance(part, tuple) and part:
            _look_at(part, loops, sites, fields)


@cython.cfunc
def _flags_in(expr: tuple[Any, ...], found: set[Any]) -> None:
    """Names in it that are not taken away by ``& ~NAME``."""
    kind = expr[0]
    if kind == "un" and expr[1] == "~":
        return
    if kind == "id":
        found.add(expr[1])
    elif kind == "call":
        for part in expr[2]:
            _flags_in(part, found)
    elif kind not in ("num", "str", "tmp", "any", "sizeof"):
        for part in expr:
            if isinstance(part, tuple):
                _flags_in(part, found)


def _goes_through(block: Block, step: Instr) -> bool:
    """Whether the block reads or writes through a pointer after it was moved on."""
    at = next(n for n, instr in enumerate(block.instrs) if instr is step)
    later = [block.value or ()]
    for instr in block.instrs[at + 1 :]:
        later += [instr.value, instr.place, instr.callee, *instr.arguments]
    through = ("deref", step.place)
    return any(expr and mentions(expr, through) for expr in later)


def _added_to(value: Expr, place: Expr) -> bool:
    return bool(value) and value[0] == "bin" and value[1] == "+" and place in value[2:]
