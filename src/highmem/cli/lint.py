"""``highmem lint``: judge C source."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from highmem.cli.output import make_console, open_output
from highmem.errors import UsageError
from highmem.findings import RULES, Confidence

if TYPE_CHECKING:
    from highmem.lint.shown.select import Selection, Shown

__all__ = ["lint"]

_FORMATS = ("text", "gcc", "json", "sarif", "github")
_RULE = click.Choice(list(RULES), case_sensitive=False)


@click.command()
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), default="text", show_default=True,
    help="sarif is 2.1.0, github prints annotations for a workflow.",
)  # fmt: skip
@click.option("-o", "--output", metavar="FILE", help="Write the result here.")
@click.option(
    "--min-confidence", "least", type=click.Choice([one.value for one in Confidence]),
    default=Confidence.LIKELY.value, show_default=True, help="Show nothing that is less sure.",
)  # fmt: skip
@click.option("--rule", "only", multiple=True, type=_RULE, metavar="RULE", help="Only these rules.")
@click.option("--not-rule", "without", multiple=True, type=_RULE, metavar="RULE", help="Not these.")
@click.option("--deprecated", is_flag=True, help="Also kmap() and kmap_atomic(), to be converted.")
@click.option(
    "--kernel", metavar="RELEASE", help="What the code is for: 2.6.32; else as its Makefile says."
)
@click.option("--api", multiple=True, metavar="FILE", help="TOML: your own mapping functions.")
@click.option(
    "--compile-commands", "database", metavar="FILE",
    help="Lint the sources that this compile_commands.json names, together.",
)  # fmt: skip
@click.option("--baseline", metavar="FILE", help="Show only what this file does not know.")
@click.option("--write-baseline", "write", metavar="FILE", help="Write what is found as known.")
@click.option(
    "--diff", metavar="BASE",
    help="Only what a change is to blame for: a revision of git, a patch file, or - .",
)  # fmt: skip
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1), metavar="N", help="Processes; as many as cores."
)
@click.option("--no-cache", is_flag=True, help="Neither use nor keep results of earlier runs.")
@click.option("-q", "--quiet", is_flag=True, help="Print findings only.")
@click.option("--exit-zero", is_flag=True, help="Exit 0 whatever was found.")
@click.pass_context
def lint(ctx: click.Context, /, **given: Any) -> None:
    """Follow each path of each C function and judge its map and unmap calls.

    PATH is a file, a directory or a kernel tree.  No build, no headers, no configuration.
    Functions that map or unmap for others are found by themselves among the files given.
    """
    from highmem.lint.shown.select import select

    if not given["paths"] and not given["database"] and given["diff"] is None:
        raise click.UsageError("give a file or a directory, --compile-commands or --diff")
    selection = _selection(given)
    with _caching(given["no_cache"]) as cache, _progress() as progress:
        shown = select(selection, cache, progress)
    if given["write"] is not None:
        _write_baseline(given["write"], shown)
    else:
        with open_output(given["output"]) as stream:
            _write(shown, given["form"], stream, quiet=given["quiet"])
    if given["exit_zero"] or given["write"] is not None:
        return
    ctx.exit(1 if shown.findings else 3 if shown.rejected else 0)


def _selection(given: dict[str, Any]) -> Selection:
    from highmem.lint.files import compiled_sources
    from highmem.lint.shown.select import Selection

    paths = list(given["paths"])
    if given["database"] is not None:
        paths += compiled_sources(given["database"])
    return Selection(
        paths=tuple(paths),
        least=Confidence(given["least"]),
        only=frozenset(given["only"]),
        without=frozenset(given["without"]),
        deprecated=given["deprecated"] or "deprecated-api" in given["only"],
        kernel=given["kernel"],
        api=given["api"],
        baseline=given["baseline"],
        diff=given["diff"],
        jobs=given["jobs"],
    )


@contextmanager
def _caching(off: bool) -> Iterator[Any]:
    if off:
        yield None
        return
    from highmem.lint.cache import Cache

    cache = Cache()
    try:
        yield cache
    finally:
        cache.close()
        for note in cache.notes:
            click.echo(f"highmem: {note}", err=True)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A line on a terminal that says how far it is."""
    if not sys.stderr.isatty():
        yield None
        return

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{done:,} of {total:,} files\x1b[K")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _write_baseline(path: str, shown: Shown) -> None:
    import json

    from highmem.lint.shown.baseline import baseline_document

    if path == "-":
        raise UsageError("--write-baseline needs a file")
    with open_output(path) as stream:
        stream.write(json.dumps(baseline_document(shown.findings), indent=1) + "\n")
    click.echo(f"highmem: {len(shown.findings):,} findings written to {path}", err=True)


def _write(shown: Shown, form: str, stream: TextIO, *, quiet: bool) -> None:
    import json

    from highmem.lint.shown.excerpt import Excerpts
    from highmem.lint.shown.fingerprint import fingerprints
    from highmem.report import lint as report

    if form == "text":
        report.render_lint(shown, make_console(stream), Excerpts(), quiet=quiet)
    elif form == "json":
        document = report.lint_document(shown, fingerprints(shown.findings))
        stream.write(json.dumps(document, indent=2) + "\n")
    elif form == "sarif":
        from highmem.report.sarif import sarif_document

        allowed = fingerprints([found for found, _ in shown.allowed])
        marks = fingerprints(shown.findings)
        stream.write(json.dumps(sarif_document(shown, marks, Excerpts(), allowed), indent=1) + "\n")
    else:
        lines = report.gcc_lines if form == "gcc" else report.github_lines
        for line in lines(shown):
            stream.write(line + "\n")
        if not quiet:
            for line in report.summary_lines(shown):
                click.echo(line, err=True)
