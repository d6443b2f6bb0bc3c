"""The misuses of examples/misuse/misuse.c: which rule finds each, and how what a finding says of
the kernel is held to what that kernel said (its dmesg)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from highmem.findings import Finding

__all__ = ["KERNELS", "NOT_KEPT", "QUIET", "UNSEEN", "WAYS", "Way", "agree", "cases", "faults"]

KERNELS = {"5.10-686": "debian-5.10-686", "6.1-686": "debian-6.1-686"}
"""The lab's kernels that the recordings are of, and their profiles."""


@dataclass(frozen=True, slots=True)
class Way:
    """One misuse: the rule it breaks, and the kernels that have it."""

    rule: str
    kernels: tuple[str, ...] = ("5.10-686", "6.1-686")
    certain: tuple[str, ...] = ("5.10-686", "6.1-686")
    """The kernels on which the finding is certain; else it is likely."""


_OLD, _NEW = ("5.10-686",), ("6.1-686",)

WAYS: dict[str, Way] = {  # table
    "leak-atomic": Way("leaked-window"),
    "leak-local": Way("leaked-window", _NEW),
    "leak-permanent": Way("leaked-window", certain=()),
    "order-atomic": Way("unmap-order"),
    "order-local": Way("unmap-order", _NEW),
    "double-atomic": Way("double-unmap"),
    "double-inner": Way("double-unmap"),
    "double-local": Way("double-unmap", _NEW),
    "too-deep": Way("too-deep"),
    "busy": Way("busy-entry", _OLD),
    "page-atomic": Way("page-not-address"),
    "page-local": Way("page-not-address", _NEW),
    "address": Way("address-not-page"),
    # What comes to kunmap_high() is nothing: only the window that stays shows.
    "address-quiet": Way("leaked-window", certain=()),
    "not-a-window": Way("not-a-window"),
    "null": Way("not-a-window"),
    "advanced": Way("advanced-pointer"),
    "advanced-inner": Way("advanced-pointer", certain=_NEW),
    "mismatch-kmap-atomic": Way("mismatched-pair"),
    "mismatch-kmap-local": Way("mismatched-pair", _NEW),
    "mismatch-atomic-kmap": Way("mismatched-pair"),
    "unmapped": Way("unmapped-kunmap", certain=()),
    "unmapped-twice": Way("unmapped-kunmap", certain=()),
    "pool": Way("pool-exhausted"),
    "foreign-task": Way("foreign-unmap", certain=_OLD),
    "foreign-cpu": Way("foreign-unmap"),
    "sleep": Way("sleep-in-atomic", certain=_OLD),
}
"""Those that leave a trace in the map and unmap events."""

UNSEEN: dict[str, tuple[str, ...]] = {
    "stale": ("5.10-686", "6.1-686"),
    "page-address": ("5.10-686", "6.1-686"),
}
"""Accesses: no call is wrong, but the access faults, which the kernel's tracepoint
``page_fault_kernel`` records."""

QUIET: dict[str, tuple[str, ...]] = {
    "stale-quiet": ("5.10-686", "6.1-686"),
    "overrun-quiet": ("5.10-686", "6.1-686"),
    "mismatch-atomic-local": _NEW,
    "mismatch-local-atomic": _NEW,
}
"""Those that no recording of calls and faults shows: another page is written, or the counters of
preemption and page faults are left wrong."""

NOT_KEPT = {"leak-local", "order-local", "double-local", "page-local", "mismatch-kmap-local"}
"""Their recordings are not in samples/: they differ from another in the name of the call."""

_INLINED = {
    "kmap_local_idx_pop": "kunmap_local_indexed",
    "kmap_local_idx_push": "__kmap_local_pfn_prot",
}
"""Functions of mm/highmem.c that are part of another in these kernels (their kallsyms has none)."""


def cases(ways: Iterable[tuple[str, Iterable[str]]]) -> list[tuple[str, str]]:
    """(kernel, misuse) for each kernel that has it."""
    return [(kernel, what) for what, kernels in ways for kernel in kernels]


def agree(finding: Finding, dmesg: str) -> None:
    """What *finding* says that the kernel does is what *dmesg* says that it did."""
    does = finding.kernel_does
    for word, said in (("WARNING", "WARNING: CPU"), ("BUG", "kernel BUG at")):
        places = re.findall(rf"{word} in (\w+)\(\)", does)
        assert bool(places) == (said in dmesg), (does, said)
        for place in places:
            name = _INLINED.get(place, place)
            assert re.search(rf"(EIP:|at \S+) {name}\+", dmesg), name
    if "scheduling while atomic" in dmesg:
        assert "BUG: scheduling while atomic" in does
    elif "scheduling while atomic" in does:
        assert "if it was" in does
    assert "unable to handle page fault" not in dmesg


def faults(trace: Iterable[bytes]) -> list[int]:
    """The addresses of the page faults in kernel mode that a recording shows."""
    pattern = re.compile(rb"page_fault_kernel: address=(\w+)")
    found = []
    for line in trace:
        match = pattern.search(line)
        if match is None:
            continue
        text = match[1].decode()
        found.append(int(text, 16) if text.startswith("0x") else 0)
    return found
