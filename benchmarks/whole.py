"""The whole road from a file to its verdict, beside what else reads the same file.

One run, the same files: the readers, the engine alone, the whole command, `trace-cmd report`,
`wc -l`, `zstdcat`, the reference, and a C program of a screenful (ceiling.c).  The files are a
bundled recording again and again, 10^7 events; they stay in the temporary folder.  At the end,
each goal with its figure and whether it is met.  Nothing here is a test.

CPU is user and system time of one process, a median of RUNS; where wall time counts, the
table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from benchmarks._inputs import (
    DAT,
    SAMPLES,
    TEXT,
    cached,
    compress,
    dat_file,
    text_blocks,
    text_file,
)
from highmem import read_trace
from highmem.kernel.profile import Profile
from highmem.replay import COMPILED, Verdict, make_engine
from highmem.replay.detect import detect
from highmem.replay.reference import Reference
from highmem.trace.ftrace_text import FtraceText
from highmem.trace.schema import COLUMNS, Batch, Function, TraceSource
from highmem.trace.source import open_source

RUNS = 5
FEW = 3  # runs of what takes long
SAMPLE_EVENTS = 430_718
EVENTS_TO_DETECT = 200_000  # as highmem.replay
HIGHMEM = [sys.executable, "-m", "highmem"]
MIB = 1 << 20

# As in an installation: pip compiles the modules to bytecode once, and no start does it again.
_ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    "PYTHONPYCACHEPREFIX": str(cached("bytecode")),
}
_PERMANENT = (Function.KMAP, Function.KMAP_HIGH, Function.KUNMAP, Function.KUNMAP_HIGH)

# A process's peak memory begins with that of the one that started it: hence a small one between.
_LAUNCHER = """\
import json, os, sys, time
start = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, usage = os.wait4(pid, 0)
print(json.dumps([time.perf_counter() - start, usage.ru_utime + usage.ru_stime,
                  usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status)]))
"""


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds of wall and of processor time, bytes of memory at its peak."""

    wall: float
    cpu: float
    peak: int


def command(words: list[str], runs: int = RUNS, stdin: IO[bytes] | None = None) -> Cost:
    """The medians of *runs* of a command whose output goes to /dev/null."""
    found = shutil.which(words[0])
    if found is None:
        raise FileNotFoundError(words[0])
    costs = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-ISc", _LAUNCHER, found, *words[1:]],
            stdin=stdin, stdout=subprocess.PIPE, check=True, env=_ENVIRONMENT,
        )  # fmt: skip
        wall, cpu, peak, status = json.loads(done.stdout)
        if status:
            raise SystemExit(f"{' '.join(words)}: exit {status}")
        costs.append(Cost(wall, cpu, peak))
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.cpu for cost in costs),
        max(cost.peak for cost in costs),
    )


def processor(work: Callable[[], object], runs: int = RUNS) -> float:
    """Seconds of this process's processor time, the median of *runs*."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def contention() -> float:
    """How much wall time a busy process needs for its processor time: 1 on an idle machine."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 0.5:
        pass
    return (time.perf_counter() - wall) / (time.process_time() - cpu)


def judge(
    batches: list[Batch], source: TraceSource, profile: Profile, ram: int, *, exact: bool
) -> Verdict:
    """The verdict on events that are in memory already, by the engine or by the reference."""
    verdict = Verdict(source.name, source.format, profile, "given", source.account)
    make = Reference if exact else make_engine
    engine = make(profile, ram, source.strings, verdict, None)
    for batch in batches:
        engine.feed(batch)
    return engine.finish()


def known(batches: list[Batch]) -> tuple[Profile, int]:
    """The kernel and the RAM that a recording shows."""
    held: list[Batch] = []
    while len(held) < len(batches) and sum(map(len, held)) < EVENTS_TO_DETECT:
        held.append(batches[len(held)])
    profile, evidence, _ = detect(held)
    return profile, evidence.ram


class Table:
    """Prints one line for each thing measured, and the goals at the end."""

    def __init__(self) -> None:
        self._goals: list[tuple[str, str, str, bool]] = []

    def head(self, title: str) -> None:
        """The head of a part."""
        print(f"\n{title}\n{'':<44}{'CPU s':>8}{'wall s':>8}{'M/s':>8}{'MB/s':>8}{'MiB':>7}")

    def row(
        self, name: str, cpu: float, count: int, size: int = 0, wall: float = 0, peak: int = 0
    ) -> None:
        """One line; what is 0 is left out."""
        rate = f"{count / cpu / 1e6:8.2f}" if count else f"{'':8}"
        speed = f"{size / cpu / 1e6:8.0f}" if size else f"{'':8}"
        walls = f"{wall:8.3f}" if wall else f"{'':8}"
        memory = f"{peak / MIB:7.0f}" if peak else ""
        print(f"{name:<44}{cpu:8.3f}{walls}{rate}{speed}{memory}", flush=True)

    def process(self, name: str, cost: Cost, count: int, size: int = 0) -> None:
        """The line of a process."""
        self.row(name, cost.cpu, count, size, cost.wall, cost.peak)

    def goal(self, what: str, measured: str, wanted: str, met: bool) -> None:
        """Keep a goal for the end; without what is *wanted*, only a ratio to be told."""
        self._goals.append((what, measured, wanted, met))

    def goals(self) -> None:
        """Print all goals."""
        print(f"\n{'goal':<58}{'measured':>9}{'wanted':>10}")
        for what, measured, wanted, met in self._goals:
            verdict = ("met" if met else "MISSED") if wanted else ""
            print(f"{what:<58}{measured:>9}{wanted:>10}  {verdict}".rstrip())


def measure_text(table: Table, path: Path, lines: int) -> tuple[float, float]:
    """Text; CPU seconds for each line of the whole command and of ``wc -l``."""
    size = path.stat().st_size
    packed = compress(path)
    table.head(f"text: {lines:,} lines, {size / 1e6:,.0f} MB (M/s: million lines a second)")
    table.row("reader", processor(lambda: sum(map(len, read_trace(path))), FEW), lines, size)
    whole = command([*HIGHMEM, "replay", "-q", str(path)])
    table.process("highmem replay -q", whole, lines, size)
    table.process(
        "highmem replay -q, of the .zst",
        command([*HIGHMEM, "replay", "-q", str(packed)], FEW), lines, size,
    )  # fmt: skip
    floor = command(["wc", "-l", str(path)])
    table.process("wc -l", floor, lines, size)
    table.process("zstdcat of the .zst", command(["zstdcat", str(packed)], FEW), lines, size)
    rate, least = lines / whole.cpu / 1e6, min(5.0, lines / floor.cpu / 2e6)
    table.goal("text, whole command, M lines/s", f"{rate:.2f}", f">= {least:.2f}", rate >= least)
    return whole.cpu / lines, floor.cpu / lines


def measure_reference(table: Table, whole: float) -> None:
    """The reference on the sample as it is; *whole* is the whole command's time for a line."""

    def run() -> Verdict:
        source = FtraceText(open_source(TEXT))
        batches = list(source)
        return judge(batches, source, *known(batches), exact=True)

    lines = run().account.lines
    source = read_trace(TEXT)
    batches = list(source)
    kernel = known(batches)
    table.head(f"the reference on {TEXT.name}: {lines:,} lines")
    alone = processor(lambda: judge(batches, source, *kernel, exact=True), FEW)
    table.row("reference alone, events in memory", alone, lines)
    both = processor(run, FEW)
    table.row("pure reader and reference", both, lines)
    ratio = both / lines / whole
    table.goal("text, whole command : reference", f"{ratio:.1f}", ">= 60", ratio >= 60)
    print(f"  whole command : reference alone, which reads nothing: {alone / lines / whole:.1f}")


def measure_dat(table: Table, path: Path, wanted: float, runs: int) -> None:
    """A trace.dat, beside ``trace-cmd report``."""
    events = sum(map(len, read_trace(path)))
    size = path.stat().st_size
    table.head(f"trace.dat: {events:,} events, {size / 1e6:,.1f} MB (M/s: million events a second)")
    table.row("reader", processor(lambda: sum(map(len, read_trace(path))), FEW), events, size)
    whole = command([*HIGHMEM, "replay", "-q", str(path)])
    table.process("highmem replay -q", whole, events, size)
    name = f"trace.dat, {events:,} events : trace-cmd report"
    if shutil.which("trace-cmd") is None:
        print("trace-cmd is not installed (Debian: apt-get install trace-cmd): not compared")
        table.goal(name, "none", f">= {wanted:.0f}", False)
        return
    other = command(["trace-cmd", "report", str(path)], runs)
    table.process("trace-cmd report", other, events, size)
    ratio = other.cpu / whole.cpu
    table.goal(f"{name}, CPU", f"{ratio:.1f}", f">= {wanted:.0f}", ratio >= wanted)
    ratio = other.wall / whole.wall
    table.goal(f"{name}, wall", f"{ratio:.1f}", f">= {wanted:.0f}", ratio >= wanted)


def columns_file(path: Path, batches: list[Batch]) -> None:
    """The columns that ceiling.c reads, in its order."""
    with path.open("wb") as file:
        np.array([sum(map(len, batches))], np.int64).tofile(file)
        for name in ("line", "time", "value", "cpu", "pid", "comm", "caller", "flags", "kind",
                     "function"):  # fmt: skip
            for batch in batches:
                getattr(batch, name).tofile(file)


def ceiling(folder: Path, batches: list[Batch], profile: Profile, options: list[str]) -> list[int]:
    """What ceiling.c counts: right, odd, maps, unmaps, low; first of all its nanoseconds."""
    layout = profile.layout(2 << 30)
    program, data = folder / "ceiling", folder / "columns"
    source = Path(__file__).with_name("ceiling.c")
    subprocess.run(["cc", "-O2", *options, "-o", str(program), str(source)], check=True)
    if not data.exists():
        columns_file(data, batches)
    numbers = (
        int(profile.era.value == "local"), layout.window_address(0, 0),
        layout.fix_to_virt(layout.FIX_KMAP_END), profile.windows_per_cpu,
        2 if profile.guard_slots else 1, layout.high_memory, RUNS,
    )  # fmt: skip
    done = subprocess.run(
        [str(program), str(data), *map(str, numbers)], check=True, capture_output=True, text=True
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    seconds = statistics.median(float(row[0]) for row in rows)
    return [round(seconds * 1e9), *map(int, rows[0][1:])]


def joined(batches: list[Batch]) -> Batch:
    """All of them as one, since ceiling.c has whole columns, too."""
    columns = {name: np.concatenate([getattr(one, name) for one in batches]) for name in COLUMNS}
    return Batch(**columns, strings=batches[0].strings)


def temporary(batch: Batch) -> Batch:
    """The events of *batch* but those of permanent windows, which ceiling.c passes over."""
    mine = ~np.isin(batch.function, _PERMANENT)
    return Batch(**{name: getattr(batch, name)[mine] for name in COLUMNS}, strings=batch.strings)


def measure_engine(table: Table, path: Path) -> None:
    """The engine alone, beside the same in C."""
    source = read_trace(path)
    batches = list(source)
    events = sum(map(len, batches))
    profile, ram = known(batches)
    batches = [joined(batches)]
    table.head(f"the engine alone: {events:,} events in memory (M/s: million events a second)")
    engine = processor(lambda: judge(batches, source, profile, ram, exact=False))
    table.row("engine", engine, events)
    plain = [temporary(batch) for batch in batches]
    alone = processor(lambda: judge(plain, source, profile, ram, exact=False))
    table.row("engine, temporary windows only, as in C", alone, sum(map(len, plain)))
    verdict = judge(batches, source, profile, ram, exact=False)
    print(f"  {verdict.right:,} right, {verdict.map_calls:,} maps, {verdict.unmap_calls:,} unmaps")
    if shutil.which("cc") is None:
        print("no C compiler: not compared")
        table.goal("engine : C", "none", ">= 0.70", False)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, options in (("C", []), ("C with statistics", ["-DSTATISTICS"])):
            spent, right, odd, maps, unmaps, _ = ceiling(Path(folder), batches, profile, options)
            table.row(name, spent / 1e9, events)
            print(f"  {right:,} right, {maps:,} maps, {unmaps:,} unmaps, {odd:,} odd")
            for what, mine in (("engine", engine), ("engine, temporary windows", alone)):
                ratio = spent / 1e9 / mine
                # The verdict has statistics: without them the program does less than the engine.
                wanted = ">= 0.70" if options and mine is engine else ""
                table.goal(f"{what} : {name}", f"{ratio:.2f}", wanted, ratio >= 0.7)


def measure_small(table: Table) -> None:
    """What a person waits for: wall time, start-up included."""
    table.head("start-up")
    help_cost = command([*HIGHMEM, "--help"], 9)
    table.process("highmem --help", help_cost, 0)
    traces = sorted(map(str, (SAMPLES / "misuse").glob("linux-*.trace.zst")))
    misuse = command([*HIGHMEM, "replay", "-q", "--exit-zero", *traces])
    table.process(f"highmem replay -q, {len(traces)} misuse recordings", misuse, 0)
    for name in ("wall", "cpu"):
        one, all_four = getattr(help_cost, name), getattr(misuse, name)
        table.goal(f"highmem --help, ms {name}", f"{one * 1e3:.0f}", "< 150", one < 0.15)
        table.goal(
            f"misuse recordings in all, s {name}", f"{all_four:.2f}", "< 0.5", all_four < 0.5
        )


def measure_huge(table: Table, lines: int) -> None:
    """Peak memory of a recording that comes through a pipe and is on no disk."""
    table.head(f"a pipe of {lines:,} lines")
    words = [*HIGHMEM, "replay", "-q", "-"]
    launcher = [sys.executable, "-ISc", _LAUNCHER, *words]
    size = 0
    pipe = subprocess.PIPE
    with subprocess.Popen(launcher, stdin=pipe, stdout=pipe, env=_ENVIRONMENT) as process:
        assert process.stdin is not None and process.stdout is not None
        for block in text_blocks(lines):
            size += len(block)
            process.stdin.write(block)
        process.stdin.close()
        wall, cpu, peak, status = json.loads(process.stdout.read())
    if status:
        raise SystemExit(f"{' '.join(words)}: exit {status}")
    table.row("highmem replay -q -", cpu, lines, size, wall, peak)
    table.goal(
        f"peak memory at {lines:,} lines, MiB", f"{peak / MIB:.0f}", "< 300", peak < 300 * MIB
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--huge", action="store_true", help="pipe ten times as many lines too")
    options = parser.parse_args()
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, engine {'compiled' if COMPILED else 'interpreted'}"
    )
    command([*HIGHMEM, "replay", "-q", str(DAT)], 1)  # writes the bytecode
    busy = contention()
    table = Table()
    text, dat = text_file(options.events), dat_file(-(-options.events // SAMPLE_EVENTS))
    with text.open("rb", buffering=0) as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    per_line, _ = measure_text(table, text, lines)
    measure_dat(table, dat, 20, FEW)
    measure_dat(table, DAT, 4, RUNS)
    measure_small(table)
    measure_reference(table, per_line)
    measure_engine(table, text)
    if options.huge:
        measure_huge(table, 10 * options.events)
    print(
        f"\nwall time of a busy process : its CPU time, at the start {busy:.2f}, "
        f"at the end {contention():.2f} (1: nobody else used the machine)"
    )
    table.goals()


if __name__ == "__main__":
    main()
