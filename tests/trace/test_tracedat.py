"""trace.dat written by the tests' own writer, in every form, and what must come out."""

from __future__ import annotations

import io
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard

from highmem.compiled import load_source
from highmem.errors import InputError, UsageError
from highmem.kernel.profile import load_profile
from highmem.trace import ringbuffer
from highmem.trace.schema import (
    FLAG_HARDIRQ,
    FLAG_IRQS_OFF,
    FLAG_KNOWN,
    FLAG_MIGRATE_KNOWN,
    FLAG_NEED_RESCHED,
    MIGRATE_SHIFT,
    PREEMPT_SHIFT,
    Argument,
    Function,
    Kind,
)
from highmem.trace.source import ByteSource
from highmem.trace.tracedat import TraceDat
from support.still_clock import RAM, Life, as_pages
from support.trace_reading import rows_of
from support.tracedat_writer import Machine, Page, call, dat, switch

MACHINES = [
    Machine(order, word, page_size, compression, version)
    for order, word, page_size in itertools.product(("little", "big"), (4, 8), (4096, 16384))
    for version, compression in ((6, "none"), (7, "none"), (7, "zlib"), (7, "zstd"))
]
INTERPRETED = load_source("highmem.trace._ring", "interpreted_ring").Ring
T = 13_598_151_776
DAY = 86_400 * 10**9


def read(data: bytes) -> TraceDat:
    return TraceDat(ByteSource("test.dat", io.BytesIO(data)), "-")


def recording(machine: Machine) -> dict[int, list[Page]]:
    """Every kind of record, on two CPUs."""
    m = machine
    first = (
        Page(m, T)
        .record(T, switch(m, 0, b"swapper/0", 0, 12, b"rcu_sched"))
        .record(T + 100, call(m, "m", 106, 0xF6C1D270))
        .discarded(T + 150, 12)
        .record(T + 200, call(m, "r", 106, 0xFFF7F000, flags=1), long_form=True)
        .record(T + 300, call(m, "o", 106, 5))
        .rest_is_padding()
    )
    second = (
        Page(m, T + DAY, missed=7)
        .record(T + DAY + 2**30, call(m, "u", 106, 0xFFF7F2D8, depth=0x12))
        .stamp(T + 2 * DAY)
        .record(T + 2 * DAY + 5, switch(m, 106, b"sh", 0x108, 4_000_000, b"<b>new</b>"))
        .record(T + 2 * DAY + 6, call(m, "m", 4_000_000, 0x1000, flags=0x0C))
    )
    empty = Page(m, T + 3 * DAY)
    other = Page(m, T, missed=0).record(T + 100, call(m, "u", 77, 0xC2E6C000))
    other.record(T + 200, call(m, "r", 77, 0xFFF00000, caller=0xF7800010))
    cut = Page(m, T + DAY, missed=3, stored=False).record(T + DAY, call(m, "u", 12, 0))
    return {0: [first, second, empty], 2: [other, cut]}


def test_every_record_of_every_kind_of_machine_is_read() -> None:
    for machine in MACHINES:
        source = read(dat(machine, recording(machine)))
        rows = rows_of(source)
        seen = [
            (r["line"], r["time"], r["cpu"], r["pid"], r["comm"], Kind(r["kind"]), r["value"])
            for r in rows
        ]
        assert seen == [
            (1, T, 0, 0, "swapper/0", Kind.SWITCH, 0),
            (2, T + 100, 0, 106, "sh", Kind.MAP, 0xF6C1D270),
            (3, T + 100, 2, -1, None, Kind.LOST, 0),
            (4, T + 100, 2, 77, "<...>", Kind.UNMAP, 0xC2E6C000),
            (5, T + 200, 0, 106, "sh", Kind.MAP_RETURN, 0xFFF7F000),
            (6, T + 200, 2, 77, "<...>", Kind.MAP_RETURN, 0xFFF00000),
            (8, T + 200, 2, -1, None, Kind.LOST, 0),
            (9, T + DAY, 2, 12, "rcu_sched", Kind.UNMAP, 0),
            (10, T + DAY, 0, -1, None, Kind.LOST, 7),
            (11, T + DAY + 2**30, 0, 106, "sh", Kind.UNMAP, 0xFFF7F2D8),
            (12, T + 2 * DAY + 5, 0, 106, "sh", Kind.SWITCH, 0),
            (13, T + 2 * DAY + 6, 0, 4_000_000, "<b>new</b>", Kind.MAP, 0x1000),
        ], machine
        account = source.account
        assert (account.lines, account.events, account.passed_over) == (13, 12, 1)
        assert (account.lost, account.rejected, account.truncated) == (9, 0, False)
        assert not account.notes


def test_columns_are_those_of_the_text_reader() -> None:
    machine = Machine()
    rows = rows_of(read(dat(machine, recording(machine))))
    by_line = {row["line"]: row for row in rows}
    expected: dict[str, Any] = {
        "function": Function.KMAP_ATOMIC_HIGH_PROT,
        "argument": Argument.PAGE,
        "flags": FLAG_KNOWN,
        "prot": 0x163,
        "km_type": -1,
        "caller": None,
        "next_pid": -1,
        "next_comm": None,
        "state": None,
    }
    assert {key: by_line[2][key] for key in expected} == expected
    returned = by_line[5]
    assert (returned["caller"], returned["prot"]) == ("copy_strings+0xc", 0)
    assert returned["flags"] == FLAG_KNOWN | FLAG_IRQS_OFF
    assert returned["argument"] == Argument.ADDRESS
    assert by_line[6]["caller"] == "helper+0x10 [mod]"
    assert by_line[13]["flags"] == FLAG_KNOWN | FLAG_NEED_RESCHED | FLAG_HARDIRQ
    left = by_line[12]
    # The format says: 1 S, 2 D, and a state of 8 is an idle CPU's preemption.
    assert (left["state"], left["next_pid"], left["next_comm"]) == ("R+", 4_000_000, "<b>new</b>")
    assert left["value"] == left["prot"] == 0
    assert by_line[1]["state"] == "R"


@pytest.mark.parametrize(
    ("uname", "flags"),
    [
        (b"Linux x 5.10.0 i686", 0x12 << PREEMPT_SHIFT),
        (b"Linux x 6.1.0 i686", 2 << PREEMPT_SHIFT | 1 << MIGRATE_SHIFT | FLAG_MIGRATE_KNOWN),
        (b"", 2 << PREEMPT_SHIFT | 1 << MIGRATE_SHIFT | FLAG_MIGRATE_KNOWN),
    ],
)
def test_the_upper_half_of_the_depth_depends_on_the_kernel(uname: bytes, flags: int) -> None:
    machine = Machine()
    pages = {0: [Page(machine, T).record(T, call(machine, "u", 1, 2, depth=0x12))]}
    (row,) = rows_of(read(dat(machine, pages, options=((5, uname),))))
    assert row["flags"] == FLAG_KNOWN | flags


def test_compiled_and_interpreted_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for machine in MACHINES:
        data = dat(machine, recording(machine))
        compiled = read(data)
        rows = rows_of(compiled)
        with monkeypatch.context() as patch:
            patch.setattr(ringbuffer, "Ring", INTERPRETED)
            interpreted = read(data)
            assert rows_of(interpreted) == rows
        assert interpreted.account == compiled.account


@pytest.mark.parametrize("still", [0.5, 0.8, 0.95])
def test_a_task_that_moves_while_the_clock_stands_still_keeps_its_order(
    still: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = load_profile("debian-6.1-686").layout(RAM)
    machine, moved = Machine(page_size=4096), 0
    for seed in range(40):
        events = Life(layout, random.Random(seed), still, once=True).live(150)
        if seed % 2:
            monkeypatch.setattr(ringbuffer, "Ring", INTERPRETED)
        rows = rows_of(read(dat(machine, as_pages(machine, events))))
        monkeypatch.undo()
        assert len(rows) == len(events)
        last: dict[int, int] = {}
        for row in rows:
            if row["kind"] != Kind.SWITCH:
                assert row["value"] > last.get(row["pid"], -1), seed
                last[row["pid"]] = row["value"]
        moved += sum(row["kind"] == Kind.SWITCH and row["next_pid"] != 0 for row in rows)
        assert_nobody_runs_twice(rows)
    assert moved > 100


def assert_nobody_runs_twice(rows: list[dict[str, Any]]) -> None:
    running: dict[int, int] = {}
    for row in rows:
        if row["kind"] == Kind.SWITCH:
            elsewhere = {pid for cpu, pid in running.items() if cpu != row["cpu"]}
            assert not row["next_pid"] or row["next_pid"] not in elsewhere
            running[row["cpu"]] = row["next_pid"]
        elif row["cpu"] in running:
            assert running[row["cpu"]] == row["pid"]


def test_tasks_that_seem_to_change_places_in_one_instant_do_not_hold_the_reader_up() -> None:
    m = Machine()
    pages = {
        cpu: [
            Page(m, T)
            .record(T, call(m, "u", 5 + cpu, 1))
            .record(T + 9, switch(m, 5 + cpu, b"a", 0, 6 - cpu, b"b"))
            .record(T + 9, call(m, "u", 6 - cpu, 2))
        ]
        for cpu in (0, 1)
    }
    rows = rows_of(read(dat(m, pages)))
    assert sorted((r["cpu"], r["pid"], r["value"]) for r in rows) == [
        (0, 5, 0), (0, 5, 1), (0, 6, 2), (1, 5, 2), (1, 6, 0), (1, 6, 1),
    ]  # fmt: skip


def test_times_are_converted_as_the_options_say() -> None:
    machine = Machine(version=7)
    pages = {0: [Page(machine, 2**40).record(2**40 + 3, call(machine, "u", 1, 2))]}
    tsc = machine.number(3 << 30) + machine.number(31) + machine.number(0, 8)
    source = read(dat(machine, pages, options=((14, tsc), (7, b"-1000\0"), (1, b"0x5\0"))))
    (row,) = rows_of(source)
    assert row["time"] == ((2**40 + 3) * (3 << 30) >> 31) - 1000 + 5000


def test_the_kernels_own_count_of_losses_is_told() -> None:
    machine = Machine()
    pages = {0: [Page(machine, T).record(T, call(machine, "u", 1, 2))]}
    stats = b"CPU: 3\nentries: 1\noverrun: 12\ndropped events: 5\n\0"
    source = read(dat(machine, pages, options=((2, stats),)))
    assert source.account.notes == [
        "cpu 3: 12 events were overwritten before they were read",
        "cpu 3: 5 events were dropped for want of room",
    ]


def test_equal_times_come_in_the_order_of_cpus() -> None:
    machine = Machine()
    cpus = {
        cpu: [
            Page(machine, T)
            .record(T, call(machine, "u", cpu, n))
            .record(T, call(machine, "u", cpu, n + 1))
            for n in (0, 2)
        ]
        for cpu in (5, 1, 3)
    }
    rows = rows_of(read(dat(machine, cpus)))
    assert [(row["cpu"], row["value"]) for row in rows] == [
        (cpu, value) for cpu in (1, 3, 5) for value in range(4)
    ]


def test_many_cpus_are_merged_by_time() -> None:
    machine = Machine()
    cpus: dict[int, list[Page]] = {}
    for cpu in range(70):
        pages = cpus[cpu] = []
        for page in range(3):
            start = T + page * 10_000
            pages.append(Page(machine, start))
            for n in range(20):
                time = start + n * 97 + cpu * 31 % 101
                pages[-1].record(time, call(machine, "u", cpu, n))
    times = [row["time"] for row in rows_of(read(dat(machine, cpus)))]
    assert len(times) == 70 * 60
    assert times == sorted(times)


def test_a_file_and_a_compressed_file_are_read(tmp_path: Path) -> None:
    from highmem.trace import read_trace

    machine = Machine(compression="zstd")
    data = dat(machine, recording(machine))
    expected = rows_of(read(data))
    for name, content in (("plain", data), ("packed", zstandard.compress(data))):
        path = tmp_path / name
        path.write_bytes(content)
        source = read_trace(path)
        assert source.format == "trace.dat"
        assert rows_of(source) == expected
        with pytest.raises(UsageError):
            iter(source)


def test_what_cannot_be_read_is_one_line() -> None:
    machine = Machine()
    good = dat(machine, recording(machine))
    for data, message in (
        (good.replace(b"tracing7\0", b"tracing8\0"), "version 8"),
        (dat(machine, {}), "without any event"),
        (good[:10], "damaged"),
        (good[:60], "damaged"),
    ):
        with pytest.raises(InputError, match=message) as error:
            rows_of(read(data))
        assert str(error.value).isprintable()
