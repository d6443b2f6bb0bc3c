"""Physical memory: sparse, little endian, byte addressed.

Memory is kept in frames of 4 KiB that come into being when they are first written, so that a
machine of 64 GiB costs only what was touched. A frame never written reads as the fill byte
(zero unless asked otherwise). A backing buffer or file lies under the first addresses; its frames
are used in place and never copied.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import Protocol

from highmem.errors import BusError, InputError, MachineError

__all__ = ["FRAME_SHIFT", "FRAME_SIZE", "PhysicalMemory", "ReadableBuffer"]

FRAME_SHIFT = 12
"""A frame is 4 KiB: the grain of paging on x86, and of the sparse storage here."""

FRAME_SIZE = 1 << FRAME_SHIFT

_OFFSET_MASK = FRAME_SIZE - 1
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class ReadableBuffer(Protocol):
    """Anything with the buffer protocol: bytes, bytearray, mmap, memoryview, an array."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


class PhysicalMemory:
    """``size`` bytes of physical memory; only what is touched takes room.

    ``backing`` supplies the content of the first addresses and is written through when it is
    writable; writing over a read-only backing is a :class:`MachineError`. ``free_page_fill``
    is the byte that memory never written reads as. Addresses beyond ``size`` raise
    :class:`BusError`; an access may be unaligned and may cross frames.
    """

    __slots__ = ("_backing", "_fill", "_frames", "_views", "size")

    def __init__(
        self, size: int, *, backing: ReadableBuffer | None = None, free_page_fill: int = 0
    ) -> None:
        if size <= 0:
            raise MachineError(f"a physical memory of {size} bytes makes no sense")
        if not 0 <= free_page_fill <= 0xFF:
            raise MachineError(f"the fill of free pages is one byte, not {free_page_fill:#x}")
        self.size = size
        self._fill = bytes([free_page_fill]) * FRAME_SIZE
        # Frames that exist, by frame number. Both kinds of frame answer to struct and slices.
        self._frames: dict[int, bytearray | memoryview] = {}
        # The backing's part of the frames, cut on first use.
        self._views = 0
        self._backing = memoryview(b"") if backing is None else memoryview(backing).cast("B")
        if len(self._backing) > size:
            raise MachineError(
                f"a backing of {len(self._backing):#x} bytes does not fit a memory of {size:#x}"
            )
        if len(self._backing) < size and len(self._backing) % FRAME_SIZE:
            raise MachineError(
                f"a backing of {len(self._backing):#x} bytes ends inside a frame, "
                "so no memory can follow it"
            )

    @classmethod
    def from_buffer(cls, buffer: ReadableBuffer) -> PhysicalMemory:
        """A memory that is ``buffer``: same size, same bytes, written through if writable."""
        return cls(memoryview(buffer).nbytes, backing=buffer)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, writable: bool = False, copy_on_write: bool = False
    ) -> PhysicalMemory:
        """A memory over the bytes of a raw image, address 0 first.

        The file is mapped, not read. Writes are refused, or reach the file (``writable``), or
        stay private to this object (``copy_on_write``, which wins). A file that cannot be
        mapped raises :class:`InputError`.
        """
        access = mmap.ACCESS_READ
        if copy_on_write:
            access = mmap.ACCESS_COPY
        elif writable:
            access = mmap.ACCESS_WRITE
        try:
            with open(path, "r+b" if access == mmap.ACCESS_WRITE else "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=access)
        except (OSError, ValueError) as error:
            cause = "the file is empty" if isinstance(error, ValueError) else str(error.strerror)
            raise InputError(os.fspath(path), cause) from error
        return cls(len(mapped), backing=mapped)

    @property
    def touched_bytes(self) -> int:
        """Bytes of storage that this memory itself allocated (a backing is not counted)."""
        return (len(self._frames) - self._views) * FRAME_SIZE

    def touched_frames(self) -> Iterator[int]:
        """The numbers of the frames that this memory allocated, in ascending order."""
        frames = self._frames
        return iter(sorted(n for n, frame in frames.items() if isinstance(frame, bytearray)))

    def read8(self, address: int) -> int:
        """The byte at ``address``."""
        frame = self._frames.get(address >> FRAME_SHIFT)
        if frame is None:
            return self._slow_read(address, 1)
        if address >= self.size:
            raise BusError(address, self.size)
        return frame[address & _OFFSET_MASK]

    def read16(self, address: int) -> int:
        """The little-endian 16-bit word at ``address``."""
        frame = self._frames.get(address >> FRAME_SHIFT)
        offset = address & _OFFSET_MASK
        if frame is None or offset > FRAME_SIZE - 2 or address + 2 > self.size:
            return self._slow_read(address, 2)
        value: int = _U16.unpack_from(frame, offset)[0]
        return value

    def read32(self, address: int) -> int:
        """The little-endian 32-bit word at ``address``."""
        frame = self._frames.get(address >> FRAME_SHIFT)
        offset = address & _OFFSET_MASK
        if frame is None or offset > FRAME_SIZE - 4 or address + 4 > self.size:
            return self._slow_read(address, 4)
        value: int = _U32.unpack_from(frame, offset)[0]
        return value

    def read64(self, address: int) -> int:
        """The little-endian 64-bit word at ``address``."""
        frame = self._frames.get(address >> FRAME_SHIFT)
        offset = address & _OFFSET_MASK
        if frame is None or offset > FRAME_SIZE - 8 or address + 8 > self.size:
            return self._slow_read(address, 8)
        value: int = _U64.unpack_from(frame, offset)[0]
        return value

    def write8(self, address: int, value: int) -> None:
        """Store the low byte of ``value`` at ``address``."""
        frame = self._frames.get(address >> FRAME_SHIFT)
        if frame is None or address >= self.size or frame.__class__ is not bytearray:
            self._slow_write(address, value, 1)
        else:
            frame[address & _OFFSET_MASK] = value & 0xFF

    def write16(self, address: int, value: int) -> None:
        """Store the low 16 bits of ``value``, little endian, at ``address``."""
        frame = self._frames.get(address >> FRAME_SHIFT)
        offset = address & _OFFSET_MASK
        if frame.__class__ is not bytearray or offset > FRAME_SIZE - 2 or address + 2 > self.size:
            self._slow_write(address, value, 2)
        else:
            _U16.pack_into(frame, offset, value & 0xFFFF)

    def write32(self, address: int, value: int) -> None:
        """Store the low 32 bits of ``value``, little endian, at ``address``."""
        frame = self._frames.get(address >> FRAME_SHIFT)
        offset = address & _OFFSET_MASK
        if frame.__class__ is not bytearray or offset > FRAME_SIZE - 4 or address + 4 > self.size:
            self._slow_write(address, value, 4)
        else:
            _U32.pack_into(frame, offset, value & 0xFFFFFFFF)

    def write64(self, address: int, value: int) -> None:
        """Store the low 64 bits of ``value``, little endian, at ``address``."""
        frame = self._frames.get(address >> FRAME_SHIFT)
        offset = address & _OFFSET_MASK
        if frame.__class__ is not bytearray or offset > FRAME_SIZE - 8 or address + 8 > self.size:
            self._slow_write(address, value, 8)
        else:
            _U64.pack_into(frame, offset, value & 0xFFFFFFFFFFFFFFFF)

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes from ``address``; reading allocates nothing."""
        self._check(address, length)
        pieces = []
        while length:
            offset = address & _OFFSET_MASK
            count = min(length, FRAME_SIZE - offset)
            frame = self._existing(address >> FRAME_SHIFT)
            pieces.append(bytes((self._fill if frame is None else frame)[offset : offset + count]))
            address += count
            length -= count
        return b"".join(pieces)

    def write(self, address: int, data: ReadableBuffer) -> None:
        """Store the bytes of ``data`` from ``address`` on; nothing is stored on a BusError."""
        view = memoryview(data).cast("B")
        self._check(address, len(view))
        done = 0
        while done < len(view):
            offset = (address + done) & _OFFSET_MASK
            count = min(len(view) - done, FRAME_SIZE - offset)
            frame = self._writable((address + done) >> FRAME_SHIFT)
            frame[offset : offset + count] = view[done : done + count]
            done += count

    def _check(self, address: int, length: int) -> None:
        """Refuse what is not wholly inside the memory, naming the first byte beyond it."""
        if length < 0:
            raise MachineError(f"cannot access {length} bytes")
        if address < 0 or address + length > self.size:
            raise BusError(address if address < 0 else max(address, self.size), self.size)

    def _slow_read(self, address: int, length: int) -> int:
        return int.from_bytes(self.read(address, length), "little")

    def _slow_write(self, address: int, value: int, length: int) -> None:
        mask = (1 << (8 * length)) - 1
        self.write(address, (value & mask).to_bytes(length, "little"))

    def _existing(self, number: int) -> bytearray | memoryview | None:
        """Frame ``number`` if it has storage, without allocating any."""
        frame = self._frames.get(number)
        start = number << FRAME_SHIFT
        if frame is None and start < len(self._backing):
            frame = self._backing[start : start + FRAME_SIZE]
            self._frames[number] = frame
            self._views += 1
        return frame

    def _writable(self, number: int) -> bytearray | memoryview:
        """Frame ``number`` with storage that takes writes."""
        frame = self._existing(number)
        if frame is None:
            frame = self._frames[number] = bytearray(self._fill)
        elif isinstance(frame, memoryview) and frame.readonly:
            raise MachineError(
                f"physical address {number << FRAME_SHIFT:#x} lies in a read-only backing"
            )
        return frame
