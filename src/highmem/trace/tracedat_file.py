"""Reading at places of a trace.dat, with nothing allocated because the file says so."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Literal, Protocol

from highmem.errors import InputError

from .source import ByteSource

__all__ = ["BrokenError", "Codec", "CompressedPages", "Cursor", "DatFile", "Memory", "RawPages"]

_SECTION_LIMIT = 1 << 26
"""Bytes of one section once unpacked; kallsyms of a large kernel are 16 MiB."""
_CHUNK_LIMIT = 1 << 26
_SPOOL_LIMIT = 1 << 36
_STRING_LIMIT = 4096
_WINDOW = 1 << 23  # what `zstd -19` needs; trace-cmd compresses by 40 KiB
_PIECE = 1 << 22


class BrokenError(Exception):
    """The bytes of a file contradict its format; the text says how."""


class _Region(Protocol):
    size: int

    def read(self, at: int, size: int) -> bytes: ...


class Memory:
    """Bytes in memory, to be read at places."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, at: int, size: int) -> bytes:
        """At most *size* bytes from *at* on."""
        return self._data[at : at + size]


class DatFile:
    """A file that can be read at places; what cannot (a pipe) is copied to one first."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.problem = ""
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    @classmethod
    def of(cls, source: ByteSource, path: str, magic: bytes) -> DatFile:
        """The file *path* of which *source* was made, or a copy of what is in *source*.

        A copy is made of a pipe and of a compressed file: that does not begin with *magic*.
        """
        if path != "-":
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                descriptor = -1
            if descriptor >= 0:
                regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
                if regular and os.pread(descriptor, len(magic), 0) == magic:
                    source.close()
                    return cls(source.name, descriptor)
                os.close(descriptor)
        return cls._copy(source)

    @classmethod
    def _copy(cls, source: ByteSource) -> DatFile:
        import tempfile  # here: it is slow to import, and files need none

        with tempfile.TemporaryFile() as copy:
            try:
                for chunk in source:
                    copy.write(chunk)
                    if copy.tell() > _SPOOL_LIMIT:
                        raise InputError(source.name, f"longer than {_SPOOL_LIMIT} bytes unpacked")
                copy.flush()
            except OSError as error:
                cause = error.strerror or "the disk is full?"
                raise InputError(source.name, f"cannot be copied to unpack it: {cause}") from None
            file = cls(source.name, os.dup(copy.fileno()))
        file.problem = source.problem
        return file

    def read(self, at: int, size: int) -> bytes:
        """At most *size* bytes from *at* on."""
        size = min(size, self.size - at)
        if at < 0 or size <= 0 or self._descriptor < 0:
            return b""
        try:
            return os.pread(self._descriptor, size, at)
        except OSError as error:
            self.problem = f"reading stopped: {error.strerror or 'input/output error'}"
            return b""

    def close(self) -> None:
        """Close it; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Cursor:
    """Numbers and strings of a file, one after the other.  Raises BrokenError.

    With *ahead* so many bytes are read at once, for whoever takes many small parts.
    """

    def __init__(self, region: _Region, at: int, end: int, order: str, ahead: int = 0) -> None:
        self.region = region
        self.at = at
        self.end = min(end, region.size)
        self._ahead = ahead
        self._held = b""
        self._held_at = 0
        self.order: Literal["little", "big"] = "big" if order == "big" else "little"

    def take(self, size: int) -> bytes:
        """The next *size* bytes."""
        if size > self.end - self.at:
            raise BrokenError(f"it ends inside a part of {size} bytes at {self.at:#x}")
        data = self._read_ahead(size) if size < self._ahead else self.region.read(self.at, size)
        if len(data) < size:
            raise BrokenError(f"it cannot be read at {self.at:#x}")
        self.at += size
        return data

    def _read_ahead(self, size: int) -> bytes:
        """The next *size* bytes, out of more that are read at once."""
        start = self.at - self._held_at
        if start < 0 or start + size > len(self._held):
            most = min(self._ahead, self.end - self.at)
            self._held, self._held_at, start = self.region.read(self.at, most), self.at, 0
        return self._held[start : start + size]

    def skip(self, size: int) -> int:
        """Go on behind the next *size* bytes; where they begin."""
        if size > self.end - self.at:
            raise BrokenError(f"it ends inside a part of {size} bytes at {self.at:#x}")
        at = self.at
        self.at += size
        return at

    def number(self, size: int) -> int:
        """An unsigned number of *size* bytes."""
        return int.from_bytes(self.take(size), self.order)

    def string(self) -> bytes:
        """Bytes up to a NUL, without it."""
        data = self.region.read(self.at, min(_STRING_LIMIT, self.end - self.at))
        text, nul, _ = data.partition(b"\0")
        if not nul:
            raise BrokenError(f"a text at {self.at:#x} has no end")
        self.at += len(text) + 1
        return text

    def sized(self, size: int, limit: int = _SECTION_LIMIT) -> bytes:
        """A number of *size* bytes and as many bytes as it says, *limit* at most."""
        length = self.number(size)
        if length > limit:
            raise BrokenError(f"a part of it would be {length} bytes long")
        return self.take(length)


class _Unpacker(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Zlib:
    """One zlib stream, read in pieces."""

    def __init__(self, data: bytes) -> None:
        import zlib  # here, so that other recordings do not wait for it

        self._data = data
        self._inner = zlib.decompressobj()
        self._error = zlib.error

    def read(self, size: int, /) -> bytes:
        try:
            piece = self._inner.decompress(self._data, size)
        except self._error as error:
            raise BrokenError(str(error)) from None
        self._data = self._inner.unconsumed_tail
        return piece


class _Zstd:
    """One zstd frame, read in pieces."""

    def __init__(self, reader: _Unpacker, error: type[Exception]) -> None:
        self._reader = reader
        self._error = error

    def read(self, size: int, /) -> bytes:
        try:
            return self._reader.read(size)
        except self._error as error:
            raise BrokenError(str(error)) from None


class Codec:
    """How a file is compressed, by the *name* that trace-cmd gives it.

    What one codec opened must be read before it opens the next.
    """

    def __init__(self, name: bytes) -> None:
        self.known = name in (b"none", b"", b"zlib", b"zstd")
        self._name = name
        self._zstd: Callable[[bytes], _Unpacker] | None = None
        self._once: Callable[..., bytes] | None = None

    def fresh(self) -> Codec:
        """Another one for the same file."""
        return Codec(self._name)

    def open(self, data: bytes) -> _Unpacker:
        """What *data* unpacks to."""
        if self._name == b"zlib":
            return _Zlib(data)
        if self._name == b"zstd":
            import zstandard  # here, so that other recordings do not wait for it

            if self._zstd is None:
                inner = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
                self._zstd = inner.stream_reader
            return _Zstd(self._zstd(data), zstandard.ZstdError)
        raise BrokenError("a part of it is compressed, and its header does not say how")

    def whole(self, data: bytes, size: int) -> bytes | None:
        """What *data* unpacks to at once, if that are *size* bytes; else it has to be read in
        pieces."""
        if self._name != b"zstd":
            return None
        import zstandard

        if self._once is None:
            self._once = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompress
        try:
            if zstandard.frame_content_size(data) not in (size, -1):
                return None
            # -1: the frame does not say, so there is room for as many and no more.
            chunk = self._once(data, max_output_size=size)
        except zstandard.ZstdError:
            return None
        return chunk if len(chunk) == size else None

    def block(self, cursor: Cursor) -> bytes:
        """A compressed block: two sizes, then the data of the first."""
        packed, plain = cursor.number(4), cursor.number(4)
        if plain > _SECTION_LIMIT:
            raise BrokenError(f"a section of it would be {plain} bytes long")
        unpacker = self.open(cursor.take(packed))
        pieces, size = [], 0
        while size < plain:
            piece = unpacker.read(min(plain - size, _PIECE))
            if not piece:
                raise BrokenError(f"a section of it ends after {size} of {plain} bytes")
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)


class RawPages:
    """The sub-buffers of one CPU as they lie in a file."""

    def __init__(self, region: _Region, cpu: int, at: int, size: int) -> None:
        self.cpu = cpu
        self.gap = False
        self.problem = ""
        self._region = region
        self._at = at
        self._end = at + size
        if self._end > region.size:
            missing = self._end - max(region.size, at)
            self.problem = f"the file ends {missing} bytes before its data does"
            self._end = region.size

    def read(self, size: int) -> bytes:
        """The next *size* bytes; fewer only at the end."""
        data = self._region.read(self._at, min(size, self._end - self._at))
        self._at += len(data)
        if len(data) < size and self._at < self._end:
            self.problem = "its data cannot be read to its end"
            self._at = self._end
        return data


class CompressedPages:
    """The same, compressed in chunks; a damaged chunk is a gap, those after it are read."""

    def __init__(self, cursor: Cursor, cpu: int, codec: Codec, page_size: int) -> None:
        self.cpu = cpu
        self.gap = False
        self.problem = ""
        self._cursor = cursor
        self._order = cursor.order
        self._codec = codec.fresh()
        self._page_size = page_size
        self._unpacker: _Unpacker | None = None
        self._left = 0  # bytes that the current chunk still has to give
        self._broken = False  # the next read begins behind a damaged chunk
        try:
            self._chunks = cursor.number(4)
        except BrokenError as error:
            self._chunks = 0
            self.problem = str(error)

    def read(self, size: int) -> bytes:
        """The next bytes, at most *size*; none at the end."""
        self.gap, self._broken = self._broken, False
        if self._unpacker is None and self._chunks:
            chunk = self._chunk(size)
            if chunk:
                return chunk
        pieces: list[bytes] = []
        have = 0
        while have < size and (self._unpacker is not None or self._chunks):
            try:
                piece = self._piece(size - have)
            except BrokenError as error:
                self.problem = f"a chunk of its data is damaged: {error}"
                self._unpacker = None
                have -= have % self._page_size  # only whole sub-buffers can be used
                if have:
                    self._broken = True
                    return b"".join(pieces)[:have]
                self.gap = True
                pieces.clear()
            else:
                pieces.append(piece)
                have += len(piece)
        return b"".join(pieces)

    def _chunk(self, size: int) -> bytes | None:
        """The next chunk, if it is a plain one of whole sub-buffers that has room in *size*."""
        before, chunks = self._cursor.at, self._chunks
        try:
            data = self._packed()
            whole = self._left <= size and self._left % self._page_size == 0
            chunk = self._codec.whole(data, self._left) if whole else None
        except BrokenError:
            chunk = None
        if chunk is None:
            self._cursor.at, self._chunks, self._left = before, chunks, 0
        else:
            self._left = 0
        return chunk

    def _packed(self) -> bytes:
        """The next chunk as it is in the file."""
        self._chunks -= 1
        sizes = self._cursor.take(8)
        packed, self._left = (int.from_bytes(part, self._order) for part in (sizes[:4], sizes[4:]))
        if packed > _CHUNK_LIMIT:
            raise BrokenError(f"it would be {packed} bytes long")
        return self._cursor.take(packed)

    def _piece(self, size: int) -> bytes:
        """Some bytes of the current chunk, or of the next."""
        if self._unpacker is None:
            try:
                data = self._packed()
            except BrokenError:
                self._chunks = 0  # where the next one begins is not known either
                raise
            self._unpacker = self._codec.open(data)
        piece = self._unpacker.read(min(size, self._left)) if self._left else b""
        self._left -= len(piece)
        if not piece:
            self._unpacker = None
            if self._left:
                raise BrokenError(f"it ends {self._left} bytes too early")
        return piece
