from __future__ import annotations

import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from highmem.errors import InputError, UsageError
from highmem.trace import read_trace
from highmem.trace.eventformat import event_head
from highmem.trace.schema import COLUMNS, Account, TraceSource
from highmem.trace.tracedat import _parts
from highmem.trace.tracedat_file import DatFile
from highmem.trace.tracedat_parts import Parts
from highmem.trace.tracedat_write import write_tracedat
from support.trace_reading import rows_of
from support.tracedat_writer import Machine, Page, call, folder, switch

SAMPLE = Path(__file__).parents[2] / "samples" / "linux-5.10-686-pae.dat"
T = 10**10
needs_trace_cmd = pytest.mark.skipif(
    shutil.which("trace-cmd") is None, reason="trace-cmd is not installed"
)


def write(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return path


def cpus(machine: Machine) -> dict[int, list[Page]]:
    one = Page(machine, T).record(T + 1, call(machine, "m", 106, 0xF6C1D270))
    one.record(T + 5, call(machine, "r", 106, 0xFFF7F000))
    two = Page(machine, T).record(T + 3, switch(machine, 12, b"rcu_sched", 1, 0, b"swapper/1"))
    last = Page(machine, T + 9, missed=4).record(T + 9, call(machine, "u", 12, 0xFFF7F000))
    return {0: [one], 3: [two, last]}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording of trace-cmd as the folder that it could have been made of."""
    file = DatFile(SAMPLE.name, os.open(SAMPLE, os.O_RDONLY))
    parts: Parts = _parts(file)
    files = {
        "events/header_page": parts.header_page,
        "events/header_event": parts.header_event,
        "kallsyms": parts.kallsyms(),
        "saved_cmdlines": parts.cmdlines,
        "trace_clock": b"local [global] counter uptime perf mono mono_raw boot x86-tsc\n",
        "version": parts.uname + b"\n",
    }
    for system, text in parts.formats:
        head = event_head(text)
        assert head is not None
        files[f"events/{system}/{head[0]}/format"] = text
    for stream in parts.streams:
        pieces = iter(lambda stream=stream: stream.read(1 << 20), b"")  # type: ignore[misc]
        files[f"per_cpu/cpu{stream.cpu}/trace_pipe_raw"] = b"".join(pieces)
    file.close()
    return write(tmp_path_factory.mktemp("unpacked"), files)


def columns(source: TraceSource) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    for batch in source:
        for name in COLUMNS:
            found[name].append(getattr(batch, name).copy())
    whole = {name: np.concatenate(parts) for name, parts in found.items()}
    texts = np.array([*source.strings.texts, None], object)
    for name in ("comm", "caller", "next_comm", "state"):
        whole[name] = texts[whole[name]]
    return whole


def test_a_real_recording_reads_as_the_original(unpacked: Path, tmp_path: Path) -> None:
    size = write_tracedat(unpacked, tmp_path / "new.dat")
    assert size == (tmp_path / "new.dat").stat().st_size
    original, new = read_trace(SAMPLE), read_trace(tmp_path / "new.dat")
    before, after = columns(original), columns(new)
    for name in COLUMNS:
        assert np.array_equal(before[name], after[name]), name
    assert new.account == original.account == Account(lines=430_718, events=430_718)


@needs_trace_cmd
def test_trace_cmd_reports_the_same_as_of_the_original(unpacked: Path, tmp_path: Path) -> None:
    write_tracedat(unpacked, tmp_path / "new.dat")
    reports = []
    for name in (str(SAMPLE), str(tmp_path / "new.dat")):
        command = ["trace-cmd", "report", "-t", "-l", "--cpu", "1", "-i", name]
        done = subprocess.run(command, capture_output=True, check=True)
        reports.append(done.stdout)
    assert reports[0].count(b"\n") > 60_000
    assert reports[0] == reports[1]


@needs_trace_cmd
@pytest.mark.parametrize(("order", "word"), list(itertools.product(("little", "big"), (4, 8))))
def test_trace_cmd_reads_the_machine_that_was_recorded(
    tmp_path: Path, order: str, word: int
) -> None:
    machine = Machine(order, word)
    files = folder(machine, cpus(machine))
    files["trace_clock"] = b"local [global]\n"
    write_tracedat(write(tmp_path / "in", files), tmp_path / "new.dat")
    command = ["trace-cmd", "report", "-t", "-i", str(tmp_path / "new.dat")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    seen = [line.split() for line in done.stdout.splitlines() if "kmap" in line or "sched" in line]
    assert [(line[0], line[1], line[2], line[3]) for line in seen] == [
        ("sh-106", "[000]", "10.000000001:", "m_kmap_atomic_high_prot:"),
        ("rcu_sched-12", "[003]", "10.000000003:", "sched_switch:"),
        ("sh-106", "[000]", "10.000000005:", "r_kmap_atomic_high_prot:"),
        ("rcu_sched-12", "[003]", "10.000000009:", "u_kunmap_atomic_high:"),
    ]
    assert "4 EVENTS DROPPED" in done.stdout


@pytest.mark.parametrize(
    ("order", "word", "page_size"),
    [("little", 4, 4096), ("big", 4, 4096), ("little", 8, 65536), ("big", 8, 16384)],
)
def test_every_byte_order_and_word_reads_back(
    tmp_path: Path, order: str, word: int, page_size: int
) -> None:
    machine = Machine(order, word, page_size)
    source = write(tmp_path / "in", folder(machine, cpus(machine)))
    write_tracedat(source, tmp_path / "new.dat")
    new = read_trace(tmp_path / "new.dat")
    assert rows_of(new) == rows_of(read_trace(source))
    assert new.account.lost == 4
    data = (tmp_path / "new.dat").read_bytes()
    assert data[10:14] == b"6\0" + bytes((order == "big", word))
    # Every sub-buffer lies at a multiple of its size, as trace-cmd maps them.
    assert data.find(cpus(machine)[0][0].bytes()) % page_size == 0


def test_what_the_kernel_counted_as_lost_is_told(tmp_path: Path) -> None:
    machine = Machine()
    files = folder(machine, cpus(machine))
    files["per_cpu/cpu3/stats"] = b"entries: 0\noverrun: 2\ndropped events: 7\n"
    files["version"] = b"Linux board 6.1.0-50-686 i686\n"
    write_tracedat(write(tmp_path / "in", files), tmp_path / "new.dat")
    notes = read_trace(tmp_path / "new.dat").account.notes
    assert notes == [
        "cpu 3: 2 events were overwritten before they were read",
        "cpu 3: 7 events were dropped for want of room",
    ]


def test_names_symbols_and_clock_may_be_missing(tmp_path: Path) -> None:
    machine = Machine()
    files = folder(machine, cpus(machine))
    del files["kallsyms"], files["saved_cmdlines"]
    source = write(tmp_path / "in", files)
    write_tracedat(source, tmp_path / "new.dat")
    assert rows_of(read_trace(tmp_path / "new.dat")) == rows_of(read_trace(source))


def test_a_sub_buffer_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    machine = Machine()
    files = folder(machine, cpus(machine))
    files["per_cpu/cpu3/trace_pipe_raw"] = files["per_cpu/cpu3/trace_pipe_raw"][:-100]
    write_tracedat(write(tmp_path / "in", files), tmp_path / "new.dat")
    new = read_trace(tmp_path / "new.dat")
    assert [row["cpu"] for row in rows_of(new)] == [0, 3, 0]
    assert not new.account.truncated


def test_what_is_no_recording_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="without events/header_page"):
        write_tracedat(tmp_path / "in", tmp_path / "new.dat")
    with pytest.raises(InputError):
        write_tracedat(tmp_path / "missing", tmp_path / "new.dat")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_file_that_cannot_be_written_keeps_its_place(tmp_path: Path) -> None:
    machine = Machine()
    source = write(tmp_path / "in", folder(machine, cpus(machine)))
    with pytest.raises(UsageError, match=r"missing/new\.dat: cannot be written: No such file"):
        write_tracedat(source, tmp_path / "missing" / "new.dat")
    (tmp_path / "old.dat").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        write_tracedat(source, tmp_path / "old.dat")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "old.dat"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    machine = Machine()
    source = write(tmp_path / "in", folder(machine, cpus(machine)))
    (tmp_path / "new.dat").write_text("old")
    code = (
        "import sys; from highmem.errors import UsageError\n"
        "from highmem.trace.tracedat_write import write_tracedat\n"
        "try: write_tracedat(*sys.argv[1:])\n"
        "except UsageError as error: print(error)\n"
    )

    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(source), str(tmp_path / "new.dat")],
        preexec_fn=little_room,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == (
        f"{tmp_path}/new.dat: cannot be written: File too large\n",
        "",
    )
    assert (tmp_path / "new.dat").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "new.dat"]


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    machine = Machine()
    source = write(tmp_path / "in", folder(machine, cpus(machine)))
    peaks = []
    for size in (1 << 20, 48 << 20):
        with open(source / "per_cpu/cpu0/trace_pipe_raw", "r+b") as stream:
            stream.truncate(size)
        tracemalloc.start()
        try:
            assert write_tracedat(source, tmp_path / "new.dat") > size
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert abs(peaks[1] - peaks[0]) < 1 << 22
