from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from highmem.errors import InputError, UsageError
from highmem.record.bring import convert
from highmem.record.tracecmd import read_kallsyms, trace_cmd_lines
from highmem.trace import read_trace
from support.fake_tracefs import SYMBOLS_5_10, SYMBOLS_6_1, FakeKernel
from support.trace_reading import rows_of
from support.tracedat_writer import Machine, Page, call, folder

T = 10**10
HIGHMEM = [sys.executable, "-m", "highmem", "record"]


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    """A kernel whose buffer holds a window that is mapped and unmapped."""
    kernel = FakeKernel(tmp_path, symbols=SYMBOLS_5_10)
    machine = Machine()
    page = Page(machine, T).record(T + 1, call(machine, "m", 106, 0xF6C1D270))
    page.record(T + 5, call(machine, "r", 106, 0xFFFBB000))
    page.record(T + 9, call(machine, "u", 106, 0xFFFBB000))
    for name, content in folder(machine, {0: [page]}).items():
        for place in (kernel.tracefs, kernel.folder / "template"):
            if name.startswith(("events/kprobes", "events/sched", "per_cpu")):
                target = place / name.replace("events/kprobes", "events/highmem")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
    return kernel


def environment(kernel: FakeKernel) -> dict[str, str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**kernel.environment, "PYTHONPATH": paths}


def run(kernel: FakeKernel, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*HIGHMEM, *arguments],
        env=environment(kernel),
        cwd=kernel.folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, done.stderr


def beside(kernel: FakeKernel) -> set[str]:
    return {path.name for path in kernel.folder.iterdir()} - {"proc", "bin", "tracefs", "template"}


def test_a_command_is_recorded_into_one_file(kernel: FakeKernel) -> None:
    assert run(kernel, "-o", "x.dat", "--", "echo", "-n", "ran") == (
        0,
        "ran",
        "highmem record: 10 events in x.dat\n",
    )
    rows = rows_of(read_trace(kernel.folder / "x.dat"))
    assert [row["value"] for row in rows] == [0xF6C1D270, 0xFFFBB000, 0xFFFBB000]
    assert not kernel.left
    assert beside(kernel) == {"x.dat"}


def test_quiet_says_nothing(kernel: FakeKernel) -> None:
    assert run(kernel, "-q", "-t", "1") == (0, "", "")
    assert beside(kernel) == {"highmem.dat"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_a_signal_ends_it_and_keeps_what_there_is(
    kernel: FakeKernel, number: signal.Signals
) -> None:
    child = subprocess.Popen(
        [*HIGHMEM, "-o", "x.dat", "--", "sleep", "100"],
        env=environment(kernel),
        cwd=kernel.folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert kernel.interrupt(child, number) == (3, "highmem record: 10 events in x.dat\n")
    assert not kernel.left
    assert beside(kernel) == {"x.dat"}


def test_ctrl_c_at_a_terminal_is_the_end_that_was_meant(kernel: FakeKernel) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(kernel.folder)
        os.execvpe(HIGHMEM[0], [*HIGHMEM, "-o", "x.dat"], environment(kernel))
    deadline = time.monotonic() + 30
    while not kernel.recording:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.write(terminal, b"\x03")
    said = b""
    while True:
        try:
            said += os.read(terminal, 1000)
        except OSError:
            break
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"recording until Ctrl-C\r\n" in said
    assert b"10 events in x.dat\r\n" in said
    assert not kernel.left
    assert beside(kernel) == {"x.dat"}


def test_what_the_script_refuses_is_one_line_and_no_file(kernel: FakeKernel) -> None:
    (kernel.tracefs / "kprobe_events").unlink()
    status, out, error = run(kernel, "-o", "x.dat")
    assert (status, out) == (2, "")
    assert error.count("\n") == 1
    assert "CONFIG_KPROBE_EVENTS" in error
    assert beside(kernel) == set()


def test_left_probes_are_removed_on_request(kernel: FakeKernel) -> None:
    (kernel.tracefs / "kprobe_events").write_text("p:highmem/m_x kmap_high\n")
    assert run(kernel, "-t", "1")[0] == 2
    assert run(kernel, "--remove") == (0, "", "")
    assert not kernel.left


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", "missing/x.dat"), "missing/x.dat: cannot be written: No such file"),
        (("-o", "-"), "not written to standard output"),
        (("--print-script", "--remove"), "exclude each other"),
        (("--kallsyms", "x"), "--kallsyms is for --print-trace-cmd"),
        (("--remove", "--", "true"), "--remove runs no command"),
        (("--print-trace-cmd", "--kallsyms", "missing"), "missing: No such file"),
        (("--convert", "missing"), "missing: no such file"),
    ],
)
def test_bad_usage_is_one_line(kernel: FakeKernel, arguments: tuple[str, ...], words: str) -> None:
    status, out, error = run(kernel, *arguments)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert words in error
    assert not kernel.written


def test_the_printed_script_has_the_options_as_defaults(kernel: FakeKernel) -> None:
    status, out, error = run(kernel, "--print-script", "-t", "1")
    assert (status, error) == (0, "")
    assert out.startswith("#!/bin/sh\n")
    done = subprocess.run(
        ["sh", "-s", "--", "-o", "rec"],
        input=out,
        text=True,
        env=kernel.environment,
        cwd=kernel.folder,
    )
    assert done.returncode == 0
    assert run(kernel, "--convert", "rec", "-o", "x.dat") == (0, "", "")
    assert len(rows_of(read_trace(kernel.folder / "x.dat"))) == 3


def test_trace_cmd_is_told_the_same(kernel: FakeKernel) -> None:
    kallsyms = str(kernel.folder / "proc/kallsyms")
    _, out, error = run(kernel, "--print-trace-cmd", "--kallsyms", kallsyms, "-t", "9", "-b", "64")
    lines = out.splitlines()
    probes = read_kallsyms(kallsyms)
    assert error == ""
    assert lines == trace_cmd_lines(probes, "highmem.dat", seconds=9, buffer_kb=64)
    recorded = [line for line in lines if line.startswith("trace-cmd")]
    assert recorded == [
        "trace-cmd record -C global -b 64 -e highmem -e sched:sched_switch -o highmem.dat sleep 9"
    ]
    written = kernel.tracefs / "kprobe_events"
    for line in lines:
        if line.startswith("echo"):
            subprocess.run(["sh", "-c", line.rsplit(">>", 1)[0] + f">> {written}"], check=True)
    assert not kernel.left
    assert tuple(line for line in kernel.written if line[0] != "-") == probes.lines


def test_a_kernel_that_replay_cannot_judge_is_said_to_be_one(kernel: FakeKernel) -> None:
    kallsyms = str(kernel.folder / "proc/kallsyms")
    _, out, error = run(kernel, "--print-trace-cmd", "--kallsyms", kallsyms, "--arch", "arm")
    assert "%r0" in out
    assert "ARM" in error


# -- bringing it back --------------------------------------------------------------------


def tar_of(path: Path, files: dict[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("./kallsyms")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz")])
def test_a_tar_becomes_the_file_that_its_folder_becomes(
    tmp_path: Path, name: str, mode: str
) -> None:
    machine = Machine()
    page = Page(machine, T).record(T + 1, call(machine, "m", 106, 0xF6C1D270))
    files = {f"./{inside}": text for inside, text in folder(machine, {0: [page]}).items()}
    files["../outside"] = files["./events/../../outside"] = b"no"
    tar = tar_of(tmp_path / name, files, mode)
    assert convert(tar, tmp_path / "x.dat") == (tmp_path / "x.dat").stat().st_size
    assert [row["value"] for row in rows_of(read_trace(tmp_path / "x.dat"))] == [0xF6C1D270]
    assert {path.name for path in tmp_path.iterdir()} == {name, "x.dat"}
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize("cut", [0, 100, 700, 4000])
def test_a_tar_that_was_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    machine = Machine()
    page = Page(machine, T).record(T + 1, call(machine, "m", 106, 0xF6C1D270))
    tar = tar_of(tmp_path / "x.tar", folder(machine, {0: [page]}))
    tar.write_bytes(tar.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"x\.tar: ") as caught:
        convert(tar, tmp_path / "x.dat")
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"x.tar"}


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("m_kmap_high\n" * 1000)
    with pytest.raises(InputError, match="x: no tar of a recording"):
        convert(tmp_path / "x", tmp_path / "x.dat")
    with pytest.raises(UsageError, match="cannot be written"):
        convert(tmp_path / "x", tmp_path / "missing" / "x.dat")


@pytest.mark.parametrize("text", ["", "not kallsyms\n", "\0" * 99])
def test_a_file_that_is_no_kallsyms_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "k").write_text(text)
    with pytest.raises(InputError, match="no copy of /proc/kallsyms"):
        read_kallsyms(str(tmp_path / "k"))


def test_symbols_of_modules_and_data_do_not_count(tmp_path: Path) -> None:
    lines = [f"c1000000 T {name}" for name in SYMBOLS_6_1]
    lines += ["c1000000 D __kunmap_atomic", "f8000000 t kunmap_atomic_high\t[mine]"]
    (tmp_path / "k").write_text("\n".join(lines) + "\n")
    assert read_kallsyms(str(tmp_path / "k")).era == "local"
