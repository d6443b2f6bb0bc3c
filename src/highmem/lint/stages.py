"""One file through the analysis, as a pure function that a cache and processes can wrap."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from highmem import __version__
from highmem.lint.api import ApiTable
from highmem.lint.paths.analyse import FileAnalysis, Memo, Scope
from highmem.lint.paths.summaries import Summaries, Summary
from highmem.lint.result import FileReport
from highmem.lint.rules.pageaddr import ADDRESS_CALLS
from highmem.lint.syntax.lower import make_parser
from highmem.lint.syntax.source import Rejected, Source, read_source

if TYPE_CHECKING:
    from tree_sitter import Parser

__all__ = ["Outcome", "analyse", "content_key", "needles", "tool_digest"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a file gave, for its user and for other files."""

    report: FileReport
    offers: tuple[Summary, ...] = ()
    """Functions that other files can call and that change their windows, or sleep."""
    called: tuple[str, ...] = ()
    """Functions that it calls and does not define."""
    asked: tuple[str, ...] = ()
    """Of these, what it calls while it must not sleep."""
    memo: Memo = field(default_factory=dict, compare=False, repr=False)
    """What was followed, for another round of this run; no part of what is kept."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "report": self.report.to_dict(),
            "offers": [one.to_list() for one in self.offers],
            "called": list(self.called),
            "asked": list(self.asked),
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Outcome:
        """The value that :meth:`to_dict` made the document of."""
        return cls(
            FileReport.from_dict(document["report"]),
            tuple(map(Summary.from_list, document["offers"])),
            tuple(document["called"]),
            tuple(document["asked"]),
        )


def analyse(
    data: bytes,
    path: str,
    table: ApiTable,
    known: Iterable[Summary] = (),
    scope: Scope | None = None,
    memo: Memo | None = None,
) -> Outcome:
    """Analyse one file, *known* being functions of others.  Never raises for what it holds.

    *memo* holds what was followed of the same bytes before.
    """
    try:
        source = read_source(data, path)
    except Rejected as cause:
        return Outcome(FileReport(path, rejected=str(cause)))
    table = _fitting(table, source)
    summaries = Summaries({summary.name: summary for summary in known})
    given = frozenset(summaries.shared)
    analysis = FileAnalysis(source, table, summaries, _parser(), scope or Scope(), memo)
    analysis.run()
    report = FileReport(
        path,
        tuple(analysis.functions()),
        tuple(analysis.findings()),
        notes=tuple(source.notes),
    )
    offers = [one for name, one in summaries.shared.items() if name not in given]
    own = {function.name for function in source.functions}
    called = analysis.called() - own - table.names() - table.inert - table.accesses.keys()
    return Outcome(
        report,
        tuple(sorted(offers, key=lambda one: one.name)),
        tuple(sorted(called)),
        tuple(sorted(analysis.asked - own)),
        analysis.memo,
    )


def _fitting(table: ApiTable, source: Source) -> ApiTable:
    """The table without calls that the file defines itself and that return nothing there: they
    only have the name of one that returns an address."""
    others = frozenset(
        function.name
        for function in source.functions
        if function.name in table.opens
        and re.search(
            rf"\bvoid\s+(?:__\w+\s+)*{re.escape(function.name)}\s*\(",
            source.code[function.start : function.body],
        )
    )
    return table.without(others) if others else table


@functools.cache
def _parser() -> Parser:
    return make_parser()


def needles(
    table: ApiTable, scope: Scope | None = None
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Strings of which a file that matters holds at least one; and those that would matter if
    more than *scope* were looked at."""
    scope = scope or Scope()
    chief, others = set(table.names()), set[str]()
    copies = {name for name, inside in table.insides.items() if inside.length is not None}
    (chief if scope.addresses else others).update(ADDRESS_CALLS)
    (chief if scope.copies else others).update(copies)
    return _shortest(chief), _shortest(others)


def _shortest(names: set[str]) -> tuple[bytes, ...]:
    """Those that no other is a part of."""
    kept: list[str] = []
    for name in sorted(names, key=lambda one: (len(one), one)):
        if not any(one in name for one in kept):
            kept.append(name)
    return tuple(name.encode() for name in kept)


@functools.cache
def tool_digest() -> bytes:
    """Changes with the version and with every line of the analysis and its tables."""
    digest = hashlib.sha256(__version__.encode())
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.suffix in (".py", ".toml"):
            digest.update(path.read_bytes())
    return digest.digest()


def content_key(base: bytes, content: bytes, path: str, known: Iterable[Summary] = ()) -> bytes:
    """What the outcome depends on: *base* (tool and table), content, name, and *known*."""
    digest = hashlib.sha256(base + content + path.encode("utf-8", "surrogateescape"))
    for summary in known:
        digest.update(json.dumps(summary.to_list()).encode())
    return digest.digest()
