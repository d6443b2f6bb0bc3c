"""What an image tells about the kernel in it, before any profile: symbols and variables.

Symbols come from three places of the image (VMCOREINFO, the exported symbols, kallsyms) and
from a file that may be given; of a name that several have, the image's own word counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from highmem.errors import BusError, HighmemError
from highmem.image.find.banner import Banner, find_banner, has_banner, vmcoreinfo_symbol
from highmem.image.find.exports import find_exports
from highmem.image.find.identify import Measured, moved_symbols
from highmem.image.find.kallsyms import find_kallsyms
from highmem.image.find.kernelcode import find_window_bounds
from highmem.image.find.roots import Root, kernel_text
from highmem.image.find.symbols import Symbols, load_symbols
from highmem.image.formats.source import FRAME_SHIFT, FRAME_SIZE, Bytes, ImageSource

__all__ = ["Known", "UnmappedError", "read_known"]

_EXPORTS = (
    "__FIXADDR_TOP", "__cpu_online_mask", "__default_kernel_pte_mask", "__kmap_atomic_idx",
    "__per_cpu_offset", "__supported_pte_mask", "current_task", "high_memory",
    "init_task", "max_mapnr", "mem_map", "nr_cpu_ids",
)  # fmt: skip
_DATA_SPAN = 64 << 20
"""The kernel's variables are at most so far behind its read-only part."""
_TEXT_GUESS = 40 << 20
"""Bytes of kernel image to search where no read-only part shows its extent."""


class UnmappedError(HighmemError):
    """A linear address that the page tables of an image do not map; ``address`` holds it."""

    def __init__(self, address: int) -> None:
        self.address = address
        super().__init__(f"linear address {address:#010x} is not mapped")


@dataclass(frozen=True)
class Known:
    """The facts of one image; ``roots`` best first, the first one is used."""

    source: ImageSource
    roots: tuple[Root, ...]
    vmcoreinfo: Mapping[str, str]
    vmcoreinfo_how: str
    given: Symbols | None = None
    given_how: str = ""
    text_range: tuple[int, int] | None = None
    """Physical bytes of the kernel's text and read-only data."""

    # Reading through the first root.

    def read(self, vaddr: int, length: int) -> bytes:
        """*length* bytes from linear *vaddr*.

        Raises UnmappedError where nothing is mapped, BusError where the image has a hole.
        """
        if not length:
            return b""
        last = vaddr + length - 1
        if length < 0 or not 0 <= vaddr <= last < 1 << 32:
            raise UnmappedError(max(0, min(last, 1 << 32)))
        frames = self.roots[0].mappings.frames[vaddr >> FRAME_SHIFT : (last >> FRAME_SHIFT) + 1]
        absent = np.flatnonzero(frames < 0)
        if len(absent):
            page = (vaddr >> FRAME_SHIFT) + int(absent[0])
            raise UnmappedError(max(vaddr, page << FRAME_SHIFT))
        offset = vaddr & (FRAME_SIZE - 1)
        if len(frames) == 1:
            return self.source.read((int(frames[0]) << FRAME_SHIFT) + offset, length)
        missing = np.flatnonzero(~self.source.present(frames))
        if len(missing):
            self.source.read(int(frames[missing[0]]) << FRAME_SHIFT, 1)  # raises BusError
        return self.source.pages(frames).reshape(-1)[offset : offset + length].tobytes()

    def word(self, vaddr: int, size: int = 4) -> int | None:
        """The little-endian number at *vaddr*, None where there is no memory."""
        try:
            return int.from_bytes(self.read(vaddr, size), "little")
        except (UnmappedError, BusError):
            return None

    def value(self, name: str, size: int = 4) -> int | None:
        """The value of a variable by its name."""
        address = self.symbol(name)
        return None if address is None else self.word(address, size)

    # Names.

    @cached_property
    def rodata(self) -> tuple[Bytes, int] | None:
        """The kernel's read-only part and its virtual address."""
        if self.text_range is None:
            return None
        start, end = self.text_range
        offset = self.roots[0].evidence.page_offset
        chunk = self.source.view(start, end)
        if chunk is None:
            frames = np.arange(start >> FRAME_SHIFT, -(-end // FRAME_SIZE))
            chunk = self.source.pages(frames).reshape(-1)[: end - start]
        return chunk, (start + offset) & 0xFFFFFFFF

    @property
    def data(self) -> range:
        """The addresses at which the kernel's variables can be."""
        if self.rodata is None:
            return range(0)
        chunk, base = self.rodata
        return range(base, base + len(chunk) + _DATA_SPAN)

    @cached_property
    def banner(self) -> Banner | None:
        """``linux_banner``."""
        return find_banner(*self.rodata) if self.rodata is not None else None

    @property
    def release(self) -> str | None:
        """``uname -r``."""
        if self.banner is not None:
            return self.banner.release
        return self.vmcoreinfo.get("OSRELEASE") or self.source.claims.release

    @cached_property
    def exports(self) -> Mapping[str, int]:
        """Those exported symbols that are of use here."""
        return find_exports(*self.rodata, _EXPORTS) if self.rodata is not None else {}

    @cached_property
    def kallsyms(self) -> Symbols | None:
        """The kernel's own symbol table, read when first asked for."""
        found = find_kallsyms(*self.rodata) if self.rodata is not None else None
        if found is None:
            return None
        return Symbols.of_kallsyms(f"kallsyms of the image, at {found.num_syms_at:#x}", found)

    def symbol(self, name: str) -> int | None:
        """The address of *name*, None if nobody knows it."""
        for found in (self.exports.get(name), vmcoreinfo_symbol(self.vmcoreinfo, name)):
            if found is not None:
                return found
        if name == "linux_banner" and self.banner is not None:
            return self.banner.address
        for table in (self.given, self.kallsyms):
            if table is not None and name in table.addresses:
                return table.addresses[name]
        return None

    def name_of(self, address: int) -> str | None:
        """*address* as ``name+0x10``."""
        table = self.given or self.kallsyms
        return None if table is None else table.name_of(address)

    def code(self, name: str) -> bytes:
        """The bytes of a function, empty if it is not known or not mapped."""
        for table in (self.kallsyms, self.given):
            extent = table.extent(name) if table is not None else None
            if extent is None:
                continue
            try:
                return self.read(extent[0], extent[1] - extent[0])
            except (UnmappedError, BusError):
                return b""
        return b""

    @cached_property
    def measured(self) -> Measured:
        """The variables that decide the layout."""
        masks = self.roots[0].mode.entry_size
        return Measured(
            fixaddr_top=self.value("__FIXADDR_TOP"),
            high_memory=self.value("high_memory"),
            max_mapnr=self.value("max_mapnr"),
            supported_pte_mask=self.value("__supported_pte_mask", masks),
            default_kernel_pte_mask=self.value("__default_kernel_pte_mask", masks),
            window_bounds=find_window_bounds(self.code),
        )


def read_known(
    source: ImageSource,
    roots: tuple[Root, ...],
    vmcoreinfo: tuple[str, Mapping[str, str]],
    symbols: str | None = None,
) -> Known:
    """Gather the facts of *source* under the first of *roots*.

    *vmcoreinfo* is where that note is from, and its lines; *symbols* a file of symbols.  Raises
    InputError if that file does not belong to the image.
    """
    root = roots[0]
    text = kernel_text(root.mappings, root.evidence)
    if text is None:
        text = _unprotected_text(source, root, vmcoreinfo[1])
    known = Known(source, roots, vmcoreinfo[1], vmcoreinfo[0], text_range=text)
    if symbols is None:
        return known
    anchors = dict(known.exports)
    for name in ("swapper_pg_dir", "_stext", "init_uts_ns"):
        address = vmcoreinfo_symbol(known.vmcoreinfo, name)
        if address is not None:
            anchors[name] = address
    if known.banner is not None:
        anchors["linux_banner"] = known.banner.address
    if root.what == "swapper_pg_dir":
        anchors["swapper_pg_dir"] = (root.cr3 + root.evidence.page_offset) & 0xFFFFFFFF
    start = None if text is None else (text[0] + root.evidence.page_offset) & 0xFFFFFFFF
    given, how = moved_symbols(load_symbols(symbols), anchors, start)
    return Known(source, roots, vmcoreinfo[1], vmcoreinfo[0], given, how, text)


def _unprotected_text(
    source: ImageSource, root: Root, info: Mapping[str, str]
) -> tuple[int, int] | None:
    """Where to look for the kernel's tables if no page is read-only.

    Behind ``_stext``, or where kernels lie that nothing moved (CONFIG_PHYSICAL_START is 1 to
    16 MiB); the longest piece that the image has there, if it holds a banner.
    """
    if not root.evidence.is_kernel:
        return None
    known = vmcoreinfo_symbol(info, "_stext")
    first = 1 << 20 if known is None else (known - root.evidence.page_offset) & 0xFFFFFFFF
    last = first + _TEXT_GUESS
    held = [(max(a, first), min(b, last)) for a, b in source.ranges if a < last and b > first]
    start, end = max(held, key=lambda piece: piece[1] - piece[0], default=(0, 0))
    # A table of symbols is no smaller, and the search is for words.
    start = -(-start // FRAME_SIZE) * FRAME_SIZE
    return (start, end) if end - start >= 1 << 16 and has_banner(source, start, end) else None
