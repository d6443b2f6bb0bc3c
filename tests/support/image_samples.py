"""The memory images in samples/images, and what QEMU and the guest said of them."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import zstandard

from highmem.image import ImageKernel, open_image
from highmem.image.find.candidates import collect_roots
from highmem.image.find.known import read_known
from highmem.image.tables import Mappings
from support.image_memory import Overlay

__all__ = [
    "SAMPLES",
    "LoggedWindow",
    "Sample",
    "TlbLine",
    "as_info_tlb",
    "changed",
    "entry_at",
    "parse_tlb",
    "parse_windows",
    "sample",
    "word_at",
]

_FOLDER = Path(__file__).parents[2] / "samples" / "images"
SAMPLES = ("linux-6.1-686-pae", "linux-5.10-686")


class TlbLine(NamedTuple):
    """A line of ``info tlb``: address, physical address, and the entry's own flags."""

    address: int
    physical: int
    flags: str


class LoggedWindow(NamedTuple):
    """What windows.ko printed."""

    kind: str
    cpu: int | None
    slot: int | None
    address: int
    pfn: int
    page: int


def parse_tlb(text: str) -> set[TlbLine]:
    """The lines of ``info tlb``; QEMU leaves NX in the physical address of PAE pages."""
    found = set()
    for line in text.split("\n"):
        if line.strip():
            address, physical, flags = line.replace(":", "").split()
            found.add(TlbLine(int(address, 16), int(physical, 16) & ~(1 << 63), flags))
    return found


# QEMU's letters of ``info tlb``, in their order, and the bit of each.
LETTERS = [
    ("X", 63),
    ("G", 8),
    ("P", 7),
    ("D", 6),
    ("A", 5),
    ("C", 4),
    ("T", 3),
    ("U", 2),
    ("W", 1),
]


def as_info_tlb(mappings: Mappings) -> set[TlbLine]:
    """*mappings* as ``info tlb`` would list them."""
    found = set()
    columns = (mappings.address, mappings.physical, mappings.entry, mappings.shift)
    for address, physical, entry, shift in zip(*(c.tolist() for c in columns), strict=True):
        # QEMU shows P for large pages only: in a small one bit 7 is PAT.
        flags = "".join(
            letter if entry >> bit & 1 and (letter != "P" or shift > 12) else "-"
            for letter, bit in LETTERS
        )
        found.add(TlbLine(address, physical, flags))
    return found


_WINDOW = re.compile(
    r"windows: (\w+)(?: cpu (\d+) slot (\d+))? at ([0-9a-f]+) pfn ([0-9a-f]+) page ([0-9a-f]+)"
)


def parse_windows(log: str) -> set[LoggedWindow]:
    """What windows.ko said in a kernel's log."""
    found = set()
    for match in _WINDOW.finditer(log):
        kind, cpu, slot, address, pfn, page = match.groups()
        where = int(address, 16), int(pfn, 16), int(page, 16)
        if cpu is None:
            found.add(LoggedWindow(kind, None, None, *where))
        else:
            found.add(LoggedWindow(kind, int(cpu), int(slot), *where))
    return found


class Sample:
    """One image with its truth."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = str(_FOLDER / f"{name}.elf.zst")
        self.log = (_FOLDER / f"{name}.log").read_text()
        self.kernel: ImageKernel = open_image(self.path)

    def tlb(self, cpu: int) -> set[TlbLine]:
        """QEMU's ``info tlb`` of *cpu* at the moment of the image."""
        raw = (_FOLDER / f"{self.name}.tlb{cpu}.zst").read_bytes()
        return parse_tlb(zstandard.ZstdDecompressor().decompress(raw).decode())

    def cr3(self, cpu: int) -> int:
        """CR3 of *cpu*, from QEMU's note."""
        found = self.kernel.source.claims.cpus[cpu].cr3
        assert found is not None
        return found

    def system_map(self) -> dict[str, int]:
        """Lines of the System.map of Debian's -dbg package: addresses without KASLR."""
        lines = (line.split() for line in (_FOLDER / f"{self.name}.map").read_text().splitlines())
        return {name: int(address, 16) for address, _, name in lines}

    def windows(self, kind: str) -> set[LoggedWindow]:
        """What the module said that it holds open: permanent, temporary, asleep."""
        return {window for window in parse_windows(self.log) if window.kind == kind}


@cache
def sample(name: str) -> Sample:
    """The sample of that name, opened once."""
    return Sample(name)


def changed(one: Sample, patches: Mapping[int, bytes]) -> ImageKernel:
    """The sample with these bytes, opened anew."""
    source = Overlay(one.kernel.source, patches)
    same = one.kernel.known
    note = (same.vmcoreinfo_how, same.vmcoreinfo)
    known = read_known(source, collect_roots(source, same.vmcoreinfo), note)
    # No patch touches the kernel's read-only part: what was found there need not be again.
    for part in ("rodata", "exports", "kallsyms", "banner"):
        known.__dict__[part] = getattr(same, part)
    return ImageKernel(source, known)


def entry_at(one: Sample, vaddr: int, entry: int) -> dict[int, bytes]:
    """The patch that puts *entry* where the window at *vaddr* has its own."""
    where = one.kernel.walk(vaddr).leaf.address
    assert where is not None
    return {where: entry.to_bytes(one.kernel.root.mode.entry_size, "little")}


def word_at(one: Sample, vaddr: int, value: int) -> dict[int, bytes]:
    """The patch that stores *value* in the word at *vaddr*."""
    physical = one.kernel.walk(vaddr).physical
    assert physical is not None
    return {physical: struct.pack("<i", value)}
