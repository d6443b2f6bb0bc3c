"""Large recordings for the benchmarks: a bundled one again and again, each time later.

They are made in a folder of the system's temporary one and kept there, so that the next run
has them: text, the same compressed, and a trace.dat in the bundled one's own form (version 7,
compressed in chunks of the same size by the same method).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import zstandard

from highmem.trace.source import open_source

__all__ = ["DAT", "TEXT", "cached", "compress", "dat_file", "text_blocks", "text_file"]

SAMPLES = Path(__file__).parents[1] / "samples"
TEXT = SAMPLES / "linux-5.10-686.trace.zst"
DAT = SAMPLES / "linux-5.10-686-pae.dat"
SECOND = 1_000_000_000

_TIME = re.compile(rb"(?m)^.{34,52}? ( *[0-9]+)\.[0-9]{6}: (?:([mru])_)?.*\n")
_WIDTH = 5  # digits of the seconds; the column has room for them
_PAGE = 4096
_BUFFER_OPTION = 3


def cached(name: str) -> Path:
    """Where the input *name* is kept."""
    folder = Path(tempfile.gettempdir(), f"highmem-bench-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / name


def text_blocks(lines: int) -> Iterator[bytes]:
    """The text sample, repeated until it has *lines* lines."""
    text = b"".join(open_source(TEXT))
    start, end = _quiet(text)
    yield text[: text.index(b"\n", text.rindex(b"\n#") + 1) + 1]
    body = np.frombuffer(bytearray(text[start:end]), np.uint8)
    found = list(_TIME.finditer(text, start, end))
    places = np.array([match.end(1) - start for match in found])
    seconds = np.array([int(match[1]) for match in found])
    span, count = int(seconds.max() - seconds.min()) + 1, len(found)
    for _ in range(-(-lines // count)):
        left = seconds.copy()
        for place in range(1, _WIDTH + 1):
            digit = (left % 10 + ord("0")).astype(np.uint8)
            body[places - place] = np.where((left > 0) | (place == 1), digit, ord(" "))
            left //= 10
        yield body.tobytes()
        seconds += span


def _quiet(text: bytes) -> tuple[int, int]:
    """Where the longest part lies whose ends are between calls, with every window closed.

    A repetition is then a recording that might have been: without it, every seam would show
    unmaps of windows that nobody had mapped.
    """
    first, last, depth, flights = 0, 0, 0, 0
    for match in _TIME.finditer(text):
        kind = match[2]
        window = kind == b"u" and b"vaddr=0xff" in match[0]
        if not first:
            if kind != b"m":
                continue
            first = match.start()
        flights += {b"m": 1, b"r": -1}.get(kind, 0)
        depth += 1 if kind == b"r" and b"vaddr=0xff" in match[0] else -1 if window else 0
        if depth == flights == 0:
            last = match.end()
    return first, last


def text_file(lines: int) -> Path:
    """A file of :func:`text_blocks`."""
    path = cached(f"text-{lines}.trace")
    if not path.exists():
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.writelines(text_blocks(lines))
        part.replace(path)
    return path


def compress(path: Path) -> Path:
    """The file *path*, compressed by zstd at its usual level."""
    target = path.with_name(path.name + ".zst")
    if not target.exists():
        part = target.with_suffix(".part")
        with path.open("rb") as source, part.open("wb") as file:
            zstandard.ZstdCompressor(level=3).copy_stream(source, file)
        part.replace(target)
    return target


def dat_file(repeat: int) -> Path:
    """The trace.dat sample with the data of each CPU *repeat* times, each time later.

    The new data stands behind the whole old file; the option that says where the data of each
    CPU lies is changed in place.
    """
    path = cached(f"dat-{repeat}.dat")
    if path.exists():
        return path
    head = bytearray(DAT.read_bytes())
    places = _cpu_entries(head)
    cpus = [_chunks(head, _number(head, place + 4, 8)) for place in places]
    times = [page_time for chunks in cpus for chunk in chunks for page_time in _page_times(chunk)]
    span = (max(times) - min(times)) // SECOND * SECOND + 2 * SECOND
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(head)
        for place, chunks in zip(places, cpus, strict=True):
            at = file.tell()
            size = _write(file, chunks, repeat, span)
            head[place + 4 : place + 20] = at.to_bytes(8, "little") + size.to_bytes(8, "little")
        file.seek(0)
        file.write(head)
    part.replace(path)
    return path


def _number(data: bytes | bytearray, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _cpu_entries(data: bytearray) -> list[int]:
    """Where in the file the entries (cpu, place, size) of its buffer option are.

    See trace-cmd.dat(5), version 7; the sample is little-endian and has one buffer.
    """
    at = len(b"\x17\x08\x44tracing7\0") + 2 + 4
    for _ in ("the method of compression", "its version"):
        at = data.index(b"\0", at) + 1
    at = _number(data, at, 8)
    while at:
        at += 16  # the head of the section
        while (kind := _number(data, at, 2)) != 0:
            if kind == _BUFFER_OPTION:
                at += 6 + 8
                for _ in ("the name of the buffer", "its clock"):
                    at = data.index(b"\0", at) + 1
                return [at + 8 + 20 * cpu for cpu in range(_number(data, at + 4, 4))]
            at += 6 + _number(data, at + 2, 4)
        at = _number(data, at + 6, 8)
    raise ValueError(f"{DAT.name} has no buffer")


def _chunks(data: bytearray, at: int) -> list[bytearray]:
    """The sub-buffers of one CPU, as the chunks in which they were compressed."""
    chunks = []
    count, at = _number(data, at, 4), at + 4
    for _ in range(count):
        packed = _number(data, at, 4)
        plain = (
            zstandard.ZstdDecompressor()
            .decompressobj()
            .decompress(bytes(data[at + 8 : at + 8 + packed]))
        )
        chunks.append(bytearray(plain))
        at += 8 + packed
    return chunks


def _page_times(chunk: bytearray) -> list[int]:
    """When each of the sub-buffers of *chunk* begins."""
    return [_number(chunk, at, 8) for at in range(0, len(chunk), _PAGE)]


def _write(file: BinaryIO, chunks: list[bytearray], repeat: int, span: int) -> int:
    """Write the data of one CPU; its size as trace-cmd counts it, without those of chunks."""
    size = 0
    pack = zstandard.ZstdCompressor(level=3)
    file.write((len(chunks) * repeat).to_bytes(4, "little"))
    for number in range(repeat):
        for chunk in chunks:
            for at, time in zip(range(0, len(chunk), _PAGE), _page_times(chunk), strict=True):
                chunk[at : at + 8] = (time + (span if number else 0)).to_bytes(8, "little")
            packed = pack.compress(bytes(chunk))
            file.write(len(packed).to_bytes(4, "little") + len(chunk).to_bytes(4, "little"))
            size += file.write(packed)
    return size
