"""From paths to a report: which files matter, each through the analysis, until no file has
anything new to say to another."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from highmem.errors import InputError
from highmem.lint.api import ApiTable, load_api
from highmem.lint.cache import Cache, Stamp
from highmem.lint.paths.summaries import Summaries, Summary
from highmem.lint.result import FileReport, LintReport
from highmem.lint.stages import (
    Outcome,
    analyse,
    content_key,
    grouped,
    needles,
    tool_digest,
)
from highmem.lint.syntax.source import MAX_BYTES
from highmem.lint.workers import run_all

__all__ = ["LintOptions", "lint_paths", "lint_source"]

_ROUNDS = 3
_SCAN_PIECE, _WORK_PIECE = 400, 6


@dataclass(frozen=True, slots=True)
class LintOptions:
    """How to lint."""

    api: tuple[str, ...] = ()
    """Files to lay over the table of calls."""
    deprecated: bool = False
    """Also report ``deprecated-api``: kmap() and kmap_atomic() and what to convert them to."""
    suffixes: tuple[str, ...] = (".c", ".h")
    """What is read of directories; files that are named are read whatever they are called."""
    jobs: int = 1
    cache: Cache | None = None
    progress: Callable[[int, int], None] | None = None
    """Told how many files of how many are done."""


def lint_source(
    text: bytes,
    path: str,
    table: ApiTable | None = None,
    summaries: Summaries | None = None,
    *,
    deprecated: bool = False,
) -> FileReport:
    """Analyse one file; *path* is only a name.  Never raises on what the bytes hold."""
    known = summaries.shared.values() if summaries is not None else ()
    report = analyse(text, path, table or load_api(), known).report
    return report if deprecated else _without_deprecated(report)


def lint_paths(paths: Iterable[str | Path], options: LintOptions | None = None) -> LintReport:
    """Analyse files and the C files of directories, together.

    InputError where a path that was given cannot be read.
    """
    return _Run(options or LintOptions()).report(paths)


def _without_deprecated(report: FileReport) -> FileReport:
    kept = tuple(one for one in report.findings if one.rule != "deprecated-api")
    return replace(report, findings=kept)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file to look at."""

    path: str
    stamp: Stamp
    named: bool = False
    """Given by name: what cannot be read is an error, not a rejection."""


@dataclass(frozen=True, slots=True)
class _Scan:
    """Looks for the calls in files: a piece of work for another process."""

    needles: tuple[tuple[bytes, tuple[bytes, ...]], ...]
    """A common part of some of the strings, and these."""

    def __call__(self, files: Sequence[str]) -> list[tuple[str, bytes | str | None]]:
        """Each path with the digest of its content; None where no call is in it, or why it
        cannot be read."""
        return [(path, self.one(path)) for path in files]

    def one(self, path: str) -> bytes | str | None:
        """One file."""
        try:
            data = _read(path)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        for part, whole in self.needles:
            if part in data and any(needle in data for needle in whole):
                return hashlib.sha256(data).digest()
        return None


def _read(path: str) -> bytes:
    """The file, of which more than the limit is never read."""
    with open(path, "rb") as stream:
        return stream.read(MAX_BYTES + 1)


@dataclass(frozen=True, slots=True)
class _Work:
    """Analyses files: a piece of work for another process."""

    api: tuple[str, ...]

    def __call__(
        self, files: Sequence[tuple[str, tuple[Summary, ...]]]
    ) -> list[tuple[str, Outcome]]:
        """Each path with its outcome, for the functions that it is told of."""
        table = _table(self.api)
        found = []
        for path, known in files:
            try:
                outcome = analyse(_read(path), path, table, known)
            except OSError as error:
                why = f"cannot be read: {error.strerror}"
                outcome = Outcome(FileReport(path, rejected=why))
            found.append((path, outcome))
        return found


@functools.cache
def _table(api: tuple[str, ...]) -> ApiTable:
    return load_api(api)


class _Run:
    """One run over many files."""

    def __init__(self, options: LintOptions) -> None:
        self.options = options
        self.table = load_api(options.api)
        digest = hashlib.sha256(tool_digest())
        for name in options.api:
            digest.update(Path(name).read_bytes())
        self.base = digest.digest()
        self.content: dict[str, bytes] = {}
        self.told: dict[str, tuple[Summary, ...]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.skipped: list[str] = []

    def report(self, paths: Iterable[str | Path]) -> LintReport:
        """The whole of it."""
        files = list(self._files(paths))
        self._scan(files)
        self._analyse(dict.fromkeys(self.content, ()))
        for _ in range(_ROUNDS):
            again = self._told_more()
            if not again:
                break
            self._analyse(again)
        reports = [self.outcomes[path].report for path in sorted(self.outcomes)]
        if not self.options.deprecated:
            reports = [_without_deprecated(report) for report in reports]
        rejected = sum(1 for report in reports if report.rejected)
        return LintReport(
            seen=len(files),
            skipped=len(files) - len(reports),
            analysed=len(reports) - rejected,
            rejected=rejected,
            files=tuple(reports),
        )

    # Which files.

    def _files(self, paths: Iterable[str | Path]) -> Iterator[_Found]:
        seen: set[str] = set()
        for given in map(str, paths):
            try:
                found = list(self._under(given)) if os.path.isdir(given) else [_named(given)]
            except OSError as error:
                raise InputError(given, f"cannot be read: {error.strerror}") from None
            for one in found:
                if one.path not in seen:
                    seen.add(one.path)
                    yield one

    def _under(self, folder: str) -> Iterator[_Found]:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith("."):
                        yield from self._under(entry.path)
                elif entry.name.endswith(self.options.suffixes) and entry.is_file():
                    stat = entry.stat()
                    stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
                    yield _Found(entry.path.removeprefix("./"), stamp)

    def _scan(self, files: list[_Found]) -> None:
        cache, known = self.options.cache, {}
        if cache is not None:
            known = cache.skips(self.base)
        stamps = {one.path: one.stamp for one in files}
        named = {one.path for one in files if one.named}
        unknown = [one.path for one in files if known.get(os.path.abspath(one.path)) != one.stamp]
        pieces = [unknown[at : at + _SCAN_PIECE] for at in range(0, len(unknown), _SCAN_PIECE)]
        jobs = self.options.jobs if len(unknown) > 4 * _SCAN_PIECE else 1
        done = len(files) - len(unknown)
        for answers in run_all(_Scan(grouped(needles(self.table))), pieces, jobs):
            done += len(answers)
            self._progress(done, len(files))
            for path, answer in answers:
                if isinstance(answer, bytes):
                    self.content[path] = answer
                elif answer is None and cache is not None:
                    cache.skip(self.base, os.path.abspath(path), stamps[path])
                elif answer is not None and path in named:
                    raise InputError(path, answer)
                elif answer is not None:
                    self.outcomes[path] = Outcome(FileReport(path, rejected=answer))
        self.skipped = [one.path for one in files if one.path not in self.content]

    def _progress(self, done: int, total: int) -> None:
        if self.options.progress is not None:
            self.options.progress(done, total)

    # Their analysis.

    def _analyse(self, told: dict[str, tuple[Summary, ...]]) -> None:
        """Run these files with what they are told of others."""
        cache = self.options.cache
        todo = []
        for path in sorted(told):
            known = told[path]
            self.told[path] = known
            key = content_key(self.base, self.content[path], path, known)
            document = cache.get(key) if cache is not None else None
            if document is not None:
                self.outcomes[path] = Outcome.from_dict(document)
            else:
                todo.append((path, known))
        pieces = [todo[at : at + _WORK_PIECE] for at in range(0, len(todo), _WORK_PIECE)]
        jobs = self.options.jobs if len(todo) > 2 * _WORK_PIECE else 1
        done = 0
        for answers in run_all(_Work(self.options.api), pieces, jobs):
            done += len(answers)
            self._progress(done, len(todo))
            for path, outcome in answers:
                self.outcomes[path] = outcome
                if cache is not None:
                    key = content_key(self.base, self.content[path], path, told[path])
                    cache.put(key, outcome.to_dict())

    def _told_more(self) -> dict[str, tuple[Summary, ...]]:
        """Files that call functions of which another file says something new."""
        offers = self._offers()
        mapping = {name: one for name, one in offers.items() if one[1].matters}
        self._wake(mapping)
        again = {}
        for path, outcome in self.outcomes.items():
            if outcome.report.rejected:
                continue
            names = {name for name in outcome.called if name in mapping}
            names |= {name for name in outcome.asked if name in offers}
            known = tuple(offers[name][1] for name in sorted(names) if offers[name][0] != path)
            if known != self.told.get(path, ()):
                again[path] = known
        return again

    def _offers(self) -> dict[str, tuple[str, Summary]]:
        """Function name to its file and summary; not where two files say different things."""
        found: dict[str, tuple[str, Summary]] = {}
        doubtful = set()
        for path, outcome in sorted(self.outcomes.items()):
            for summary in outcome.offers:
                old = found.get(summary.name)
                if old is not None and replace(old[1], parameters=()) != replace(
                    summary, parameters=()
                ):
                    doubtful.add(summary.name)
                found.setdefault(summary.name, (path, summary))
        return {name: one for name, one in found.items() if name not in doubtful}

    def _wake(self, mapping: dict[str, tuple[str, Summary]]) -> None:
        """Files skipped so far that call these functions, beside or below where they are."""
        by_folder: dict[str, list[str]] = {}
        for name, (path, _) in mapping.items():
            by_folder.setdefault(os.path.dirname(path), []).append(name)
        for folder, names in by_folder.items():
            inside = os.path.join(folder, "")
            near = [path for path in self.skipped if path.startswith(inside)]
            wanted = re.compile(rb"\b(?:" + "|".join(map(re.escape, names)).encode() + rb")\s*\(")
            for path in near:
                try:
                    data = _read(path)
                except OSError:
                    continue
                if wanted.search(data):
                    self.content[path] = hashlib.sha256(data).digest()
                    # Its own calls are known once it has been run; it is told of these now.
                    called = tuple(sorted(name for name in mapping if name.encode() in data))
                    self.outcomes[path] = Outcome(FileReport(path), called=called)
                    self.skipped.remove(path)


def _named(path: str) -> _Found:
    stat = os.stat(path)
    return _Found(path, (stat.st_size, stat.st_mtime_ns, stat.st_ino), named=True)
