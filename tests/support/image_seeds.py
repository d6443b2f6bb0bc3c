"""A small valid image of each format: what damage and fuzzing start from."""

from __future__ import annotations

import gzip

import zstandard

from support.image_writers import (
    Kdump,
    elf_core,
    flattened,
    lime,
    note,
    prstatus,
    qemu_state,
)

__all__ = ["SEEDS"]

_TEXT = b"what a frame holds, again and again; " * 240
_PAGES = {number: (b"%04d" % number + _TEXT)[:4096] for number in (0, 1, 2, 5, 9)}
_PAGES[3] = bytes(4096)
_NOTES = (
    prstatus(1, eip=0xC1000000)
    + qemu_state(0x80000011, 0, 0x1000, 0x10)
    + note(b"VMCOREINFO", 0, b"OSRELEASE=6.1\nPAGESIZE=4096\n")
)
_RANGES = ((0, _TEXT[:1000]), (0x1000, _TEXT[:4096]), (0x8000, _TEXT[:8192]))

SEEDS: dict[str, bytes] = {
    "raw": _TEXT[:5000],
    "lime": lime(*_RANGES),
    "elf32": elf_core(*_RANGES, notes=_NOTES, linear=0xC0000000),
    "elf64": elf_core(*_RANGES, bits=64, notes=_NOTES, beyond=0x1000),
    "kdump-zlib": Kdump(_PAGES, notes=_NOTES, vmcoreinfo=b"A=1\n", release=b"6.1").build(),
    "kdump-lzo": Kdump(_PAGES, packing="lzo", bits=64, machine=b"x86_64").build(),
    "kdump-snappy": Kdump(_PAGES, packing="snappy", version=3).build(),
    "kdump-zstd": Kdump(_PAGES, packing="zstd", split=(1, 9)).build(),
    "flattened": flattened(Kdump(_PAGES).build()),
    "gzip": gzip.compress(lime(*_RANGES), mtime=0),
    "zstd": zstandard.ZstdCompressor().compress(elf_core(*_RANGES)),
}
"""By a name for the shell; each opens, and holds some of the same pages."""
