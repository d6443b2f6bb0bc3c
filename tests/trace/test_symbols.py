from __future__ import annotations

import random

import pytest

from highmem.trace import symbols
from highmem.trace.symbols import Symbols

# Core symbols in order, then a module's, which lie elsewhere; as /proc/kallsyms has them.
TEXT = b"""c1000000 T startup_32
c1000000 T _text
c1001000 t kmap_high
c1001000 t kmap_high_alias
c1001400 T kunmap_high
f8001000 t second\t[mod]
f8000000 t first\t[mod]
zzzz1000 t no_address
c1002000 T last
c1060000 T _etext
c1400000 T _sinittext
c1400100 T _einittext
"""
EXPECTED = {
    0xC1001010: "kmap_high+0x10",
    0xC1000FFF: "startup_32+0xfff",
    0xF8000004: "first+0x4 [mod]",
    0xF8001000: "second+0x0 [mod]",
    0xC1002000: "last+0x0",
    0xC0FFFFFF: "0xc0ffffff",
    0xC1002000 + 0x3A00: "last+0x3a00",
    0xC1002000 + (1 << 16): f"0x{0xC1002000 + (1 << 16):x}",
    0xC1060000: "0xc1060000",
    0xC1060010: "0xc1060010",
    0xC1400010: "_sinittext+0x10",
    0xC1400101: "0xc1400101",
    0xF8001000 + 0x3000: "second+0x3000 [mod]",
    # Behind the last of a module that is known lies one that is not.
    0xF8001000 + 0xCD0: "second+0xcd0 [mod]",
    0xF8001000 + 0x4000: "0xf8005000",
    0xF8001000 + 0xCD0AC: "0xf80ce0ac",
}


@pytest.mark.parametrize("patience", [0, 3, 1000])
def test_names_are_the_same_before_and_after_sorting(
    patience: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symbols, "_UNSORTED_LOOKUPS", patience)
    table = Symbols(lambda: TEXT)
    asked = list(EXPECTED) * 3
    random.Random(1).shuffle(asked)
    assert [table.name(address) for address in asked] == [EXPECTED[address] for address in asked]


def test_an_empty_table_names_nothing() -> None:
    assert Symbols(bytes).name(0xC1001010) == "0xc1001010"
