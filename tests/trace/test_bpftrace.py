"""``bpftrace -f json`` lines."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highmem.errors import InputError
from highmem.trace import read_trace
from highmem.trace.bpftrace import Bpftrace
from highmem.trace.schema import Argument, Kind
from highmem.trace.source import ByteSource
from support.trace_reading import account_holds, rows_of


def lines(*documents: Any) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def printed(text: str) -> dict[str, str]:
    return {"type": "printf", "data": text + "\n"}


GOOD = lines(
    {"type": "attached_probes", "data": {"probes": 4}},
    printed("m_kmap_high 13599606830 3 106 - page=0xf6c1d270 prot=0 comm=a b=c"),
    printed("r_kmap_high 13599607000 3 106 copy_strings+12 vaddr=0xfec07000 comm=a b=c"),
    {"type": "lost_events", "data": {"events": 17}},
    printed("sched_switch 13599608000 3 106 - prev_state=256 next_pid=12 next_comm=rcu comm=x y"),
    {"type": "map", "data": {"@n": 3}},
    printed("u_kunmap_high 13599609000 0 7 - page=0xf6c1d270 comm=new\nline"),
)


def read(data: bytes) -> Bpftrace:
    return Bpftrace(ByteSource("bpf.json", io.BytesIO(data)))


def test_the_documented_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "bpf.json"
    path.write_bytes(GOOD)
    source = read_trace(path)
    rows = rows_of(source)
    assert source.format == "bpftrace-json"
    account_holds(source.account, GOOD, 5)
    assert source.account.rejected == 0
    got = [(r["line"], r["time"], r["cpu"], r["pid"], r["comm"], Kind(r["kind"])) for r in rows]
    assert got == [
        (2, 13_599_606_830, 3, 106, "a b=c", Kind.MAP),
        (3, 13_599_607_000, 3, 106, "a b=c", Kind.MAP_RETURN),
        (4, 13_599_607_000, -1, -1, None, Kind.LOST),
        (5, 13_599_608_000, 3, 106, "x y", Kind.SWITCH),
        (7, 13_599_609_000, 0, 7, "new line", Kind.UNMAP),
    ]
    assert (rows[0]["value"], rows[0]["argument"]) == (0xF6C1D270, Argument.PAGE)
    assert rows[1]["caller"] == "copy_strings+0xc"
    assert source.account.lost == 17
    # A state of 256 is TASK_REPORT_MAX: it runs and was preempted.
    assert (rows[3]["state"], rows[3]["next_pid"], rows[3]["next_comm"]) == ("R+", 12, "rcu")


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b"[1]",
        b'{"type": 3}',
        b'{"type": "printf"}',
        b'{"type": "printf", "data": "m_kmap_high"}',
        b'{"type": "printf", "data": "m_kmap_high 1 1 1 - page=zz comm=x"}',
        b'{"type": "printf", "data": "r_kmap_high 1 1 1 - vaddr=0x1 comm=x"}',
        b'{"type": "printf", "data": "sched_switch 1 1 1 - comm=x"}',
        b'{"type": "lost_events", "data": {"events": -1}}',
        b"[" * 30_000,
        b"\xff\xfe",
    ],
)
def test_broken_lines_are_rejected(bad: bytes) -> None:
    data = GOOD + bad + b"\n" + GOOD
    source = read(data)
    rows = rows_of(source)
    account_holds(source.account, data, len(rows))
    assert len(rows) == 10
    assert source.account.rejected == 1


def test_json_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(b'{"events": [1, 2]}\n')
    with pytest.raises(InputError):
        rows_of(read_trace(path))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes_are_counted(flips: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for at, value in flips:
        data[at % len(data)] = value
    source = read(bytes(data))
    try:
        rows = rows_of(source)
    except InputError:
        return
    account_holds(source.account, bytes(data), len(rows))


@pytest.mark.parametrize("end", range(1, len(GOOD), 7))
def test_cut_anywhere(end: int) -> None:
    source = read(GOOD[:end])
    try:
        rows = rows_of(source)
    except InputError:
        return
    account_holds(source.account, GOOD[:end], len(rows))
    assert source.account.truncated == (GOOD[end - 1 : end] != b"\n")
