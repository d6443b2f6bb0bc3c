"""Memory images as plain lines, for there may be many: the map, walks, differences."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TextIO

from highmem import __version__
from highmem.image.diff import ImageDiff, WindowChange
from highmem.image.maps import Mapped, MapRow
from highmem.image.view import ImageKernel
from highmem.image.vtop import Translation
from highmem.image.windows import PermanentWindow, TemporaryWindow, slot_name
from highmem.machine.paging import describe_flags
from highmem.trace.printable import printable

__all__ = [
    "counted",
    "root_line",
    "size_text",
    "title_line",
    "write_diff",
    "write_map",
    "write_vtop",
]


@lru_cache(4096)
def size_text(count: int) -> str:
    """Bytes in the largest unit that says them exactly."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count and count % (1 << shift) == 0:
            return f"{count >> shift} {unit}"
    return f"{count} B"


def counted(count: int, one: str, many: str = "") -> str:
    """``1 table``, ``2 tables``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def title_line(kernel: ImageKernel) -> str:
    """The image, and the kernel in it."""
    return (
        f"{printable(kernel.source.path)}: {kernel.profile.title} "
        f"[profile {kernel.profile.name}, {kernel.profile_how}; highmem {__version__}]"
    )


def root_line(kernel: ImageKernel) -> str:
    """Which page tables, and whether others would do."""
    others = len(kernel.roots) - 1
    if not others:
        more = ""
    else:
        more = f"; {others} other candidate{'s' if others > 1 else ''}: highmem image info"
    return f"CR3 {kernel.root.cr3:#x} ({kernel.root.what}{more})"


def write_map(kernel: ImageKernel, rows: Iterable[MapRow], stream: TextIO) -> None:
    """A line for each row: addresses, length, where to, page size, rights, flags, place."""
    stream.write(f"{title_line(kernel)}\n")
    stream.write(f"{root_line(kernel)}\n")
    stream.write(f"{'from':10} {'to':10} {'length':>10}  {'physical':11} page  access flags\n")
    for address, size, mapped, place in rows:
        stream.write(
            f"{address:#010x} {address + size - 1:#010x} {size_text(size):>10}  {_lead(mapped)}  "
            f"{place}\n"
        )
    missing, reserved = len(kernel.mappings.missing), len(kernel.mappings.reserved)
    if missing:
        stream.write(
            f"{counted(missing, 'table')} not in the image: what is mapped there is not shown\n"
        )
    if reserved:
        stream.write(
            f"{counted(reserved, 'entry', 'entries')} with reserved bits: nothing mapped\n"
        )


_ELSEWHERE = ("PRESENT", "RW", "USER", "NX", "PSE")
"""Flags that the columns before say already."""


def _lead(mapped: Mapped) -> str:
    return f"{mapped.physical:#011x} {_kind(mapped.page_size, mapped.rights, mapped.flags)}"


@lru_cache(4096)
def _kind(size: int, rights: str, flags: tuple[str, ...]) -> str:
    page = f"{size >> 10}K" if size < 1 << 20 else f"{size >> 20}M"
    shown = "|".join(flag for flag in flags if flag not in _ELSEWHERE)
    return f"{page:>4}  {rights}   {shown or '-'}"


def write_vtop(kernel: ImageKernel, found: Iterable[Translation], stream: TextIO) -> None:
    """Each walk, level by level."""
    stream.write(f"{title_line(kernel)}\n")
    stream.write(f"{root_line(kernel)}\n")
    for one in found:
        name = f"  {printable(one.symbol)}" if one.symbol else ""
        stream.write(f"\n{one.address:#010x}{name}  [{one.place}]\n")
        for step in one.steps:
            where = "register" if step.address is None else f"{step.address:#011x}"
            flags = "|".join(describe_flags(step.entry, step.level)) or "not present"
            stream.write(f"  {step.level.name:14} at {where}: {step.entry:#x}  {flags}\n")
        if one.physical is None:
            stream.write(f"  not mapped: {printable(one.failure or '')}\n")
            continue
        page = "" if one.page is None else f", struct page {one.page:#010x}"
        stream.write(
            f"  physical {one.physical:#x} in a page of {size_text(one.page_size)}, "
            f"frame {one.physical >> 12:#x}{page}\n"
        )


def write_diff(before: ImageKernel, after: ImageKernel, found: ImageDiff, stream: TextIO) -> None:
    """What changed, windows first."""
    stream.write(f"before  {title_line(before)}\nafter   {title_line(after)}\n")
    first, second = found.last_pkmap_nr
    if first != second:
        stream.write(f"last_pkmap_nr {first} -> {second}\n")
    for change in found.windows:
        stream.write(f"{change.kind:8} {change.address:#010x}  {_window_name(after, change)}\n")
        for sign, window in (("-", change.before), ("+", change.after)):
            if window is not None:
                stream.write(
                    f"  {sign} frame {window.pfn:#x}, entry {window.entry:#x}{_count(window)}\n"
                )
    for row in found.mappings:
        last = row.address + row.size - 1
        stream.write(f"{row.kind:8} {row.address:#010x} to {last:#010x}  {row.place}\n")
        for sign, mapped in (("-", row.before), ("+", row.after)):
            if mapped is not None:
                stream.write(f"  {sign} {_lead(mapped)}\n")
    if not found.changed:
        stream.write("nothing changed\n")


def _window_name(kernel: ImageKernel, change: WindowChange) -> str:
    window = change.after or change.before
    if isinstance(window, TemporaryWindow):
        return f"window: CPU {window.cpu}, slot {slot_name(kernel, window.slot)}"
    assert isinstance(window, PermanentWindow)
    return f"pkmap {window.nr}"


def _count(window: TemporaryWindow | PermanentWindow) -> str:
    if isinstance(window, PermanentWindow) and window.count is not None:
        return f", count {window.count}"
    return ""
