from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from highmem.trace.lines import MAX_LINE, Lines
from highmem.trace.source import CHUNK


@given(st.lists(st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"\0"])).map(b"".join)))
def test_lines_do_not_depend_on_where_the_chunks_end(chunks: list[bytes]) -> None:
    lines = Lines(chunks)
    read = [line for some in lines for line in some]
    assert [*read, lines.tail] == b"".join(chunks).split(b"\n")


def test_a_line_of_the_greatest_length_is_whole_and_a_longer_one_is_cut_and_first() -> None:
    text = b"x" * MAX_LINE + b"\nshort\n" + b"y" * (3 * MAX_LINE) + b"\nend"
    lines = Lines(text[i : i + CHUNK] for i in range(0, len(text), CHUNK))
    groups = list(lines)
    assert [line for some in groups for line in some] == [
        b"x" * MAX_LINE,
        b"short",
        b"y" * (MAX_LINE + 1),
    ]
    assert groups[-1][0] == b"y" * (MAX_LINE + 1)
    assert lines.tail == b"end"


def test_a_line_without_end_is_not_held() -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(400):
            yield bytes(CHUNK)

    lines = Lines(endless())
    tracemalloc.start()
    try:
        assert list(lines) == []
        assert tracemalloc.get_traced_memory()[1] < 16 * CHUNK
    finally:
        tracemalloc.stop()
    assert len(lines.tail) == MAX_LINE + 1
