"""The recording of a real kernel by trace-cmd, held to trace-cmd's own reading of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from highmem.trace import read_trace
from highmem.trace.schema import COLUMNS, Account, Function, Kind, TraceSource
from highmem.trace.symbols import Symbols

SAMPLE = Path(__file__).parents[2] / "samples" / "linux-5.10-686-pae.dat"
F, K = Function, Kind


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


def test_every_record_is_accounted_for() -> None:
    source = read_trace(SAMPLE)
    rows = columns(source)
    # 430 718 lines of `trace-cmd report`, of which none is a loss; by grep -c for each event.
    assert source.account == Account(lines=430_718, events=430_718)
    pairs = zip(rows["kind"].tolist(), rows["function"].tolist(), strict=True)
    assert Counter(pairs)[K.SWITCH, F.NONE] == 22220
    assert (np.diff(rows["time"]) >= 0).all()
    assert np.array_equal(rows["line"], np.arange(1, 430_719))


def test_callers_are_names_of_the_recorded_kernel() -> None:
    rows = columns(read_trace(SAMPLE))
    callers = Counter(rows["caller"][rows["kind"] == K.MAP_RETURN].tolist())
    assert None not in callers
    assert all(re.fullmatch(r"[\w.]+\+0x[0-9a-f]+( \[\w+\])?", text) for text in callers)
    assert "copy_page_range" in {text.partition("+")[0] for text in callers}


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")
def test_every_event_is_what_trace_cmd_reports(tmp_path: Path) -> None:
    ours = columns(read_trace(SAMPLE))
    for name, options in (("report", ["-t"]), ("latency", ["-t", "-l"])):
        with open(tmp_path / name, "wb") as out:
            subprocess.run(["trace-cmd", "report", *options, str(SAMPLE)], stdout=out, check=True)
    theirs = columns(read_trace(tmp_path / "report"))
    for name in ("time", "cpu", "pid", "comm", "kind", "function", "argument", "value", "prot"):
        assert np.array_equal(ours[name], theirs[name]), name
    for name in ("km_type", "next_pid", "next_comm"):
        assert np.array_equal(ours[name], theirs[name]), name
    # Its latency format always prints a fifth flag; this kernel has four.
    flags = columns(read_trace(tmp_path / "latency"))["flags"]
    assert np.array_equal(ours["flags"] & 0xFF3F, flags & 0xFF3F)
    differing = {
        pair for pair in zip(ours["state"], theirs["state"], strict=True) if pair[0] != pair[1]
    }
    # Before 1.8 libtraceevent has the states of an old kernel, and never a "+".
    assert differing <= {("I", "W"), ("Z", "X"), ("X", "Z"), ("R+", "R")}


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")
def test_callers_are_at_the_addresses_that_trace_cmd_reports(tmp_path: Path) -> None:
    def output(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    report = output("trace-cmd", "report", str(SAMPLE))
    addresses = [int(text, 16) for text in re.findall(r"\(\w+ <- (\w+)\)", report)]
    base: dict[str, int] = {}
    for line in output("trace-cmd", "dump", "--kallsyms", str(SAMPLE)).splitlines():
        parts = line.split()
        if len(parts) >= 3 and re.fullmatch("[0-9a-f]{8}", parts[0]):
            base.setdefault(parts[2], int(parts[0], 16))
    rows = columns(read_trace(SAMPLE))
    callers = rows["caller"][rows["kind"] == K.MAP_RETURN].tolist()
    assert len(callers) == len(addresses)
    for caller, address in set(zip(callers, addresses, strict=True)):
        name, _, offset = caller.partition("+")
        assert base[name] + int(offset, 16) == address, caller


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")
@pytest.mark.parametrize("names", [False, True], ids=["addresses", "names"])
def test_what_trace_cmd_reports_has_the_same_callers(tmp_path: Path, names: bool) -> None:
    kallsyms = subprocess.run(
        ["trace-cmd", "dump", "--kallsyms", str(SAMPLE)], capture_output=True, check=True
    ).stdout
    lines = kallsyms.splitlines(keepends=True)
    symbols = Symbols(lambda: b"".join(s for s in lines if re.match(rb"[0-9a-f]{8} ", s)))
    report = subprocess.run(
        ["trace-cmd", "report", "-t", str(SAMPLE)], capture_output=True, check=True
    ).stdout
    assert re.search(rb"\([0-9a-f]{8} <- [0-9a-f]{8}\)", report)
    if names:  # as versions of it print that look the addresses of the format up

        def named(match: re.Match[bytes]) -> bytes:
            return b"(%b <- %b)" % tuple(symbols.name(int(a, 16)).encode() for a in match.groups())

        report = re.sub(rb"\(([0-9a-f]{8}) <- ([0-9a-f]{8})\)", named, report)
    (tmp_path / "report").write_bytes(report)
    ours, theirs = columns(read_trace(SAMPLE)), columns(read_trace(tmp_path / "report"))
    returns = ours["kind"] == K.MAP_RETURN
    assert returns.sum() > 100_000 and np.array_equal(returns, theirs["kind"] == K.MAP_RETURN)
    callers = theirs["caller"][returns]
    if not names:
        callers = np.array([symbols.name(int(text, 16)) for text in callers.tolist()], object)
    assert np.array_equal(ours["caller"][returns], callers)


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")
@pytest.mark.parametrize(("version", "compression"), [("6", "none"), ("7", "none"), ("7", "zstd")])
def test_what_trace_cmd_converts_reads_the_same(
    tmp_path: Path, version: str, compression: str
) -> None:
    made = tmp_path / "made.dat"
    command = ["trace-cmd", "convert", "-i", str(SAMPLE), "-o", str(made)]
    command += ["--file-version", version, "--compression", compression]
    subprocess.run(command, capture_output=True, check=True)
    expected, found = columns(read_trace(SAMPLE)), columns(read_trace(made))
    for name in COLUMNS:
        assert np.array_equal(expected[name], found[name]), name
