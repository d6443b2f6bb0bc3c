"""What is wrong with the windows of an image: each finding with what speaks for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from highmem.findings import Confidence, Finding, Where, rule
from highmem.image.formats.source import FRAME_SHIFT
from highmem.image.view import ImageKernel
from highmem.image.windows import CpuWindows, PermanentWindow, TemporaryWindow, Windows, slot_name
from highmem.machine.paging import describe_flags

__all__ = ["judge_windows"]


def judge_windows(kernel: ImageKernel, windows: Windows) -> Windows:
    """*windows* with its findings, by address from the top of the address space down."""
    found: list[Finding] = []
    cpus = {state.cpu: state for state in windows.cpus}
    for window in windows.temporary:
        found += _stale(kernel, window, cpus[window.cpu])
        found += _entry(kernel, window, f"slot {slot_name(kernel, window.slot)}", window.cpu)
    for kept in windows.permanent:
        found += _entry(kernel, kept, f"permanent window {kept.nr}", None)
    found += _counts(windows)
    found += _twice(windows)
    found.sort(key=lambda finding: -(finding.where.address or 0))
    return replace(windows, findings=tuple(found))


def _shown(window: TemporaryWindow | PermanentWindow) -> str:
    page = "" if window.page is None else f", struct page {window.page:#010x}"
    return f"entry {window.entry:#x}, frame {window.pfn:#x}{page}"


def _stale(kernel: ImageKernel, window: TemporaryWindow, state: CpuWindows) -> Iterator[Finding]:
    """A temporary window that is open though nobody holds it, or an idle CPU does."""
    clears = kernel.profile.features.unmap_clears
    if not window.present or (clears == "debug" and not kernel.profile.debug_highmem):
        return  # up to 2.6.18 what was unmapped stays in its entry
    idle = state.task is not None and state.task.idle
    confidence = Confidence.CERTAIN
    if state.online is False:
        why = f"CPU {window.cpu} is not online"
    elif window.held is False:
        why = f"the index of CPU {window.cpu} is {state.index} ({state.index_how})"
        if window.slot < (state.index or 0):
            why = f"slot {window.slot} is a guard, which is never mapped"
    elif idle and state.task is not None:
        # An interrupt that came in on the idle task may hold windows for a moment.
        why = f"CPU {window.cpu} is idle: {state.task.comm} runs"
        confidence = Confidence.POSSIBLE
    else:
        return
    name = slot_name(kernel, window.slot)
    yield Finding(
        rule("stale-window"),
        Where(cpu=window.cpu, address=window.address),
        f"slot {name} of CPU {window.cpu} is open, but {why}",
        _busy(kernel),
        (_shown(window),),
        confidence,
    )


def _busy(kernel: ImageKernel) -> str:
    if kernel.profile.features.busy_check == "debug" and not kernel.profile.debug_highmem:
        return "nothing: the next window in the slot overwrites it"
    return "nothing until the slot is used again: then BUG, for its entry is not empty"


def _entry(
    kernel: ImageKernel, window: TemporaryWindow | PermanentWindow, name: str, cpu: int | None
) -> Iterator[Finding]:
    """What the entry itself shows: its flags, and its frame."""
    of_cpu = "" if cpu is None else f" of CPU {cpu}"
    where = Where(cpu=cpu, address=window.address)
    level = kernel.root.mode.levels[-1]
    wrong = (window.entry & ~level.table_mask) ^ kernel.kmap_prot
    if not window.present:
        if window.entry:
            yield Finding(
                rule("foreign-flags"), where,
                f"the entry of {name}{of_cpu} is {window.entry:#x}: not present, and not empty",
                "BUG when the window is used next" if cpu is not None else "BUG at the next flush",
            )  # fmt: skip
        return
    if wrong:
        lacks = describe_flags(wrong & kernel.kmap_prot | 1, level)[1 - (wrong & 1) :]
        extra = describe_flags(wrong & window.entry | 1, level)[1:]
        words = [f"lacks {', '.join(lacks)}"] if lacks else []
        words += [f"has {', '.join(extra)}"] if extra else []
        yield Finding(
            rule("foreign-flags"), where,
            f"the entry of {name}{of_cpu} {' and '.join(words) or 'has unknown bits'} "
            f"(kmap_prot is {kernel.kmap_prot:#x})",
            "nothing: the flags hold until the window is closed",
            (_shown(window),),
            Confidence.CERTAIN if cpu is None else Confidence.POSSIBLE,
        )  # fmt: skip
    yield from _frame(kernel, window, f"{name}{of_cpu}", where)


def _frame(
    kernel: ImageKernel, window: TemporaryWindow | PermanentWindow, name: str, where: Where
) -> Iterator[Finding]:
    paddr = window.pfn << FRAME_SHIFT
    beyond = window.pfn >= (kernel.known.measured.max_mapnr or 1 << 24)
    if beyond or _in_hole(kernel, paddr):
        limit = kernel.layout.max_pfn << FRAME_SHIFT
        why = f"RAM ends at {limit:#x}" if beyond else "the image has no RAM there"
        yield Finding(
            rule("frame-outside-ram"), where,
            f"{name} shows physical {paddr:#x}, but {why}",
            "nothing: the access reaches whatever answers there",
            (_shown(window),),
            Confidence.LIKELY if beyond else Confidence.POSSIBLE,
        )  # fmt: skip
    elif not kernel.is_highmem(window.pfn) and not kernel.profile.maps_low_pages:
        yield Finding(
            rule("low-frame"), where,
            f"{name} shows frame {window.pfn:#x}, which is low memory "
            f"(high memory begins at frame {kernel.layout.highstart_pfn:#x})",
            "nothing: the page now has two addresses",
            (_shown(window),),
            Confidence.LIKELY,
        )  # fmt: skip


def _in_hole(kernel: ImageKernel, paddr: int) -> bool:
    """Whether *paddr* lies between pieces of RAM, as far as the image has the whole of it."""
    ram, end = kernel.source.ram, kernel.layout.max_pfn << FRAME_SHIFT
    if any(start <= paddr < stop for start, stop in ram):
        return False
    # A few pieces of a machine's memory say nothing about the rest of it.
    return 2 * sum(max(0, min(stop, end) - min(start, end)) for start, stop in ram) > end


def _counts(windows: Windows) -> Iterator[Finding]:
    """pkmap_count against the entries."""
    free_but_mapped = [w for w in windows.permanent if w.count == 0 and w.present]
    for window in windows.permanent:
        count = window.count
        if count is None or (count > 0 and window.present) or (count == 0 and not window.entry):
            continue
        confidence = Confidence.CERTAIN
        if count < 0:
            what = f"pkmap_count[{window.nr}] is {count}"
            does = "BUG at the next kmap() or kunmap() of its page"
        elif window.present:
            # kmap() writes the entry first, a flush the count: one of them may be on its way.
            if len(free_but_mapped) == 1:
                confidence = Confidence.POSSIBLE
            what = f"permanent window {window.nr} is mapped, but its count is 0: free"
            does = "nothing: the next kmap() that gets the window overwrites the entry"
        elif count == 0:
            continue  # not present and not empty: foreign-flags says it
        else:
            what = f"permanent window {window.nr} has the count {count}, but maps nothing"
            does = "an oops when it is used, BUG when the windows are flushed"
        yield Finding(
            rule("count-mismatch"), Where(address=window.address), what, does,
            (f"pkmap_count[{window.nr}] = {count}, {_shown(window)}",), confidence,
        )  # fmt: skip


def _twice(windows: Windows) -> Iterator[Finding]:
    """Pages with more than one permanent window."""
    present = [window for window in windows.permanent if window.present]
    times = Counter(window.pfn for window in present)
    for pfn, count in times.items():
        if count < 2:
            continue
        same = [window for window in present if window.pfn == pfn]
        yield Finding(
            rule("frame-mapped-twice"),
            Where(address=same[0].address),
            f"frame {pfn:#x} has {count} permanent windows: "
            + ", ".join(str(window.nr) for window in same),
            "nothing yet: kunmap() counts one of them, and the other is never given back",
            tuple(f"window {window.nr}: {_shown(window)}" for window in same),
        )
