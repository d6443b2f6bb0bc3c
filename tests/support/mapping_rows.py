"""Mappings made by hand, for tests of the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from highmem.kernel.layout import Layout
from highmem.kernel.profile import load_profile
from highmem.replay.mappings import MAPPING_COLUMNS, Mappings, MappingSink
from highmem.trace.schema import Argument, Strings

__all__ = ["LAYOUT", "Recorded", "mappings", "window"]

LAYOUT: Layout = load_profile("debian-5.10-686").layout(2 << 30)

TEXT_COLUMNS = ("comm", "caller")
_DEFAULTS: dict[str, Any] = {
    "open_line": 1,
    "open_ns": 1000,
    "close_line": 2,
    "close_ns": 2000,
    "cpu": 0,
    "pid": 7,
    "comm": "cp",
    "caller": "copy_page+0x10",
    "address": LAYOUT.window_address(0, 0),
    "page": 0xF6AC0408,
    "argument": int(Argument.PAGE),
    "depth": 1,
    "permanent": 0,
}


def window(cpu: int, slot: int) -> int:
    """The address of a window of the kernel that LAYOUT is of."""
    return LAYOUT.window_address(cpu, slot)


def mappings(*rows: Mapping[str, Any], strings: Strings | None = None) -> Mappings:
    """A batch of *rows*; what a row leaves out is that of some plain mapping."""
    texts = Strings() if strings is None else strings
    full = [_DEFAULTS | dict(row) for row in rows]
    for row in full:
        for name in TEXT_COLUMNS:
            row[name] = -1 if row[name] is None else texts.number(row[name])
    columns = {
        name: np.array([row[name] for row in full], dtype)
        for name, dtype in MAPPING_COLUMNS.items()
    }
    return Mappings(columns, texts)


class Recorded(MappingSink):
    """A sink that keeps every row as a dictionary with its texts."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, mappings: Mappings) -> None:
        columns = {name: column.tolist() for name, column in mappings.columns.items()}
        for name in TEXT_COLUMNS:
            columns[name] = [mappings.strings[n] if n >= 0 else None for n in columns[name]]
        for values in zip(*columns.values(), strict=True):
            self.rows.append(dict(zip(columns, values, strict=True)))
