"""The timeline of windows, made small enough for a page whatever the recording's length.

Two things are collected while mappings go by, both of bounded size:

*Tiles* say for each window and each of a few thousand stretches of time how many mappings
began there and for how much of it the window was open.  The stretches double in length
whenever the recording outgrows them.  Coarser levels are made from the finest at the end.

*Exact mappings* are all of them up to ``MOST_EXACT``; of more, those held longest.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from highmem.kernel.layout import Layout
from highmem.replay.mappings import Mappings
from highmem.report.windows import PAGE_KINDS, WindowNames
from highmem.trace.schema import Strings

__all__ = ["BINS", "LEVELS", "MOST_EXACT", "MOST_LANES", "Lane", "Timeline", "pack"]

MOST_EXACT = 200_000
MOST_LANES = 256
"""Windows with a line of their own; the rest share one line."""
BINS = 8192
LEVELS = 6
"""8192, 4096 … 256 stretches of time."""

_OPEN = np.iinfo(np.int64).max
"""Stands for the end of a mapping that stayed open."""
_Array = npt.NDArray[Any]
_FIELDS = (
    "open_line", "open_ns", "close_line", "close_ns", "page", "argument", "caller", "comm",
    "pid", "depth",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lane:
    """A window's line in the timeline."""

    cpu: int
    """-1 for permanent windows."""
    name: str
    rank: int
    mappings: int
    longest_ns: int
    open_at_end: int
    key: int
    """Its number in the arrays of this module."""


class Timeline:
    """A sink: feed it mappings, then take ``lanes``, ``levels`` and ``exact``."""

    def __init__(self, most_exact: int = MOST_EXACT) -> None:
        self._names = WindowNames()
        self._most = most_exact
        self._keys: dict[tuple[int, int], int] = {}
        self._described: list[tuple[int, str, int]] = []
        self._totals = np.zeros((MOST_LANES + 1, 3), np.int64)
        self._kept: list[dict[str, _Array]] = []
        self._kept_rows = 0
        self._tiles = _Tiles()
        self.mappings = 0
        self.first_ns = 0
        self.last_ns = 0
        self.strings = Strings()

    def begin(self, layout: Layout) -> None:
        """Windows have numbers from now on."""
        self._names.begin(layout)

    def add(self, mappings: Mappings) -> None:
        """The next batch."""
        if not len(mappings):
            return
        columns = mappings.columns
        self.strings = mappings.strings
        start = columns["open_ns"].astype(np.int64)
        still_open = columns["close_ns"] < 0
        end = np.where(still_open, start, np.maximum(columns["close_ns"], start))
        lane = self._lanes_of(columns)
        low, high = int(start.min()), int(end.max())
        self.first_ns = min(self.first_ns, low) if self.mappings else low
        self.last_ns = max(self.last_ns, high) if self.mappings else high
        self.mappings += len(mappings)
        held = end - start
        np.add.at(self._totals[:, 0], lane, 1)
        np.maximum.at(self._totals[:, 1], lane, held)
        np.add.at(self._totals[:, 2], lane, still_open)
        self._tiles.add(lane, start, end)
        self._keep(columns, lane, np.where(still_open, _OPEN, held))

    def _lanes_of(self, columns: dict[str, _Array]) -> _Array:
        cpu = np.where(columns["permanent"] != 0, -1, columns["cpu"].astype(np.int64))
        page = (columns["address"] & np.uint64(0xFFFFF000)).astype(np.int64)
        pairs, which = np.unique(np.stack([cpu, page]), axis=1, return_inverse=True)
        numbers = [self._lane(*pair) for pair in zip(*pairs.tolist(), strict=True)]
        return np.array(numbers, np.int64)[which.reshape(-1)]

    def _lane(self, cpu: int, page: int) -> int:
        found = self._keys.get((cpu, page))
        if found is None:
            if len(self._described) >= MOST_LANES:
                return MOST_LANES
            found = self._keys[cpu, page] = len(self._described)
            window = self._names.of(page, cpu < 0)
            self._described.append((cpu, window.name, window.rank))
        return found

    def _keep(self, columns: dict[str, _Array], lane: _Array, held: _Array) -> None:
        row: dict[str, _Array] = {name: columns[name].copy() for name in _FIELDS}
        row |= {"lane": lane, "held": held}
        self._kept.append(row)
        self._kept_rows += len(held)
        if self._kept_rows > 2 * self._most:
            self._drop_shortest()

    def _drop_shortest(self) -> None:
        rows = {n: np.concatenate([part[n] for part in self._kept]) for n in self._kept[0]}
        if len(rows["held"]) > self._most:
            # Stable: of equally long ones the earlier stay.
            longest = np.argsort(-rows["held"], kind="stable")[: self._most]
            longest.sort()
            rows = {name: column[longest] for name, column in rows.items()}
        self._kept = [rows]
        self._kept_rows = len(rows["held"])

    # What the page gets.

    def lanes(self) -> list[Lane]:
        """The lines in the order in which they are shown: CPUs, then permanent windows."""
        lanes = [
            self._make_lane(key, cpu, name, rank)
            for key, (cpu, name, rank) in enumerate(self._described)
        ]
        lanes.sort(key=lambda lane: (lane.cpu < 0, lane.cpu, lane.rank))
        if self._totals[MOST_LANES, 0]:
            lanes.append(self._make_lane(MOST_LANES, -2, "all other windows", 0))
        return lanes

    def _make_lane(self, key: int, cpu: int, name: str, rank: int) -> Lane:
        mappings, longest, still_open = self._totals[key].tolist()
        return Lane(cpu, name, rank, mappings, longest, still_open, key)

    def levels(self, lanes: list[Lane]) -> list[dict[str, Any]]:
        """The tiles of *lanes*, finest level first."""
        return self._tiles.levels([lane.key for lane in lanes])

    def exact(self, lanes: list[Lane]) -> dict[str, Any]:
        """The exact mappings as packed columns, by line of *lanes* and then by time, with the
        texts that they name."""
        if not self._kept:
            return {"rows": 0, "columns": {}, "texts": [], "tasks": []}
        self._drop_shortest()
        rows = self._kept[0]
        place = np.zeros(MOST_LANES + 1, np.int64)
        for number, lane in enumerate(lanes):
            place[lane.key] = number
        order = np.lexsort((rows["open_line"], rows["open_ns"], place[rows["lane"]]))
        rows = {name: column[order] for name, column in rows.items()}
        lane_of = place[rows["lane"]]
        step = np.diff(rows["open_ns"], prepend=self.first_ns)
        new_lane = np.diff(lane_of, prepend=-1) != 0
        step[new_lane] = rows["open_ns"][new_lane] - self.first_ns
        callers, caller = np.unique(rows["caller"], return_inverse=True)
        people = np.stack([rows["comm"], rows["pid"]])
        tasks, task = np.unique(people, axis=1, return_inverse=True)
        kinds = np.zeros(256, np.uint8)
        for number, name in PAGE_KINDS.items():
            kinds[number] = 1 if name == "page" else 2
        columns: dict[str, _Array] = {
            "lane": lane_of.astype(np.uint16),
            "step": step.astype(np.uint64),
            "held": np.where(rows["held"] == _OPEN, -1, rows["held"]).astype(np.uint64),
            "caller": caller.reshape(-1).astype(np.uint32),
            "task": task.reshape(-1).astype(np.uint32),
            "page": rows["page"].astype(np.uint64),
            "kind": kinds[rows["argument"]],
            "depth": rows["depth"].astype(np.uint16),
            "line": rows["open_line"].astype(np.uint64),
            "close": rows["close_line"].astype(np.uint64),
        }
        texts = self.strings
        return {
            "rows": len(order),
            "columns": {name: pack(column) for name, column in columns.items()},
            "texts": [texts[number] for number in callers.tolist()],
            "tasks": [f"{texts[comm]}-{pid}" for comm, pid in tasks.T.tolist()],
        }


class _Tiles:
    """Counts and open time by window and stretch of time; see the module's docstring."""

    def __init__(self) -> None:
        self._shift = 0
        """A stretch is 2**shift nanoseconds, aligned to multiples of that."""
        self._base = 0
        """The number of the first stretch."""
        self._used = 0
        self._begun = np.zeros((MOST_LANES + 1, 0), np.int64)
        self._open = np.zeros((MOST_LANES + 1, 0), np.int64)

    def add(self, lane: _Array, start: _Array, end: _Array) -> None:
        """Mappings of some lanes, from *start* to *end* (nanoseconds)."""
        self._make_room(int(start.min()), int(end.max()))
        first = (start >> self._shift) - self._base
        last = (end >> self._shift) - self._base
        np.add.at(self._begun, (lane, first), 1)
        # Open time: from the start to the end of its stretch, whole stretches, and the rest.
        width = 1 << self._shift
        offset = start & (width - 1)
        rest = end & (width - 1)
        inside = first == last
        np.add.at(self._open, (lane, first), np.where(inside, end - start, width - offset))
        longer = ~inside
        np.add.at(self._open, (lane[longer], last[longer]), rest[longer])
        whole = last - first > 1
        if whole.any():
            lanes, which = np.unique(lane[whole], return_inverse=True)
            steps = np.zeros((len(lanes), BINS + 1), np.int64)
            np.add.at(steps, (which, first[whole] + 1), width)
            np.add.at(steps, (which, last[whole]), -width)
            self._open[lanes] += np.cumsum(steps, axis=1)[:, :BINS]

    def _make_room(self, low: int, high: int) -> None:
        if not self._used:
            self._begun, self._open = (np.zeros((MOST_LANES + 1, BINS), np.int64) for _ in "12")
            while (high >> self._shift) - (low >> self._shift) >= BINS:
                self._shift += 1
            self._base = low >> self._shift
            self._used = (high >> self._shift) - self._base + 1
            return
        while True:
            base = min(self._base, low >> self._shift)
            top = max(self._base + self._used, (high >> self._shift) + 1)
            if top - base <= BINS:
                break
            self._double()
        if base < self._base:
            by = self._base - base
            self._begun, self._open = (np.roll(a, by, axis=1) for a in (self._begun, self._open))
        self._base, self._used = base, top - base

    def _double(self) -> None:
        """Two stretches become one."""
        odd = self._base & 1
        folded = []
        for array in (self._begun, self._open):
            padded = np.zeros((len(array), BINS + 2), np.int64)
            padded[:, odd : odd + BINS] = array
            pairs = padded.reshape(len(array), -1, 2).sum(axis=2)
            array = np.zeros_like(array)
            array[:, : pairs.shape[1]] = pairs
            folded.append(array)
        self._begun, self._open = folded
        self._used = (odd + self._used + 1) // 2
        self._base >>= 1
        self._shift += 1

    def levels(self, keys: list[int]) -> list[dict[str, Any]]:
        """The tiles of the lanes *keys*: the finest level, then each twice as coarse."""
        begun, busy = self._begun[keys], self._open[keys]
        shift, base = self._shift, self._base
        levels = []
        for _ in range(LEVELS):
            if not begun.size:
                break
            width = 1 << shift
            # Above 1 where mappings of one window overlap (several tasks or users).
            share = np.ceil(np.minimum(busy / width, 1.0) * 255).astype(np.uint8)
            levels.append(
                {
                    "start": base * width,
                    "width": width,
                    "bins": begun.shape[1],
                    "begun": pack(np.minimum(begun, 0xFFFFFFFF).astype(np.uint32)),
                    "open": pack(share),
                }
            )
            begun, busy = _halved(begun, base & 1), _halved(busy, base & 1)
            shift, base = shift + 1, base >> 1
        return levels


def _halved(array: _Array, odd: int) -> _Array:
    """Pairs added up; with *odd* the first stands alone."""
    width = array.shape[1] + odd
    padded = np.zeros((len(array), width + width % 2), np.int64)
    padded[:, odd : odd + array.shape[1]] = array
    folded: _Array = padded.reshape(len(array), -1, 2).sum(axis=2)
    return folded


def pack(array: _Array) -> str:
    """*array* for the page: little-endian, compressed (deflate), in base64.  64-bit numbers
    are split into all low halves, then all high halves, which compress well apart."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.itemsize == 8:
        halves = flat.astype("<u8").view("<u4").reshape(-1, 2)
        flat = np.concatenate([halves[:, 0], halves[:, 1]])
    data = flat.astype(flat.dtype.newbyteorder("<")).tobytes()
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")
