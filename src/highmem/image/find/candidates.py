"""All candidates for CR3 of an image, from every place that names one, best first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from highmem.errors import InputError, UsageError
from highmem.image.find.banner import find_vmcoreinfo, vmcoreinfo_symbol
from highmem.image.find.roots import Evidence, Root, examine, find_roots, judge
from highmem.image.formats.source import ImageSource
from highmem.image.tables import image_mode, read_mappings
from highmem.kernel.layout_geometry import PAGE_OFFSETS

__all__ = ["PAGING", "collect_roots", "find_note"]

PAGING = {"32-bit": False, "pae": True}
"""The names of the paging modes, and whether each is PAE."""


def find_note(source: ImageSource) -> tuple[str, Mapping[str, str]]:
    """Where VMCOREINFO is from (empty: nowhere), and its lines."""
    claimed = source.claims.vmcoreinfo
    if claimed:
        return "note of the file", claimed
    at, found = find_vmcoreinfo(source)
    return (f"found in RAM at {at:#x}", found) if found else ("", {})


def collect_roots(
    source: ImageSource,
    note: Mapping[str, str],
    cr3: int | None = None,
    paging: str | None = None,
) -> tuple[Root, ...]:
    """The roots of *source*, best first, at least one.

    *cr3* and *paging* (a key of PAGING) are given by the user and outweigh everything.  Raises
    InputError if there is no page table of a 32-bit Linux.
    """
    if paging is not None and paging not in PAGING:
        raise UsageError(f"no paging mode {paging!r}; there are {', '.join(PAGING)}")
    if cr3 is not None:
        return (_given(source, cr3, paging),)
    roots = _noted(source, note)
    claimed = _claimed(source)
    if not roots:
        roots = find_roots(source)
        if not any(root.what == "swapper_pg_dir" for root in roots):
            roots = claimed + roots
            claimed = []
    found = _wanted([*roots, *claimed], paging)
    if not found:
        raise InputError(
            source.path,
            "no page tables of a 32-bit Linux kernel found; is it an image of such a machine, "
            "and whole?  CR3 can be given (--cr3, --paging)",
        )
    return tuple(found)


def _wanted(roots: list[Root], paging: str | None) -> list[Root]:
    """Each address and mode once; with *paging* only that mode."""
    kept: dict[tuple[int, bool], Root] = {}
    for root in roots:
        if paging is not None and root.is_pae != PAGING[paging]:
            continue
        key = (root.cr3, root.is_pae)
        if key in kept:
            same = kept[key]
            more = tuple(reason for reason in root.reasons if reason not in same.reasons)
            kept[key] = replace(same, reasons=(*same.reasons, *more))
        else:
            kept[key] = root
    return list(kept.values())


def _given(source: ImageSource, cr3: int, paging: str | None) -> Root:
    if not 0 <= cr3 < 1 << 32:
        raise UsageError(f"CR3 {cr3:#x} is not a 32-bit address")
    if paging is None:
        found = examine(source, cr3, "given", "given as CR3")
        if not found:
            raise UsageError(
                f"under CR3 {cr3:#x} there is no direct mapping of low memory in either mode; "
                "if it is right all the same, say --paging 32-bit or --paging pae"
            )
        return found[0]
    mode = image_mode(is_pae=PAGING[paging])
    mappings = read_mappings(source, mode, cr3)
    evidence: Evidence = judge(mappings)
    return Root(cr3, mode, "given", ("given as CR3", f"given as {paging}"), evidence, mappings)


def _noted(source: ImageSource, note: Mapping[str, str]) -> list[Root]:
    """swapper_pg_dir where VMCOREINFO says that it is, if that holds."""
    address = vmcoreinfo_symbol(note, "swapper_pg_dir")
    if address is None:
        return []
    reason = f"VMCOREINFO says swapper_pg_dir = {address:#x}"
    if note.get("CONFIG_X86_PAE") == "y":
        reason += " and CONFIG_X86_PAE"
    found: list[Root] = []
    for offset in PAGE_OFFSETS.values():
        if address > offset:
            roots = examine(source, address - offset, "swapper_pg_dir", reason)
            found += [root for root in roots if root.evidence.page_offset == offset]
    return found


def _claimed(source: ImageSource) -> list[Root]:
    """What the file's notes say that CR3 was on each CPU, if it holds."""
    found: list[Root] = []
    for state in source.claims.cpus:
        if state.cr3 is None:
            continue
        reason = f"the {state.source} note of CPU {state.cpu} has it"
        if state.cr4 is not None:
            reason += f", with CR4.PAE {'set' if state.cr4 & 0x20 else 'clear'}"
        found += examine(source, state.cr3, f"CR3 of CPU {state.cpu}", reason)
    return found
