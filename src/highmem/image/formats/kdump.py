"""kdump compressed dumps: each frame packed on its own, with zlib, LZO, Snappy or zstd.

A page descriptor is 24 bytes: offset in the file (8), packed size (4), flags (4), the frame's
page flags (8).  Flags say how it is packed; frames of zeros often share one descriptor's place.
Pages are unpacked when they are asked for, each place once, and the last few thousand kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from highmem.errors import InputError
from highmem.image.formats.bitmap import Bitmap
from highmem.image.formats.flat import every_frame
from highmem.image.formats.kdump_header import BLOCK, MAGIC, Header, read_header
from highmem.image.formats.kdump_pages import PACKINGS, UNPACKED_LIMIT, PageDamagedError, unpacker
from highmem.image.formats.mapped import MappedFile
from highmem.image.formats.notes import MAX_NOTES, NoteFacts, read_notes, read_vmcoreinfo
from highmem.image.formats.segments import MAX_SEGMENTS, join_ranges
from highmem.image.formats.source import (
    FRAME_SHIFT,
    FRAME_SIZE,
    Bytes,
    Claims,
    Flags,
    NotInImageError,
    RamRange,
    counted,
    frame_numbers,
)

__all__ = ["MAGIC", "KdumpSource", "open_kdump"]

_DESCRIPTOR = np.dtype(
    [("offset", "<i8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")]
)
_KEPT = 8192  # unpacked pages: 32 MiB
_SAMPLE = 4096  # descriptors that are looked at for the packing, and for a cut off end
_PACKED = 0x1 | 0x2 | 0x4 | 0x20

_Int = npt.NDArray[np.int64]
_Table = npt.NDArray[Any]


def open_kdump(file: MappedFile) -> KdumpSource:
    """The image in *file*; frames whose bytes the file does not have are left out and counted.

    Raises InputError where the headers make no sense or nothing is there.
    """
    return KdumpSource(file, read_header(file))


class KdumpSource:
    """The image in a kdump *file* with that *header*."""

    def __init__(self, file: MappedFile, header: Header) -> None:
        self.path = file.name
        self._file = file
        at, size = header.bitmap_at, header.bitmap_size
        second = at + (header.bitmaps - 1) * size
        # An old file with one bitmap has the frames in the file there, and no other RAM.
        self._exists = Bitmap(file.data[at : at + size], 0, header.max_mapnr)
        self._dumped = Bitmap(file.data[second : second + size], header.start_pfn, header.end_pfn)
        file.will_need(at, header.descriptors_at - at)
        self._table = _descriptors(file, header.descriptors_at, self._dumped.count)
        self._frames = every_frame(file.data)
        self._held, missing = _without_cut_off(self._dumped, self._table, file.size)
        self._unpackers: dict[int, Callable[[bytes], bytes]] = {}
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._bad: set[int] = set()  # frames that were met and do not unpack
        self.format = ", ".join((f"kdump ({_packing(self._table)})", *file.wrapping))
        facts = _facts(file, header)
        self.claims = _claims(file, header, facts)
        self._notes = (
            *file.notes,
            *_oddities(header, missing, self._dumped.count),
            *facts.problems,
        )
        self._flawed = bool(file.notes or missing or header.incomplete)
        runs = self._held.runs(MAX_SEGMENTS)
        if runs is None:
            raise InputError(self.path, f"kdump: more than {MAX_SEGMENTS} separate ranges")
        if not len(runs):
            raise InputError(self.path, "; ".join(("kdump without any memory", *self._notes)))
        self._runs = runs

    @property
    def notes(self) -> tuple[str, ...]:
        """Counted oddities; pages that do not unpack are added when they are met."""
        met = f"{counted(len(self._bad), 'page')} cannot be unpacked: not there"
        return (*self._notes, met) if self._bad else self._notes

    @property
    def damaged(self) -> bool:
        """Something that the file announces is not there or makes no sense."""
        return self._flawed or bool(self._bad)

    @cached_property
    def ranges(self) -> tuple[RamRange, ...]:
        """What the image holds: sorted, disjoint, adjacent ones joined."""
        return _as_ranges(self._runs)

    @cached_property
    def ram(self) -> tuple[RamRange, ...]:
        """The RAM of the machine, frames that were left out of the dump included."""
        runs = self._exists.runs(MAX_SEGMENTS)
        if runs is None or not len(runs):
            return self.ranges
        # A frame in the file is RAM, even where the first bitmap does not know of it.
        both = np.concatenate((runs, self._runs))
        first, end = both[np.argsort(both[:, 0], kind="stable")].T
        return _as_ranges(np.stack(join_ranges(first, end), axis=1))

    def read(self, paddr: int, size: int) -> bytes:
        """*size* bytes from physical address *paddr*.  Raises NotInImageError."""
        if size <= 0:
            return b""
        first, last = paddr >> FRAME_SHIFT, (paddr + size - 1) >> FRAME_SHIFT
        self._require(first, last, paddr)
        parts = []
        for start in range(first, last + 1, _KEPT):
            pfns = np.arange(start, min(start + _KEPT, last + 1))
            parts.append(self.pages(pfns).tobytes())
            for pfn in sorted(self._bad.intersection(pfns.tolist())):
                raise NotInImageError(max(paddr, pfn << FRAME_SHIFT), "its page is damaged")
        base = paddr - (first << FRAME_SHIFT)
        return b"".join(parts)[base : base + size]

    def view(self, start: int, end: int) -> Bytes | None:
        """None: pages are packed one by one."""
        return None

    def present(self, pfns: npt.ArrayLike) -> Flags:
        """For each of *pfns*: does the image hold that frame?"""
        return self._held.test(frame_numbers(pfns))

    def pages(self, pfns: npt.ArrayLike) -> Bytes:
        """The frames *pfns* as rows of 4096 bytes; what the image does not hold is zero."""
        wanted = frame_numbers(pfns)
        held = self._held.test(wanted)
        rows = np.flatnonzero(held)
        entries = self._table[self._dumped.rank(wanted[rows])]
        self._expect(entries)
        plain = (entries["flags"] & _PACKED == 0) & (entries["size"] == FRAME_SIZE)
        plain &= (entries["offset"] >= 0) & ~_beyond(entries, self._file.size)
        found = self._frames[entries["offset"][plain]]
        if len(found) == len(wanted):
            whole: Bytes = found.view(np.uint8).reshape(-1, FRAME_SIZE)
            return whole
        # Not zeros(): what is overwritten anyway need not come fresh from the system.
        out = np.empty((len(wanted), FRAME_SIZE), np.uint8)
        out[~held] = 0
        out.view(found.dtype)[rows[plain], 0] = found
        self._unpack_into(out, wanted, rows[~plain], entries[~plain])
        return out

    def close(self) -> None:
        """Give back the file and the pages kept; reading ends."""
        self._kept.clear()
        self._frames = self._frames[:0].copy()
        self._table = self._table[:0].copy()
        self._file.close()

    def _expect(self, entries: _Table) -> None:
        """Have the pages that *entries* place read ahead, where they lie together."""
        if len(entries):
            first, last = int(entries["offset"].min()), int(entries["offset"].max())
            if first >= 0 and last <= min(first + FRAME_SIZE * len(entries), self._file.size):
                self._file.will_need(first, last - first)

    def _unpack_into(self, out: Bytes, wanted: _Int, rows: _Int, entries: _Table) -> None:
        """Fill *rows* of *out* with the pages that *entries* place, each place unpacked once."""
        _, first, which = np.unique(entries["offset"], return_index=True, return_inverse=True)
        order = np.argsort(which, kind="stable")
        groups = np.split(rows[order], np.cumsum(np.bincount(which))[:-1]) if len(rows) else []
        for entry, group in zip(entries[first].tolist(), groups, strict=True):
            page = self._page(*entry[:3])
            if page is None:
                self._bad.update(wanted[group].tolist())
                out[group] = 0
            else:
                out[group] = np.frombuffer(page, np.uint8)

    def _require(self, first: int, last: int, paddr: int) -> None:
        """Raise NotInImageError for the first of these frames that is not there."""
        run = int(np.searchsorted(self._runs[:, 0], first, side="right")) - 1
        end = int(self._runs[run, 1]) if run >= 0 else first
        if end <= last:
            raise NotInImageError(max(paddr, max(first, end) << FRAME_SHIFT))

    def _page(self, offset: int, size: int, flags: int) -> bytes | None:
        """The page packed at *offset*, or None if it is damaged."""
        kept = self._kept.get(offset)
        if kept is not None:
            self._kept.move_to_end(offset)
            return kept
        packing = flags & _PACKED
        if packing not in PACKINGS or not 0 < size <= UNPACKED_LIMIT:
            return None
        if not 0 <= offset <= self._file.size - size:
            return None
        unpack = self._unpackers.get(packing) or unpacker(PACKINGS[packing])
        self._unpackers[packing] = unpack
        try:
            page = unpack(self._file.bytes_at(offset, size))
        except PageDamagedError:
            return None
        self._kept[offset] = page
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return page


def _descriptors(file: MappedFile, at: int, count: int) -> _Table:
    """As many of the *count* descriptors as the file has."""
    here = min(count, max(0, file.size - at) // _DESCRIPTOR.itemsize)
    data = file.data[at : at + here * _DESCRIPTOR.itemsize] if here else file.data[:0]
    return data.view(_DESCRIPTOR)


def _beyond(entries: _Table, size: int) -> Flags:
    """Which entries place their page behind the end of a file of *size* bytes."""
    beyond: Flags = entries["offset"] > size - entries["size"].astype(np.int64)
    return beyond


def _without_cut_off(dumped: Bitmap, table: _Table, size: int) -> tuple[Bitmap, int]:
    """The frames whose descriptor and page the file really has, and how many have not.

    Pages are written in order, so all descriptors are looked at only where the last ones
    tell that the end is missing.
    """
    if len(table) == dumped.count and not _beyond(table[-_SAMPLE:], size).any():
        return dumped, 0
    parts, done, at = [], 0, 0
    for bits in dumped.parts():
        pfns = np.flatnonzero(bits)
        entries = table[done : done + len(pfns)]
        bits[pfns[len(entries) :]] = 0
        bits[pfns[: len(entries)][_beyond(entries, size)]] = 0
        parts.append(np.packbits(bits, bitorder="little"))
        done += len(pfns)
        at += len(bits)
    held = Bitmap(np.concatenate(parts) if parts else table.view(np.uint8)[:0], 0, at)
    return held, dumped.count - held.count


def _packing(table: _Table) -> str:
    """What the first pages are packed with, in words."""
    flags = np.unique(table["flags"][:_SAMPLE] & _PACKED).tolist()
    names = [PACKINGS.get(flag, "unknown") for flag in flags if flag]
    return ", ".join(dict.fromkeys(names)) or "not compressed"


def _facts(file: MappedFile, header: Header) -> NoteFacts:
    offset, size = header.notes
    return read_notes(file.bytes_at(offset, min(size, MAX_NOTES)))


def _claims(file: MappedFile, header: Header, facts: NoteFacts) -> Claims:
    offset, size = header.vmcoreinfo
    text = file.bytes_at(offset, min(size, 1 << 20))
    machine = header.machine
    if machine[:1] == "i" and machine.endswith("86"):
        machine = "i386"
    return Claims(
        machine=machine or None,
        page_size=BLOCK,
        cpus=facts.cpus,
        vmcoreinfo=read_vmcoreinfo(text) if text else facts.vmcoreinfo,
        # QEMU knows neither; a kernel's own dump names its release.
        panic_cpu=header.current_cpu if header.release else None,
        release=header.release or None,
        kernel_version=header.kernel_version or None,
        dump_level=header.dump_level,
    )


def _oddities(header: Header, missing: int, count: int) -> list[str]:
    notes = []
    if header.incomplete:
        notes.append("marked as incomplete: there was no room to write all of it")
    if missing:
        notes.append(f"{missing} of {count} pages are beyond the end of the file: left out")
    if header.split:
        notes.append(
            f"one part of a split dump: frames {header.start_pfn:#x} to {header.end_pfn:#x}"
        )
    return notes


def _as_ranges(runs: _Int) -> tuple[RamRange, ...]:
    first, end = (runs << FRAME_SHIFT).T.tolist()
    return tuple(map(RamRange, first, end))
