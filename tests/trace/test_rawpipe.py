"""Folders of raw ring buffers."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from highmem.errors import InputError
from highmem.trace import read_trace
from highmem.trace.schema import Kind
from support.trace_reading import rows_of
from support.tracedat_writer import Machine, Page, call, folder, switch

T = 10**10


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
    return {0: [one], 11: [two, Page(machine, T + 9, missed=4).record(T + 9, b"\0" * 8)]}


@pytest.mark.parametrize(
    ("order", "word"), list(itertools.product(("little", "big"), (4, 8))), ids=str
)
def test_the_buffers_of_all_cpus_are_read(tmp_path: Path, order: str, word: int) -> None:
    machine = Machine(order, word)
    source = read_trace(write(tmp_path, folder(machine, cpus(machine))))
    rows = rows_of(source)
    assert source.format == "trace_pipe_raw"
    assert [(r["line"], r["time"], r["cpu"], r["comm"], r["caller"]) for r in rows] == [
        (1, T + 1, 0, "sh", None),
        (2, T + 3, 11, "rcu_sched", None),
        (3, T + 5, 0, "sh", "copy_strings+0xc"),
        (4, T + 5, 11, None, None),
    ]
    assert (rows[3]["kind"], rows[3]["value"], source.account.lost) == (Kind.LOST, 4, 4)
    assert source.account.rejected == 1  # an event without a format
    assert not source.account.truncated


def test_names_symbols_and_versions_may_be_missing(tmp_path: Path) -> None:
    machine = Machine()
    files = folder(machine, cpus(machine))
    del files["kallsyms"], files["saved_cmdlines"]
    rows = rows_of(read_trace(write(tmp_path, files)))
    assert [row["comm"] for row in rows[:2]] == ["<...>", "rcu_sched"]
    assert rows[2]["caller"] == "0xc121d28c"


def test_a_cut_buffer_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    machine = Machine()
    files = folder(machine, {0: [*cpus(machine)[0], *cpus(machine)[0]]})
    name = "per_cpu/cpu0/trace_pipe_raw"
    for end in range(0, len(files[name]), 509):
        write(tmp_path, {**files, name: files[name][:end]})
        if not end:
            with pytest.raises(InputError, match="has data"):
                read_trace(tmp_path)
            continue
        source = read_trace(tmp_path)
        rows = rows_of(source)
        assert source.account.truncated
        assert len(rows) >= (end >= 4096) * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"events/header_page": b""}, "without events/header_page"),
        ({"events/header_page": b"\tfield: u64 timestamp;\toffset:0;\tsize:8;\n"}, "no commit"),
        ({"per_cpu/cpu0/trace_pipe_raw": b"", "per_cpu/cpu11/trace_pipe_raw": b""}, "has data"),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, change: dict[str, bytes], message: str) -> None:
    machine = Machine()
    write(tmp_path, {**folder(machine, cpus(machine)), **change})
    with pytest.raises(InputError, match=message) as error:
        rows_of(read_trace(tmp_path))
    assert str(error.value).isprintable()


def test_a_page_size_that_lies_is_refused(tmp_path: Path) -> None:
    machine = Machine()
    files = folder(machine, cpus(machine))
    page = files["events/header_page"].replace(b"size:4084", b"size:999999999")
    write(tmp_path, {**files, "events/header_page": page})
    with pytest.raises(InputError, match="bytes long"):
        read_trace(tmp_path)


def test_formats_that_say_nothing_are_refused(tmp_path: Path) -> None:
    machine = Machine()
    files = {
        name: b"\xff\0nonsense" if name.endswith("format") else content
        for name, content in folder(machine, cpus(machine)).items()
    }
    with pytest.raises(InputError, match="no format"):
        read_trace(write(tmp_path, files))
