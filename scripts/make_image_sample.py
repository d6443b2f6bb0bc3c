#!/usr/bin/env python3
"""Cut an image of a whole machine down to the frames that samples/images/ needs.

    scripts/make_image_sample.py CORE.elf SAMPLE.elf.zst CR3...

CORE.elf is what QEMU's dump-guest-memory wrote.  Kept are its notes as they are, and of its
memory: every page table under each CR3 and under swapper_pg_dir, the kernel's read-only data
and variables, the text of the functions that windows are judged by, VMCOREINFO, what each CPU
and each task says of itself, and the struct pages of the frames behind windows.  All else is
left out, and a reader says so when it is asked for it.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zstandard

from highmem.image import ImageKernel, open_source, read_windows
from highmem.image.find.candidates import collect_roots, find_note
from highmem.image.find.known import read_known
from highmem.image.formats.source import (
    FRAME_SHIFT,
    FRAME_SIZE,
    Bytes,
    Claims,
    Flags,
    ImageSource,
    RamRange,
)
from highmem.image.tables import image_mode, read_mappings

FUNCTIONS = (
    "kunmap_high", "kmap_high", "flush_all_zero_pkmaps", "kmap_local_fork",
    "__kmap_local_sched_out", "__kmap_local_sched_in", "kunmap_local_indexed",
    "kunmap_atomic_high",
)  # fmt: skip


class Recorder:
    """An image that notes which of its frames are read."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self.frames: set[int] = set()
        self.format: str = source.format
        self.path: str = source.path
        self.ranges: tuple[RamRange, ...] = source.ranges
        self.ram: tuple[RamRange, ...] = source.ram
        self.claims: Claims = source.claims
        self.notes: tuple[str, ...] = source.notes
        self.damaged: bool = source.damaged

    def note(self, start: int, size: int) -> None:
        """Keep the frames of these physical bytes."""
        self.frames.update(range(start >> FRAME_SHIFT, (start + size - 1 >> FRAME_SHIFT) + 1))

    def read(self, paddr: int, size: int) -> bytes:
        """As the source; keeps the frames."""
        self.note(paddr, size)
        return self.source.read(paddr, size)

    def pages(self, pfns: npt.ArrayLike) -> Bytes:
        """As the source; keeps the frames."""
        self.frames.update(np.asarray(pfns).reshape(-1).tolist())
        return self.source.pages(pfns)

    def present(self, pfns: npt.ArrayLike) -> Flags:
        """As the source."""
        return self.source.present(pfns)

    def view(self, start: int, end: int) -> Bytes | None:
        """As the source; keeps nothing, for it serves to search."""
        return self.source.view(start, end)

    def close(self) -> None:
        """As the source."""
        self.source.close()


def collect(recorder: Recorder, roots: Iterable[int]) -> None:
    """Ask for everything that the sample must answer."""
    how, info = find_note(recorder.source)
    recorder.note(int(how.rsplit(" ", 1)[1], 16), FRAME_SIZE)
    found = collect_roots(recorder.source, info)
    kernel = ImageKernel(recorder, read_known(recorder, found, (how, info)))
    mode = image_mode(is_pae=kernel.root.is_pae)
    for cr3 in (kernel.root.cr3, *roots):
        read_mappings(recorder, mode, cr3)
    rodata, etext = kernel.known.rodata, kernel.symbol("_etext")
    assert rodata is not None and etext is not None
    start = kernel.layout.pa(etext) & -FRAME_SIZE
    recorder.note(start, kernel.layout.pa(rodata[1]) + len(rodata[0]) - start)
    for name in FUNCTIONS:
        kernel.known.code(name)
    kernel.window_entry(0, 0)
    read_windows(kernel)


def pieces(source: ImageSource, frames: set[int]) -> Iterator[tuple[int, int, bool]]:
    """First frame, number, and whether it is kept, of all of the image in order."""
    kept = np.array(sorted(frames), np.int64)
    kept = kept[source.present(kept)]
    runs = np.split(kept, np.flatnonzero(np.diff(kept) != 1) + 1)
    for start, end in source.ranges:
        at, last = start >> FRAME_SHIFT, end >> FRAME_SHIFT
        for run in runs:
            first, behind = int(run[0]), int(run[-1]) + 1
            if at <= first < last:
                if at < first:
                    yield at, first - at, False
                yield first, min(behind, last) - first, True
                at = behind
        if at < last:
            yield at, last - at, False


def elf(source: ImageSource, frames: set[int], notes: bytes) -> bytes:
    """An ELF32 core with *frames* of *source*; what is left out is named, but has no bytes."""
    parts = list(pieces(source, frames))
    offset = 52 + 32 * (len(parts) + 1)
    programs = [struct.pack("<8I", 4, offset, 0, 0, len(notes), len(notes), 0, 0)]
    offset += len(notes)
    body = []
    for first, count, kept in parts:
        size = count << FRAME_SHIFT
        held = size if kept else 0
        programs.append(struct.pack("<8I", 1, offset, 0, first << FRAME_SHIFT, held, size, 0, 0))
        if kept:
            body.append(source.pages(np.arange(first, first + count)).tobytes())
        offset += held
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    fields = (4, 3, 1, 0, 52, 0, 0, 52, 32, len(programs), 0, 0, 0)
    header = ident + struct.pack("<HHIIIIIHHHHHH", *fields)
    return header + b"".join(programs) + notes + b"".join(body)


def qemu_notes(core: bytes) -> bytes:
    """The content of the PT_NOTE of an ELF core."""
    form, header, place, size = "<8I", "<28xI10xHH", 1, 4
    if core[4] == 2:  # ELF64
        form, header, place, size = "<II6Q", "<32xQ14xHH", 2, 5
    start, step, count = struct.unpack_from(header, core)
    programs = [struct.unpack_from(form, core, start + n * step) for n in range(count)]
    found = [(program[place], program[size]) for program in programs if program[0] == 4]
    return b"".join(core[at : at + size] for at, size in found)


def main() -> None:
    """The command."""
    path, target, *roots = sys.argv[1:]
    recorder = Recorder(open_source([path]))
    collect(recorder, [int(root, 16) for root in roots])
    data = elf(recorder.source, recorder.frames, qemu_notes(Path(path).read_bytes()))
    Path(target).write_bytes(zstandard.ZstdCompressor(level=19).compress(data))


if __name__ == "__main__":
    main()
