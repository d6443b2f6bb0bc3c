"""What a kernel with HIGHMEM does about each rule, in the words of the family concerned."""

from __future__ import annotations

__all__ = ["kernel_does"]

_GENERAL = {  # table
    "leaked-window": "The slot stays taken: from 5.11 the task keeps it and its CPU, up to 5.10 "
    "the CPU runs out of slots and preemption stays off.",
    "unmap-order": "The entry of the window on top is cleared instead: its user faults or writes "
    "elsewhere, and the window named stays mapped (a WARNING from 5.11 with DEBUG_HIGHMEM).",
    "double-unmap": "The next window down the stack is taken from its user; with none left the "
    "kernel BUGs or clears a foreign fixmap entry.",
    "page-not-address": "The address of a struct page is no window: nothing is unmapped (a "
    "WARNING from 5.11), the slot stays taken and the stack of windows is off by one.",
    "address-not-page": "kunmap() reads the mapped data as a struct page: it oopses, BUGs in "
    "kunmap_high(), or does nothing and the slot is lost.",
    "not-a-window": "The address is outside the windows: nothing is unmapped (a WARNING from "
    "5.11), and the slot stays taken.",
    "advanced-pointer": "One past the page's end is the neighbouring slot: the wrong entry is "
    "meant, which is a BUG with DEBUG_HIGHMEM.",
    "mismatched-pair": "The slot stays taken and preemption or page faults get out of balance.",
    "sleep-in-atomic": "BUG: scheduling while atomic; without the check another task runs with "
    "this window on the CPU's stack and unmaps it.",
    "stale-access": "The entry is cleared: the access faults, or hits whatever page the slot "
    "shows next.",
    "page-overrun": "The next address is another slot: the access faults or corrupts a page that "
    "another window shows.",
    "unmapped-high-page": "page_address() of a high page that is not kmap()ed is NULL: the access "
    "faults near address 0.",
    "escaping-window": "The window belongs to this task (or CPU): whoever uses the address later "
    "finds it unmapped or showing another page.",
    "deprecated-api": "Nothing wrong happens; the call costs a global lock or preemption that "
    "kmap_local_page() does without.",
    "busy-entry": "Up to 2.6.36 each name is one slot: the second map takes it from the first, "
    "whose user reads and writes the other page (a BUG with DEBUG_HIGHMEM).",
    "pool-exhausted": "Two tasks that hold some of the 1024 (512) slots and wait for more wait "
    "for ever.",
    "too-deep": "A task has 16 slots: one too many is a BUG (up to 5.10 without DEBUG_HIGHMEM it "
    "takes the next CPU's).",
    "unchecked-page": "kmap() works on an address near the top of memory as if it were a struct "
    "page: it faults there.",
    "unused-window": "Nothing wrong happens to the window; what was meant for the page went "
    "elsewhere.",
    "unmapped-kunmap": "The page's count goes below what its users hold: kunmap_high() BUGs.",
}
_PERMANENT = {  # table
    "leaked-window": "One of the 1024 (512 with PAE) permanent slots is lost for good; with all "
    "lost every kmap() waits for ever.",
    "double-unmap": "kunmap_high() BUGs, or the page loses the mapping that somebody else uses.",
    "stale-access": "The entry is cleared at the next flush of the pool: the access then faults "
    "or reads another page.",
    "mismatched-pair": "The permanent slot is never given back, and the other family's state gets "
    "out of balance.",
}


def kernel_does(rule: str, family: str) -> str:
    """One or two sentences."""
    if family == "permanent" and rule in _PERMANENT:
        return _PERMANENT[rule]
    return _GENERAL.get(rule, "")
