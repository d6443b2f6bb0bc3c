"""How fast frames come out of each format of memory image, and what opening one costs.

Each format holds the same memory and is read in a process of its own, so that the memory it
took is its own too.  The files have just been written: they come from the page cache.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from support.image_writers import Kdump, elf_core, lime  # noqa: E402

SIZE = 128 << 20
READER = """
import resource, sys, time
import numpy as np
from highmem.image.formats.opening import open_source
from highmem.image.formats.source import iter_chunks

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before, start = peak(), time.perf_counter()
source = open_source(sys.argv[1:])
ranges, opened = source.ranges, time.perf_counter() - start
memory = peak() - before
frames = np.random.default_rng(1).integers(0, ranges[-1].end >> 12, 16384)
start = time.perf_counter()
for first in range(0, len(frames), 256):
    source.pages(frames[first : first + 256])
scattered = len(frames) * 4096 / (time.perf_counter() - start) / 1e6
total, start = 0, time.perf_counter()
for _, chunk in iter_chunks(source) if ranges[-1].end < 1 << 30 else ():
    total += len(chunk) + int(chunk[::4096].sum() & 0)  # touches every frame
whole = total / (time.perf_counter() - start) / 1e6
row = f"{source.format:<24} {opened * 1e3:>9.2f} {memory:>9.1f}"
print(f"{row} {scattered:>13,.0f} {whole:>11,.0f}")
"""


def memory() -> bytes:
    """SIZE bytes: of each four frames one is noise, one text, one a table of numbers, one zeros."""
    frames = np.zeros((SIZE >> 12, 4096), np.uint8)
    chance = np.random.default_rng(0)
    frames[::4] = chance.integers(0, 256, frames[::4].shape, np.uint8)
    frames[1::4] = chance.integers(97, 113, frames[1::4].shape, np.uint8)
    frames[2::4, ::4] = chance.integers(0, 256, frames[2::4, ::4].shape, np.uint8)
    return frames.tobytes()


def images(data: bytes) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """A name for the file, and what makes its bytes."""
    pages = {number: data[at : at + 4096] for number, at in enumerate(range(0, len(data), 4096))}
    half = len(data) // 2
    yield "raw", lambda: data
    yield "lime", lambda: lime((0, data[:half]), (half, data[half:]))
    yield "elf", lambda: elf_core((0, data[:half]), (half, data[half:]))
    for packing in ("none", "zlib", "zstd"):
        yield packing, Kdump(pages, packing=packing).build


def main() -> None:
    """Measure and print."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{SIZE >> 20} MiB of memory, and 64 GiB that are a hole\n")
    print(f"{'':<24} {'open, ms':>9} {'MiB':>9} {'frames, MB/s':>13} {'whole, MB/s':>11}")
    data = memory()
    with tempfile.TemporaryDirectory() as folder:
        for name, build in images(data):
            path = Path(folder, name)
            path.write_bytes(build())
            subprocess.run([sys.executable, "-c", READER, str(path)], check=True)
            path.unlink()
        path = Path(folder, "sparse")
        with path.open("wb") as file:
            file.truncate(1 << 36)
        subprocess.run([sys.executable, "-c", READER, str(path)], check=True)


if __name__ == "__main__":
    main()
