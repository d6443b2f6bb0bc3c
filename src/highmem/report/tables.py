"""Events and mappings as tables of DuckDB: for SQL, and for Parquet files.

Rows go in by columns, some ten thousand at a time, into a database file of the caller's
choice; DuckDB keeps no more of it in memory than its limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from highmem.errors import UsageError
from highmem.kernel.layout import Layout
from highmem.replay.mappings import MAPPING_COLUMNS, Mappings
from highmem.replay.verdict import Verdict
from highmem.report.table_columns import TABLES
from highmem.report.windows import NO_CALLER, PAGE_KINDS, WindowNames, caller_name
from highmem.trace import schema
from highmem.trace.schema import Batch, Strings, TraceSource

if TYPE_CHECKING:
    import duckdb

__all__ = ["Tables", "Tap", "connect", "open_parquet"]

MEMORY_LIMIT = "512MB"
_ROWS = 1 << 16
"""Rows that are collected before they go into the database: DuckDB likes them in bulk."""
_Columns = dict[str, npt.NDArray[Any]]

_KINDS = {int(kind): kind.name.lower() for kind in schema.Kind}
_FUNCTIONS = {int(f): f.name.lower() for f in schema.Function if f is not schema.Function.NONE}
_ARGUMENTS = {int(a): a.name.lower() for a in schema.Argument if a is not schema.Argument.NONE}
_FLAGS = {
    "irqs_off": schema.FLAG_IRQS_OFF,
    "need_resched": schema.FLAG_NEED_RESCHED,
    "hardirq": schema.FLAG_HARDIRQ,
    "softirq": schema.FLAG_SOFTIRQ,
}


def connect(path: Path, what: str) -> duckdb.DuckDBPyConnection:
    """A database in the new file *path*; UsageError where DuckDB is not installed: *what*
    needs it.  It loads no extension from the network."""
    try:
        import duckdb
    except ImportError:
        raise UsageError(f"{what} needs duckdb: pip install 'highmem[sql]'") from None
    spill = path.with_suffix(".spill")
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(spill),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    connection = duckdb.connect(str(path), config=settings)
    # Standard output carries the result and nothing else.
    connection.execute("SET enable_progress_bar = false")
    return connection


class Tap:
    """A recording that hands each batch to *tables* on its way to the replay."""

    def __init__(self, source: TraceSource, tables: Tables) -> None:
        self._source = source
        self._tables = tables
        self.name = source.name
        self.format = source.format
        self.account = source.account
        self.strings = source.strings

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._source:
            self._tables.events(batch)
            yield batch


class Tables:
    """A sink that fills the tables of TABLES in *connection*."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._names = WindowNames()
        self._events: list[_Columns] = []
        self._mappings: list[_Columns] = []
        self._waiting = {"events": 0, "mappings": 0}
        self._strings = Strings()
        for table, columns in TABLES.items():
            described = ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items())
            connection.execute(f"CREATE TABLE {table} ({described})")
        # One transaction: rows go to the file once, not to a log first.
        connection.execute("BEGIN")

    def begin(self, layout: Layout) -> None:
        """Windows have numbers from now on."""
        self._names.begin(layout)

    def events(self, batch: Batch) -> None:
        """Events of the recording."""
        self._strings = batch.strings
        self._events.append({name: getattr(batch, name).copy() for name in schema.COLUMNS})
        self._waiting["events"] += len(batch)
        if self._waiting["events"] >= _ROWS:
            self._flush_events()

    def add(self, mappings: Mappings) -> None:
        """The next batch of mappings."""
        self._strings = mappings.strings
        self._mappings.append({name: mappings.columns[name].copy() for name in MAPPING_COLUMNS})
        self._waiting["mappings"] += len(mappings)
        if self._waiting["mappings"] >= _ROWS:
            self._flush_mappings()

    def finish(self, verdict: Verdict) -> None:
        """What is left, and what the verdict says."""
        self._flush_events()
        self._flush_mappings()
        findings = [found.to_dict() for found in verdict.findings]
        self._insert_rows("findings", [_finding(found) for found in findings])
        callers = [c.to_dict() for c in verdict.callers.values()]
        named = [{**row, "caller": row["caller"] or NO_CALLER} for row in callers]
        self._insert_rows("callers", named)
        self._connection.execute("COMMIT")

    def _insert_rows(self, table: str, rows: list[dict[str, Any]]) -> None:
        names = list(TABLES[table])
        marks = ", ".join("?" * len(names))
        if rows:
            values = [[row.get(name) for name in names] for row in rows]
            self._connection.executemany(f"INSERT INTO {table} VALUES ({marks})", values)

    def _insert(self, table: str, columns: _Columns) -> None:
        names = ", ".join(TABLES[table])
        self._connection.register("new_rows", columns)
        self._connection.execute(f"INSERT INTO {table} SELECT {names} FROM new_rows")
        self._connection.unregister("new_rows")
        self._waiting[table] = 0

    def _flush_events(self) -> None:
        if not self._events:
            return
        raw = _joined(self._events)
        self._events.clear()
        texts = _texts(self._strings)
        flags = raw["flags"]
        unknown = (flags & schema.FLAG_KNOWN) == 0
        migrate = unknown | ((flags & schema.FLAG_MIGRATE_KNOWN) == 0)
        other = raw["kind"] != schema.Kind.SWITCH
        columns: _Columns = {
            **{name: raw[name] for name in ("line", "cpu", "pid", "value", "prot")},
            "time_ns": raw["time"],
            "km_type": _masked(raw["km_type"], raw["km_type"] < 0),
            "kind": _named(raw["kind"], _KINDS),
            "function": _named(raw["function"], _FUNCTIONS),
            "argument": _named(raw["argument"], _ARGUMENTS),
            "next_pid": _masked(raw["next_pid"], other),
            **{name: texts[raw[name]] for name in ("comm", "caller", "next_comm", "state")},
            **{name: _masked((flags & bit) != 0, unknown) for name, bit in _FLAGS.items()},
            "preempt_depth": _masked(_byte(flags, schema.PREEMPT_SHIFT), unknown),
            "migrate_depth": _masked(_byte(flags, schema.MIGRATE_SHIFT), migrate),
        }
        self._insert("events", columns)

    def _flush_mappings(self) -> None:
        if not self._mappings:
            return
        raw = _joined(self._mappings)
        self._mappings.clear()
        texts = _texts(self._strings)
        still_open = raw["close_ns"] < 0
        slot = self._slots(raw)
        same = ("open_line", "open_ns", "cpu", "pid", "address", "depth")
        columns: _Columns = {
            **{name: raw[name] for name in same},
            "close_line": _masked(raw["close_line"], still_open),
            "close_ns": _masked(raw["close_ns"], still_open),
            "held_ns": _masked(raw["close_ns"] - raw["open_ns"], still_open),
            "comm": texts[raw["comm"]],
            "caller": texts[raw["caller"]],
            "caller_function": _functions(texts)[raw["caller"]],
            "slot": _masked(slot, slot < 0),
            "page": _masked(raw["page"], ~np.isin(raw["argument"], list(PAGE_KINDS))),
            "page_kind": _named(raw["argument"], PAGE_KINDS),
            "permanent": raw["permanent"] != 0,
        }
        self._insert("mappings", columns)

    def _slots(self, raw: _Columns) -> npt.NDArray[np.int16]:
        """The number of each row's window, -1 where it has none."""
        keys = (raw["address"] & np.uint64(0xFFFFF000)) | (raw["permanent"] != 0).astype(np.uint64)
        windows, which = np.unique(keys, return_inverse=True)
        numbers = [self._names.of(key & ~1, bool(key & 1)).number for key in windows.tolist()]
        return np.array([-1 if n is None else n for n in numbers], np.int16)[which]

    def write_parquet(self, folder: Path) -> list[Path]:
        """Write each table to ``TABLE.parquet`` in *folder*; their paths."""
        written = []
        for table in TABLES:
            path = folder / f"{table}.parquet"
            target = str(path).replace("'", "''")
            self._connection.execute(
                f"COPY {table} TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
            )
            written.append(path)
        return written


def open_parquet(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Make the tables that ``--parquet`` wrote to *folder* known to *connection*."""
    for table in TABLES:
        path = folder / f"{table}.parquet"
        if not path.is_file():
            raise UsageError(f"{folder}: no {path.name} in it; make it with replay --parquet")
        source = str(path).replace("'", "''")
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{source}')")


def _finding(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, **found["where"], "evidence": "\n".join(found["evidence"])}


def _joined(parts: list[_Columns]) -> _Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _texts(strings: Strings) -> npt.NDArray[np.object_]:
    """Texts by number; the last one, which -1 picks, is None."""
    return np.array([*strings.texts, None], dtype=object)


def _functions(texts: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    names = [NO_CALLER if text is None else caller_name(text) for text in texts.tolist()]
    return np.array(names, dtype=object)


def _named(numbers: npt.NDArray[Any], names: dict[int, str]) -> npt.NDArray[np.object_]:
    table = np.full(256, None, dtype=object)
    for number, name in names.items():
        table[number] = name
    named: npt.NDArray[np.object_] = table[numbers]
    return named


def _masked(values: npt.NDArray[Any], unknown: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """*values* with NULL where *unknown*."""
    return np.ma.masked_array(values, mask=np.asarray(unknown, dtype=bool))


def _byte(flags: npt.NDArray[Any], shift: int) -> npt.NDArray[np.uint8]:
    return ((flags >> shift) & 0xFF).astype(np.uint8)
