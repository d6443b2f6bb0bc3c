"""How fast the replay is, and what one map and unmap of the model costs.

Every figure is the median of several runs in this process, so that they can be compared
with one another; nothing here is a test.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import zstandard

from highmem import Kernel, Profile, load_profile, read_trace
from highmem.replay import replay
from highmem.replay.reference import Reference
from highmem.replay.verdict import Verdict

SAMPLE = Path(__file__).parents[1] / "samples" / "linux-5.10-686.trace.zst"
RUNS = 5
PAIRS = 50_000


def median(work: Callable[[], object]) -> float:
    """Seconds, the median of RUNS."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def pairs(profile: str) -> float:
    """Nanoseconds for one kmap_atomic and its kunmap_atomic."""
    kernel = Kernel.boot(profile, cpus=2)
    page = kernel.alloc_page()
    kmap_atomic, kunmap_atomic = kernel.kmap_atomic, kernel.kunmap_atomic

    def work() -> None:
        for _ in range(PAIRS):
            kunmap_atomic(kmap_atomic(page))

    return median(work) / PAIRS * 1e9


def by_reference(profile: Profile) -> Verdict:
    """The recording, judged by the exact model alone."""
    source = read_trace(str(SAMPLE))
    verdict = Verdict(source.name, source.format, profile, "given", source.account)
    reference = Reference(profile, 2 << 30, source.strings, verdict)
    for batch in source:
        reference.feed(batch)
    return reference.finish()


def row(name: str, seconds: float, events: int, size: int, whole: float) -> None:
    """Print one line of the table."""
    print(f"{name:<34} {seconds:8.3f} s {events / seconds:>12,.0f} {size / seconds / 1e6:>9.1f}"
          f" {seconds / whole:>8.2f}")  # fmt: skip


def main() -> None:
    """Measure and print."""
    data = SAMPLE.read_bytes()
    size = len(zstandard.ZstdDecompressor().decompressobj().decompress(data))
    profile = load_profile("debian-5.10-686")
    verdict = replay(read_trace(str(SAMPLE)), profile)
    events = verdict.account.events
    decompress = median(lambda: zstandard.ZstdDecompressor().decompressobj().decompress(data))
    read = median(lambda: sum(map(len, read_trace(str(SAMPLE)))))
    engine = median(lambda: replay(read_trace(str(SAMPLE)), profile))
    whole = median(lambda: by_reference(profile))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{SAMPLE.name}: {events:,} events, {size / 1e6:.1f} MB of text\n")
    print(f"{'':<34} {'median':>10} {'events/s':>12} {'MB/s':>9} {'of whole':>8}")
    row("decompress", decompress, events, size, whole)
    row("read (text to columns)", read, events, size, whole)
    row("read and replay (engine)", engine, events, size, whole)
    row("read and replay (reference)", whole, events, size, whole)
    print(f"\n{'one kmap_atomic + kunmap_atomic':<34} {'median':>10}")
    for name in ("debian-5.10-686", "debian-5.10-686-pae", "debian-6.1-686", "debian-6.1-686-pae"):
        print(f"{name:<34} {pairs(name):7.0f} ns")


if __name__ == "__main__":
    main()
