"""``highmem sql``: questions to a recording, in SQL."""

from __future__ import annotations

import csv
import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from highmem.cli.output import make_console, open_output, size_option
from highmem.errors import UsageError

if TYPE_CHECKING:
    import duckdb

__all__ = ["sql"]

_FETCHED = 8192
_SHOWN = 10_000
"""Rows of a table for people; the other formats have no limit."""


@click.command()
@click.argument("trace")
@click.argument("query")
@click.option("--profile", metavar="NAME|FILE", help="The kernel, instead of detecting it.")
@click.option("--ram", callback=size_option, metavar="SIZE", help="The machine's RAM, like 2G.")
@click.option("--probes", metavar="FILE", help="A TOML file that maps probe names to functions.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "ndjson"]),
    default="table",
    show_default=True,
)
@click.option("-o", "--output", metavar="FILE", help="Write the result here.")
def sql(
    trace: str,
    query: str,
    profile: str | None,
    ram: int | None,
    probes: str | None,
    form: str,
    output: str | None,
) -> None:
    """Ask QUERY (DuckDB's SQL) of the recording TRACE.

    The tables are events, mappings, findings and callers; DESCRIBE mappings, or docs/sql.md,
    tells their columns.  TRACE is a recording, or a folder that replay --parquet wrote, which
    answers at once.
    """
    from highmem.report.tables import connect

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="highmem-"))
        database = connect(Path(folder, "tables.duckdb"), "highmem sql")
        stack.callback(database.close)
        _fill(database, trace, profile, ram, probes)
        result = _ask(database, query)
        stream = stack.enter_context(open_output(output))
        if result.description:
            _WRITERS[form](result, stream)


def _fill(
    database: duckdb.DuckDBPyConnection,
    trace: str,
    profile: str | None,
    ram: int | None,
    probes: str | None,
) -> None:
    from highmem.kernel.profile import load_profile
    from highmem.replay import replay
    from highmem.report.tables import Tables, Tap, open_parquet
    from highmem.trace import load_probes, read_trace

    if Path(trace).is_dir():
        open_parquet(database, Path(trace))
        return
    chosen = load_profile(profile) if profile else None
    source = read_trace(trace, probes=load_probes(probes) if probes else None)
    tables = Tables(database)
    tables.finish(replay(Tap(source, tables), chosen, ram, [tables]))


def _ask(database: duckdb.DuckDBPyConnection, query: str) -> duckdb.DuckDBPyConnection:
    import duckdb

    try:
        return database.execute(query)
    except duckdb.Error as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise UsageError(lines[0] if lines else "the query failed") from None


def _names(result: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of the columns, each once: JSON needs that, a join may repeat them."""
    names: list[str] = []
    for column in result.description or ():
        name, number = column[0], 1
        while name in names:
            name, number = f"{column[0]}_{number}", number + 1
        names.append(name)
    return names


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    import duckdb

    while True:
        try:
            rows = result.fetchmany(_FETCHED)
        except duckdb.Error as error:
            raise UsageError(str(error).splitlines()[0]) from None
        if not rows:
            return
        yield from rows


def _plain(value: Any) -> Any:
    """*value* as JSON can hold it: what is neither number nor text becomes text."""
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)


def _write_ndjson(result: duckdb.DuckDBPyConnection, stream: TextIO) -> None:
    names = _names(result)
    for row in _rows(result):
        document = dict(zip(names, map(_plain, row), strict=True))
        stream.write(json.dumps(document, ensure_ascii=False) + "\n")


def _write_json(result: duckdb.DuckDBPyConnection, stream: TextIO) -> None:
    names = _names(result)
    stream.write("[")
    for number, row in enumerate(_rows(result)):
        document = dict(zip(names, map(_plain, row), strict=True))
        comma = "," if number else ""
        stream.write(f"{comma}\n  {json.dumps(document, ensure_ascii=False)}")
    stream.write("\n]\n")


def _write_csv(result: duckdb.DuckDBPyConnection, stream: TextIO) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_names(result))
    writer.writerows(_rows(result))


def _write_table(result: duckdb.DuckDBPyConnection, stream: TextIO) -> None:
    from rich.table import Table
    from rich.text import Text

    from highmem.trace.printable import printable

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    rows = _rows(result)
    shown = list(islice(rows, _SHOWN))
    for number, name in enumerate(_names(result)):
        numbers = any(isinstance(row[number], int | float) for row in shown)
        table.add_column(Text(printable(name)), justify="right" if numbers else "left")
    for row in shown:
        table.add_row(*(Text("" if v is None else printable(str(v))) for v in row))
    console = make_console(stream)
    console.print(table)
    if next(rows, None) is not None:
        console.print(f"… cut after {_SHOWN:,} rows; --format csv has all")


_WRITERS = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
    "ndjson": _write_ndjson,
}
