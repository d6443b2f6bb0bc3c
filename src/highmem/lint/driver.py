"""From paths to a report: which files matter, each through the analysis, until no file has
anything new to say to another."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, TypeVar

from highmem.errors import InputError
from highmem.lint.api import ApiTable, load_api
from highmem.lint.cache import Cache, Stamp
from highmem.lint.paths.analyse import Memo, Scope
from highmem.lint.paths.summaries import Summaries, Summary
from highmem.lint.release import Release, Releases, slots_by_name
from highmem.lint.result import FileReport, LintReport
from highmem.lint.scan import Hit, Scan, Search, read_file
from highmem.lint.stages import Outcome, analyse, content_key, needles, tool_digest
from highmem.lint.workers import Workers

__all__ = ["LintOptions", "lint_paths", "lint_source"]

Item = TypeVar("Item")
_ROUNDS = 3
_SCAN_PIECE, _WORK_PIECE = 400, 6


@dataclass(frozen=True, slots=True)
class LintOptions:
    """How to lint."""

    api: tuple[str, ...] = ()
    """Files to lay over the table of calls."""
    deprecated: bool = False
    """Also report ``deprecated-api``: kmap() and kmap_atomic() and what to convert them to."""
    rules: frozenset[str] | None = None
    """Rules that are wanted; what only others concern is not looked at.  None for all."""
    suffixes: tuple[str, ...] = (".c", ".h")
    """What is read of directories; files that are named are read whatever they are called."""
    release: Release | None = None
    """The kernel that the files are for; None for what the Makefiles of their trees tell."""
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
    options = options or LintOptions()
    with Workers(options.jobs) as workers:
        return _Run(options, workers).report(paths)


def _without_deprecated(report: FileReport) -> FileReport:
    kept = tuple(one for one in report.findings if one.rule != "deprecated-api")
    return replace(report, findings=kept)


class _Found(NamedTuple):
    """A file to look at."""

    path: str
    stamp: Stamp
    named: bool = False
    """Given by name: what cannot be read is an error, not a rejection."""


class _Item(NamedTuple):
    """A file to be analysed."""

    path: str
    known: tuple[Summary, ...]
    """What it is told of functions of other files."""
    memo: Memo
    """What was followed of it in an earlier round."""
    slots: bool | None
    """Whether its kernel takes slots by name."""


@dataclass(frozen=True, slots=True)
class _Work:
    """Analyses files: a piece of work for another process."""

    api: tuple[str, ...]
    scope: Scope

    def __call__(self, files: Sequence[_Item]) -> list[tuple[str, Outcome]]:
        """Each path with its outcome."""
        table = _table(self.api)
        found = []
        for path, known, memo, slots in files:
            scope = replace(self.scope, slots_by_name=slots)
            try:
                outcome = analyse(read_file(path), path, table, known, scope, memo)
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

    def __init__(self, options: LintOptions, workers: Workers) -> None:
        self.options = options
        self.workers = workers
        self.table = load_api(options.api)
        self.scope = Scope.of(options.rules)
        digest = hashlib.sha256(tool_digest())
        for name in options.api:
            digest.update(Path(name).read_bytes())
        self.base = digest.digest()
        """What every result depends on."""
        digest.update(repr(self.scope).encode())
        self.scoped = digest.digest()
        """The same with what is looked at."""
        self.releases = Releases()
        self.content: dict[str, bytes] = {}
        self.told: dict[str, tuple[Summary, ...]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.skipped: dict[str, dict[str, bool]] = {}
        """Files left out so far, by folder; whether they matter once they call what another file
        maps by, wherever that is."""
        self.searched: dict[str, set[str]] = {}
        """Names that were looked for in the files left out, by the folder that they are for."""

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
            found: list[_Found] = []
            try:
                if os.path.isdir(given):
                    self._under(given, found)
                else:
                    found.append(_named(given))
            except OSError as error:
                raise InputError(given, f"cannot be read: {error.strerror}") from None
            for one in found:
                if one.path not in seen:
                    seen.add(one.path)
                    yield one

    def _under(self, folder: str, found: list[_Found]) -> None:
        with os.scandir(folder) as entries:
            every = sorted(entries, key=attrgetter("name"))
        for entry in every:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    self._under(entry.path, found)
            elif entry.name.endswith(self.options.suffixes) and entry.is_file():
                stat = entry.stat()
                stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
                found.append(_Found(entry.path.removeprefix("./"), stamp))

    def _scan(self, files: list[_Found]) -> None:
        cache = self.options.cache
        stamps = {one.path: one.stamp for one in files}
        unknown = stamps
        if cache is not None:
            known = cache.skips(self.base)
            unknown = {p: s for p, s in stamps.items() if known.get(os.path.abspath(p)) != s}
        named = {one.path for one in files if one.named}
        sizes = [(path, stamp[0]) for path, stamp in unknown.items()]
        chief, others = needles(self.table, self.scope)
        done = len(files) - len(unknown)
        hits: dict[str, Hit] = {}
        pieces = _pieces(sizes, _SCAN_PIECE)
        for count, found in self.workers.run(Scan(chief, others), pieces):
            done += count
            self._progress(done, len(files))
            hits |= {hit.path: hit for hit in found}
        for path, stamp in unknown.items():
            if path not in hits and cache is not None:
                cache.skip(self.base, os.path.abspath(path), stamp)
        for hit in hits.values():
            self._hit(hit, named)
        for path in stamps:
            if path not in self.content:
                anywhere = path in hits and not hits[path].chief
                self.skipped.setdefault(path.rpartition(os.sep)[0], {})[path] = anywhere

    def _hit(self, hit: Hit, named: set[str]) -> None:
        """A file of the first look that holds a name, or cannot be read."""
        if hit.fault and hit.path in named:
            raise InputError(hit.path, hit.fault)
        if hit.fault:
            self.outcomes[hit.path] = Outcome(FileReport(hit.path, rejected=hit.fault))
        elif hit.chief:
            self.content[hit.path] = hit.digest

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
            document = None
            if cache is not None:
                document = cache.get(self._key(path, known))
            if document is not None:
                self.outcomes[path] = Outcome.from_dict(document)
            else:
                old = self.outcomes.get(path)
                memo = old.memo if old is not None else {}
                todo.append(_Item(path, known, memo, self._slots(path)))
        done, pieces = 0, _pieces(todo, _WORK_PIECE)
        work = _Work(self.options.api, self.scope)
        for answers in self.workers.run(work, pieces):
            done += len(answers)
            self._progress(done, len(todo))
            for path, outcome in answers:
                self.outcomes[path] = outcome
                if cache is not None:
                    cache.put(self._key(path, told[path]), outcome.to_dict())

    def _slots(self, path: str) -> bool | None:
        return slots_by_name(self.options.release or self.releases.of(path))

    def _key(self, path: str, known: tuple[Summary, ...]) -> bytes:
        """What the outcome of a file depends on."""
        base = self.scoped + repr(self._slots(path)).encode()
        return content_key(base, self.content[path], path, known)

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
        """Files left out so far that call these functions, beside or below where they are."""
        new: dict[str, set[str]] = {}
        for name, (path, _) in mapping.items():
            folder = os.path.dirname(path)
            if name not in self.searched.setdefault(folder, set()):
                self.searched[folder].add(name)
                new.setdefault(folder, set()).add(name)
        every = tuple(sorted(mapping))
        for names, paths in self._near(new).items():
            search = Search(names, every)
            for hits in self.workers.run(search, _pieces(paths, _SCAN_PIECE)):
                for hit in hits:
                    self.content[hit.path] = hit.digest
                    # Its own calls are known once it has been run; it is told of these now.
                    self.outcomes[hit.path] = Outcome(FileReport(hit.path), called=hit.names)
                    del self.skipped[hit.path.rpartition(os.sep)[0]][hit.path]

    def _near(self, new: dict[str, set[str]]) -> dict[tuple[str, ...], list[str]]:
        """Names to look for, and the files where."""
        everywhere = frozenset[str]().union(*new.values())
        found: dict[frozenset[str], list[str]] = {}
        for group in self.skipped.values() if new else ():
            folder = os.path.dirname(next(iter(group), ""))
            here = frozenset[str]().union(*(new[one] for one in _up(folder) if one in new))
            for path, anywhere in group.items():
                if names := everywhere if anywhere else here:
                    found.setdefault(names, []).append(path)
        return {tuple(sorted(names)): paths for names, paths in found.items()}


def _up(folder: str) -> Iterator[str]:
    """A folder and those around it."""
    yield folder
    while folder != (folder := os.path.dirname(folder)):
        yield folder
    if folder:
        yield ""


def _pieces(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def _named(path: str) -> _Found:
    stat = os.stat(path)
    return _Found(path, (stat.st_size, stat.st_mtime_ns, stat.st_ino), named=True)
