from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from highmem.errors import UsageError
from highmem.replay import Verdict, replay
from highmem.report.table_columns import TABLES
from highmem.report.tables import Tables, Tap, connect, open_parquet
from highmem.trace import read_trace
from highmem.trace.schema import Kind
from support.mapping_rows import LAYOUT, Recorded, mappings, window
from support.trace_reading import rows_of

duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
MISUSE = Path(__file__).resolve().parents[2] / "samples" / "misuse"
LEAK = MISUSE / "linux-6.1-686.leak-local.trace.zst"


class Replayed:
    """The tables of one recording, its verdict, and its mappings by another sink."""

    def __init__(self, folder: Path) -> None:
        self.database = connect(folder / "tables.duckdb", "this test")
        tables = Tables(self.database)
        sink = Recorded()
        self.verdict: Verdict = replay(Tap(read_trace(LEAK), tables), sinks=[tables, sink])
        tables.finish(self.verdict)
        self.files = tables.write_parquet(folder)
        self.mappings = sink.rows


@pytest.fixture(scope="module")
def leak(tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    return Replayed(tmp_path_factory.mktemp("tables"))


def objects(database: Any, query: str) -> list[dict[str, Any]]:
    result = database.execute(query)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def test_every_event_is_there_with_its_values(leak: Replayed) -> None:
    expected = rows_of(read_trace(LEAK))
    found = objects(leak.database, "select * from events order by line")
    assert len(found) == len(expected) == leak.verdict.account.events
    for row, event in zip(found, expected, strict=True):
        same = ("line", "cpu", "pid", "comm", "value", "prot", "caller", "next_comm", "state")
        assert {name: row[name] for name in same} == {name: event[name] for name in same}
        assert row["time_ns"] == event["time"]
        assert row["kind"] == Kind(event["kind"]).name.lower()
        assert row["km_type"] is None
        assert row["next_pid"] == (event["next_pid"] if row["kind"] == "switch" else None)
        assert row["preempt_depth"] == (event["flags"] >> 8) & 0xFF
        assert row["hardirq"] is bool(event["flags"] & 8)


def test_every_mapping_is_there_with_its_values(leak: Replayed) -> None:
    found = objects(leak.database, "select * from mappings")
    assert len(found) == len(leak.mappings) > 1000
    key = lambda row: (row["open_line"], row["address"])  # noqa: E731
    for row, mapping in zip(sorted(found, key=key), sorted(leak.mappings, key=key), strict=True):
        same = ("open_ns", "cpu", "pid", "comm", "caller", "address", "depth", "page")
        assert {name: row[name] for name in same} == {name: mapping[name] for name in same}
        assert row["page_kind"] == {1: "page", 2: "frame"}[mapping["argument"]]
        assert row["permanent"] is bool(mapping["permanent"])
        # 16 windows per CPU, downwards (linux-facts.md 9.3: CPU 1's first is 0xfffab000).
        assert row["slot"] == (0xFFFAB000 - mapping["address"] >> 12) % 16
        held = mapping["close_ns"] - mapping["open_ns"]
        assert row["held_ns"] == (held if mapping["close_ns"] >= 0 else None)


def test_findings_and_callers(leak: Replayed) -> None:
    (found,) = objects(leak.database, "select * from findings")
    assert found["rule"] == "leaked-window"
    assert found["evidence"].splitlines() == list(leak.verdict.findings[0].evidence)
    callers = objects(leak.database, "select * from callers")
    assert {row["caller"]: row["maps"] for row in callers} == {
        name or "(caller not recorded)": stats.maps for name, stats in leak.verdict.callers.items()
    }


def test_parquet_files_hold_the_same_for_a_database_that_is_not_ours(leak: Replayed) -> None:
    assert {path.stem for path in leak.files} == set(TABLES)
    fresh = duckdb.connect()
    for path in leak.files:
        described = fresh.execute(f"describe select * from '{path}'").fetchall()
        assert [(name, kind) for name, kind, *_ in described] == [
            (name, kind) for name, (kind, _) in TABLES[path.stem].items()
        ]
        ours = leak.database.execute(f"select * from {path.stem}").fetchall()
        assert fresh.execute(f"select * from '{path}'").fetchall() == ours


def test_a_folder_of_parquet_files_answers_like_the_recording(
    leak: Replayed, tmp_path: Path
) -> None:
    database = connect(tmp_path / "other.duckdb", "this test")
    open_parquet(database, leak.files[0].parent)
    query = "select count(*), sum(held_ns), max(depth) from mappings"
    assert database.execute(query).fetchall() == leak.database.execute(query).fetchall()


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no events\.parquet in it"):
        open_parquet(connect(tmp_path / "other.duckdb", "this test"), tmp_path)


def test_what_was_not_recorded_is_null(tmp_path: Path, leak: Replayed) -> None:
    database = connect(tmp_path / "t.duckdb", "this test")
    tables = Tables(database)
    tables.begin(LAYOUT)
    rows: list[dict[str, Any]] = [
        {"close_line": 0, "close_ns": -1},
        {"argument": 0, "page": 0, "caller": None},
        {"address": window(2, 3), "cpu": 2},
        {"permanent": 1, "address": LAYOUT.pkmap_address(9)},
    ]
    tables.add(mappings(*rows))
    tables.finish(leak.verdict)
    still_open, unknown, third, permanent = objects(database, "select * from mappings")
    assert [still_open[name] for name in ("close_line", "close_ns", "held_ns")] == [None] * 3
    assert [unknown[name] for name in ("page", "page_kind", "caller")] == [None] * 3
    assert (third["slot"], permanent["slot"]) == (3, 9)


def test_without_the_package_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(UsageError, match=r"--parquet needs duckdb: .*highmem\[sql\]"):
        connect(tmp_path / "t.duckdb", "--parquet")


MANY = """
import resource, sys
from pathlib import Path
from highmem.replay.verdict import Verdict
from highmem.report.tables import Tables, connect
from highmem.trace.schema import Batch, Strings
folder = Path(sys.argv[1])
tables = Tables(connect(folder / "t.duckdb", "test"))
strings = Strings()
for n in range(500):
    strings.number(f"task-{n}")
batch = Batch.empty(8192, strings)
batch.kind[:] = 1
for n in range(int(sys.argv[2])):
    batch.line[:] += 8192
    batch.time[:] += 1_000_003 * n
    batch.value[:] += 4093
    tables.events(batch)
tables._flush_events()
tables._connection.execute("COMMIT")
tables.write_parquet(folder)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    def peak(batches: int) -> int:
        folder = tmp_path / str(batches)
        folder.mkdir()
        command = [sys.executable, "-c", MANY, str(folder), str(batches)]
        # Nothing but the number may be there: a long COPY must not show its progress.
        return int(subprocess.run(command, check=True, capture_output=True).stdout)

    assert peak(600) < peak(150) + 400  # MiB, at 4.9 and 1.2 million events
