"""Opening an input: plain or compressed, a file or standard input, in bounded memory.

What an input is, its first bytes say and never its name: a recording that somebody
compressed and renamed reads as well as any other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import IO, NamedTuple, Protocol

from highmem.errors import InputError

from .printable import printable

__all__ = ["CHUNK", "ByteSource", "binary_kind", "open_source", "os_error"]

CHUNK = 64 * 1024
"""No chunk is longer than this, however well its input was compressed."""

_HEAD = 16  # bytes: enough for every magic number below
_FEED, _FEW = 512, 64
"""Bytes of compressed input that are unpacked at once, and as long as more than _CALM comes of
them.  Small for two reasons: what a decoder gives for them stays below 16 MiB even where the
input was made to explode (zstd: 128 KiB from 4 bytes), and when it finds damage, only what
these few bytes held is lost.  Were they always as few as that, the calls would cost as much
as the unpacking."""
_CALM = 1 << 18
_ZSTD_WINDOW = 1 << 27  # what `zstd -d` accepts unless told otherwise
_XZ_MEMORY = 1 << 28  # `xz -9` needs a quarter of it

_OTHER_BINARIES: tuple[tuple[bytes, str], ...] = (
    (b"PERFILE2", "perf.data, which is not read; give the text of perf script --header --ns"),
    (b"\x7fELF", "an ELF file (a kernel, a module or a core), not a recording of events"),
    (b"EMiL", "a LiME memory image, not a recording of events"),
    (b"KDUMP   ", "a kdump memory image, not a recording of events"),
    (b"BZh", "compressed with bzip2, which is not read; unpack it first"),
    (b"\x04\x22\x4d\x18", "compressed with lz4, which is not read; unpack it first"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"\x1f\x8b", "compressed twice; unpack it once"),
    (b"\xfd7zXZ\x00", "compressed twice; unpack it once"),
    (b"\x28\xb5\x2f\xfd", "compressed twice; unpack it once"),
)


class _DamagedError(Exception):
    """Compressed data that cannot be followed further; the text says why."""


def os_error(path: str, error: OSError) -> InputError:
    """The one-line error for an operating system's refusal."""
    if isinstance(error, FileNotFoundError):
        return InputError(path, "no such file")
    if isinstance(error, IsADirectoryError):
        return InputError(path, "is a directory; name the recording inside it")
    if isinstance(error, PermissionError):
        return InputError(path, "permission denied; files made from tracefs often belong to root")
    return InputError(path, error.strerror or "cannot be read")


def binary_kind(head: bytes) -> str:
    """What kind of other file begins with *head*, as the end of a sentence, or ``""``."""
    for magic, kind in _OTHER_BINARIES:
        if head.startswith(magic):
            return kind
    return ""


class ByteSource:
    """The unpacked bytes of one input; iterate to get them in chunks, once.

    ``head`` is the beginning of the unpacked bytes (at least 16 where there are so many).
    ``problem`` is empty until the end, then says in one sentence why the bytes broke off,
    if they did.
    """

    def __init__(self, name: str, stream: IO[bytes], *, owned: bool = True) -> None:
        self.name = name
        self._owned = owned
        self.problem = ""
        self._stream = stream
        blocks = _at_least(_HEAD, self._blocks())
        first = next(blocks, b"")
        if not first:
            raise InputError(name, self.problem or "empty: there is nothing in it")
        self._chunks = _at_least(_HEAD, self._unpacked(first, blocks))
        self.head = next(self._chunks, b"")
        if not self.head:
            raise InputError(name, self.problem or "empty: nothing is in it once unpacked")

    def __iter__(self) -> Iterator[bytes]:
        try:
            head, self.head = self.head, b""
            if head:
                yield head
            yield from self._chunks
        finally:
            self.close()

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self._owned:
            self._stream.close()

    def _blocks(self) -> Iterator[bytes]:
        read = getattr(self._stream, "read1", self._stream.read)
        try:
            while block := read(CHUNK):
                yield block
        except OSError as error:
            self.problem = f"reading stopped: {error.strerror or 'input/output error'}"

    def _unpacked(self, first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
        blocks = chain((first,), rest)
        kind = _compression(first)
        try:
            yield from blocks if kind is None else _unpack(blocks, kind)
        except _DamagedError as damaged:
            self.problem = self.problem or str(damaged)


def open_source(path: str | os.PathLike[str]) -> ByteSource:
    """Open *path*, or standard input for ``-``.

    Raises InputError for what cannot be opened, holds nothing, or is compressed so badly
    that not one byte comes out of it.
    """
    text = os.fspath(path)
    if text == "-":
        stdin = getattr(sys.stdin, "buffer", None)
        if stdin is None:
            raise InputError("<stdin>", "standard input is closed")
        return ByteSource("<stdin>", stdin, owned=False)
    name = printable(os.fsencode(text))
    try:
        stream = open(text, "rb")  # noqa: SIM115 - the source closes it
    except OSError as error:
        raise os_error(name, error) from None
    except ValueError:
        raise InputError(name, "no such file: a NUL byte is in its name") from None
    try:
        return ByteSource(name, stream)
    except BaseException:
        stream.close()
        raise


def _at_least(size: int, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """*blocks* with the first few joined until there are *size* bytes: a pipe may give one."""
    first = b""
    for block in blocks:
        first += block
        if len(first) >= size:
            break
    if first:
        yield first[:CHUNK]
    if len(first) > CHUNK:
        yield first[CHUNK:]
    yield from blocks


# -- compression ----------------------------------------------------------------------


class _Decoder(Protocol):
    """One member (gzip), stream (xz) or frame (zstd) of a compressed file."""

    def decompress(self, data: bytes, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


class _Format(NamedTuple):
    name: str
    new: Callable[[], _Decoder]
    error: type[Exception]


def _gzip() -> _Format:
    import zlib  # here and below, so that plain recordings wait for none of them

    return _Format("gzip", lambda: zlib.decompressobj(wbits=31), zlib.error)


def _xz() -> _Format:
    import lzma

    new = partial(lzma.LZMADecompressor, format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    return _Format("xz", new, lzma.LZMAError)


def _zstd() -> _Format:
    import zstandard

    inner = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    return _Format("zstd", inner.decompressobj, zstandard.ZstdError)


def _compression(first: bytes) -> _Format | None:
    """How a file that begins with *first* is compressed."""
    if first.startswith(b"\x1f\x8b\x08"):
        return _gzip()
    if first.startswith(b"\xfd7zXZ\x00"):
        return _xz()
    # Zstandard has skippable frames, 0x184d2a50 to 0x184d2a5f; pzstd begins with one.
    skippable = first[1:4] == b"\x2a\x4d\x18" and first[0] >> 4 == 5
    return _zstd() if skippable or first.startswith(b"\x28\xb5\x2f\xfd") else None


def _unpack(blocks: Iterable[bytes], kind: _Format) -> Iterator[bytes]:
    """The plain bytes of *blocks* in chunks; raises _DamagedError after the last good one."""
    pieces: list[bytes] = []
    size = 0
    damaged: _DamagedError | None = None
    try:
        for piece in _pieces(blocks, kind):
            pieces.append(piece)
            size += len(piece)
            if size >= CHUNK:
                whole = b"".join(pieces)
                cut = size - size % CHUNK
                yield from (whole[at : at + CHUNK] for at in range(0, cut, CHUNK))
                pieces, size = [whole[cut:]], size - cut
    except _DamagedError as error:
        damaged = error
    if size:
        yield b"".join(pieces)
    if damaged is not None:
        raise damaged


def _pieces(blocks: Iterable[bytes], kind: _Format) -> Iterator[bytes]:
    decoder = kind.new()
    begun = False  # something of the current member was seen
    members = 0  # that were read to their end
    step = _FEW
    try:
        for block in blocks:
            at = 0
            while at < len(block):
                data = block[at : at + step]
                at += step
                while data:
                    if members and not begun:
                        data = data.lstrip(b"\0")  # padding between members
                        if not data:
                            break
                    begun = True
                    piece = decoder.decompress(data)
                    step = _FEED if len(piece) <= _CALM else _FEW
                    yield piece
                    data = b""
                    if decoder.eof:
                        data = decoder.unused_data
                        decoder, begun, members = kind.new(), False, members + 1
    except kind.error as error:
        what = "is damaged" if not members else "is followed by something else, or is damaged"
        raise _DamagedError(f"the {kind.name} data {what}: {printable(str(error), 80)}") from None
    if begun:
        raise _DamagedError(f"the {kind.name} data ends too early (an interrupted copy?)")
