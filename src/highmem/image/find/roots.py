"""Where the page tables begin: CR3, given, claimed by the file or found.

What tells a page directory of 32-bit Linux from other pages is the direct mapping: from
PAGE_OFFSET on, virtual page *k* maps frame *k* for all of low memory.  No other content of
memory looks like that, so it decides between PAE and two-level tables as well, and shows
CONFIG_VMSPLIT.  swapper_pg_dir is the directory of that kind that maps nothing for user space
and lies in the kernel's own image (``arch/x86/kernel/head_32.S``); processes have copies.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from highmem.image.formats.source import FRAME_SHIFT, FRAME_SIZE, Bytes, ImageSource
from highmem.image.tables import MAY_WRITE, Entries, Ints, Mappings, image_mode, read_mappings
from highmem.kernel.layout_geometry import PAGE_OFFSETS
from highmem.machine.entry import PRESENT, PSE
from highmem.machine.paging import PagingMode

__all__ = ["Evidence", "Root", "examine", "find_roots", "judge", "kernel_text", "low_frames"]

_LOW_FIRST = 1 << 30
"""The kernel's image, and in it swapper_pg_dir, is below this (KERNEL_IMAGE_SIZE is 512 MiB)."""
_LOW_LAST = 3 << 30
"""Low memory ends below this, with CONFIG_VMSPLIT_1G."""
_MIN_LINEAR = 1024
"""Pages of direct mapping that count as one: 4 MiB, less than any machine's low memory."""
_HOLE = 1024
"""A gap of as many pages ends the direct mapping (VMALLOC_OFFSET is 8 MiB)."""
_PROBES = np.array([0x10, 0x200, 0x300, 0x400, 0x600, 0x800, 0xC00, 0x1000, 0x2000])
"""Pages of a direct mapping that are looked at before all of them are."""
_MOST = 64
"""So many candidates of a kind are judged; more are the copies of a machine's processes."""
_KEPT = 8
"""So many are kept."""
_NEAR = 32 << 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the tables under one root map."""

    page_offset: int
    """Where the direct mapping begins; 0 if there is none."""
    linear: int
    """Pages that map their own frame there."""
    end: int
    """The frame behind the last of them, before the first large hole: max_low_pfn."""
    user: int
    """Entries that map pages below ``page_offset``."""

    @property
    def is_kernel(self) -> bool:
        """Whether there is a direct mapping."""
        return self.linear >= _MIN_LINEAR


@dataclass(frozen=True, slots=True)
class Root:
    """One candidate for CR3, with the reasons for it."""

    cr3: int
    mode: PagingMode
    what: str
    reasons: tuple[str, ...]
    evidence: Evidence
    mappings: Mappings

    @property
    def is_pae(self) -> bool:
        """Whether the tables are PAE's."""
        return self.mode.entry_size == 8


def judge(mappings: Mappings) -> Evidence:
    """Look for the direct mapping in *mappings*, at each PAGE_OFFSET that kernels have."""
    best = Evidence(0, 0, 0, len(mappings))
    for offset in sorted(PAGE_OFFSETS.values()):
        frames = mappings.frames[offset >> FRAME_SHIFT :]
        if not np.any(frames[_PROBES] == _PROBES):
            continue
        linear = np.flatnonzero(frames == np.arange(len(frames)))
        if len(linear) < _MIN_LINEAR or len(linear) <= best.linear:
            continue
        gaps = np.flatnonzero(np.diff(linear) > _HOLE)
        end = int(linear[gaps[0]] if len(gaps) else linear[-1]) + 1
        user = mappings.between(0, offset).stop
        best = Evidence(offset, len(linear), end, user)
    return best


def examine(source: ImageSource, cr3: int, what: str, reason: str) -> list[Root]:
    """*cr3* in each mode in which it shows a direct mapping, the better one first."""
    found = []
    for is_pae in (False, True):
        if cr3 % FRAME_SIZE and not is_pae:
            continue  # CR3 of two-level tables has only PWT and PCD below bit 12
        mode = image_mode(is_pae=is_pae)
        mappings = read_mappings(source, mode, cr3)
        evidence = judge(mappings)
        if evidence.is_kernel:
            reasons = (reason, *_structure(mode, evidence))
            found.append(Root(cr3, mode, what, reasons, evidence, mappings))
    return sorted(found, key=lambda root: -root.evidence.linear)


def _structure(mode: PagingMode, evidence: Evidence) -> tuple[str, ...]:
    kind = "PAE" if mode.entry_size == 8 else "two-level"
    mib = evidence.end >> 8
    return (
        f"read as {kind} tables it maps {evidence.linear} frames linearly from "
        f"{evidence.page_offset:#x} on, up to {mib} MiB",
    )


def find_roots(source: ImageSource) -> list[Root]:
    """Page directories in low memory that have a direct mapping, the likeliest first.

    What the kernel's image can hold is searched first, and the rest of low memory only when
    that gave nothing.  Only the best few are kept, whatever the memory is full of.
    """
    for limit in (_LOW_FIRST, _LOW_LAST):
        best: list[tuple[tuple[bool, bool, int, int], Root]] = []
        for is_pae, cr3 in _candidates(source, limit):
            mode = image_mode(is_pae=is_pae)
            rated = _rate(cr3, mode, read_mappings(source, mode, cr3))
            if rated is not None:
                best = sorted([*best, rated], key=itemgetter(0))[:_KEPT]
        if best:
            return [root for _, root in best]
    return []


def _rate(
    cr3: int, mode: PagingMode, mappings: Mappings
) -> tuple[tuple[bool, bool, int, int], Root] | None:
    """How good a candidate is (the least is best), and it with its reasons."""
    evidence = judge(mappings)
    if not evidence.is_kernel:
        return None
    clean = evidence.user == 0
    text = kernel_text(mappings, evidence)
    own = text is not None and text[0] <= cr3 < text[1] + _NEAR
    reasons = [*_structure(mode, evidence)]
    reasons.append("nothing mapped for user space" if clean else "user space is mapped")
    if own:
        reasons.append("lies among the kernel's own data, behind its read-only part")
    what = "swapper_pg_dir" if clean and own else "page directory"
    score = (not (clean and own), not clean, -evidence.linear, cr3)
    return score, Root(cr3, mode, what, tuple(reasons), evidence, mappings)


def kernel_text(mappings: Mappings, evidence: Evidence) -> tuple[int, int] | None:
    """The physical bytes of the kernel's text and read-only data, by their protection.

    They are the longest read-only part of the direct mapping (CONFIG_STRICT_KERNEL_RWX, always
    on since 4.6); None if no such part has a MiB.
    """
    offset = evidence.page_offset
    rows = mappings.between(offset, offset + (evidence.end << FRAME_SHIFT))
    runs = mappings.runs(rows)
    fixed = (runs.rights & MAY_WRITE) == 0
    start, end = runs.physical[fixed], (runs.physical + runs.size)[fixed]
    if not len(start):
        return None
    fresh = np.flatnonzero(np.append(True, start[1:] != end[:-1]))
    first, last = start[fresh], end[np.append(fresh[1:] - 1, len(end) - 1)]
    best = int(np.argmax(last - first))
    found = int(first[best]), int(last[best])
    return found if found[1] - found[0] >= 1 << 20 else None


# The search.


def low_frames(source: ImageSource, low: int, limit: int) -> Iterator[tuple[int, Bytes]]:
    """Whole frames from *low* up to *limit*: number of the first, and a row for each."""
    step = 1 << 22
    for start, end in source.ranges:
        first, last = -(-max(start, low) // FRAME_SIZE), min(end, limit) // FRAME_SIZE
        for at in range(first, last, step >> FRAME_SHIFT):
            stop = min(last, at + (step >> FRAME_SHIFT))
            chunk = source.view(at << FRAME_SHIFT, stop << FRAME_SHIFT)
            if chunk is None:
                yield at, source.pages(np.arange(at, stop))
                continue
            yield at, chunk.reshape(-1, FRAME_SIZE)
            _let_go(chunk)


def _let_go(view: Bytes) -> None:
    """Unmap the pages of a file behind *view*: a search touches all of them, and needs none
    again.  They stay in the page cache, and come back when somebody reads them."""
    whole: object = view
    first = view
    while isinstance(whole, np.ndarray):
        first, whole = whole, whole.base
    if isinstance(whole, memoryview):
        whole = whole.obj
    if not isinstance(whole, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    offset = view.__array_interface__["data"][0] - first.__array_interface__["data"][0]
    start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (offset + view.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if first.nbytes == len(whole) and size > 0:
        whole.madvise(mmap.MADV_DONTNEED, start, size)


def _candidates(source: ImageSource, limit: int) -> Iterator[tuple[bool, int]]:
    """What may be a root below *limit*: whether PAE's, and its address; each once."""
    clean, other, middles = _scan(source, limit)
    for frame in dict.fromkeys([*clean, *other]):
        yield False, frame << FRAME_SHIFT
    if not middles:
        return
    base = middles[0] << FRAME_SHIFT
    # swapper_pg_dir begins a page near the directory; failing that, groups anywhere count.
    near = _groups(source, middles, max(0, base - _NEAR), base + _NEAR)
    chosen = [place for place in near if place % FRAME_SIZE == 0]
    for place in chosen or _groups(source, middles, 0, limit):
        yield True, place


def _scan(source: ImageSource, limit: int) -> tuple[list[int], list[int], list[int]]:
    """Frames that look like a two-level directory, those first that map nothing below the
    direct mapping, and those that look like the PAE directory of its first GiB."""
    clean: list[int] = []
    other: list[int] = []
    middles: list[int] = []
    offsets = [offset >> 22 for offset in sorted(PAGE_OFFSETS.values())]
    for first, frames in low_frames(source, 0, limit):
        words = frames.view("<u4")
        for offset in offsets:
            for hit in np.flatnonzero(_looks_linear(source, words, offset, 22)).tolist():
                (other if words[hit, :offset].any() else clean).append(first + hit)
        # Every split with PAE is at a whole GiB: the first directory begins there.
        wide = frames.view("<u8")
        middles += (first + np.flatnonzero(_looks_linear(source, wide, 0, 21))).tolist()
        if len(clean) + len(other) + len(middles) > 16 * _MOST:
            break  # no machine has so many; whatever it is, the best are among them
    return clean[:_MOST], other[:_MOST], middles[:_MOST]


_SAMPLES = np.array([1, 2, 4, 5, 6, 7, 9, 10, 11, 13, 14])
"""Entries of a direct mapping that are looked at, counted from its first: within 64 MiB."""


def _looks_linear(
    source: ImageSource, tables: npt.NDArray[np.unsignedinteger], first: int, shift: int
) -> npt.NDArray[np.bool_]:
    """Which rows may map frame *k* at their entry *first* + *k*, by large pages or by tables."""
    kind = tables.dtype.type
    found = np.zeros(len(tables), bool)
    # Two columns tell most rows apart before anything else is read.
    some = (tables[:, first + 5] & tables[:, first + 9] & kind(PRESENT)) != 0
    rows = np.flatnonzero(some)
    sample = tables[rows[:, None], first + _SAMPLES]
    large = kind(PRESENT | PSE)
    linear = (sample & large) == large
    base = kind((1 << 40 if kind is np.uint64 else 1 << 32) - (1 << shift))
    linear &= (sample & base) == (_SAMPLES << shift).astype(tables.dtype)
    likely = linear.sum(axis=1) >= 4
    # Without large pages each entry leads to a table, whose first entry then maps that frame.
    tabled = ((sample & large) == kind(PRESENT)).all(axis=1) & ~likely
    for row in np.flatnonzero(tabled).tolist():
        entries = (sample[row] & kind(0xFFFFF000)).astype(np.int64)
        likely[row] = len(set(entries.tolist())) == len(entries) and _tables_linear(
            source, entries, shift, tables.itemsize
        )
    found[rows] = likely
    return found


def _tables_linear(source: ImageSource, tables: Ints, shift: int, size: int) -> bool:
    """Whether most of these tables begin with the frame that their place stands for."""
    heads = source.pages(tables >> FRAME_SHIFT)[:, :size].copy().view("<u8" if size == 8 else "<u4")
    frames = heads[:, 0].astype(np.int64) >> FRAME_SHIFT
    return int((frames == _SAMPLES << (shift - FRAME_SHIFT)).sum()) * 2 > len(tables)


def _groups(source: ImageSource, directories: list[int], start: int, end: int) -> list[int]:
    """Aligned groups of four PDPTEs between two addresses that lead to one of *directories*."""
    found: list[int] = []
    wanted = np.array(directories, np.uint64) << np.uint64(FRAME_SHIFT) | np.uint64(PRESENT)
    for first, frames in low_frames(source, start, end):
        words = frames.view("<u8").reshape(-1)
        entry = words & np.uint64(0x000F_FFFF_FFFF_F001)
        # A split at 3, 2 or 1 GiB: the directory belongs to PDPTE 3, 2 or 1.
        some = np.flatnonzero((entry >= wanted.min()) & (entry <= wanted.max()))
        hits = some[np.isin(entry[some], wanted) & (some % 4 != 0)]
        for hit in hits[:_MOST].tolist():
            if _plausible(words[hit & ~3 : (hit & ~3) + 4]):
                found.append((first << FRAME_SHIFT) + (hit & ~3) * 8)
        if len(found) >= _MOST:
            break
    return found[:_MOST]


def _plausible(group: Entries) -> bool:
    """Whether four words can be PDPTEs: no reserved bit but ACCESSED in those present."""
    reserved = np.uint64(0xFFF0_0000_0000_01C6)
    return not np.any((group & np.uint64(PRESENT) != 0) & (group & reserved != 0))
