"""Reading recordings in tests: all rows of one, and the reader without its short cut."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from highmem.trace.ftrace_text import FtraceText
from highmem.trace.probes import ProbeTable
from highmem.trace.schema import COLUMNS, Account, TraceSource
from highmem.trace.source import ByteSource

__all__ = ["SlowFtraceText", "account_holds", "read_bytes", "rows_of"]

TEXT_COLUMNS = ("comm", "caller", "next_comm", "state")


class SlowFtraceText(FtraceText):
    """The reader with every line read by the whole grammar, nothing remembered."""

    def _read(self, lines: list[bytes]) -> None:
        for line in lines:
            super()._read([line])
            self._tasks.clear()
            self._heads.clear()
            self._switches.clear()


def read_bytes(
    data: bytes,
    *,
    reader: type[FtraceText] = FtraceText,
    probes: ProbeTable | None = None,
) -> FtraceText:
    """A reader of *data*, as if it were a file."""
    return reader(ByteSource("test.trace", io.BytesIO(data)), probes)


def rows_of(source: TraceSource) -> list[dict[str, Any]]:
    """Every event as a dictionary of its columns, texts in place of their numbers."""
    rows: list[dict[str, Any]] = []
    for batch in source:
        columns = {name: getattr(batch, name).tolist() for name in COLUMNS}
        for name in TEXT_COLUMNS:
            columns[name] = [batch.strings[n] if n >= 0 else None for n in columns[name]]
        rows += [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
        for name, dtype in COLUMNS.items():
            assert getattr(batch, name).dtype == np.dtype(dtype), name
            assert len(getattr(batch, name)) == len(batch), name
    return rows


def account_holds(account: Account, data: bytes, events: int) -> None:
    """Assert what an account promises of the text *data*."""
    assert account.lines == data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    assert account.lines == account.events + account.passed_over + account.rejected
    assert account.events == events
    assert len(account.rejections) == min(account.rejected, 10)
