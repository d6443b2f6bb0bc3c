"""The map of a memory image, beside Volatility 3's Intel layer on the same file and range.

    python -m benchmarks.image [--image FILE --cr3 HEX] [--pages N]

Without an image one is made in a temporary folder: 4 GiB of a PAE machine, raw and sparse, with
the modelled kernel's own tables and a process of N pages of 4 KiB.  Compared in one run: the
whole map, and 10^6 random addresses (Volatility on a part of them, its figure scaled).  Both
must give the same answers.  Where Volatility is not installed, pip brings it into that folder.
Times are processor seconds of this process, the best of three;
the map through the command is wall time and the peak memory of a process of its own.  Nothing
here is a test.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from highmem.image.formats.opening import open_source
from highmem.image.maps import map_rows
from highmem.image.tables import Ints, Mappings, image_mode, read_mappings
from highmem.image.view import ImageKernel, open_image
from highmem.kernel.kernel import Kernel
from highmem.machine.entry import ACCESSED, DIRTY, NX, PRESENT, RW, USER

RUNS = 3
ADDRESSES = 1_000_000
THEIR_ADDRESSES = 20_000
_4G = 1 << 32


def make(path: Path, pages: int) -> int:
    """Write the image; answers the process's CR3."""
    kernel = Kernel.boot("debian-6.1-686-pae", ram=4 << 30, cpus=1)
    memory, rng = kernel.machine.memory, np.random.default_rng(1)
    frames = rng.permutation(np.arange(0x40000, 0xC0000))
    tables = 0x2000000
    root, directory, tables = tables, tables + 4096, tables + 8192
    top = memory.read64(kernel.tables.cr3 + 24)
    memory.write(root, b"".join(int(e).to_bytes(8, "little") for e in (directory | 1, 0, 0, top)))
    user = PRESENT | RW | USER | ACCESSED | DIRTY
    for number in range(-(-pages // 512)):
        table = tables + number * 4096
        memory.write64(directory + number * 8, table | user)
        here = frames[number * 512 : min(pages, number * 512 + 512)].astype(np.uint64)
        memory.write(table, ((here << np.uint64(12)) | np.uint64(user | NX)).tobytes())
    with path.open("wb") as file:
        for number in memory.touched_frames():
            file.seek(number << 12)
            file.write(memory.read(number << 12, 4096))
        file.truncate(4 << 30)
    return root


def best(work: Callable[[], Any]) -> tuple[float, Any]:
    """The least processor seconds of a few runs, and the last result."""
    times, result = [], None
    for _ in range(RUNS):
        before = time.process_time()
        result = work()
        times.append(time.process_time() - before)
    return min(times), result


def bring(folder: Path) -> None:
    """Make volatility3 importable: as it is installed, else by pip into *folder*."""
    if importlib.util.find_spec("volatility3") is not None:
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    if subprocess.run([*command, "volatility3"], check=False).returncode == 0:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def their_layer(path: Path, cr3: int) -> Any:
    """Volatility's layer over the same file, or None where it cannot be had."""
    try:
        from volatility3.framework import contexts
        from volatility3.framework.layers import intel, physical
    except ImportError:
        return None
    context = contexts.Context()
    context.config["file.location"] = path.resolve().as_uri()
    context.layers.add_layer(physical.FileLayer(context, "file", "file"))
    context.config["cpu.memory_layer"] = "file"
    context.config["cpu.page_map_offset"] = cr3
    return lambda: intel.IntelPAE(context, "cpu", "cpu")


def their_map(layer: Any) -> list[tuple[int, int, int]]:
    """Address, size and physical address of everything it maps, merged as it merges."""
    found = layer.mapping(0, _4G, ignore_errors=True)
    return [(address, size, mapped) for address, size, mapped, _, _ in found]


def their_translate(layer: Any, addresses: list[int]) -> Iterator[int]:
    """The physical address of each, -1 where nothing is mapped."""
    for address in addresses:
        try:
            yield layer.translate(address)[0]
        except Exception:  # its own exceptions have no public common base
            yield -1


def expand(rows: list[tuple[int, int, int]]) -> Ints:
    """The frame of each of the 2**20 pages."""
    found = np.full(1 << 20, -1, np.int64)
    for address, size, mapped in rows:
        count = size >> 12
        found[address >> 12 : (address >> 12) + count] = (mapped >> 12) + np.arange(count)
    return found


def our_map(path: Path, cr3: int) -> tuple[Mappings, int]:
    """Every mapping, from opening the file on, and how many rows it is when merged."""
    source = open_source([str(path)])
    mappings = read_mappings(source, image_mode(is_pae=True), cr3)
    rows = len(mappings.runs())
    source.close()
    return mappings, rows


def command(path: Path, cr3: int) -> tuple[float, float, float]:
    """Wall and processor seconds, and MiB, of the command as a whole, once the file is cached."""
    arguments = [sys.executable, "-m", "highmem", "image", "map", str(path), "--cr3", f"{cr3:x}"]
    arguments += ["--paging", "pae"]
    walls, times = [], []
    for _ in range(RUNS):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls.append(time.perf_counter() - start)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(walls), min(times), after.ru_maxrss / 1024


def as_rows(kernel: ImageKernel) -> int:
    """Every row as an object with its names."""
    return sum(1 for _ in map_rows(kernel))


def compare(path: Path, cr3: int) -> None:
    """Measure both on one file and print the table."""
    our_time, (mappings, rows) = best(lambda: our_map(path, cr3))
    small = int((mappings.shift == 12).sum())
    print(f"{len(mappings):,} pages, {small:,} of 4 KiB, {mappings.tables:,} tables, {rows:,} runs")
    rng = np.random.default_rng(2)
    mapped = rng.choice(mappings.address, ADDRESSES // 2) + rng.integers(0, 4096, ADDRESSES // 2)
    addresses = np.concatenate([mapped, rng.integers(0, _4G, ADDRESSES - len(mapped))])
    rng.shuffle(addresses)

    def translate() -> Ints:
        fresh, _ = our_map(path, cr3)  # nothing kept from before
        return fresh.translate(addresses)

    warm_time, _ = best(lambda: mappings.translate(addresses))
    cold_time, ours = best(translate)
    print(f"{'':34}{'highmem':>12}{'Volatility 3':>14}{'ratio':>9}")
    layer = their_layer(path, cr3)
    if layer is None:
        print(f"{'whole map':34}{our_time:10.3f} s   (volatility3 cannot be had)")
        return
    before = time.process_time()
    theirs = their_map(layer())
    their_time = time.process_time() - before
    same = bool((expand(theirs) == mappings.frames).all())
    print(f"{'whole map':34}{our_time:10.4f} s{their_time:12.2f} s{their_time / our_time:9.0f}")
    before = time.process_time()
    answers = list(their_translate(layer(), addresses[:THEIR_ADDRESSES].tolist()))
    one = (time.process_time() - before) / THEIR_ADDRESSES * ADDRESSES
    same &= answers == ours[:THEIR_ADDRESSES].tolist()
    for name, seconds in (
        ("10^6 addresses, tables read first", cold_time),
        ("10^6 addresses", warm_time),
    ):
        print(f"{name:34}{seconds:10.4f} s{one:12.2f} s{one / seconds:9.0f}")
    print(f"the same answers: {'yes' if same else 'NO'}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image", type=Path)
    parser.add_argument("--cr3", type=lambda text: int(text, 16))
    parser.add_argument("--pages", type=int, default=200_000)
    wanted = parser.parse_args()
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory() as folder:
        path, cr3 = wanted.image, wanted.cr3
        if path is None:
            path = Path(folder) / "image.raw"
            cr3 = make(path, wanted.pages)
        bring(Path(folder) / "volatility3")
        compare(path, cr3)
        wall, seconds, peak = command(path, cr3)
        print(
            f"highmem image map, whole command: {seconds:.2f} s ({wall:.2f} s wall), {peak:.0f} MiB"
        )
        with open_image(str(path), cr3=cr3, paging="pae") as kernel:
            seconds, count = best(lambda: as_rows(kernel))
        print(f"of it, {count:,} rows with their names: {seconds:.2f} s")


if __name__ == "__main__":
    main()
