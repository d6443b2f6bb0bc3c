"""One page of a kdump, unpacked: exactly 4096 bytes, or an error; never more memory than that."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from highmem.compiled import load
from highmem.image.formats.source import FRAME_SIZE

__all__ = ["PACKINGS", "UNPACKED_LIMIT", "PageDamagedError", "unpacker"]

PACKINGS = {0x0: "none", 0x1: "zlib", 0x2: "lzo", 0x4: "snappy", 0x20: "zstd"}
"""The flags of a page descriptor (DUMP_DH_COMPRESSED_* of makedumpfile)."""

UNPACKED_LIMIT = 2 * FRAME_SIZE
"""No packing makes a page longer than this; a descriptor that says so is damaged."""


class PageDamagedError(Exception):
    """The packed bytes do not give a page."""


def unpacker(name: str) -> Callable[[bytes], bytes]:
    """The function that unpacks a page packed with *name*; it raises PageDamagedError."""
    if name == "zlib":
        return _zlib
    if name == "zstd":
        return _zstd()
    if name == "none":
        return _whole
    # Compiled where it is; both take and give bytearrays because C needs something writable.
    inner = getattr(load("highmem.image.formats._unpack"), "lzo1x" if name == "lzo" else "snappy")

    def unpack(data: bytes) -> bytes:
        page = bytearray(FRAME_SIZE)
        if inner(bytearray(data), page) != FRAME_SIZE:
            raise PageDamagedError
        return bytes(page)

    return unpack


def _whole(data: bytes) -> bytes:
    if len(data) != FRAME_SIZE:
        raise PageDamagedError
    return data


def _zlib(data: bytes) -> bytes:
    inner = zlib.decompressobj()
    try:
        page = inner.decompress(data, FRAME_SIZE + 1)
    except zlib.error:
        raise PageDamagedError from None
    if len(page) != FRAME_SIZE or not inner.eof:
        raise PageDamagedError
    return page


def _zstd() -> Callable[[bytes], bytes]:
    import zstandard  # here, so that other images do not wait for it

    inner = zstandard.ZstdDecompressor(max_window_size=1 << 20)

    def unpack(data: bytes) -> bytes:
        try:
            # A frame that announces its size makes the library take that much at once.
            if zstandard.frame_content_size(data) > FRAME_SIZE:
                raise PageDamagedError
            page = inner.decompress(data, max_output_size=FRAME_SIZE)
        except zstandard.ZstdError:
            raise PageDamagedError from None
        if len(page) != FRAME_SIZE:
            raise PageDamagedError
        return page

    return unpack
