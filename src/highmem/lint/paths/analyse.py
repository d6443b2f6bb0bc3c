"""One file: which of its functions matter, each through the interpreter, findings out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from highmem.findings import RULES, Confidence
from highmem.lint.api import ApiTable
from highmem.lint.paths.context import CONFIDENCE, Raw, weaker
from highmem.lint.paths.filefacts import file_facts
from highmem.lint.paths.interp import Interpreter
from highmem.lint.paths.sleeping import sleeping_functions
from highmem.lint.paths.state import Trail
from highmem.lint.paths.summaries import Summaries, Summary
from highmem.lint.result import FunctionReport, LintFinding, Step
from highmem.lint.rules.messages import kernel_does
from highmem.lint.rules.pageaddr import ADDRESS_CALLS
from highmem.lint.syntax.lower import lower
from highmem.lint.syntax.source import Function, Source, variants

if TYPE_CHECKING:
    from tree_sitter import Parser

    from highmem.lint.syntax.graph import Graph

__all__ = ["FileAnalysis"]

_ROUNDS = 5
_MAX_STEPS = 40
_CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(")


@dataclass(slots=True)
class _Analysed:
    """One function after the last time that it was run."""

    calls: int
    reasons: list[str]
    found: dict[tuple[str, int, int], Raw] = field(default_factory=dict)
    uses: frozenset[str] = frozenset()


class FileAnalysis:
    """Runs the functions of one file until their summaries are the same again."""

    def __init__(
        self, source: Source, table: ApiTable, summaries: Summaries, parser: Parser
    ) -> None:
        self.source = source
        self.table = table
        self.summaries = summaries
        self.parser = parser
        self.facts = file_facts(source, table)
        self.asked: set[str] = set()
        """Functions of others, called where nothing may sleep."""
        self.done: dict[int, _Analysed] = {}
        self._graphs: dict[int, list[Graph]] = {}
        self._called: dict[int, frozenset[str]] = {}
        self._mapping: dict[int, int] = {}
        """Mapping calls in each function."""

    def run(self) -> None:
        """Everything of the file that maps, unmaps, or calls what does."""
        functions = self.source.functions
        api = self.table.names()
        methods = [name for name in api if "->" in name]
        for number, function in enumerate(functions):
            called = _CALL.findall(function.text)
            called += [name for name in methods if name + "(" in function.text]
            self._called[number] = frozenset(called)
            self._mapping[number] = sum(name in api for name in called)
        self._sleepers()
        wanted = set(self.summaries.names(self.source.path)) | api | ADDRESS_CALLS
        wanted |= self.table.insides.keys()
        todo = [n for n in range(len(functions)) if self._called[n] & wanted]
        for _ in range(_ROUNDS):
            changed: set[str] = set()
            for number in todo:
                changed |= self._function(number)
            todo = [n for n in range(len(functions)) if self._called[n] & changed]
            if not todo:
                break

    def _sleepers(self) -> None:
        """Which functions of the file may sleep."""
        functions = {function.name: function for function in self.source.functions}
        calls = {f.name: self._called[n] for n, f in enumerate(self.source.functions)}
        for name, (chain, surely) in sleeping_functions(functions, calls, self.table).items():
            if name not in self.table.sleepers and name not in self.table.names():
                summary = Summary(name, sleeps=chain, sleeps_surely=surely)
                static = self._private(functions[name])
                self.summaries.put(summary, self.source.path, static=static)

    def _private(self, function: Function) -> bool:
        """Whether other files cannot call it; what is static in a header they can."""
        return function.static and not self.source.path.endswith(".h")

    def _function(self, number: int) -> set[str]:
        """Run one function; the names of functions of which more is known now."""
        function = self.source.functions[number]
        if number not in self._graphs:
            ways = variants(self.source, function)
            self._graphs[number] = [lower(way, self.parser) for way in ways]
        graphs = self._graphs[number]
        calls = self._mapping[number]
        result = _Analysed(calls, [], uses=self._called[number])
        changed: set[str] = set()
        summary: Summary | None = None
        for graph in graphs:
            run = Interpreter(graph, function, self.source, self.table, self.summaries, self.facts)
            run.note_closers()
            run.run()
            for offset, cause in graph.problems:
                line = self.source.position(offset)[0]
                run.partial(f"line {line} {cause}")
            run.deprecated()
            run.unused()
            self.asked |= run.asked
            result.reasons += [why for why in run.reasons if why not in result.reasons]
            _merge(result.found, _doubted(run.found) if run.reasons else run.found)
            summary = summary or run.summary()
        if (
            summary is not None
            and function.name not in self.table.names()
            and self.summaries.put(summary, self.source.path, static=self._private(function))
        ):
            changed.add(function.name)
        self.done[number] = result
        return changed

    def called(self) -> set[str]:
        """Every function that the file calls."""
        return set().union(*self._called.values())

    # The report.

    def functions(self) -> list[FunctionReport]:
        """Every function that was run, by line."""
        reports = []
        for number, result in sorted(self.done.items()):
            function = self.source.functions[number]
            status = "partial" if result.reasons else "full"
            line = self.source.position(function.start)[0]
            reports.append(
                FunctionReport(function.name, line, result.calls, status, tuple(result.reasons))
            )
        return reports

    def findings(self) -> list[LintFinding]:
        """Every finding, by line."""
        found = [
            self._finding(raw, self.source.functions[number])
            for number, result in self.done.items()
            for raw in result.found.values()
        ]
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


def _doubted(found: dict[tuple[str, int, int], Raw]) -> dict[tuple[str, int, int], Raw]:
    """Of a function that was not fully analysed nothing is certain."""
    return {
        key: replace(raw, confidence=weaker(raw.confidence, Confidence.LIKELY))
        for key, raw in found.items()
    }


def _merge(into: dict[tuple[str, int, int], Raw], more: dict[tuple[str, int, int], Raw]) -> None:
    for key, raw in more.items():
        old = into.get(key)
        if old is None or CONFIDENCE.index(raw.confidence) < CONFIDENCE.index(old.confidence):
            into[key] = raw
