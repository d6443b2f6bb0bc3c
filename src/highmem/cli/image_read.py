"""``highmem image read``: bytes of an image, as hex, as they are, or as text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from highmem.cli.output import open_binary, open_output
from highmem.errors import UsageError
from highmem.trace.printable import printable

if TYPE_CHECKING:
    from highmem.image.view import ImageKernel

__all__ = ["hex_lines", "read_bytes", "write_bytes"]

_MOST = 1 << 30
"""Bytes that one command reads: what is larger belongs into a copy of the image."""


def read_bytes(kernel: ImageKernel, address: int, size: int, *, physical: bool) -> bytes:
    """*size* bytes at a linear or physical address.  UsageError for too many of them."""
    if size > _MOST:
        raise UsageError(f"{size:#x} bytes are more than can be read at once ({_MOST:#x})")
    return kernel.source.read(address, size) if physical else kernel.read(address, size)


def write_bytes(
    data: bytes, address: int, *, form: str, output: str | None, as_string: bool
) -> None:
    """Write what was read; raw bytes never to a terminal (UsageError)."""
    if as_string:
        data = data.partition(b"\0")[0]
    if form == "raw":
        if output is not None and output != "-":
            with open_binary(output) as file:
                file.write(data)
            return
        if sys.stdout.isatty():
            raise UsageError("raw bytes are not for a terminal: -o FILE, or a pipe")
        sys.stdout.buffer.write(data)
        return
    with open_output(output) as stream:
        if form == "json":
            document: dict[str, object] = {"address": f"{address:#x}", "size": len(data)}
            document["string" if as_string else "hex"] = (
                printable(data) if as_string else data.hex()
            )
            stream.write(json.dumps(document) + "\n")
        elif as_string:
            stream.write(printable(data) + "\n")
        else:
            for line in hex_lines(data, address):
                stream.write(line + "\n")


def hex_lines(data: bytes, address: int) -> Iterator[str]:
    """Sixteen bytes a line: address, hex, and the printable ASCII characters."""
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{address + at:08x}  {row[:8].hex(' '):23}  {row[8:].hex(' '):23}  |{text}|"
