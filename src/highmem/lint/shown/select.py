"""What of a report is shown: by confidence, rule, change, baseline and the source's own word."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from highmem.errors import InputError
from highmem.findings import RULES, Confidence
from highmem.lint.api import load_api
from highmem.lint.cache import Cache
from highmem.lint.driver import LintOptions, lint_paths
from highmem.lint.paths.analyse import BESIDE_WINDOWS
from highmem.lint.release import parse_release
from highmem.lint.result import LintFinding, LintReport
from highmem.lint.shown.baseline import load_baseline
from highmem.lint.shown.diffbase import left_halves, touched
from highmem.lint.shown.patch import Changed, read_patch
from highmem.lint.shown.suppress import allowed

__all__ = ["Selection", "Shown", "select"]

_ORDER = list(Confidence)
_SHOWN_GONE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to lint and what of it to show."""

    paths: tuple[str, ...]
    least: Confidence = Confidence.LIKELY
    only: frozenset[str] = frozenset()
    """Names of rules; empty for all."""
    without: frozenset[str] = frozenset()
    deprecated: bool = False
    kernel: str | None = None
    """The release that the code is for; None for what the Makefile of its tree says."""
    api: tuple[str, ...] = ()
    baseline: str | None = None
    diff: str | None = None
    jobs: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of a report, and what is not and why."""

    report: LintReport
    findings: tuple[LintFinding, ...]
    allowed: tuple[tuple[LintFinding, str], ...] = ()
    """Findings that a comment in the source allows, with its reason."""
    hidden: dict[str, int] = field(default_factory=dict)
    """Why findings are not shown, and how many."""
    notes: tuple[str, ...] = ()
    """Lines for the end: what a baseline knows that is gone, comments that allow nothing."""

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """Path and cause of the files that were not analysed."""
        return [(one.path, one.rejected) for one in self.report.files if one.rejected]


def select(
    selection: Selection,
    cache: Cache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Shown:
    """Lint, and sort what was found.  Raises InputError and UsageError."""
    known = load_baseline(selection.baseline) if selection.baseline is not None else None
    changes, paths = _changes(selection)
    wanted = frozenset(selection.only or RULES) - selection.without
    options = LintOptions(
        api=selection.api,
        deprecated=selection.deprecated,
        rules=wanted,
        release=parse_release(selection.kernel) if selection.kernel is not None else None,
        jobs=selection.jobs or os.cpu_count() or 1,
        cache=cache,
        progress=progress,
    )
    report = lint_paths(paths, options)
    sorting = _Sorting(report)
    if changes is not None:
        sorting.blame(changes, selection)
    sorting.excuse(wanted)
    sorting.keep(lambda one: not selection.only or one.rule in selection.only, "of other rules")
    sorting.keep(lambda one: one.rule not in selection.without, "of rules left out")
    sorting.notes += _not_looked_at(wanted)
    least = _ORDER.index(selection.least)
    sorting.keep(
        lambda one: _ORDER.index(one.confidence) <= least, f"less than {selection.least.value}"
    )
    if known is not None:
        new = {id(one) for one in known.new(sorting.findings)}
        gone = known.gone(sorting.findings)
        sorting.keep(lambda one: id(one) in new, "known to the baseline")
        sorting.notes += [f"not found any more: {line}" for line in gone[:_SHOWN_GONE]]
        if len(gone) > _SHOWN_GONE:
            sorting.notes.append(f"and {len(gone) - _SHOWN_GONE:,} more not found any more")
    return sorting.shown()


def _changes(selection: Selection) -> tuple[dict[str, Changed] | None, list[str]]:
    """The change by path as it will be reported, and the files to lint."""
    if selection.diff is None:
        return None, list(selection.paths)
    change, top = read_patch(selection.diff)
    files = {os.path.relpath(os.path.join(top, path)): one for path, one in change.items()}
    files = {path: one for path, one in files.items() if path.endswith((".c", ".h"))}
    if selection.paths:
        roots = [os.path.relpath(path) for path in selection.paths]
        files = {path: one for path, one in files.items() if _under(path, roots)}
    for path in files:
        if not os.path.isfile(path):
            raise InputError(path, "named by the change, but not there: run it in that tree")
        files[path].path = path
    return files, sorted(files)


def _not_looked_at(wanted: frozenset[str]) -> list[str]:
    """What the counts do not hold, because no rule that is wanted concerns it."""
    left = [rule for rule in BESIDE_WINDOWS if rule not in wanted]
    return [f"not looked at: what only {', '.join(left)} would concern"] if left else []


def _under(path: str, roots: Iterable[str]) -> bool:
    return any(root == "." or path == root or path.startswith(root + os.sep) for root in roots)


class _Sorting:
    """Findings on their way to being shown."""

    def __init__(self, report: LintReport) -> None:
        self.report = report
        self.findings: list[LintFinding] = report.findings
        self.allowed: list[tuple[LintFinding, str]] = []
        self.hidden: Counter[str] = Counter()
        self.notes: list[str] = []

    def keep(self, good: Callable[[LintFinding], bool], why: str) -> None:
        """Keep those that are *good*, count the others under *why*."""
        kept = [one for one in self.findings if good(one)]
        self.hidden[why] += len(self.findings) - len(kept)
        self.findings = kept

    def blame(self, changes: dict[str, Changed], selection: Selection) -> None:
        """Keep what the *changes* touch, and add the halves of pairs that they left."""
        table = load_api(selection.api)
        mine: list[LintFinding] = []
        for file in self.report.files:
            change = changes.get(os.path.relpath(file.path))
            if change is not None:
                mine += touched(file.findings, change)
        blamed = {id(one) for one in mine}
        self.keep(lambda one: id(one) in blamed, "outside the change")
        for path, change in changes.items():
            said = {(one.path, one.line) for one in self.findings if one.rule == "mismatched-pair"}
            halves = left_halves(_text(path), change, table)
            self.findings += [one for one in halves if (one.path, one.line) not in said]
        self.findings.sort(key=lambda one: (one.path, one.line, one.column))

    def excuse(self, wanted: frozenset[str]) -> None:
        """Take out what comments in the source allow; of rules that are not wanted there may be
        findings that nobody looked for."""
        kept: list[LintFinding] = []
        by_path: dict[str, list[LintFinding]] = {}
        for one in self.findings:
            by_path.setdefault(one.path, []).append(one)
        for file in self.report.files:
            if file.rejected:
                continue
            here = by_path.get(file.path, [])
            result = allowed(_text(file.path), here, file.functions, wanted)
            kept += result.kept
            self.allowed += result.allowed
            self.notes += [f"{file.path}:{line}: {why}" for line, why in result.notes]
        self.findings = kept

    def shown(self) -> Shown:
        """The outcome."""
        hidden = {why: count for why, count in self.hidden.items() if count}
        return Shown(
            self.report, tuple(self.findings), tuple(self.allowed), hidden, tuple(self.notes)
        )


def _text(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
