"""One file: which of its functions matter, each through the interpreter, findings out."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from highmem.findings import RULES, Confidence
from highmem.lint.api import ApiTable
from highmem.lint.paths.context import CONFIDENCE, Raw, weaker
from highmem.lint.paths.filefacts import file_facts
from highmem.lint.paths.interp import TOO_MANY, Interpreter
from highmem.lint.paths.plain import plainly_low
from highmem.lint.paths.sleeping import sleeping_functions
from highmem.lint.paths.state import Trail
from highmem.lint.paths.summaries import Summaries, Summary
from highmem.lint.result import FunctionReport, LintFinding, Step
from highmem.lint.rules.messages import kernel_does
from highmem.lint.rules.pageaddr import ADDRESS_CALLS
from highmem.lint.syntax.declarations import parameter_names
from highmem.lint.syntax.lower import lower, parses
from highmem.lint.syntax.source import Function, Source, variants
from highmem.lint.syntax.text import calls_in

if TYPE_CHECKING:
    from tree_sitter import Parser

    from highmem.lint.paths.evaluate import FileFacts
    from highmem.lint.syntax.graph import Graph

__all__ = ["BESIDE_WINDOWS", "FileAnalysis", "Followed", "Memo", "Scope"]

_ROUNDS = 5
_MAX_STEPS = 40
_MAX_FUNCTION = 1 << 18
"""Bytes of one function; the longest that maps anything in Linux 6.1 has 17,489."""


_KMAP = (("kmap",), ("kmap_high",))


@dataclass(frozen=True, slots=True)
class Followed:
    """What following one function gave: the same wherever what it calls is known as well."""

    reasons: tuple[str, ...]
    """Why it was not followed to the end, where it was not."""
    findings: tuple[LintFinding, ...]
    summary: Summary
    asked: frozenset[str] = frozenset()
    """Functions of others, called where nothing may sleep."""


BESIDE_WINDOWS = ("unmapped-high-page", "page-overrun", "sleep-in-atomic")
"""Rules that judge functions without a window, too: for each a field of :class:`Scope`."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is looked at beside windows: it costs time that not every rule needs."""

    addresses: bool = True
    """page_address() and its kin."""
    copies: bool = True
    """Functions that map and unmap by themselves."""
    sleeping: bool = True
    """Functions that call what may sleep."""
    slots_by_name: bool | None = None
    """Whether kmap_atomic() takes the slot that it is told, as it did up to 2.6.36; None where the
    release is not known."""

    @classmethod
    def of(cls, rules: frozenset[str] | None) -> Scope:
        """What these rules need; None for all."""
        if rules is None:
            return cls()
        return cls(*(rule in rules for rule in BESIDE_WINDOWS))


Memo = dict[tuple[int, bytes], Followed]
"""By where a function begins, and a digest of what is known of those that it calls."""


class FileAnalysis:
    """Runs the functions of one file until their summaries are the same again."""

    def __init__(
        self,
        source: Source,
        table: ApiTable,
        summaries: Summaries,
        parser: Parser,
        scope: Scope,
        memo: Memo | None = None,
    ) -> None:
        self.source = source
        self.table = table
        self.summaries = summaries
        self.parser = parser
        self.scope = scope
        self.memo: Memo = {} if memo is None else memo
        """What was followed already, perhaps in an earlier run."""
        self.asked: set[str] = set()
        """Functions of others, called where nothing may sleep."""
        self.done: dict[int, Followed] = {}
        """Each function after the last time that it was run."""
        self._graphs: dict[int, list[Graph]] = {}
        self._unread: dict[int, tuple[str, ...]] = {}
        self._called: list[frozenset[str]] = []
        self.api = table.names()
        self._methods = [name for name in self.api if "->" in name and name + "(" in source.code]
        self._judged = _judged_anywhere(table, scope)

    def run(self) -> None:
        """Everything of the file that maps, unmaps, or calls what does."""
        functions = self.source.functions
        for function in functions:
            self._called.append(frozenset(self._calls(function)))
        self._sleepers()
        wanted = self.api.union(self.summaries.names(self.source.path))
        wanted |= ADDRESS_CALLS if self.scope.addresses else set()
        wanted |= self.table.insides.keys() if self.scope.copies else set()
        todo = [n for n in range(len(functions)) if self._called[n] & wanted]
        for _ in range(_ROUNDS):
            changed: set[str] = set()
            for number in todo:
                changed |= self._function(number)
            todo = [n for n in range(len(functions)) if self._called[n] & changed]
            if not todo:
                break

    def _calls(self, function: Function) -> list[str]:
        """Every call in its text, by name."""
        found = calls_in(function.text.encode("ascii"))
        return found + [name for name in self._methods if name + "(" in function.text]

    def _sleepers(self) -> None:
        """Which functions of the file may sleep."""
        functions = {function.name: function for function in self.source.functions}
        calls = {f.name: self._called[n] for n, f in enumerate(self.source.functions)}
        for name, (chain, surely) in sleeping_functions(functions, calls, self.table).items():
            if name not in self.table.sleepers and name not in self.api:
                summary = Summary(name, sleeps=chain, sleeps_surely=surely)
                static = self._private(functions[name])
                self.summaries.put(summary, self.source.path, static=static)

    def _private(self, function: Function) -> bool:
        """Whether other files cannot call it; what is static in a header they can."""
        return function.static and not self.source.path.endswith(".h")

    # One function.

    def _function(self, number: int) -> set[str]:
        """Run one function; the names of functions of which more is known now."""
        function = self.source.functions[number]
        known = self._known(number)
        size = len(function.text)
        if size > _MAX_FUNCTION:
            why = f"{size} bytes are more than is allowed for one function"
            followed = Followed((why,), (), Summary(function.name, nullable=True))
        elif self._silent(number, known):
            followed = self._passed_over(number)
        else:
            key = (function.start, hashlib.sha256(repr(known).encode()).digest()[:16])
            if key not in self.memo:
                self.memo[key] = self._follow(number)
            followed = self.memo[key]
        self.asked |= followed.asked
        self.done[number] = followed
        static = self._private(function)
        if function.name in self.api or not self.summaries.put(
            followed.summary, self.source.path, static=static
        ):
            return set()
        return {function.name} if followed.summary.matters or self.scope.sleeping else set()

    def _known(self, number: int) -> list[Summary]:
        """What is known of the functions that it calls, as far as a path asks for it."""
        path, found = self.source.path, []
        for name in sorted(self._called[number]):
            one = self.summaries.get(name, path)
            if one is not None and not one.matters:
                one = Summary(name, sleeps=one.sleeps, sleeps_surely=one.sleeps_surely)
            if one is not None:
                found.append(one)
        return found

    def _silent(self, number: int, known: list[Summary]) -> bool:
        """Whether no path of the function can be reported, or matter to its callers.

        It is so where no call opens or closes a window, and none is judged without one.
        """
        called, text = self._called[number], self.source.functions[number].text
        if not called.isdisjoint(self._judged):
            return False
        if any(one.matters or one.sleeps[-1:] in _KMAP for one in known):
            return False
        if any(all(part in text for part in parts) for parts in _methods(self.table)):
            return False
        if not self.scope.addresses or called.isdisjoint(ADDRESS_CALLS):
            return True
        return plainly_low(
            text, parameter_names(self.source.functions[number].parameters), self.table
        )

    def _passed_over(self, number: int) -> Followed:
        """A function of which only those parts are told that cannot be parsed."""
        function = self.source.functions[number]
        reasons = self._unread.get(number)
        if reasons is None:
            ways = variants(self.source, function)
            broken = [lower(way, self.parser) for way in ways if not parses(way, self.parser)]
            every = (why for graph in broken for why in self._problems(graph))
            reasons = self._unread[number] = tuple(dict.fromkeys(every))
        summary = Summary(function.name, nullable=True)
        if self.summaries.get(function.name, self.source.path) is not None:
            summary = replace(summary, parameters=parameter_names(function.parameters))
        return Followed(reasons, (), summary)

    def _follow(self, number: int) -> Followed:
        """Follow the paths of one function, for each choice of its ``#if`` branches."""
        function = self.source.functions[number]
        if number not in self._graphs:
            ways = variants(self.source, function)
            self._graphs[number] = [lower(way, self.parser) for way in ways]
        found: dict[tuple[str, int, int], Raw] = {}
        reasons: dict[str, None] = {}
        asked: set[str] = set()
        used: set[int] = set()
        summary: Summary | None = None
        for graph in self._graphs[number]:
            run = Interpreter(graph, function, self.source, self.table, self.summaries, self.facts)
            run.slots_by_name = self.scope.slots_by_name
            run.note_closers()
            run.run()
            for why in self._problems(graph):
                run.partial(why)
            run.deprecated()
            run.unused()
            asked |= run.asked
            used |= run.used_sites
            reasons |= dict.fromkeys(run.reasons)
            _merge(found, _doubted(run.found, run.reasons) if run.reasons else run.found)
            summary = summary or run.summary()
        assert summary is not None  # there is one way at least
        findings = tuple(
            self._finding(raw, function)
            for raw in found.values()
            # What one choice of the branches leaves unused another may use.
            if raw.rule != "unused-window" or raw.start not in used
        )
        return Followed(tuple(reasons), findings, summary, frozenset(asked))

    @functools.cached_property
    def facts(self) -> FileFacts:
        """What the whole file says about its members."""
        return file_facts(self.source, self.table)

    def _problems(self, graph: Graph) -> list[str]:
        """What could not be read, in words."""
        return [f"line {self.source.position(at)[0]} {cause}" for at, cause in graph.problems]

    def called(self) -> set[str]:
        """Every function that the file calls."""
        return set().union(*self._called)

    # The report.

    def functions(self) -> list[FunctionReport]:
        """Every function that was run, by line."""
        reports = []
        for number, followed in sorted(self.done.items()):
            function = self.source.functions[number]
            status = "partial" if followed.reasons else "full"
            calls = sum(name in self.api for name in self._calls(function))
            line = self.source.position(function.start)[0]
            reports.append(FunctionReport(function.name, line, calls, status, followed.reasons))
        return reports

    def findings(self) -> list[LintFinding]:
        """Every finding, by line."""
        found = [one for followed in self.done.values() for one in followed.findings]
        return sorted(found, key=lambda one: (one.line, one.column, one.rule))

    def _finding(self, raw: Raw, function: Function) -> LintFinding:
        line, column = self.source.position(raw.start)
        end_line, end_column = self.source.position(raw.end)
        return LintFinding(
            rule=raw.rule,
            path=self.source.path,
            line=line,
            column=column,
            end_line=end_line,
            end_column=end_column,
            function=function.name,
            what=raw.what,
            kernel_does=kernel_does(raw.rule, raw.family),
            steps=self._steps(raw),
            confidence=raw.confidence,
            fix=RULES[raw.rule].fix,
            statement=self.source.snippet(raw.start, raw.end),
        )

    def _steps(self, raw: Raw) -> tuple[Step, ...]:
        steps: list[Step] = []
        trail: Trail | None = raw.trail
        while trail is not None and len(steps) < _MAX_STEPS:
            line, column = self.source.position(trail.offset)
            steps.append(Step(line, column, self._step_text(trail)))
            if trail.offset == raw.since:
                break
            trail = trail.before
        return tuple(reversed(steps))

    def _step_text(self, trail: Trail) -> str:
        if trail.text not in ("yes", "no"):
            return trail.text
        text = self.source.snippet(trail.offset, trail.end)[:80]
        return f"{text}: {trail.text}"


def _judged_anywhere(table: ApiTable, scope: Scope) -> frozenset[str]:
    """Calls that open or close windows, or are judged without one."""
    found = {name for name, inside in table.insides.items() if inside.length is not None}
    sleepers = {"kmap_high"} if scope.sleeping else set()
    return table.names() | (found if scope.copies else set()) | sleepers


def _methods(table: ApiTable) -> list[list[str]]:
    """The names of calls through members: ``buf``, ``ops``, ``map``."""
    return [name.split("->") for name in table.names() if "->" in name]


_COMPARING = frozenset({"double-unmap", "stale-access", "escaping-window"})
"""Rules that hang on which window it is."""
_OTHERS = frozenset({"address-not-page", "not-a-window"})
"""Rules that do so where a window is still open, and else on what the argument is."""


def _doubted(
    found: dict[tuple[str, int, int], Raw], reasons: list[str]
) -> dict[tuple[str, int, int], Raw]:
    """Of a function that was not fully analysed nothing is certain; and where paths were given
    up, the others may have lost which window it is."""
    doubted = {}
    for key, raw in found.items():
        compares = raw.rule in _COMPARING or (
            raw.rule in _OTHERS and raw.since >= 0 and raw.confidence is Confidence.LIKELY
        )
        vague = compares and TOO_MANY in reasons
        most = Confidence.POSSIBLE if vague else Confidence.LIKELY
        doubted[key] = replace(raw, confidence=weaker(raw.confidence, most))
    return doubted


def _merge(into: dict[tuple[str, int, int], Raw], more: dict[tuple[str, int, int], Raw]) -> None:
    for key, raw in more.items():
        old = into.get(key)
        if old is None or CONFIDENCE.index(raw.confidence) < CONFIDENCE.index(old.confidence):
            into[key] = raw
