from __future__ import annotations

import io
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from highmem.errors import UsageError
from highmem.replay import Verdict, replay
from highmem.replay.mappings import Mappings
from highmem.report import perfetto as report_perfetto
from highmem.report.perfetto import PerfettoTrace
from highmem.trace import read_trace
from support.mapping_rows import LAYOUT, Recorded, mappings, window

pb = pytest.importorskip(
    "perfetto.protos.perfetto.trace.perfetto_trace_pb2", reason="perfetto is not installed"
)
MISUSE = Path(__file__).resolve().parents[2] / "samples" / "misuse"


@pytest.fixture(scope="module")
def leak() -> Verdict:
    return replay(read_trace(MISUSE / "linux-6.1-686.leak-local.trace.zst"))


class Decoded:
    """A Perfetto trace, read with Perfetto's own schema as its importer reads it."""

    def __init__(self, data: bytes) -> None:
        trace = pb.Trace()
        trace.ParseFromString(data)
        self.tracks: dict[int, Any] = {}
        self.slices: list[dict[str, Any]] = []
        self.instants: list[dict[str, Any]] = []
        self.counters: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.names: dict[tuple[str, int], str] = {}
        self.open: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for packet in trace.packet:
            self._packet(packet)

    def _packet(self, packet: Any) -> None:
        assert packet.trusted_packet_sequence_id
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            assert track.uuid not in self.tracks
            assert not track.parent_uuid or track.parent_uuid in self.tracks
            self.tracks[track.uuid] = track
            return
        if packet.sequence_flags & pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED:
            self.names.clear()
        for field, entries in packet.interned_data.ListFields():
            for entry in entries:
                assert (field.name, entry.iid) not in self.names
                text = entry.str.decode() if hasattr(entry, "str") else entry.name
                self.names[field.name, entry.iid] = text
        event = packet.track_event
        assert event.track_uuid in self.tracks
        if event.type == event.TYPE_COUNTER:
            assert self.tracks[event.track_uuid].HasField("counter")
            self.counters[event.track_uuid].append((packet.timestamp, event.counter_value))
        elif event.type == event.TYPE_SLICE_END:
            self.open[event.track_uuid].pop()["end"] = packet.timestamp
        else:
            one = {"track": event.track_uuid, "start": packet.timestamp, "end": None}
            one |= {"name": self._name(event), "args": self._args(event)}
            if event.type == event.TYPE_INSTANT:
                self.instants.append(one)
            else:
                self.open[event.track_uuid].append(one)
                self.slices.append(one)

    def _name(self, event: Any) -> str:
        name: str = event.name or self.names["event_names", event.name_iid]
        return name

    def _args(self, event: Any) -> dict[str, Any]:
        args = {}
        for each in event.debug_annotations:
            name = each.name or self.names["debug_annotation_names", each.name_iid]
            kind = each.WhichOneof("value")
            value = getattr(each, kind)
            if kind == "string_value_iid":
                value = self.names["debug_annotation_string_values", value]
            args[name] = value
        return args

    def path(self, track: int) -> list[str]:
        found = self.tracks[track]
        above = self.path(found.parent_uuid) if found.parent_uuid else []
        return [*above, found.name]


def decoded(verdict: Verdict, *batches: Mappings) -> Decoded:
    stream = io.BytesIO()
    trace = PerfettoTrace(stream)
    trace.begin(LAYOUT)
    for batch in batches:
        trace.add(batch)
    trace.finish(verdict)
    return Decoded(stream.getvalue())


def test_a_mapping_is_a_slice_on_the_track_of_its_window(leak: Verdict) -> None:
    row = {"open_ns": 5_482_976_123, "close_ns": 5_482_976_200, "cpu": 1, "address": window(1, 2)}
    trace = decoded(leak, mappings(row))
    (one,) = trace.slices
    assert trace.path(one["track"]) == ["CPU 1", f"window 2 at {window(1, 2):#x}"]
    assert (one["start"], one["end"]) == (5_482_976_123, 5_482_976_200)
    assert one["name"] == "copy_page"
    assert one["args"] == {
        "page": 0xF6AC0408,
        "address": window(1, 2),
        "caller": "copy_page+0x10",
        "task": "cp-7",
        "depth": 1,
        "line": 1,
    }


def test_overlapping_mappings_of_one_window_get_tracks_of_one_name(leak: Verdict) -> None:
    # In the order in which they close; the third fits behind the first again.
    times = [(1000, 3000), (2000, 4000), (3000, 5000), (4500, 6000)]
    rows = [{"open_ns": start, "close_ns": end, "pid": start} for start, end in times]
    trace = decoded(leak, mappings(*rows))
    tracks = [one["track"] for one in trace.slices]
    assert tracks[0] == tracks[2] != tracks[1] == tracks[3]
    assert trace.path(tracks[0]) == trace.path(tracks[1])
    assert [(one["start"], one["end"]) for one in trace.slices] == times


def test_what_stayed_open_has_no_end(leak: Verdict) -> None:
    trace = decoded(leak, mappings({"close_line": 0, "close_ns": -1}))
    assert trace.slices[0]["end"] is None


def test_permanent_windows_stand_apart(leak: Verdict) -> None:
    address = LAYOUT.pkmap_address(9)
    trace = decoded(leak, mappings({"permanent": 1, "address": address}))
    (one,) = trace.slices
    assert trace.path(one["track"]) == [
        "permanent windows",
        f"permanent window 9 at {address:#x}",
    ]
    assert trace.counters == {}


def test_findings_are_instants_with_their_evidence(leak: Verdict) -> None:
    trace = decoded(leak)
    first, *_, about = trace.instants
    found = leak.findings[0]
    assert first["name"] == found.rule.name
    assert first["start"] == found.where.time_ns
    assert first["args"]["what"] == found.what
    assert first["args"]["evidence[0]"] == found.evidence[0]
    assert about["args"]["kernel"] == leak.profile.title


def test_hostile_names_do_not_break_the_file(leak: Verdict) -> None:
    rows = [{"comm": "\ud800<b>\x00"}, {"caller": "\udfff+0x1"}]
    tasks = [one["args"]["task"] for one in decoded(leak, mappings(*rows)).slices]
    assert tasks[0] == "?<b>\x00-7"


def test_the_table_of_texts_is_begun_anew_when_full(
    leak: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_perfetto, "_MOST_NAMES", 16)
    rows = [{"comm": f"task{n}", "open_ns": n * 10, "close_ns": n * 10 + 5} for n in range(100)]
    tasks = [one["args"]["task"] for one in decoded(leak, mappings(*rows)).slices]
    assert tasks == [f"task{n}-7" for n in range(100)]


def test_without_the_package_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "perfetto.trace_builder.proto_builder", None)
    with pytest.raises(UsageError, match=r"highmem\[perfetto\]"):
        PerfettoTrace(io.BytesIO())


@pytest.mark.parametrize("name", ["clean", "sleep-while-atomic"])
def test_a_real_recording(name: str) -> None:
    stream, rows = io.BytesIO(), Recorded()
    sink = PerfettoTrace(stream)
    source = read_trace(MISUSE / f"linux-6.1-686.{name}.trace.zst")
    verdict = replay(source, sinks=[sink, rows])
    sink.finish(verdict)
    trace = Decoded(stream.getvalue())
    assert len(trace.slices) == len(rows.rows) > 1000
    of_track = defaultdict(list)
    for one in trace.slices:
        of_track[one["track"]].append(one)
    for slices in of_track.values():
        slices.sort(key=lambda one: (one["start"], one["end"] or 1 << 63))
        for before, after in pairwise(slices):
            assert before["end"] is not None
            assert before["end"] <= after["start"]
    expected = sorted((r["open_ns"], r["address"], r["page"]) for r in rows.rows)
    assert expected == sorted(
        (one["start"], one["args"]["address"], one["args"].get("frame", one["args"].get("page")))
        for one in trace.slices
    )
    for track, steps in trace.counters.items():
        cpu = int(trace.path(track)[0].removeprefix("CPU "))
        assert max(value for _, value in steps) == verdict.cpus[cpu].deepest
