"""A kernel's address space for people and for programs.

Takes a :class:`~highmem.kernel.layout.Layout` and a title; knows nothing of profiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from highmem.kernel.layout import Layout

__all__ = ["layout_document", "render_layout"]

_UNITS = ((30, "GiB"), (20, "MiB"), (10, "KiB"))


def layout_document(layout: Layout, title: str, *, entries: bool = False) -> dict[str, Any]:
    """The layout as plain values, fit for JSON.

    Virtual addresses are strings (``"0xfffbb000"``), ``end`` is the first address behind and
    may be ``"0x100000000"``; bytes, page frame numbers, indices and counts are numbers.
    *entries* adds ``enum fixed_addresses``.
    """
    document: dict[str, Any] = {
        "title": title,
        "pae": layout.pae,
        "nr_cpus": layout.nr_cpus,
        "windows_per_cpu": layout.windows_per_cpu,
        "ram": [{"start": start, "end": end} for start, end in layout.ram],
        "regions": [
            {
                "start": _address(row.start),
                "end": _address(row.end),
                "size": row.size,
                "name": row.name,
                "why": row.why,
                "used": row.used,
            }
            for row in layout.regions()
        ],
        "constants": [
            {
                "name": term.name,
                "value": _address(term.value) if term.kind == "address" else term.value,
                "kind": term.kind,
                "formula": term.formula,
            }
            for term in layout.terms()
        ],
        "zones": [zone._asdict() for zone in layout.zones],
    }
    if entries:
        document["fixed_addresses"] = [
            {
                "index": row.index,
                "address": _address(layout.fix_to_virt(row.index)),
                "name": row.name,
                "width": row.width,
                "why": row.why,
            }
            for row in layout.fixed
        ]
    return document


def render_layout(layout: Layout, title: str, console: Console, *, entries: bool = False) -> None:
    """Print the map from top to bottom, then every constant with its formula, then the zones.

    *entries* adds ``enum fixed_addresses``.  Addresses in the map are the first and the last.
    """
    from rich.text import Text

    console.print(Text(title, style="bold"))
    console.print(Text(_machine(layout)))
    for table in _tables(layout, entries):
        console.print()
        console.print(table)


def _machine(layout: Layout) -> str:
    ram = sum(end - start for start, end in layout.ram)
    low, high = layout.max_low_pfn << 12, (layout.highend_pfn - layout.highstart_pfn) << 12
    high_text = f"high memory {_size(high)}" if high else "no high memory"
    paging = "PAE" if layout.pae else "two-level"
    return (
        f"{paging} page tables, NR_CPUS {layout.nr_cpus}, {layout.windows_per_cpu} windows per "
        f"CPU; RAM {_size(ram)}: low memory {_size(low)}, {high_text}"
    )


def _tables(layout: Layout, entries: bool) -> list[Table]:
    found = [_map_table(layout), _term_table(layout), _zone_table(layout)]
    if entries:
        found.append(_entry_table(layout))
    return found


def _map_table(layout: Layout) -> Table:
    table = _table("Map, from the top down", "from", "to", "size>", "what", "why")
    for row in layout.regions():
        cells = (_address(row.start), _address(row.end - 1), _size(row.size), row.name, row.why)
        table.add_row(*_plain(cells), style=None if row.used else "dim")
    return table


def _term_table(layout: Layout) -> Table:
    table = _table("Constants, each after what it is derived from", "name", "value>", "from")
    for term in layout.terms():
        table.add_row(*_plain((term.name, _value(term.value, term.kind), term.formula)))
    return table


def _zone_table(layout: Layout) -> Table:
    table = _table("Zones, holes included", "zone", "first pfn>", "end pfn>", "size>")
    for zone in layout.zones:
        size = _size((zone.end_pfn - zone.start_pfn) << 12)
        table.add_row(*_plain((zone.name, f"{zone.start_pfn:#x}", f"{zone.end_pfn:#x}", size)))
    return table


def _entry_table(layout: Layout) -> Table:
    table = _table("enum fixed_addresses", "index>", "address", "pages>", "name", "why")
    for row in layout.fixed:
        pages = str(row.width) if row.width else ""
        address = _address(layout.fix_to_virt(row.index))
        table.add_row(*_plain((str(row.index), address, pages, row.name, row.why)))
    return table


def _table(title: str, *headers: str) -> Table:
    """A table; a header that ends in ``>`` stands over numbers, aligned to the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for header in headers:
        # The explanation and the formula wrap; an address or a name never does.
        wraps = header in {"why", "from"} and header == headers[-1]
        table.add_column(
            header.rstrip(">"),
            justify="right" if header.endswith(">") else "left",
            no_wrap=not wraps,
            overflow="fold",
        )
    return table


def _plain(cells: tuple[str, ...]) -> list[Text]:
    # Text keeps rich from reading "[...]" in a formula as markup.
    from rich.text import Text

    return [Text(cell) for cell in cells]


def _address(value: int) -> str:
    return f"{value:#010x}"


def _value(value: int, kind: str) -> str:
    if kind == "address":
        return _address(value)
    if kind == "bytes":
        return f"{value:#x} ({_size(value)})"
    return f"{value:#x}" if kind == "pfn" else str(value)


def _size(count: int) -> str:
    """Bytes in a readable unit: exact if four digits can say it, else rounded, with ``~``."""
    for shift, unit in _UNITS:
        if count >= 1 << shift:
            for finer, name in _UNITS[_UNITS.index((shift, unit)) :]:
                whole, rest = divmod(count, 1 << finer)
                if not rest and whole < 10_000:
                    return f"{whole} {name}"
            return f"~{count / (1 << shift):.1f} {unit}"
    return f"{count} B"
