"""How fast ftrace text is read: both readers, and what no reader can beat, on one file.

The file is a bundled recording, repeated with its times shifted so that they go on, in a
temporary folder.  Every figure is the best of a few runs of this process's (for ``wc`` its
own) processor time; nothing here is a test.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from highmem.trace import is_compiled
from highmem.trace.ftrace_fast import FastFtraceText
from highmem.trace.ftrace_text import FtraceText
from highmem.trace.source import open_source

SAMPLE = Path(__file__).parents[1] / "samples" / "linux-5.10-686.trace.zst"
RUNS = 3
PURE_LINES = 400_000
"""The pure reader gets no more than these: its speed does not depend on their number."""

_TIME = re.compile(rb"(?m)^(.{34,52}? )( *[0-9]+)(\.[0-9]{6}: )")


def make(path: Path, lines: int) -> None:
    """Write at least *lines* lines: the sample again and again, each time later."""
    text = b"".join(open_source(SAMPLE))
    body = text[text.index(b"\n", text.rindex(b"\n#") + 1) + 1 :]
    seconds = [int(found[2]) for found in _TIME.finditer(body[:400] + body[-400:])]
    span, shift, count = max(seconds) - min(seconds) + 1, 0, body.count(b"\n")

    def later(found: re.Match[bytes]) -> bytes:
        return b"%b%*d%b" % (found[1], len(found[2]), int(found[2]) + shift, found[3])

    with path.open("wb") as file:
        file.write(text[: len(text) - len(body)])
        for _ in range(-(-lines // count)):
            file.write(_TIME.sub(later, body))
            shift += span


def best(work: Callable[[], object], runs: int = RUNS, who: int = resource.RUSAGE_SELF) -> float:
    """Seconds of processor time, the least of *runs*."""
    times = []
    for _ in range(runs):
        before = resource.getrusage(who)
        work()
        after = resource.getrusage(who)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def count_newlines(path: Path) -> int:
    """Lines, by reading in pieces and ``bytes.count``, which is memchr for each newline."""
    lines = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 16):
            lines += block.count(b"\n")
    return lines


def row(name: str, seconds: float, lines: int, size: int) -> None:
    """Print one line of the table."""
    print(f"{name:<28} {seconds:8.3f} s {lines / seconds:>14,.0f} {size / seconds / 1e6:>10,.0f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=4_000_000)
    wanted = parser.parse_args().lines
    with tempfile.TemporaryDirectory() as folder:
        path, short = Path(folder, "text.trace"), Path(folder, "short.trace")
        make(path, wanted)
        make(short, min(wanted, PURE_LINES))
        lines, size = count_newlines(path), path.stat().st_size
        few, little = count_newlines(short), short.stat().st_size
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        print(f"{lines:,} lines, {size / 1e6:.0f} MB\n")
        print(f"{'':<28} {'cpu time':>10} {'lines/s':>14} {'MB/s':>10}")
        pure = best(lambda: sum(map(len, FtraceText(open_source(short)))), 1)
        row(f"pure reader ({few:,} lines)", pure, few, little)
        if is_compiled():
            fast = best(lambda: sum(map(len, FastFtraceText(open_source(path)))))
            row("fast reader", fast, lines, size)
            print(f"{'':<28} {pure / few / (fast / lines):8.1f} times the pure reader")
        else:
            print("fast reader: not compiled here", file=sys.stderr)
        wc = ["wc", "-l", str(path)]
        count = best(
            lambda: subprocess.run(wc, check=True, capture_output=True),
            who=resource.RUSAGE_CHILDREN,
        )
        row("wc -l", count, lines, size)
        row("read and bytes.count", best(lambda: count_newlines(path)), lines, size)


if __name__ == "__main__":
    main()
