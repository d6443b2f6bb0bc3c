from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.image.formats import bitmap
from highmem.image.formats.bitmap import Bitmap


@pytest.fixture(autouse=True)
def small_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitmap, "_STRIDE", 64)


@given(
    st.binary(max_size=150) | st.integers(0, 150).map(lambda n: b"\xff" * n),
    st.integers(0, 1300),
    st.integers(0, 1300),
)
def test_a_bitmap_agrees_with_counting_bit_by_bit(data: bytes, first: int, end: int) -> None:
    here = Bitmap(np.frombuffer(data, np.uint8), first, end)
    bits = [
        bool(byte >> n & 1) and first <= 8 * at + n < end
        for at, byte in enumerate(data)
        for n in range(8)
    ]
    asked = np.arange(-2, len(bits) + 20)
    expected = [0 <= n < len(bits) and bits[n] for n in asked.tolist()]
    assert here.test(asked).tolist() == expected
    assert here.count == sum(bits)
    inside = np.arange(here.first, here.end + 1)
    assert here.rank(inside).tolist() == [sum(bits[:n]) for n in inside.tolist()]
    runs = here.runs(2000)
    assert runs is not None
    assert [n for start, stop in runs.tolist() for n in range(start, stop)] == [
        n for n, bit in enumerate(bits) if bit
    ]
    assert all(stop < start for stop, start in zip(runs[:-1, 1], runs[1:, 0], strict=True))


def test_too_many_runs_are_not_listed() -> None:
    alternating = Bitmap(np.full(1000, 0x55, np.uint8), 0, 8000)
    assert alternating.runs(3999) is None
    runs = alternating.runs(4000)
    assert runs is not None and len(runs) == 4000
