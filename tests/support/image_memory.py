"""Images for tests: memory in a dictionary of frames, bytes laid over another image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from highmem.image.formats.source import Claims, ImageSource, NotInImageError, RamRange
from highmem.machine.memory import PhysicalMemory

__all__ = ["FrameSource", "Overlay", "source_of"]


class FrameSource:
    """An image of single frames; what is not in ``frames`` is not in the image."""

    format = "frames"
    path = "frames"
    notes: tuple[str, ...] = ()
    damaged = False

    def __init__(
        self,
        frames: Mapping[int, bytes],
        *,
        ram: Iterable[tuple[int, int]] | None = None,
        claims: Claims | None = None,
    ) -> None:
        self.frames = dict(frames)
        self.claims = claims or Claims()
        starts = sorted(frame for frame in self.frames)
        runs: list[list[int]] = []
        for frame in starts:
            if runs and runs[-1][1] == frame:
                runs[-1][1] += 1
            else:
                runs.append([frame, frame + 1])
        self.ranges = tuple(RamRange(a << 12, b << 12) for a, b in runs)
        self.ram = self.ranges if ram is None else tuple(RamRange(a, b) for a, b in ram)

    def read(self, paddr: int, size: int) -> bytes:
        found = bytearray()
        while size:
            frame = self.frames.get(paddr >> 12)
            if frame is None:
                raise NotInImageError(paddr)
            piece = frame[paddr & 0xFFF : (paddr & 0xFFF) + size]
            found += piece
            paddr += len(piece)
            size -= len(piece)
        return bytes(found)

    def pages(self, pfns: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        wanted = np.asarray(pfns).reshape(-1).tolist()
        raw = b"".join(self.frames.get(pfn, bytes(4096)) for pfn in wanted)
        return np.frombuffer(raw, np.uint8).reshape(-1, 4096)

    def present(self, pfns: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        return np.array([pfn in self.frames for pfn in np.asarray(pfns).reshape(-1).tolist()], bool)

    def view(self, start: int, end: int) -> npt.NDArray[np.uint8] | None:
        return None

    def close(self) -> None:
        self.frames = {}


def source_of(memory: PhysicalMemory, *, size: int | None = None) -> FrameSource:
    """What *memory* holds; frames that were never written are RAM, but not in the image."""
    frames = {n: memory.read(n << 12, 4096) for n in memory.touched_frames()}
    return FrameSource(frames, ram=[(0, memory.size if size is None else size)])


class Overlay:
    """*source* with some bytes replaced: ``{physical address: bytes}``."""

    def __init__(self, source: ImageSource, patches: Mapping[int, bytes]) -> None:
        self.source = source
        self.patched: dict[int, bytes] = {}
        for address, data in patches.items():
            for offset, byte in enumerate(data):
                number, at = divmod(address + offset, 4096)
                if number not in self.patched:
                    self.patched[number] = source.read(number << 12, 4096)
                frame = bytearray(self.patched[number])
                frame[at] = byte
                self.patched[number] = bytes(frame)
        self.format: str = source.format
        self.path: str = source.path
        self.ranges: tuple[RamRange, ...] = source.ranges
        self.ram: tuple[RamRange, ...] = source.ram
        self.claims: Claims = source.claims
        self.notes: tuple[str, ...] = source.notes
        self.damaged: bool = source.damaged

    def read(self, paddr: int, size: int) -> bytes:
        found = b""
        while size:
            piece = min(size, 4096 - paddr % 4096)
            frame = self.patched.get(paddr >> 12)
            if frame is None:
                found += self.source.read(paddr, piece)
            else:
                found += frame[paddr % 4096 : paddr % 4096 + piece]
            paddr, size = paddr + piece, size - piece
        return found

    def pages(self, pfns: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        wanted = np.asarray(pfns).reshape(-1)
        found = np.array(self.source.pages(wanted))
        for row, pfn in enumerate(wanted.tolist()):
            if pfn in self.patched:
                found[row] = np.frombuffer(self.patched[pfn], np.uint8)
        return found

    def present(self, pfns: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        return self.source.present(pfns)

    def view(self, start: int, end: int) -> npt.NDArray[np.uint8] | None:
        return None

    def close(self) -> None:
        self.source.close()
