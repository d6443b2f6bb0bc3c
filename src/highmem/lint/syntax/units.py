"""Sizes of C types, as far as they are the same on every 32-bit machine."""

from __future__ import annotations

import re

__all__ = ["element_size", "size_of"]

_SIZES = {  # table
    "char": 1, "u8": 1, "__u8": 1, "s8": 1, "uint8_t": 1, "int8_t": 1, "void": 1, "bool": 1,
    "unsigned char": 1, "signed char": 1, "uint8": 1, "uchar": 1, "u_char": 1,
    "short": 2, "unsigned short": 2, "u16": 2, "__u16": 2, "__le16": 2, "__be16": 2, "s16": 2,
    "uint16_t": 2, "int": 4, "unsigned int": 4, "unsigned": 4, "u32": 4, "__u32": 4, "__le32": 4,
    "__be32": 4, "s32": 4, "uint32_t": 4, "int32_t": 4, "long": 4, "unsigned long": 4,
    "u64": 8, "__u64": 8, "__le64": 8, "__be64": 8, "s64": 8, "uint64_t": 8, "int64_t": 8,
    "long long": 8, "unsigned long long": 8, "size_t": 4,
}  # fmt: skip


def size_of(kind: str) -> int | None:
    """Bytes of a type, or None where that cannot be told."""
    kind = re.sub(r"\b(?:const|volatile)\b", "", kind).strip().strip("()").strip()
    if kind.endswith("*"):
        return 4
    return _SIZES.get(" ".join(kind.split()))


def element_size(pointer: str) -> int:
    """Bytes that one step of a pointer of that type goes at least."""
    if pointer[-1:] not in ("*", "]"):
        return 1
    return size_of(re.sub(r"\s*(\*|\[\])$", "", pointer)) or 1
