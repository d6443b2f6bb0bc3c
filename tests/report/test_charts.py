from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from highmem.replay.histogram import bucket_of
from highmem.report.charts import bars, depth_rows, hold_rows, time_text


def test_times_for_people() -> None:
    assert [time_text(ns) for ns in (0, 999, 1000, 14_080, 2_556_000, 12_586_000_000)] == [
        "0 ns",
        "999 ns",
        "1 µs",
        "14.08 µs",
        "2.556 ms",
        "12.59 s",
    ]


def test_no_depth_is_left_out() -> None:
    assert depth_rows({1: 10, 4: 1}) == [("1", 10), ("2", 0), ("3", 0), ("4", 1)]
    assert depth_rows({}) == []


@given(st.lists(st.integers(0, 10**12), max_size=50))
def test_every_window_is_in_one_row_of_hold_times(times: list[int]) -> None:
    holds: dict[int, int] = {}
    for ns in times:
        holds[bucket_of(ns)] = holds.get(bucket_of(ns), 0) + 1
    rows = hold_rows(holds)
    assert sum(count for _, count in rows) == len(times)
    assert len({label for label, _ in rows}) == len(rows)
    if times and min(times) > 0:
        assert rows[0][1] > 0
        assert rows[-1][1] > 0


def test_hold_times_in_steps_of_1_2_5() -> None:
    holds = {bucket_of(0): 7, bucket_of(12_000): 3, bucket_of(90_000): 1}
    assert hold_rows(holds) == [("0", 7), ("≤ 20 µs", 3), ("≤ 50 µs", 0), ("≤ 100 µs", 1)]


def test_a_chart_is_well_formed_and_has_its_table() -> None:
    rows = [("a<b", 1), ("none", 0), ("many", 123_456)]
    chart = bars(rows, "A & B", "first", "second")
    tree = ElementTree.fromstring(f"<x>{chart}</x>")
    heights = [float(bar.get("height", "")) for bar in tree.iter("rect")]
    assert heights[1] == 0 < heights[0] < heights[2]
    texts = ["".join(row.itertext()) for row in tree.iter("tr")]
    assert texts == ["firstsecond", "a<b1", "none0", "many123,456"]
    assert not re.search(r"style=|<script", chart)


def test_an_empty_chart_says_so() -> None:
    assert "Nothing" in bars([], "x", "y", "z")
