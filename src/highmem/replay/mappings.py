"""Mappings as columns: one row for each window that was opened and closed.

A replay hands them on in batches as it goes, so that outputs (Perfetto, Parquet, the page)
need not hold them all.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from highmem.kernel.layout import Layout
from highmem.trace.schema import Strings

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "MAPPING_COLUMNS",
    "LayoutSink",
    "MappingBuilder",
    "MappingSink",
    "Mappings",
    "from_rows",
]

MAPPING_COLUMNS: dict[str, str] = {
    "open_line": "int64",
    "open_ns": "int64",
    "close_line": "int64",
    "close_ns": "int64",
    "cpu": "int32",
    "pid": "int32",
    "comm": "int32",
    "caller": "int32",
    "address": "uint64",
    "page": "uint64",
    "argument": "uint8",
    "depth": "int16",
    "permanent": "uint8",
}
"""``open_*`` and ``close_*`` are the map's entry and the unmap (line or event number, and
nanoseconds; close_line 0 and close_ns -1 where it stayed open; of a window that another's
unmap cleared, that unmap), ``comm`` and ``caller``
numbers of Strings (-1: not recorded), ``page`` a struct page's address or a frame as
``argument`` (schema.Argument) says, ``depth`` the nesting depth (1: alone), ``permanent``
1 for kmap()."""


@dataclass(slots=True, eq=False)
class Mappings:
    """Some mappings, in the order in which they were closed."""

    columns: dict[str, npt.NDArray[Any]]
    strings: Strings

    def __len__(self) -> int:
        return len(self.columns["open_line"])


def from_rows(numbers: array[int], count: int, strings: Strings) -> Mappings:
    """The first *count* rows of MAPPING_COLUMNS that stand one after the other in *numbers*."""
    import numpy as np  # here: without sinks nothing needs it

    width = len(MAPPING_COLUMNS)
    table = np.frombuffer(numbers, np.int64)[: count * width].reshape(-1, width)
    columns = {
        name: table[:, index].astype(dtype)
        for index, (name, dtype) in enumerate(MAPPING_COLUMNS.items())
    }
    return Mappings(columns, strings)


class MappingSink(Protocol):
    """Takes mappings as a replay finds them."""

    def add(self, mappings: Mappings) -> None:
        """The next batch."""


@runtime_checkable
class LayoutSink(MappingSink, Protocol):
    """A sink that wants to know where the windows lie, to name them."""

    def begin(self, layout: Layout) -> None:
        """Called once, before the first batch: the address space of the replayed kernel."""


class MappingBuilder:
    """Collects rows and hands them to the sinks in batches."""

    __slots__ = ("_rows", "_strings", "sinks")

    def __init__(self, sinks: list[MappingSink], strings: Strings) -> None:
        self.sinks = sinks
        self._strings = strings
        self._rows: list[tuple[int, ...]] = []

    def add(self, row: tuple[int, ...]) -> None:
        """One mapping, in the order of MAPPING_COLUMNS."""
        if self.sinks:
            self._rows.append(row)
            if len(self._rows) >= 8192:
                self.flush()

    def flush(self) -> None:
        """Hand on what is collected."""
        if not self._rows:
            return
        import numpy as np  # here: without sinks nothing needs it

        values = zip(*self._rows, strict=True)
        columns = {
            name: np.array(column, dtype)
            for (name, dtype), column in zip(MAPPING_COLUMNS.items(), values, strict=True)
        }
        self._rows = []
        for sink in self.sinks:
            sink.add(Mappings(columns, self._strings))
