from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from highmem.replay import Verdict, replay
from highmem.replay.mappings import Mappings
from highmem.report.chrome import ChromeTrace, depth_steps
from highmem.trace import read_trace
from support.mapping_rows import LAYOUT, Recorded, mappings, window

MISUSE = Path(__file__).resolve().parents[2] / "samples" / "misuse"


@pytest.fixture(scope="module")
def leak() -> Verdict:
    return replay(read_trace(MISUSE / "linux-6.1-686.leak-local.trace.zst"))


def trace_of(verdict: Verdict, *batches: Mappings) -> dict[str, Any]:
    stream = io.StringIO()
    trace = ChromeTrace(stream)
    trace.begin(LAYOUT)
    for batch in batches:
        trace.add(batch)
    trace.finish(verdict)
    document: dict[str, Any] = json.loads(stream.getvalue(), parse_float=Decimal)
    return document


def phase(document: dict[str, Any], *phases: str) -> list[dict[str, Any]]:
    return [event for event in document["traceEvents"] if event["ph"] in phases]


def test_a_mapping_is_a_pair_with_its_facts(leak: Verdict) -> None:
    row = {"open_ns": 5_482_976_123, "close_ns": 5_482_976_124, "cpu": 1, "address": window(1, 2)}
    begin, end = phase(trace_of(leak, mappings(row)), "b", "e")
    assert (begin["ph"], end["ph"]) == ("b", "e")
    assert begin["ts"] == Decimal("5482976.123")  # microseconds, nothing lost
    assert end["ts"] == Decimal("5482976.124")
    for member in ("cat", "id", "name", "pid", "tid"):
        assert begin[member] == end[member], member
    assert begin["name"] == f"window 2 at {window(1, 2):#x}"
    assert begin["args"] == {
        "page": "0xf6ac0408",
        "address": f"{window(1, 2):#010x}",
        "caller": "copy_page+0x10",
        "task": "cp-7",
        "depth": 1,
        "line": 1,
    }


def test_overlapping_mappings_of_one_window_have_their_own_ids(leak: Verdict) -> None:
    # From 5.11 on two tasks of a CPU may hold its first window, and neither is inside the other.
    first = {"open_ns": 1000, "close_ns": 3000, "pid": 1}
    second = {"open_ns": 2000, "close_ns": 4000, "pid": 2}
    events = phase(trace_of(leak, mappings(first, second)), "b", "e")
    assert len({event["id"] for event in events}) == 2
    assert len({event["name"] for event in events}) == 1


def test_what_stayed_open_has_no_end(leak: Verdict) -> None:
    document = trace_of(leak, mappings({"close_line": 0, "close_ns": -1}))
    assert phase(document, "b")[0]["args"]["open_at_end"] is True
    assert phase(document, "e") == []


def test_processes_and_windows_have_names(leak: Verdict) -> None:
    rows = [
        {"cpu": 3, "address": window(3, 0)},
        {"permanent": 1, "address": LAYOUT.pkmap_address(9)},
    ]
    document = trace_of(leak, mappings(*rows))
    named = {
        (event["name"], event["pid"]): event["args"].get("name") for event in phase(document, "M")
    }
    for event in phase(document, "b", "C", "i"):
        assert ("process_name", event["pid"]) in named
    assert {"CPU 3", "permanent windows"} <= set(named.values())
    assert f"permanent window 9 at {LAYOUT.pkmap_address(9):#x}" in named.values()


def test_findings_are_instants(leak: Verdict) -> None:
    events = phase(trace_of(leak), "i")
    assert [event["name"] for event in events] == [found.rule.name for found in leak.findings]
    assert events[0]["args"]["what"] == leak.findings[0].what
    assert events[0]["ts"] * 1000 == leak.findings[0].where.time_ns


def test_frames_unknown_pages_and_unknown_callers(leak: Verdict) -> None:
    rows: list[dict[str, Any]] = [
        {"argument": 2, "page": 0x7F94D},
        {"argument": 0, "page": 0, "caller": None},
    ]
    frame, unknown = (e["args"] for e in phase(trace_of(leak, mappings(*rows)), "b"))
    assert frame["frame"] == "0x7f94d"
    assert "page" not in frame
    assert not {"page", "frame"} & set(unknown)
    assert unknown["caller"] == "(caller not recorded)"


def test_hostile_names_stay_text(leak: Verdict) -> None:
    name = 'a"\\\n</script>\u2028\ud800'
    document = trace_of(leak, mappings({"comm": name}))
    assert phase(document, "b")[0]["args"]["task"] == f"{name}-7"


def test_depth_goes_up_and_down_in_the_order_of_events() -> None:
    # Two windows nested, all within one microsecond of a coarse clock; the inner closes first.
    inner = {"open_line": 2, "close_line": 3, "open_ns": 5000, "close_ns": 5000, "depth": 2}
    outer = {"open_line": 1, "close_line": 4, "open_ns": 5000, "close_ns": 5000, "depth": 1}
    assert [depth for _, _, depth in depth_steps(mappings(inner, outer))] == [1, 2, 1, 0]


def test_permanent_windows_do_not_count_as_depth() -> None:
    assert depth_steps(mappings({"permanent": 1})) == []


def test_a_real_recording() -> None:
    stream, rows = io.StringIO(), Recorded()
    trace = ChromeTrace(stream)
    source = read_trace(MISUSE / "linux-6.1-686.clean.trace.zst")
    verdict = replay(source, sinks=[trace, rows])
    trace.finish(verdict)
    document = json.loads(stream.getvalue())
    begun = {event["id"]: event for event in phase(document, "b")}
    assert len(begun) == len(rows.rows) > 1000
    ended = set()
    for event in phase(document, "e"):
        start = begun[event["id"]]
        assert start["ts"] <= event["ts"]
        assert event["id"] not in ended
        ended.add(event["id"])
    assert len(ended) == sum(row["close_ns"] >= 0 for row in rows.rows)
    depths = {cpu + 1: stats.deepest for cpu, stats in verdict.cpus.items()}
    for process, deepest in depths.items():
        counts = [e["args"]["windows"] for e in phase(document, "C") if e["pid"] == process]
        assert max(counts, default=0) == deepest
    assert document["otherData"]["mappings"] == len(rows.rows)
