"""What holds for every memory image that opens, whatever is in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from highmem.errors import BusError, HighmemError
from highmem.image.formats.opening import open_source
from highmem.image.formats.source import FRAME_SIZE, PHYSICAL_LIMIT, ImageSource, RamRange

__all__ = ["check_file", "check_source", "content", "short_id", "spans"]


def content(source: ImageSource) -> dict[int, bytes]:
    """The bytes of each range, by its start."""
    return {start: source.read(start, end - start) for start, end in source.ranges}


def spans(source: ImageSource) -> list[tuple[int, int]]:
    """The ranges as plain pairs."""
    return [(piece.start, piece.end) for piece in source.ranges]


def short_id(value: object) -> str | None:
    """A name for a test's parameter that is the same in every run, and can be read."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else None


def check_file(path: Path) -> str:
    """Open *path* and hold it to the rules: the error if it is one, else what was noted."""
    try:
        source = open_source([str(path)])
    except HighmemError as error:
        assert "\n" not in str(error) and str(error).isprintable()
        return str(error)
    try:
        check_source(source)
        return "; ".join(source.notes)
    finally:
        source.close()


def check_source(source: ImageSource) -> None:
    """Hold *source* to what the interface promises, at the borders of its first ranges."""
    borders = [border for piece in source.ranges for border in piece]
    assert borders and borders == sorted(set(borders))
    assert borders[0] >= 0 and borders[-1] <= PHYSICAL_LIMIT
    for piece in source.ranges[:20]:
        _check_range(source, piece)
    assert not source.present([borders[-1] // FRAME_SIZE + 1, -1]).any()
    assert not source.pages([borders[-1] // FRAME_SIZE + 1]).any()
    assert all(note.isprintable() for note in source.notes)
    assert not source.notes or source.format


def _check_range(source: ImageSource, piece: RamRange) -> None:
    start, end = piece
    assert any(ram.start <= start and end <= ram.end for ram in source.ram)
    pfns = np.unique([start // FRAME_SIZE, (end - 1) // FRAME_SIZE])
    assert source.present(pfns).all()
    pages = source.pages(pfns)
    assert pages.shape == (len(pfns), FRAME_SIZE) and pages.dtype == np.uint8
    base = int(pfns[0]) * FRAME_SIZE
    size = min(end, base + FRAME_SIZE) - start
    try:
        got = source.read(start, size)
    except BusError:
        assert source.damaged and source.notes  # a page that turned out not to unpack
        return
    assert got == pages[0].tobytes()[start - base : start - base + size]
    view = source.view(start, start + size)
    assert view is None or view.tobytes() == got
    for address, length in ((end, 1), (end - 1, 2), (start - 1, 2)):
        _must_refuse(source, address, length)


def _must_refuse(source: ImageSource, address: int, size: int) -> None:
    try:
        source.read(address, size)
    except BusError as error:
        assert str(error).isprintable()
    else:
        raise AssertionError(f"read {size} bytes at {address:#x}, where there is a hole")
