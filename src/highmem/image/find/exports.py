"""Exported symbols of a kernel, read out of an image: ``__ksymtab`` and its strings.

They include the data that a module may use, which a kallsyms without CONFIG_KALLSYMS_ALL lacks:
``mem_map``, ``high_memory``, ``__per_cpu_offset``, ``__kmap_atomic_idx``, ``current_task``.
An entry (``include/linux/export.h``) is a value, a name and, from 5.4 on, a namespace: as
distances from each field's own place (CONFIG_HAVE_ARCH_PREL32_RELOCATIONS, 4.19 on), before as
addresses.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

__all__ = ["find_exports"]

_MASK = 0xFFFFFFFF


def find_exports(rodata: npt.NDArray[np.uint8], base: int, names: Iterable[str]) -> dict[str, int]:
    """The values of those *names* that are exported.

    *rodata* is the kernel's read-only part, its first byte at virtual address *base*.  A name
    that is found with two values is left out.
    """
    raw = rodata.tobytes()
    places: dict[int, str] = {}
    for name in names:
        needle = b"\0" + name.encode() + b"\0"
        at = raw.find(needle)
        while at >= 0:
            places[(base + at + 1) & _MASK] = name
            at = raw.find(needle, at + 1)
    words = rodata[: len(rodata) & ~3].view("<u4")
    own = np.uint32(base & _MASK) + np.arange(len(words), dtype=np.uint32) * np.uint32(4)
    found: dict[str, set[int]] = {}
    if not places:
        return {}
    lowest, span = np.uint32(min(places)), np.uint32(max(places) - min(places))
    for target in (words + own, words):
        # All names stand close together; subtraction wraps, so one comparison has both ends.
        for at in np.flatnonzero(target - lowest <= span).tolist():
            named = places.get(int(target[at]))
            value = int(target[at - 1]) if at else 0
            if named is not None and value >= base:
                found.setdefault(named, set()).add(value)
        if found:
            break
    return {name: values.pop() for name, values in found.items() if len(values) == 1}
