"""What an image says, as plain values fit for JSON and NDJSON.

Addresses and entries are strings (``"0xfffab000"``), for an entry of PAE does not fit a
JavaScript number; sizes, frame numbers, slots and counts are numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from highmem import __version__
from highmem.image.diff import ImageDiff
from highmem.image.maps import Mapped, MapRow
from highmem.image.view import ImageKernel
from highmem.image.vtop import Translation
from highmem.image.windows import PermanentWindow, TemporaryWindow, Windows
from highmem.machine.paging import describe_flags

__all__ = [
    "SCHEMA",
    "diff_document",
    "info_document",
    "map_document",
    "vtop_document",
    "windows_document",
    "write_document",
    "write_lines",
]

SCHEMA = "highmem.image/1"


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _head(kernel: ImageKernel) -> dict[str, Any]:
    """What every document begins with."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "input": {"name": kernel.source.path, "format": kernel.source.format},
        "kernel": {
            "release": kernel.known.release,
            "profile": kernel.profile.name,
            "profile_how": kernel.profile_how,
            "paging": "PAE" if kernel.root.is_pae else "32-bit",
            "cr3": _hex(kernel.root.cr3),
            "cr3_how": kernel.root.what,
        },
    }


def info_document(kernel: ImageKernel) -> dict[str, Any]:
    """The image and the kernel in it, with how each thing is known."""
    known, layout = kernel.known, kernel.layout
    banner = known.banner
    return {
        **_head(kernel),
        "ranges": [
            {"start": _hex(r.start), "end": _hex(r.end), "size": r.size}
            for r in kernel.source.ranges
        ],
        "ram": [{"start": _hex(r.start), "end": _hex(r.end)} for r in kernel.source.ram],
        "notes": list(kernel.source.notes),
        "damaged": kernel.source.damaged,
        "cpus": [
            {"cpu": state.cpu, "source": state.source, "cr3": _hex(state.cr3), "pid": state.pid}
            for state in kernel.source.claims.cpus
        ],
        "banner": None if banner is None else banner.text,
        "banner_address": None if banner is None else _hex(banner.address),
        "vmcoreinfo": known.vmcoreinfo_how or None,
        "symbols": {
            "exports": len(known.exports),
            "kallsyms": 0 if known.kallsyms is None else len(known.kallsyms),
            "given": None if known.given is None else known.given.origin,
            "given_how": known.given_how or None,
        },
        "roots": [
            {
                "cr3": _hex(root.cr3),
                "paging": "PAE" if root.is_pae else "32-bit",
                "what": root.what,
                "reasons": list(root.reasons),
            }
            for root in kernel.roots
        ],
        "profile_notes": list(kernel.profile_notes),
        "layout": {
            "PAGE_OFFSET": _hex(layout.PAGE_OFFSET),
            "high_memory": _hex(layout.high_memory),
            "PKMAP_BASE": _hex(layout.PKMAP_BASE),
            "LAST_PKMAP": layout.LAST_PKMAP,
            "FIXADDR_TOP": _hex(layout.FIXADDR_TOP),
            "highstart_pfn": layout.highstart_pfn,
            "highend_pfn": layout.highend_pfn,
        },
        "layout_notes": list(kernel.layout_notes),
        "mem_map": _hex(kernel.mem_map),
        "sizeof_struct_page": kernel.struct_page_size,
        "pkmap_count": _hex(kernel.pkmap_count_at),
        "kmap_ctrl_offset": kernel.kmap_ctrl,
    }  # fmt: skip


def _window(kernel: ImageKernel, window: TemporaryWindow | PermanentWindow) -> dict[str, Any]:
    level = kernel.root.mode.levels[-1]
    return {
        "address": _hex(window.address),
        "entry": _hex(window.entry),
        "flags": list(describe_flags(window.entry, level)),
        "pfn": window.pfn,
        "page": _hex(window.page),
    }


def _temporary(kernel: ImageKernel, window: TemporaryWindow) -> dict[str, Any]:
    return {"cpu": window.cpu, "slot": window.slot, "held": window.held, **_window(kernel, window)}


def _permanent(kernel: ImageKernel, window: PermanentWindow) -> dict[str, Any]:
    return {"nr": window.nr, "count": window.count, **_window(kernel, window)}


def windows_document(kernel: ImageKernel, windows: Windows) -> dict[str, Any]:
    """Every window that is not empty, the CPUs, and the findings."""
    return {
        **_head(kernel),
        "kmap_prot": _hex(windows.kmap_prot),
        "last_pkmap_nr": windows.last_pkmap_nr,
        "pkmap_count": _hex(windows.pkmap_count_at),
        "notes": list(windows.notes),
        "cpus": [
            {
                "cpu": state.cpu,
                "online": state.online,
                "task": None if state.task is None else state.task.comm,
                "task_struct": None if state.task is None else _hex(state.task.address),
                "index": state.index,
                "index_how": state.index_how,
                "missing": list(state.missing),
            }
            for state in windows.cpus
        ],
        "temporary": [_temporary(kernel, window) for window in windows.temporary],
        "permanent": [_permanent(kernel, window) for window in windows.permanent],
        "asleep": [
            {
                "task": task.comm,
                "task_struct": _hex(task.address),
                "index": task.index,
                "entries": [_hex(entry) for entry in task.held],
            }
            for task in windows.asleep
        ],
        "findings": [finding.to_dict() for finding in windows.findings],
    }


def _mapped(mapped: Mapped | None) -> dict[str, Any] | None:
    if mapped is None:
        return None
    return {
        "physical": _hex(mapped.physical),
        "page_size": mapped.page_size,
        "flags": list(mapped.flags),
        "rights": mapped.rights,
    }


def map_document(kernel: ImageKernel, rows: Iterable[MapRow]) -> dict[str, Any]:
    """All mappings, merged."""
    mappings = kernel.mappings
    return {
        **_head(kernel),
        "mappings": [
            {
                "address": _hex(row.address),
                "size": row.size,
                "place": row.place,
                **(_mapped(row.mapped) or {}),
            }
            for row in rows
        ],
        "reserved_entries": len(mappings.reserved),
        "missing_tables": len(mappings.missing),
    }


def vtop_document(kernel: ImageKernel, found: Iterable[Translation]) -> dict[str, Any]:
    """Walks, level by level."""
    return {
        **_head(kernel),
        "translations": [
            {
                "address": _hex(one.address),
                "physical": _hex(one.physical),
                "page_size": one.page_size,
                "failure": one.failure,
                "place": one.place,
                "symbol": one.symbol,
                "pfn": None if one.physical is None else one.physical >> 12,
                "page": _hex(one.page),
                "steps": [
                    {
                        "level": step.level.name,
                        "address": _hex(step.address),
                        "entry": _hex(step.entry),
                        "flags": list(describe_flags(step.entry, step.level)),
                    }
                    for step in one.steps
                ],
            }
            for one in found
        ],
    }


def diff_document(before: ImageKernel, after: ImageKernel, found: ImageDiff) -> dict[str, Any]:
    """What changed between two images."""

    def window(kernel: ImageKernel, one: TemporaryWindow | PermanentWindow | None) -> Any:
        if one is None:
            return None
        if isinstance(one, TemporaryWindow):
            return _temporary(kernel, one)
        return _permanent(kernel, one)

    return {
        **_head(before),
        "other": _head(after),
        "last_pkmap_nr": list(found.last_pkmap_nr),
        "windows": [
            {
                "address": _hex(change.address),
                "kind": change.kind,
                "before": window(before, change.before),
                "after": window(after, change.after),
            }
            for change in found.windows
        ],
        "mappings": [
            {
                "address": _hex(change.address),
                "size": change.size,
                "kind": change.kind,
                "place": change.place,
                "before": _mapped(change.before),
                "after": _mapped(change.after),
            }
            for change in found.mappings
        ],
    }


def write_document(document: dict[str, Any], stream: TextIO) -> None:
    """*document* as one JSON text."""
    stream.write(json.dumps(document, indent=2) + "\n")


# Parts of a document that are lists of things, and what one of them is called on its line.
_ITEMS = {
    "ranges": "range",
    "cpus": "cpu",
    "roots": "root",
    "temporary": "temporary",
    "permanent": "permanent",
    "asleep": "asleep",
    "findings": "finding",
    "mappings": "mapping",
    "translations": "translation",
    "windows": "window",
}


def envelopes(document: dict[str, Any], command: str) -> Iterator[dict[str, Any]]:
    """The lines of *document*: each thing in its lists, then the rest under *command*."""
    head = {"schema": document["schema"], "input": document["input"]["name"]}
    rest = {}
    for part, value in document.items():
        if part not in _ITEMS:
            rest[part] = value
            continue
        for item in value:
            yield {"type": _ITEMS[part], **head, **item}
    yield {"type": command, **rest}


def write_lines(document: dict[str, Any], command: str, stream: TextIO) -> None:
    """*document* as NDJSON: a line for each thing, and a last one of type *command*."""
    for line in envelopes(document, command):
        stream.write(json.dumps(line, separators=(",", ":")) + "\n")
