"""``perf script`` text."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highmem.errors import InputError
from highmem.trace import read_trace
from highmem.trace.perfscript import PerfScript, is_perf_script
from highmem.trace.schema import Argument, Function, Kind
from highmem.trace.source import ByteSource
from support.trace_reading import account_holds, rows_of

DEFAULT = b"""\
              sh   106 [003]    13.599606: probe:m_kmap_atomic_high_prot: (c1068620) page=0xf6c1d270 prot=0x163
       my - task 4242 [003]    13.599903: probe:r_kmap_atomic_high_prot: (c1068620 <- c121d28c) vaddr=0xfff7f000
         swapper     0 [000]    13.600000: sched:sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=rcu_sched next_pid=12 next_prio=120
         swapper     0 [001]    13.600001: irq:softirq_raise: vec=1 [action=TIMER]
              sh   106 [002]    13.600002: PERF_RECORD_LOST lost 12
"""  # noqa: E501
FULL = b"""\
# ========
sh   106/106   [003]    13.599606830:      probe:m_kmap_high: (c1068620) page=0xf6c1d270         c1068620 kmap_high+0x0 ([kernel.kallsyms])
sh   106/107   [003]    13.599990323:          1 probe:u_kunmap_atomic_high: (c1068720) vaddr=0xfff7f2d8
\tc1068720 kunmap_atomic_high+0x0 ([kernel.kallsyms])
\tc121d28c copy_strings+0xc ([kernel.kallsyms])

"""  # noqa: E501


# Forms that perf 5.10 and 6.1 printed on Debian's i386 kernels (samples/perf/README.md).
OTHER_FORMS = b"""\
 cat   137   1    24.515814: probe:__kmap_local_page_prot__return: (c1262eb0 <- c146fc57) vaddr=0xfffab000
 cat   137 [001] K        24.515816:           probe:kunmap_local_indexed:                         (c1262cd0) vaddr=0xfffab000
 cat   137/137   [001]    24.515817890:          1 highmem:m___kmap_local_page_prot: (c1262eb0) page=4085455608 prot=0x163
 cat   137 [001]    24.515818:  highmem:r___kmap_local_pfn_prot__return: (c1262dc0 <- c1262eed) vaddr=-348160
"""  # noqa: E501
_UNPADDED = b"""\
         swapper     0 [000]     0.000000: PERF_RECORD_MMAP -1/0: [0xc1000000(0x91bc80) @ 0xc1000000]: x [kernel.kallsyms]_text
         swapper     0 [000]     0.000000: PERF_RECORD_FORK(1:1):(0:0)
            init     0 [000]     0.000000: PERF_RECORD_COMM: init:1/1
             exe   163 [001]    25.460006: PERF_RECORD_COMM exec: exe:163/163
       perf-exec   185 [000]    31.948471: PERF_RECORD_SWITCH_CPU_WIDE OUT preempt  next pid/tid:    14/14
            perf   184 [001]    31.944421:     250000                            cpu-clock:          c107b28f handle_softirqs+0x5f ([kernel.kallsyms])
            perf   184/184   [000]    31.913889:                            cpu-clock:
     ksoftirqd/0    14 [000]    31.952559:          4                                   cs:          c1911178 schedule+0x58 ([kernel.kallsyms])
"""  # noqa: E501
PASSED_OVER = re.sub(rb"(?m)(cpu-clock:|14/14)$", rb"\1   ", _UNPADDED)  # as perf pads them


def read(data: bytes) -> PerfScript:
    return PerfScript(ByteSource("perf.txt", io.BytesIO(data)))


def test_the_default_output_is_read(tmp_path: Path) -> None:
    path = tmp_path / "perf.txt"
    path.write_bytes(DEFAULT)
    source = read_trace(path)
    rows = rows_of(source)
    assert source.format == "perf-script"
    account_holds(source.account, DEFAULT, 4)
    assert source.account.rejected == 0
    got = [(r["line"], r["time"], r["cpu"], r["pid"], r["comm"], Kind(r["kind"])) for r in rows]
    assert got == [
        (1, 13_599_606_000, 3, 106, "sh", Kind.MAP),
        (2, 13_599_903_000, 3, 4242, "my - task", Kind.MAP_RETURN),
        (3, 13_600_000_000, 0, 0, "swapper/0", Kind.SWITCH),
        (5, 13_600_000_000, 2, -1, None, Kind.LOST),
    ]
    assert (rows[0]["value"], rows[0]["prot"], rows[0]["argument"]) == (
        0xF6C1D270,
        0x163,
        Argument.PAGE,
    )
    # perf prints the function before the arrow, its caller behind it.
    assert (rows[1]["value"], rows[1]["caller"]) == (0xFFF7F000, "0xc121d28c")
    assert (rows[2]["next_pid"], rows[2]["state"]) == (12, "R")
    assert (rows[3]["value"], source.account.lost) == (12, 12)
    assert {row["flags"] for row in rows} == {0}


def test_all_fields_and_call_chains_are_read() -> None:
    source = read(FULL)
    rows = rows_of(source)
    account_holds(source.account, FULL, 2)
    assert source.account.rejected == 0
    assert [(r["time"], r["pid"], r["function"], r["value"]) for r in rows] == [
        (13_599_606_830, 106, Function.KMAP_HIGH, 0xF6C1D270),
        (13_599_990_323, 107, Function.KUNMAP_ATOMIC_HIGH, 0xFFF7F2D8),
    ]


def test_other_forms_of_a_line_are_read() -> None:
    source = read(OTHER_FORMS)
    rows = rows_of(source)
    account_holds(source.account, OTHER_FORMS, 4)
    assert source.account.rejected == 0
    assert [(r["pid"], r["cpu"], r["time"], Kind(r["kind"]), r["value"]) for r in rows] == [
        (137, 1, 24_515_814_000, Kind.MAP_RETURN, 0xFFFAB000),
        (137, 1, 24_515_816_000, Kind.UNMAP, 0xFFFAB000),
        (137, 1, 24_515_817_890, Kind.MAP, 4085455608),
        (137, 1, 24_515_818_000, Kind.MAP_RETURN, 2**32 - 348160),
    ]


def test_other_events_and_records_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "perf.txt"
    path.write_bytes(PASSED_OVER + DEFAULT)  # the first line of an event comes late
    source = read_trace(path)
    rows = rows_of(source)
    assert source.format == "perf-script"
    account_holds(source.account, PASSED_OVER + DEFAULT, 4)
    assert source.account.rejected == 0
    assert len(rows) == 4


def test_the_header_tells_the_release_however_long_it_is(tmp_path: Path) -> None:
    header = b"# ========\n# os release : 5.10.0-32-686\n" + b"# event : name = x\n" * 20_000
    path = tmp_path / "perf.txt"
    path.write_bytes(header + DEFAULT)
    source = read_trace(path)
    assert source.format == "perf-script"
    assert len(rows_of(source)) == 4
    assert source.account.release == "5.10.0-32-686"
    assert source.account.rejected == 0


@pytest.mark.parametrize(
    ("printed", "time"),
    [
        # perf for i386 printed the left for what perf for amd64 prints as the right.
        (b"10.9033330614", 10_443_396_022),
        (b"10.9077793159", 10_487_858_567),
        (b"24.21990650597", 24_515_814_117),
        (b"4.000000007", 4_000_000_007),
        (b"100.999999999", 100_999_999_999),
    ],
)
def test_nanoseconds_of_a_perf_of_32_bits_are_put_right(printed: bytes, time: int) -> None:
    line = b"sh 1 [000] %b: probe:kmap_high: (c1068620) page=0xf6c1d270\n" % printed
    assert [row["time"] for row in rows_of(read(line))] == [time]


@pytest.mark.parametrize("printed", [b"10.1000000000", b"10.9700000000000", b"3.4294967296"])
def test_other_fractions_of_more_than_a_second_are_no_time(printed: bytes) -> None:
    line = b"sh 1 [000] %b: probe:kmap_high: (c1068620) page=0xf6c1d270\n" % printed
    source = read(DEFAULT + line)
    assert len(rows_of(source)) == 4
    assert source.account.rejected == 1


def test_a_reaped_task_is_known_by_its_last_switch() -> None:
    switch = b"prev_comm=reap prev_pid=122 prev_prio=120 prev_state=X ==> next_comm=a next_pid=7 next_prio=120"  # noqa: E501
    data = b"  :-1    -1 [000]    10.487858: sched:sched_switch: %b\n" % switch
    data += b"  :-1    -1/-1    [000]    10.487859: sched:sched_switch: %b\n" % switch
    data += b"  :-1    -1 [000]    10.487860: probe:kunmap_high: (c1068620) page=0xf6c1d270\n"
    data += b"  :-1    -1 [000]    10.487860: irq:softirq_raise: vec=1 [action=TIMER]\n"
    source = read(data)
    assert [(r["pid"], r["comm"], r["next_pid"]) for r in rows_of(source)] == [
        (122, "reap", 7),
        (122, "reap", 7),
    ]
    assert source.account.rejected == 1


def test_the_sample_s_symbol_names_the_caller_where_it_is_the_caller_s() -> None:
    at = b"sh 1/1 [000] 1.00000%d: probe:kmap_high__return: (c1262eb0 <- c146fc57) vaddr=0xfec00000         %b\n"  # noqa: E501
    data = b"".join(
        at % (number, behind)
        for number, behind in enumerate(
            (
                b"c146fc57 copy_page_from_iter_atomic+0x57",
                b"c146fc57 copy_page_from_iter_atomic ([kernel.kallsyms])",
                b"c10505f0 kretprobe_trampoline+0x0 ([kernel.kallsyms])",
                b"c146fc57 [unknown] ([kernel.kallsyms])",
            )
        )
    )
    source = read(data)
    assert [row["caller"] for row in rows_of(source)] == [
        "copy_page_from_iter_atomic+0x57",
        "copy_page_from_iter_atomic",
        "0xc146fc57",
        "0xc146fc57",
    ]
    assert source.account.rejected == 0


def test_an_event_that_was_written_twice_is_taken_once() -> None:
    one, other = (
        b"sh 1 [000] 1.000001: probe:kunmap_high: (c1068620) page=0xf6c1d270\n",
        b"sh 2 [001] 1.000001: probe:kunmap_high: (c1068620) page=0xf6c1d270\n",
    )
    later = one.replace(b"000001", b"000002")
    source = read(one + other + one + other + later + one)
    assert [(row["cpu"], row["time"]) for row in rows_of(source)] == [
        (0, 1_000_001_000),
        (1, 1_000_001_000),
        (0, 1_000_002_000),
        (0, 1_000_001_000),
    ]
    assert (source.account.events, source.account.passed_over) == (4, 2)
    assert any(note.startswith("2 events were in it twice") for note in source.account.notes)


def test_that_no_loss_is_told_is_said() -> None:
    silent, telling = read(FULL), read(DEFAULT)
    rows_of(silent)
    rows_of(telling)
    assert "--show-lost-events" in silent.account.notes[0]
    assert telling.account.notes == []


def test_broken_lines_are_counted() -> None:
    data = (
        DEFAULT
        + b"sh 106 13.5: probe:m_kmap_high: (c1) page=0x1\n"
        + b"sh 106 [003] 13.599606: probe:m_kmap_high: (c1068620) page=zzz\n"
        + b"sh 106 [003] 13.599606: probe:r_kmap_high: (c1068620) vaddr=0x1\n"
        + b"sh 106 [003] 13.599606: probe:m_kmap_hi"
    )
    source = read(data)
    rows = rows_of(source)
    account_holds(source.account, data, len(rows))
    assert len(rows) == 4
    assert source.account.rejected == 4
    assert source.account.truncated


def test_other_text_is_no_perf_script() -> None:
    assert not is_perf_script(
        b"cat-107 [003] .... 9.405284: m_kmap_high: (kmap+0x0/0x1) page=0x1\n"
    )
    assert is_perf_script(FULL)
    with pytest.raises(InputError):
        rows_of(read(b"nothing of the kind: probe:x\n" * 3))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes_are_counted(flips: list[tuple[int, int]]) -> None:
    data = bytearray(DEFAULT + FULL + OTHER_FORMS + PASSED_OVER)
    for at, value in flips:
        data[at % len(data)] = value
    source = read(bytes(data))
    try:
        rows = rows_of(source)
    except InputError:
        return
    account_holds(source.account, bytes(data), len(rows))


@pytest.mark.parametrize(
    "line",
    [
        b"x" * 200_000,
        b"(" * 50_000,
        b" " * 60_000 + b"1",
        b"a b " * 9000,
        b"sh 1 [0] 1.000000: " + b"a:" * 30_000,
        b"sh 1 [0] 1.000000: sched:sched_switch: prev_comm=" + b" next_prio=1  " * 4000,
    ],
)
def test_long_lines_take_no_time(line: bytes) -> None:
    data = DEFAULT + line + b"\n" + DEFAULT.replace(b" 13.", b" 14.")
    source = read(data)
    assert len(rows_of(source)) == 8
    assert source.account.lines == 11
