from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.trace.printable import printable


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"kworker/0:1-events", "kworker/0:1-events"),
        (b"a b", "a b"),
        (b"\x1b[2J", r"\x1b[2J"),
        (b"a\nb\tc\x00", r"a\nb\tc\x00"),
        (b"\xff\xfe", r"\xff\xfe"),
        (
            "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve".encode(),
            "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve",
        ),
        ("\N{RIGHT-TO-LEFT OVERRIDE}x", r"\u202ex"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_cannot_be_shown_is_escaped(raw: bytes | str, shown: str) -> None:
    assert printable(raw) == shown


@given(st.binary() | st.text())
def test_everything_comes_out_printable_and_encodable(raw: bytes | str) -> None:
    text = printable(raw)
    assert text.isprintable()
    text.encode("utf-8")


def test_the_limit_counts_the_sign_of_the_cut() -> None:
    assert printable("x" * 11, 10) == "x" * 9 + "…"
    assert printable("x" * 10, 10) == "x" * 10
