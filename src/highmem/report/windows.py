"""What outputs call things: windows, pages, callers, tasks; the same words in all of them."""

from __future__ import annotations

from dataclasses import dataclass

from highmem.kernel.layout import Layout
from highmem.replay.mappings import Mappings
from highmem.trace.schema import Argument

__all__ = ["NO_CALLER", "PAGE_KINDS", "Row", "Window", "WindowNames", "caller_name", "rows_of"]

NO_CALLER = "(caller not recorded)"
PAGE_KINDS = {int(Argument.PAGE): "page", int(Argument.PFN): "frame"}
_PAGE_MASK = 0xFFFFF000
_TOP_PAGE = 0xFFFFF


@dataclass(frozen=True, slots=True)
class Window:
    """One window as outputs show it."""

    name: str
    number: int | None
    """Its number: from the CPU's first window on (temporary), ``PKMAP_NR`` (permanent)."""
    rank: int
    """Orders windows as the kernel counts them: temporary ones go down in memory."""


class WindowNames:
    """Names windows by where they lie; without a layout, by their address alone."""

    __slots__ = ("_known", "_layout")

    def __init__(self) -> None:
        self._layout: Layout | None = None
        self._known: dict[tuple[int, bool], Window] = {}

    def begin(self, layout: Layout) -> None:
        """From now on windows have numbers."""
        self._layout = layout

    def of(self, address: int, permanent: bool) -> Window:
        """The window that *address* lies in."""
        page = address & _PAGE_MASK
        found = self._known.get((page, permanent))
        if found is None:
            found = self._known[page, permanent] = self._make(page, permanent)
        return found

    def _make(self, page: int, permanent: bool) -> Window:
        number = self._number(page, permanent)
        shown = "" if number is None else f" {number}"
        if permanent:
            return Window(f"permanent window{shown} at {page:#x}", number, page >> 12)
        return Window(f"window{shown} at {page:#x}", number, _TOP_PAGE - (page >> 12))

    def _number(self, page: int, permanent: bool) -> int | None:
        layout = self._layout
        if layout is None:
            return None
        if permanent:
            return layout.pkmap_nr(page) if layout.is_pkmap(page) else None
        placed = layout.window_of(page)
        return placed[1] if placed else None


@dataclass(frozen=True, slots=True)
class Row:
    """One mapping with its texts."""

    open_line: int
    open_ns: int
    close_line: int
    close_ns: int
    """-1 where the window stayed open."""
    cpu: int
    task: str
    caller: str
    """As recorded, ``copy_page_range+0x1bf``; empty where it was not."""
    address: int
    page: int
    page_kind: str
    """What ``page`` is: ``page`` (the address of a struct page), ``frame`` (a page frame
    number), or empty where it was not recorded."""
    depth: int
    permanent: bool

    @property
    def function(self) -> str:
        """The caller without its offset."""
        return caller_name(self.caller) or NO_CALLER


def caller_name(caller: str) -> str:
    """The function of ``copy_page_range+0x1bf``, with its module if any: the name that the
    callers of a verdict have."""
    symbol, plus, rest = caller.partition("+")
    module = rest.partition(" ")[2]
    return f"{symbol} {module}" if plus and module else symbol


def rows_of(mappings: Mappings) -> list[Row]:
    """The mappings one by one, for the formats that are written one by one."""
    strings = mappings.strings
    columns = [mappings.columns[name].tolist() for name in _ORDER]
    return [
        Row(
            open_line,
            open_ns,
            close_line,
            close_ns,
            cpu,
            f"{strings[comm]}-{pid}",
            strings[caller],
            address,
            page,
            PAGE_KINDS.get(argument, ""),
            depth,
            bool(permanent),
        )
        for (
            open_line,
            open_ns,
            close_line,
            close_ns,
            cpu,
            pid,
            comm,
            caller,
            address,
            page,
            argument,
            depth,
            permanent,
        ) in zip(*columns, strict=True)
    ]


_ORDER = (
    "open_line",
    "open_ns",
    "close_line",
    "close_ns",
    "cpu",
    "pid",
    "comm",
    "caller",
    "address",
    "page",
    "argument",
    "depth",
    "permanent",
)
