"""Facts that only the kernel's machine code tells: where its static variables are.

``pkmap_count`` and ``last_pkmap_nr`` are static in ``mm/highmem.c``, and the place of
``kmap_ctrl`` in ``struct task_struct`` depends on the configuration.  Functions that use them
have names in kallsyms, and an instruction holds an address or a displacement as four plain
bytes.  Nothing is disassembled: what fits is collected from several functions, and counts only
if they agree on one value.  Encodings: Intel SDM volume 2, tables 2-2 and 2-3.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable

__all__ = ["find_kmap_ctrl", "find_last_pkmap_nr", "find_pkmap_count", "find_window_bounds"]

Code = Callable[[str], bytes]
"""The bytes of a function by its name; empty if there is none."""

# [index * 4 + disp32]: ModRM with mod 00 and rm 100, SIB with scale 4 and base 101.
_ARRAY = re.compile(
    rb"(?=[\x04\x0c\x14\x1c\x24\x2c\x34\x3c][\x85\x8d\x95\x9d\xad\xb5\xbd](.{4}))", re.S
)
# [register + disp32]: ModRM with mod 10 and rm other than 100.
_FIELD = re.compile(
    rb"(?=[\x80-\x83\x85-\x8b\x8d-\x93\x95-\x9b\x9d-\xa3\xa5-\xab\xad-\xb3\xb5-\xbb\xbd-\xbf](.{4}))",
    re.S,
)
# FIXADDR_TOP less a constant: lea with a negative displacement, or sub.
_LESS = re.compile(
    rb"(?=\x8d[\x80-\x83\x85-\x8b\x8d-\x93\x95-\x9b\x9d-\xa3\xa5-\xab\xad-\xb3\xb5-\xbb\xbd-\xbf](.{4}))",
    re.S,
)
_SUB = re.compile(rb"(?=(?:\x2d|\x81[\xe8-\xef])(.{4}))", re.S)


def _values(pattern: re.Pattern[bytes], code: bytes) -> list[int]:
    return [int(struct.unpack("<I", found[1])[0]) for found in pattern.finditer(code)]


def _agreed(sets: Iterable[set[int]]) -> set[int]:
    """What all sets that hold anything have in common; nothing if fewer than two do."""
    full = [values for values in sets if values]
    return set.intersection(*full) if len(full) > 1 else set()


def find_pkmap_count(code: Code, data: range) -> int | None:
    """The address of ``pkmap_count``: the array of words that kmap and kunmap share.

    *data* are the addresses of the kernel's variables.
    """
    found = _agreed(
        {value for value in _values(_ARRAY, code(name)) if value in data and value % 4 == 0}
        for name in ("kunmap_high", "kmap_high")
    )
    # The flush may step through the array with a pointer; its address is in there all the same.
    flush = code("flush_all_zero_pkmaps")
    if len(found) > 1:
        found = {value for value in found if struct.pack("<I", value) in flush}
    return found.pop() if len(found) == 1 else None


def find_last_pkmap_nr(code: Code, data: range, last_pkmap: int) -> int | None:
    """The address of ``last_pkmap_nr``: what ``kmap_high`` loads, masks with LAST_PKMAP - 1 and
    stores again."""
    body = code("kmap_high")
    mask = re.escape(struct.pack("<I", last_pkmap - 1))
    stored = re.compile(
        rb"(?:\x81[\xe0-\xe7]|\x25)" + mask
        + rb".{0,8}?(?:\x89[\x05\x0d\x15\x1d\x2d\x35\x3d]|\xa3)(.{4})", re.S,
    )  # fmt: skip
    found = set()
    for value in _values(stored, body):
        loaded = rb"(?:\x8b[\x05\x0d\x15\x1d\x2d\x35\x3d]|\xa1)" + re.escape(
            struct.pack("<I", value)
        )
        if value in data and value % 4 == 0 and re.search(loaded, body, re.S):
            found.add(value)
    return found.pop() if len(found) == 1 else None


def find_kmap_ctrl(code: Code) -> int | None:
    """The offset of ``kmap_ctrl.idx`` in ``struct task_struct`` (5.11 on).

    The first field that ``kmap_local_fork`` reads, if the switch of tasks and the unmap use the
    same one.
    """
    users = ("kmap_local_fork", "__kmap_local_sched_out", "__kmap_local_sched_in",
             "kunmap_local_indexed")  # fmt: skip
    fields = [_values(_FIELD, code(name)) for name in users]
    shared = _agreed({value for value in values if 0 < value < 1 << 14} for values in fields)
    first = [value for value in fields[0] if value in shared and value % 4 == 0]
    return first[0] if first else None


def find_window_bounds(code: Code) -> tuple[int, int] | None:
    """FIX_KMAP_BEGIN and FIX_KMAP_END, from the test of an address against all windows.

    ``kunmap_local_indexed`` (5.11 on) and ``kunmap_atomic_high`` (before: ``__kunmap_atomic``)
    subtract both from FIXADDR_TOP, in pages; the distances are the only constants of that size.
    """
    for name in ("kunmap_local_indexed", "kunmap_atomic_high", "__kunmap_atomic"):
        body = code(name)
        distances = [-value & 0xFFFFFFFF for value in _values(_LESS, body)]
        distances += _values(_SUB, body)
        pages = {d >> 12 for d in distances if 0 < d < 8 << 20 and d % 4096 == 0}
        if len(pages) == 2:
            begin, end = sorted(pages)
            return begin, end
    return None
