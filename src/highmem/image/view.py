"""``open_image``: a kernel as an image of its memory shows it, read-only.

>>> kernel = open_image("ram.raw")                                        # doctest: +SKIP
>>> kernel.walk(kernel.layout.window_address(0, 0)).physical              # doctest: +SKIP

The methods have the names and meanings of :class:`highmem.kernel.kernel.Kernel`, as far as a
machine that stands still can answer them.  What the image does not tell is None, never a guess.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from highmem.errors import BusError, HighmemError, UsageError
from highmem.image.find.candidates import collect_roots, find_note
from highmem.image.find.identify import choose_profile, fit_layout, fit_profile
from highmem.image.find.kernelcode import find_kmap_ctrl, find_last_pkmap_nr, find_pkmap_count
from highmem.image.find.known import Known, UnmappedError, read_known
from highmem.image.find.roots import Root
from highmem.image.formats.opening import open_source
from highmem.image.formats.source import FRAME_SHIFT, ImageSource
from highmem.image.tables import Mappings, SourceMemory
from highmem.kernel.layout import Layout
from highmem.kernel.pages import Page
from highmem.kernel.profile import Profile, load_profile
from highmem.machine.entry import ACCESSED, DIRTY, GLOBAL, NX, PRESENT, RW
from highmem.machine.paging import Walk

__all__ = ["ImageKernel", "UnmappedError", "open_image"]


def open_image(
    *paths: str,
    cr3: int | None = None,
    paging: str | None = None,
    profile: Profile | str | None = None,
    symbols: str | None = None,
) -> ImageKernel:
    """Open the image in *paths* (one file, or ``FILE@ADDRESS`` pieces).

    *cr3* is the physical address of the page tables and *paging* ``"pae"`` or ``"32-bit"``,
    both found out if not given; *profile* a kernel instead of the one found out; *symbols* a
    System.map, a copy of /proc/kallsyms, or a vmlinux.  Raises InputError for what is no image
    or shows no 32-bit Linux, ProfileError, UsageError.
    """
    chosen = load_profile(profile) if isinstance(profile, str) else profile
    source = open_source(paths)
    try:
        note = find_note(source)
        known = read_known(source, collect_roots(source, note[1], cr3, paging), note, symbols)
        return ImageKernel(source, known, chosen)
    except BaseException:
        source.close()
        raise


def _ram_end(source: ImageSource) -> int:
    """The physical address behind the last piece of RAM; a small piece is firmware."""
    return max((piece.end for piece in source.ram if piece.size >= 1 << 20), default=0)


class ImageKernel:
    """One kernel in one image.  Make it with :func:`open_image`; it is a context manager.

    ``roots`` are the candidates for CR3, best first, of which ``root`` is used; ``profile`` and
    ``layout`` are the kernel's, ``profile_how`` and ``layout_notes`` say why these; ``known`` is
    what the image tells about itself.
    """

    def __init__(self, source: ImageSource, known: Known, profile: Profile | None = None) -> None:
        self.source = source
        self.known = known
        self.roots = known.roots
        self.root: Root = known.roots[0]
        self.memory = SourceMemory(source)
        if profile is not None and profile.pae != self.root.is_pae:
            kind = "PAE" if self.root.is_pae else "two-level"
            raise UsageError(f"profile {profile.name} does not fit: the image has {kind} tables")
        self.profile_how = "given"
        if profile is None:
            profile, self.profile_how = choose_profile(known.release, self.root.is_pae)
        self.profile, self.profile_notes = fit_profile(profile, known.measured)
        found = fit_layout(self.profile, self.root, known.measured, _ram_end(source))
        self.layout: Layout = found[0]
        self.layout_notes: tuple[str, ...] = found[1]

    def __enter__(self) -> ImageKernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the files; nothing can be read any more."""
        self.source.close()

    # Translation.

    @property
    def mappings(self) -> Mappings:
        """Everything that is mapped under :attr:`root`."""
        return self.root.mappings

    def walk(self, vaddr: int) -> Walk:
        """The page-table walk of *vaddr*, level by level.  BusError for a missing table."""
        return self.memory.walk(self.root.mode, self.root.cr3, vaddr)

    def read(self, vaddr: int, length: int) -> bytes:
        """*length* bytes from linear *vaddr*.

        Raises UnmappedError where nothing is mapped and BusError where the image has a hole.
        """
        return self.known.read(vaddr, length)

    def read8(self, vaddr: int) -> int:
        """One byte at *vaddr*."""
        return self.read(vaddr, 1)[0]

    def read32(self, vaddr: int) -> int:
        """Four bytes at *vaddr*, little endian."""
        return int.from_bytes(self.read(vaddr, 4), "little")

    def symbol(self, name: str) -> int | None:
        """The address of a symbol, None if it is not known."""
        return self.known.symbol(name)

    # Pages.

    @cached_property
    def mem_map(self) -> int | None:
        """The array of ``struct page`` (FLATMEM), None where the kernel has none or hides it."""
        return self.known.value("mem_map")

    @property
    def struct_page_size(self) -> int:
        """``sizeof(struct page)``: as VMCOREINFO says, else the profile's."""
        said = self.known.vmcoreinfo.get("SIZE(page)", "")
        return int(said) if said.isdecimal() else self.profile.geometry.sizeof_struct_page

    def pfn_to_page(self, pfn: int) -> Page | None:
        """The page of a frame; None if its struct page is not known or not in the image."""
        if self.mem_map is None or not 0 <= pfn < self.layout.max_pfn:
            return None
        address = self.mem_map + pfn * self.struct_page_size
        try:
            return Page(pfn, self.read32(address), address)
        except HighmemError:
            return None

    def page_to_pfn(self, address: int) -> int | None:
        """The frame that the ``struct page`` at *address* describes."""
        if self.mem_map is None:
            return None
        pfn, rest = divmod(address - self.mem_map, self.struct_page_size)
        return None if rest or not 0 <= pfn < self.layout.max_pfn else pfn

    def is_highmem(self, pfn: int) -> bool:
        """Whether a frame has no place in the direct mapping (``PageHighMem``)."""
        return pfn >= self.layout.highstart_pfn

    def page_address(self, page: Page | int) -> int | None:
        """The kernel address of a page (or frame), None for a high one that is not kmap()ed."""
        pfn = page if isinstance(page, int) else page.pfn
        if not self.is_highmem(pfn):
            return self.layout.va(pfn << FRAME_SHIFT)
        counts = self.pkmap_count
        for nr, entry in enumerate(self.pkmap_entries):
            held = counts is None or counts[nr] > 0
            if held and entry & PRESENT and self.entry_pfn(entry) == pfn:
                return self.layout.pkmap_address(nr)
        return None

    def kmap_to_page(self, address: int) -> Page | None:
        """The page behind a window's address, or one of low memory; None if there is none."""
        layout = self.layout
        if not (layout.is_window(address) or layout.is_pkmap(address) or layout.is_lowmem(address)):
            return None
        physical = int(self.mappings.translate([address])[0])
        return None if physical < 0 else self.pfn_to_page(physical >> FRAME_SHIFT)

    def entry_pfn(self, entry: int) -> int:
        """The frame that a 4 KiB entry names."""
        return (entry & self.root.mode.levels[-1].table_mask) >> FRAME_SHIFT

    # Windows.

    @cached_property
    def kmap_prot(self) -> int:
        """The protection bits of every window: PAGE_KERNEL under this kernel's masks."""
        prot = PRESENT | RW | ACCESSED | DIRTY | GLOBAL | NX
        mask = self.known.measured.default_kernel_pte_mask
        supported = self.known.measured.supported_pte_mask
        if mask is None:
            mask = ~0 if self.profile.pge and not self.profile.pti else ~GLOBAL
        if supported is None:
            supported = ~0 if self.profile.nx else ~NX
        return prot & mask & supported & ((1 << 8 * self.root.mode.entry_size) - 1)

    def window_entry(self, cpu: int, slot: int) -> int:
        """The entry of a temporary window, 0 where there is not even a page table."""
        return self.entry_at(self.layout.window_address(cpu, slot))

    def entry_at(self, vaddr: int) -> int:
        """The page-table entry of *vaddr*, present or not; 0 where no table leads to it."""
        return int(self.entries_from(vaddr, 1)[0])

    def entries_from(self, vaddr: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        """The entries of *count* pages from *vaddr* on, present or not; 0 without a table."""
        found = np.zeros(count, np.uint64)
        bits = self.root.mode.levels[-1].bits
        at = 0
        while at < count:
            address = vaddr + (at << FRAME_SHIFT)
            here = min(count - at, (1 << bits) - ((address >> FRAME_SHIFT) & ((1 << bits) - 1)))
            place = self._entry_place(address)
            if place is not None:
                size = self.root.mode.entry_size
                raw = self.source.read(place, here * size)
                found[at : at + here] = np.frombuffer(raw, "<u8" if size == 8 else "<u4")
            at += here
        return found

    def _entry_place(self, vaddr: int) -> int | None:
        """The physical address of the last-level entry of *vaddr*."""
        try:
            leaf = self.walk(vaddr).leaf
        except BusError:
            return None
        return leaf.address if leaf.level.is_leaf else None

    @cached_property
    def pkmap_entries(self) -> tuple[int, ...]:
        """The entries of all permanent windows."""
        found = self.entries_from(self.layout.PKMAP_BASE, self.layout.LAST_PKMAP)
        return tuple(found.tolist())

    @cached_property
    def pkmap_count_at(self) -> int | None:
        """Where ``pkmap_count`` is, by its symbol or by the code that uses it."""
        return self.known.symbol("pkmap_count") or find_pkmap_count(
            self.known.code, self.known.data
        )

    @cached_property
    def pkmap_count(self) -> tuple[int, ...] | None:
        """``pkmap_count``, or None if it is not known where it is."""
        if self.pkmap_count_at is None:
            return None
        try:
            raw = self.read(self.pkmap_count_at, 4 * self.layout.LAST_PKMAP)
        except HighmemError:
            return None
        return tuple(np.frombuffer(raw, "<i4").tolist())

    @cached_property
    def last_pkmap_nr(self) -> int | None:
        """``last_pkmap_nr``: the permanent window that was handed out last."""
        at = self.known.symbol("last_pkmap_nr") or find_last_pkmap_nr(
            self.known.code, self.known.data, self.layout.LAST_PKMAP
        )
        return None if at is None else self.known.word(at)

    @cached_property
    def kmap_ctrl(self) -> int | None:
        """The offset of ``kmap_ctrl`` in ``struct task_struct`` (5.11 on), None if not known."""
        return find_kmap_ctrl(self.known.code)
