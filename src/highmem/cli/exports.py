"""The files that ``highmem replay`` can write beside its verdict."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from highmem.cli.output import open_binary, open_output
from highmem.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from highmem.replay.mappings import MappingSink
    from highmem.replay.verdict import Verdict
    from highmem.trace.schema import TraceSource

__all__ = ["Exports", "export_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_OPTIONS = {
    "html": ("FILE", "Write a page to look at (no network needed)."),
    "perfetto": ("FILE", "Write a Perfetto trace (needs the extra [perfetto])."),
    "chrome": ("FILE", "Write Chrome's JSON trace; the Perfetto UI reads it too."),
    "parquet": ("DIR", "Write tables as Parquet (needs the extra [sql])."),
}


def export_options(command: _Command) -> _Command:
    """Give *command* an option for each kind of file; it gets them as keyword arguments."""
    for name, (metavar, text) in reversed(_OPTIONS.items()):
        command = click.option(f"--{name}", metavar=metavar, help=text)(command)
    return command


class Exports:
    """The files that were asked for; a context that has them whole at its end, or not at all.

    Everything that can be refused (a folder that does not exist, a package that is not
    installed) is refused when it is made, before a long replay.
    """

    def __init__(self, wanted: Mapping[str, str | None], traces: int) -> None:
        self._wanted = {name: path for name, path in wanted.items() if path is not None}
        if traces > 1 and self._wanted:
            option = next(iter(self._wanted))
            raise UsageError(f"--{option} is for one recording; {traces} were given")
        if "-" in self._wanted.values():
            raise UsageError("standard output carries the verdict; name a file")
        targets = [os.path.realpath(path) for path in self._wanted.values()]
        if len(set(targets)) < len(targets):
            raise UsageError("two outputs have the same name")
        self.sinks: list[MappingSink] = []
        self._tap: Callable[[TraceSource], TraceSource] = lambda source: source
        self._finish: list[Callable[[Verdict], None]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Exports:
        with ExitStack() as stack:
            for name, path in self._wanted.items():
                getattr(self, f"_open_{name}")(path, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def tap(self, source: TraceSource) -> TraceSource:
        """*source*, watched by the outputs that want its events."""
        return self._tap(source)

    def finish(self, verdict: Verdict) -> None:
        """The replay is over: write what is left."""
        for finish in self._finish:
            finish(verdict)

    def _open_chrome(self, path: str, stack: ExitStack) -> None:
        from highmem.report.chrome import ChromeTrace

        trace = ChromeTrace(stack.enter_context(open_output(path)))
        self.sinks.append(trace)
        self._finish.append(trace.finish)

    def _open_perfetto(self, path: str, stack: ExitStack) -> None:
        from highmem.report.perfetto import PerfettoTrace

        trace = PerfettoTrace(stack.enter_context(open_binary(path)))
        self.sinks.append(trace)
        self._finish.append(trace.finish)

    def _open_html(self, path: str, stack: ExitStack) -> None:
        from highmem.report.html import Page

        page = Page()
        stream = stack.enter_context(open_output(path))
        self.sinks.append(page)
        self._finish.append(lambda verdict: page.write(verdict, stream))

    def _open_parquet(self, path: str, stack: ExitStack) -> None:
        from highmem.report.tables import Tables, Tap, connect

        folder = stack.enter_context(_staging(path))
        database = connect(folder / "tables.duckdb", "--parquet")
        stack.callback(database.close)
        tables = Tables(database)
        self.sinks.append(tables)
        self._tap = lambda source: Tap(source, tables)

        def finish(verdict: Verdict) -> None:
            tables.finish(verdict)
            for written in tables.write_parquet(folder):
                os.replace(written, os.path.join(path, written.name))

        self._finish.append(finish)


@contextmanager
def _staging(path: str) -> Iterator[Path]:
    """A new folder inside *path* (made if it is not there), removed in the end."""
    import shutil  # here: most replays write no files, and wait for no import
    import tempfile
    from pathlib import Path

    target = Path(path)
    try:
        target.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".highmem-", dir=target))
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
