from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.image.formats.segments import Segments, as_ranges
from highmem.image.formats.source import PHYSICAL_LIMIT

PIECES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20), st.integers(0, 3)), min_size=1, max_size=12
)


@given(PIECES, st.booleans())
def test_each_byte_comes_from_the_first_piece_that_has_it(
    pieces: list[tuple[int, int, int]], alias: bool
) -> None:
    starts = [start for start, _, _ in pieces]
    sizes = [size for _, size, _ in pieces]
    # As aliases all pieces of a file agree on where each byte is, as in a dump with paging.
    offsets = starts if alias else [100 * n for n in range(len(pieces))]
    files = [file for _, _, file in pieces]
    segments = Segments.build(starts, sizes, offsets, files)
    expected: dict[int, tuple[int, int]] = {}
    for start, size, offset, file in zip(starts, sizes, offsets, files, strict=True):
        for n in range(size):
            expected.setdefault(start + n, (file, offset + n))
    addresses = np.arange(-1, 90)
    at = segments.find(addresses)
    for address, number in zip(addresses.tolist(), at.tolist(), strict=True):
        place = expected.get(address)
        assert (number >= 0) == (place is not None)
        if place is not None:
            assert place == (segments.files[number], address + segments.deltas[number])
    lost = [
        any(expected[start + n] != (file, offset + n) for n in range(size))
        for start, size, offset, file in zip(starts, sizes, offsets, files, strict=True)
    ]
    assert segments.overlaps == sum(lost)
    held = {
        n for start, end in as_ranges(segments.starts, segments.ends) for n in range(start, end)
    }
    assert held == set(expected)


@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 9000)), min_size=1, max_size=6))
def test_a_frame_is_touched_when_one_byte_of_it_is_held(pieces: list[tuple[int, int]]) -> None:
    starts, sizes = zip(*pieces, strict=True)
    segments = Segments.build(starts, sizes, np.arange(len(pieces)) << 20)
    held = {
        n // 4096
        for start, size in pieces
        for n in (*range(start, start + size, 4096), start + size - 1)
    }
    pfns = np.arange(-1, 12)
    assert segments.frames_touched(pfns).tolist() == [n in held for n in pfns.tolist()]


def test_a_piece_beyond_the_physical_addresses_is_a_mistake_of_the_caller() -> None:
    assert len(Segments.build([PHYSICAL_LIMIT - 1], [1], [0]).starts) == 1
    for start, size in ((PHYSICAL_LIMIT, 1), (-1, 1), (PHYSICAL_LIMIT - 1, 2)):
        with pytest.raises(ValueError, match="beyond the physical addresses"):
            Segments.build([start], [size], [0])
