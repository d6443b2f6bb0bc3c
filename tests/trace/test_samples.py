"""The recordings of real kernels in samples/, held to what is known about them.

Counts are those of the recordings' own headers and of grep over their text.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from highmem.trace import read_trace
from highmem.trace.schema import FLAG_KNOWN, FLAG_MIGRATE_KNOWN, Account, Function, Kind
from highmem.trace.source import open_source
from support.trace_reading import SlowFtraceText, rows_of

SAMPLES = Path(__file__).parents[2] / "samples"
F, K = Function, Kind
Counts = dict[tuple[Kind, Function], int]

RECORDINGS: dict[str, tuple[int, int, Counts]] = {
    # events, lines of header, events by kind and function
    "linux-5.10-686.trace.zst": (
        400_976,
        11,
        {
            (K.MAP, F.KMAP_ATOMIC_HIGH_PROT): 133_374,
            (K.MAP_RETURN, F.KMAP_ATOMIC_HIGH_PROT): 133_355,
            (K.UNMAP, F.KUNMAP_ATOMIC_HIGH): 133_941,
            (K.MAP, F.KMAP_HIGH): 102,
            (K.MAP_RETURN, F.KMAP_HIGH): 102,
            (K.UNMAP, F.KUNMAP_HIGH): 102,
        },
    ),
    "linux-6.1-686.trace.zst": (
        361_560,
        12,
        {
            (K.MAP, F.KMAP_LOCAL_PAGE_PROT): 72_533,
            (K.MAP_RETURN, F.KMAP_LOCAL_PAGE_PROT): 72_514,
            (K.MAP, F.KMAP_LOCAL_PFN_PROT): 71_998,
            (K.MAP_RETURN, F.KMAP_LOCAL_PFN_PROT): 72_000,
            (K.UNMAP, F.KUNMAP_LOCAL_INDEXED): 72_515,
        },
    ),
    "misuse/linux-6.1-686.clean.trace.zst": (
        6_309,
        12,
        {
            (K.MAP, F.KMAP_LOCAL_PAGE_PROT): 1_447,
            (K.MAP_RETURN, F.KMAP_LOCAL_PAGE_PROT): 1_449,
            (K.MAP, F.KMAP_LOCAL_PFN_PROT): 1_423,
            (K.MAP, F.KMAP_HIGH): 2,
            (K.MAP_RETURN, F.KMAP_HIGH): 2,
            (K.UNMAP, F.KUNMAP_HIGH): 2,
            (K.UNMAP, F.KUNMAP_LOCAL_INDEXED): 1_459,
            (K.SWITCH, F.NONE): 525,
        },
    ),
    "misuse/linux-6.1-686.leak-local.trace.zst": (
        6_594,
        12,
        {
            (K.MAP, F.KMAP_LOCAL_PAGE_PROT): 1_482,
            (K.MAP_RETURN, F.KMAP_LOCAL_PAGE_PROT): 1_484,
            (K.MAP, F.KMAP_LOCAL_PFN_PROT): 1_460,
            (K.UNMAP, F.KUNMAP_LOCAL_INDEXED): 1_493,
            (K.SWITCH, F.NONE): 675,
        },
    ),
    "misuse/linux-6.1-686.sleep-while-atomic.trace.zst": (
        6_011,
        12,
        {
            (K.MAP, F.KMAP_LOCAL_PAGE_PROT): 1_445,
            (K.MAP_RETURN, F.KMAP_LOCAL_PAGE_PROT): 1_447,
            (K.MAP, F.KMAP_LOCAL_PFN_PROT): 1_420,
            (K.UNMAP, F.KUNMAP_LOCAL_INDEXED): 1_457,
            (K.SWITCH, F.NONE): 242,
        },
    ),
    "misuse/linux-6.1-686.unmap-order.trace.zst": (
        6_562,
        12,
        {
            (K.MAP, F.KMAP_LOCAL_PAGE_PROT): 1_455,
            (K.MAP_RETURN, F.KMAP_LOCAL_PAGE_PROT): 1_457,
            (K.MAP, F.KMAP_LOCAL_PFN_PROT): 1_432,
            (K.UNMAP, F.KUNMAP_LOCAL_INDEXED): 1_467,
            (K.SWITCH, F.NONE): 751,
        },
    ),
}  # table


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_line_of_a_recording_is_accounted_for(name: str) -> None:
    events, header, counts = RECORDINGS[name]
    source = read_trace(SAMPLES / name)
    found: Counter[tuple[int, int]] = Counter()
    numbers: list[np.ndarray] = []
    flags = FLAG_KNOWN | (FLAG_MIGRATE_KNOWN if "6.1" in name else 0)
    for batch in source:
        found.update(zip(batch.kind.tolist(), batch.function.tolist(), strict=True))
        numbers.append(batch.line)
        assert (batch.flags & (FLAG_KNOWN | FLAG_MIGRATE_KNOWN) == flags).all()
        assert (batch.time > 0).all()
    assert source.account == Account(lines=header + events, events=events, passed_over=header)
    assert np.array_equal(np.concatenate(numbers), np.arange(header + 1, header + events + 1))
    assert found == counts


@pytest.mark.parametrize("name", [name for name in RECORDINGS if name.startswith("misuse")])
def test_the_short_cut_reads_what_the_whole_grammar_reads(name: str) -> None:
    fast, slow = read_trace(SAMPLES / name), SlowFtraceText(open_source(SAMPLES / name))
    assert rows_of(fast) == rows_of(slow)
    assert fast.account == slow.account


def test_windows_and_callers_are_those_of_the_kernel() -> None:
    # linux-facts 12: on 6.1 every window of a high page is in the fixmap, which ends below 4 GiB.
    rows = rows_of(read_trace(SAMPLES / "misuse/linux-6.1-686.clean.trace.zst"))
    returns = [row for row in rows if row["kind"] == Kind.MAP_RETURN]
    assert {row["value"] % 4096 for row in returns} == {0}
    assert all(row["caller"] for row in returns)
    assert returns[0]["caller"].partition("+")[2].startswith("0x")
    assert "/" not in returns[0]["caller"]
    assert all(
        row["prot"] == 0x163
        for row in rows
        if row["function"] == F.KMAP_LOCAL_PFN_PROT and row["kind"] == Kind.MAP
    )
