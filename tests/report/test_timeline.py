from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.report import timeline as module
from highmem.report.timeline import Timeline, pack
from support.mapping_rows import LAYOUT, mappings, window


def unpacked(text: str, dtype: str) -> npt.NDArray[Any]:
    """What the page's script makes of a packed column."""
    array = np.frombuffer(
        zlib.decompress(base64.b64decode(text)), "<u4" if dtype == "u8" else dtype
    )
    if dtype == "u8":
        low, high = array.reshape(2, -1).astype(np.uint64)
        return low | high << np.uint64(32)
    return array


def timeline_of(*batches: Sequence[Mapping[str, Any]], most: int = 1000) -> Timeline:
    timeline = Timeline(most)
    timeline.begin(LAYOUT)
    for batch in batches:
        timeline.add(mappings(*batch))
    return timeline


INTERVALS = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 1200), st.integers(0, 2)),
    min_size=1,
    max_size=12,
)


@given(st.lists(INTERVALS, min_size=1, max_size=4), st.integers(0, 40))
def test_tiles_are_what_a_count_by_hand_says(batches: list[Any], scale: int) -> None:
    """Few stretches, so that they have to double and move to both sides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BINS", 16)
        timeline = timeline_of(
            *(
                [
                    {
                        "open_ns": start << scale,
                        "close_ns": (start + long) << scale,
                        "address": window(0, slot),
                    }
                    for start, long, slot in batch
                ]
                for batch in batches
            )
        )
        lanes = timeline.lanes()
        levels = timeline.levels(lanes)
    rows = [
        (f"window {slot} at", start << scale, (start + long) << scale)
        for batch in batches
        for start, long, slot in batch
    ]
    assert sum(lane.mappings for lane in lanes) == len(rows)
    for level in levels:
        shape = (len(lanes), level["bins"])
        begun = unpacked(level["begun"], "<u4").reshape(shape)
        share = unpacked(level["open"], "u1").reshape(shape)
        for lane, counts, shares in zip(lanes, begun, share, strict=True):
            mine = [(s, e) for name, s, e in rows if lane.name.startswith(name)]
            for number in range(level["bins"]):
                low = level["start"] + number * level["width"]
                high = low + level["width"]
                assert counts[number] == sum(low <= start < high for start, _ in mine)
                open_ns = sum(max(0, min(end, high) - max(start, low)) for start, end in mine)
                exact = min(open_ns / level["width"], 1) * 255
                assert exact - 1e-6 <= shares[number] <= exact + 1


def test_levels_double() -> None:
    levels = timeline_of([{"open_ns": 0, "close_ns": 10**9}]).levels(
        timeline_of([{"open_ns": 0, "close_ns": 10**9}]).lanes()
    )
    assert len(levels) == module.LEVELS
    widths = [level["width"] for level in levels]
    assert all(after == 2 * before for before, after in pairwise(widths))
    assert levels[0]["bins"] * widths[0] >= 10**9


def test_exact_columns_give_every_mapping_back() -> None:
    far = 1 << 40  # more than 32 bits hold
    rows: list[dict[str, Any]] = [
        {"open_ns": far + 5, "close_ns": far + 9, "open_line": far, "close_line": far + 1},
        {"open_ns": 3, "close_ns": far, "page": 1 << 35, "cpu": 1, "address": window(1, 0)},
        {"open_ns": 100, "close_ns": -1, "close_line": 0, "caller": None},
        {"open_ns": 7, "close_ns": 8, "comm": "<b>", "depth": 3, "argument": 2, "page": 0x7F94D},
    ]
    timeline = timeline_of(rows[:2], rows[2:])
    lanes = timeline.lanes()
    exact = timeline.exact(lanes)
    types = {"lane": "<u2", "depth": "<u2", "kind": "u1", "caller": "<u4", "task": "<u4"}
    columns = {n: unpacked(t, types.get(n, "u8")) for n, t in exact["columns"].items()}
    assert exact["rows"] == 4
    assert columns["lane"].tolist() == [0, 0, 0, 1]
    starts = np.concatenate([columns["step"][:3].cumsum(), columns["step"][3:]]) + timeline.first_ns
    assert starts.tolist() == [7, 100, far + 5, 3]
    assert columns["held"].tolist() == [1, 2**64 - 1, 4, far - 3]
    assert columns["line"].tolist() == [1, 1, far, 1]
    assert columns["page"].tolist() == [0x7F94D, 0xF6AC0408, 0xF6AC0408, 1 << 35]
    assert columns["kind"].tolist() == [2, 1, 1, 1]
    assert [exact["tasks"][n] for n in columns["task"]] == ["<b>-7", "cp-7", "cp-7", "cp-7"]
    assert [exact["texts"][n] for n in columns["caller"]][1] == ""


def test_of_too_many_the_ones_held_longest_stay() -> None:
    rng = np.random.default_rng(5)
    held = rng.permutation(5000).tolist()
    rows = [{"open_ns": n * 10_000, "close_ns": n * 10_000 + h} for n, h in enumerate(held)]
    rows[17]["close_ns"] = -1
    batches = [rows[at : at + 64] for at in range(0, len(rows), 64)]
    timeline = timeline_of(*batches, most=100)
    exact = timeline.exact(timeline.lanes())
    kept = sorted(unpacked(exact["columns"]["held"], "u8").tolist())
    held[17] = 2**64 - 1
    assert kept == sorted(held)[-100:]
    assert timeline.mappings == 5000
    begun = unpacked(timeline.levels(timeline.lanes())[0]["begun"], "<u4")
    assert begun.sum() == 5000


def test_windows_without_a_line_of_their_own_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LANES", 3)
    rows = [{"address": window(0, slot), "open_ns": 10 * slot, "close_ns": -1} for slot in range(6)]
    timeline = timeline_of(rows)
    lanes = timeline.lanes()
    assert [lane.mappings for lane in lanes] == [1, 1, 1, 3]
    assert lanes[-1].name == "all other windows"
    assert timeline.exact(lanes)["rows"] == 6


def test_lanes_are_in_the_kernels_order() -> None:
    rows = [
        {"permanent": 1, "address": LAYOUT.pkmap_address(4)},
        {"cpu": 1, "address": window(1, 0)},
        {"cpu": 0, "address": window(0, 1)},
        {"cpu": 0, "address": window(0, 0)},
    ]
    lanes = timeline_of(rows).lanes()
    assert [(lane.cpu, lane.name.split(" at ")[0]) for lane in lanes] == [
        (0, "window 0"),
        (0, "window 1"),
        (1, "window 0"),
        (-1, "permanent window 4"),
    ]


def test_nothing_at_all() -> None:
    timeline = Timeline()
    assert timeline.lanes() == []
    assert timeline.exact([])["rows"] == 0


def test_pack_splits_64_bit_numbers() -> None:
    values = np.array([1, 2**63, 2**32 - 1], np.uint64)
    assert unpacked(pack(values), "u8").tolist() == values.tolist()
