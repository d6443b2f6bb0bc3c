"""Mappings as a Perfetto trace (protobuf TrackEvent), through the official ``perfetto`` package.

A track for each CPU; below it a counter of the depth and a track for each window; beside
them the permanent windows and the findings.  Slices of one track have to nest, but two tasks
may hold one window at overlapping times (local era, or several users of a permanent
window): such a mapping goes to a further track of the same name, which the Perfetto UI
shows together with the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from highmem import __version__
from highmem.errors import UsageError
from highmem.findings import Finding
from highmem.kernel.layout import Layout
from highmem.replay.mappings import Mappings
from highmem.replay.verdict import Verdict
from highmem.report.chrome import depth_steps
from highmem.report.windows import NO_CALLER, Row, WindowNames, rows_of

if TYPE_CHECKING:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket

__all__ = ["PerfettoTrace"]

_SEQUENCE = 1
_PERMANENT = -1
"""Stands for a CPU in the keys of tracks."""
_MOST_LANES = 64
"""Tracks for one window; what overlaps more than that is drawn over the last."""
_MOST_NAMES = 1 << 16
"""Texts kept by number; once full, the table begins anew so that memory stays bounded."""


class PerfettoTrace:
    """A sink that writes each mapping to *stream* as it comes."""

    def __init__(self, stream: BinaryIO) -> None:
        try:
            from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos
            from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder
        except ImportError:
            raise UsageError(
                "--perfetto needs the perfetto package: pip install 'highmem[perfetto]' "
                "(or use --chrome, which needs nothing)"
            ) from None
        self._protos = protos
        self._builder = StreamingTraceProtoBuilder(stream)
        self._windows = WindowNames()
        self._next_track = 1
        self._groups: dict[int, int] = {}
        self._counters: dict[int, int] = {}
        self._lanes: dict[tuple[int, int], list[tuple[int, int]]] = {}
        """(CPU, window's address) to its tracks: (track, when its last slice ends)."""
        self._numbers: dict[tuple[str, str], int] = {}
        self._begin, self._end, self._step = (self._packet() for _ in range(3))
        self._begin.track_event.type = protos.TrackEvent.TYPE_SLICE_BEGIN
        self._begin.sequence_flags = protos.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        self._end.track_event.type = protos.TrackEvent.TYPE_SLICE_END
        self._step.track_event.type = protos.TrackEvent.TYPE_COUNTER
        self._fields = [self._begin.track_event.debug_annotations.add() for _ in range(6)]
        self._fresh = True

    def begin(self, layout: Layout) -> None:
        """Windows have numbers from now on."""
        self._windows.begin(layout)

    def add(self, mappings: Mappings) -> None:
        """The next batch."""
        for row in rows_of(mappings):
            self._mapping(row)
        for cpu, time, depth in depth_steps(mappings):
            step = self._step
            step.timestamp = time
            step.track_event.track_uuid = self._counter(cpu)
            step.track_event.counter_value = depth
            self._builder.write_packet(step)

    def _mapping(self, row: Row) -> None:
        if len(self._numbers) >= _MOST_NAMES:
            self._numbers.clear()
            self._fresh = True
        track = self._lane(row)
        begin = self._begin
        event = begin.track_event
        begin.timestamp = row.open_ns
        event.track_uuid = track
        begin.ClearField("interned_data")
        event.name_iid = self._number(begin, "event_names", row.function)
        page, address, caller, task, depth, line = self._fields
        for field, name in (
            (page, row.page_kind or "page not recorded"),
            (address, "address"),
            (caller, "caller"),
            (task, "task"),
            (depth, "depth"),
            (line, "line"),
        ):
            field.name_iid = self._number(begin, "debug_annotation_names", name)
        page.pointer_value = row.page
        address.pointer_value = row.address
        texts = "debug_annotation_string_values"
        caller.string_value_iid = self._number(begin, texts, row.caller or NO_CALLER)
        task.string_value_iid = self._number(begin, texts, row.task)
        depth.int_value = row.depth
        line.int_value = row.open_line
        self._write_begin()
        if row.close_ns >= 0:
            self._end.timestamp = max(row.close_ns, row.open_ns)
            self._end.track_event.track_uuid = track
            self._builder.write_packet(self._end)

    def finish(self, verdict: Verdict) -> None:
        """Findings, and what this is a trace of."""
        track = self._track(name="findings", rank=-1)
        for found in verdict.findings:
            self._finding(found, track)
        about = self._instant(verdict.first_ns, track, f"highmem {__version__}")
        self._annotate(about, "recording", verdict.name)
        self._annotate(about, "kernel", verdict.profile.title)
        self._annotate(about, "profile", verdict.profile.name)
        self._builder.write_packet(about)

    def _finding(self, found: Finding, track: int) -> None:
        packet = self._instant(found.where.time_ns or 0, track, found.rule.name)
        for name, value in {
            "what": found.what,
            "kernel_does": found.kernel_does,
            "level": found.rule.level.value,
            "confidence": found.confidence.value,
            "cpu": found.where.cpu,
            "task": found.where.task,
            "line": found.where.line,
            "fix": found.rule.fix,
            **{f"evidence[{n}]": line for n, line in enumerate(found.evidence)},
        }.items():
            if value is not None:
                self._annotate(packet, name, value)
        self._builder.write_packet(packet)

    # Packets.

    def _packet(self) -> TracePacket:
        packet = self._builder.create_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        return packet

    def _instant(self, time: int, track: int, name: str) -> TracePacket:
        packet = self._packet()
        packet.timestamp = time
        packet.track_event.type = self._protos.TrackEvent.TYPE_INSTANT
        packet.track_event.track_uuid = track
        packet.track_event.name = _text(name)
        return packet

    @staticmethod
    def _annotate(packet: TracePacket, name: str, value: str | int) -> None:
        annotation = packet.track_event.debug_annotations.add()
        annotation.name = name
        if isinstance(value, int):
            annotation.int_value = value
        else:
            annotation.string_value = _text(value)

    def _write_begin(self) -> None:
        packet = self._begin
        flags = packet.sequence_flags
        if self._fresh:
            # The first packet of a table of texts says that no earlier table counts.
            packet.sequence_flags = flags | self._protos.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        self._builder.write_packet(packet)
        packet.sequence_flags = flags
        self._fresh = False

    def _number(self, packet: TracePacket, table: str, text: str) -> int:
        """The number of *text* in one of the tables of InternedData; *packet* brings it."""
        number = self._numbers.get((table, text))
        if number is None:
            number = self._numbers[table, text] = len(self._numbers) + 1
            entry = getattr(packet.interned_data, table).add()
            entry.iid = number
            if table == "debug_annotation_string_values":
                entry.str = text.encode("utf-8", "replace")
            else:
                entry.name = _text(text)
        return number

    # Tracks.

    def _track(self, **about: Any) -> int:
        """Describe a new track."""
        track, self._next_track = self._next_track, self._next_track + 1
        packet = self._builder.create_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        descriptor = packet.track_descriptor
        descriptor.uuid = track
        descriptor.name = about["name"]
        if "parent" in about:
            descriptor.parent_uuid = about["parent"]
        if about.get("counter"):
            descriptor.counter.unit_name = "windows"
        if about.get("explicit"):
            descriptor.child_ordering = self._protos.TrackDescriptor.EXPLICIT
        descriptor.sibling_order_rank = about["rank"]
        self._builder.write_packet(packet)
        return track

    def _group(self, cpu: int) -> int:
        found = self._groups.get(cpu)
        if found is None:
            name = "permanent windows" if cpu == _PERMANENT else f"CPU {cpu}"
            rank = 1 << 20 if cpu == _PERMANENT else cpu
            found = self._groups[cpu] = self._track(name=name, rank=rank, explicit=True)
        return found

    def _counter(self, cpu: int) -> int:
        found = self._counters.get(cpu)
        if found is None:
            found = self._counters[cpu] = self._track(
                name=f"CPU {cpu} depth", parent=self._group(cpu), counter=True, rank=-1
            )
        return found

    def _lane(self, row: Row) -> int:
        """A track of the row's window on which nothing overlaps it.  Mappings come in the order
        in which they end, so it is enough to know when a track's last slice ended."""
        cpu = _PERMANENT if row.permanent else row.cpu
        lanes = self._lanes.setdefault((cpu, row.address & 0xFFFFF000), [])
        end = row.close_ns if row.close_ns >= 0 else 1 << 63
        for number, (track, until) in enumerate(lanes):
            if row.open_ns >= until or number == _MOST_LANES - 1:
                lanes[number] = (track, max(end, until))
                return track
        window = self._windows.of(row.address, row.permanent)
        track = self._track(name=window.name, parent=self._group(cpu), rank=window.rank)
        lanes.append((track, end))
        return track


def _text(text: str) -> str:
    """*text* without lone surrogates, which protobuf refuses."""
    return text.encode("utf-8", "replace").decode("utf-8")
