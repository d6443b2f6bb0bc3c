"""``perf script`` text."""

from __future__ import annotations

import io
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
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes_are_counted(flips: list[tuple[int, int]]) -> None:
    data = bytearray(DEFAULT + FULL)
    for at, value in flips:
        data[at % len(data)] = value
    source = read(bytes(data))
    try:
        rows = rows_of(source)
    except InputError:
        return
    account_holds(source.account, bytes(data), len(rows))


@pytest.mark.parametrize(
    "line", [b"x" * 200_000, b"(" * 50_000, b" " * 60_000 + b"1", b"a b " * 9000]
)
def test_long_lines_take_no_time(line: bytes) -> None:
    data = DEFAULT + line + b"\n" + DEFAULT
    source = read(data)
    assert len(rows_of(source)) == 8
    assert source.account.lines == 11
