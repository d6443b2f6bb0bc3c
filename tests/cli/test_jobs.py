"""``highmem replay`` of several recordings, some of them at the same time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
MISUSE = ROOT / "samples" / "misuse"
NAMES = ("unmap-order", "clean", "leak-local", "sleep-while-atomic")
TRACES = [MISUSE / f"linux-6.1-686.{name}.trace.zst" for name in NAMES]
CLEAN, LEAK = TRACES[1], TRACES[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100"}


def replay(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "highmem", "replay", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=ENVIRONMENT,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("form", ["text", "json", "ndjson"])
def test_the_output_is_that_of_one_at_a_time(form: str) -> None:
    one = replay("--format", form, *TRACES)
    assert one.returncode == 1 and one.stderr == b""
    for jobs in (2, 9):
        run = replay("-j", jobs, "--format", form, *TRACES)
        assert (run.returncode, run.stdout, run.stderr) == (1, one.stdout, b"")
    if form == "json":
        assert [d["input"]["name"] for d in json.loads(one.stdout)] == [str(t) for t in TRACES]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_input_that_cannot_be_read_is_one_line_and_the_others_are_judged(
    tmp_path: Path, jobs: int
) -> None:
    bad = tmp_path / "not\x1b[2J a trace"
    bad.write_bytes(b"\x7fELF" + bytes(60))
    run = replay("-j", jobs, "--format", "json", CLEAN, bad, tmp_path / "none", LEAK)
    assert run.returncode == 2
    first, second = run.stderr.decode().splitlines()
    assert first.startswith("highmem: ") and "\x1b" not in first and "an ELF file" in first
    assert second == f"highmem: {tmp_path / 'none'}: no such file"
    documents = json.loads(run.stdout)
    assert [d["input"]["name"] for d in documents] == [str(CLEAN), str(LEAK)]
    assert replay("-j", jobs, "--exit-zero", "-q", CLEAN, bad).returncode == 2


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_recording_that_fits_no_kernel_is_named(tmp_path: Path, jobs: int) -> None:
    text = zstandard.ZstdDecompressor().stream_reader(CLEAN.read_bytes()).read()
    moved = tmp_path / "moved.trace"
    moved.write_bytes(text.replace(b"vaddr=0xfffbb", b"vaddr=0xff8bb"))
    run = replay("-j", jobs, "--format", "json", moved, CLEAN)
    assert run.returncode == 2
    assert run.stderr.decode().startswith(f"highmem: {moved}: no known kernel fits")
    assert run.stderr.count(b"\n") == 1
    # Of several that were asked for one is left: still a list, and as the schema says.
    documents = json.loads(run.stdout)
    assert len(documents) == 1
    schema = json.loads((ROOT / "docs/verdict.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(documents)


@pytest.mark.parametrize("jobs", [1, 2])
def test_where_nothing_could_be_read_the_old_output_stays(tmp_path: Path, jobs: int) -> None:
    target = tmp_path / "verdict.txt"
    target.write_text("old")
    run = replay("-j", jobs, "-o", target, tmp_path / "a", tmp_path / "b")
    assert run.returncode == 2 and run.stdout == b"" and run.stderr.count(b"\n") == 2
    assert target.read_text() == "old"


def test_workers_get_the_profile_and_the_probes(tmp_path: Path) -> None:
    text = zstandard.ZstdDecompressor().stream_reader(LEAK.read_bytes()).read()
    renamed = tmp_path / "renamed.trace"
    renamed.write_bytes(text.replace(b" m___kmap_local_page_prot:", b" begins:"))
    probes = tmp_path / "probes.toml"
    probes.write_text(
        '[probes.begins]\nfunction = "__kmap_local_page_prot"\nkind = "map"\nvalue = "page"\n'
    )
    given = ("--format", "json", "--profile", "debian-6.1-686", "--probes", probes)
    run = replay("-j", 2, *given, renamed, LEAK)
    assert run.stderr == b"" and run.returncode == 1
    documents = json.loads(run.stdout)
    assert [d["profile"]["how"] for d in documents] == ["given", "given"]
    assert documents[0]["calls"] == documents[1]["calls"]
    assert documents[0]["predictions"] == documents[1]["predictions"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("-j", "2", "-", CLEAN), "standard input"),
        (("-j", "2", "-"), "standard input"),
        (("-j", "2", "--html", "never.html", CLEAN), "--html"),
        (("-j", "2", "--parquet", "never", CLEAN, LEAK), "--parquet"),
        (("--chrome", "never.json", CLEAN, LEAK), "is for one recording"),
    ],
)
def test_what_cannot_be_split_is_refused_in_a_line(arguments: tuple[object, ...], why: str) -> None:
    run = replay(*arguments)
    assert run.returncode == 2 and run.stdout == b""
    line = run.stderr.decode()
    assert line.startswith("highmem: ") and line.count("\n") == 1 and why in line


@pytest.mark.parametrize("jobs", ["0", "-1", "many"])
def test_the_number_must_be_one(jobs: str) -> None:
    run = replay("-j", jobs, CLEAN)
    assert run.returncode == 2 and b"Traceback" not in run.stderr and b"Error" in run.stderr


def test_one_recording_is_judged_whole_and_help_says_so() -> None:
    assert replay("-j", 4, LEAK).stdout == replay(LEAK).stdout
    text = " ".join(replay("--help").stdout.decode().split())
    assert "A single recording is never split" in text


# Ends before the end.  Pipes that nobody writes to keep both workers reading.


@contextmanager
def reading(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``-j 2`` in a group of its own, both workers in the middle of an input."""
    pipes = [folder / "a.pipe", folder / "b.pipe"]
    for pipe in pipes:
        os.mkfifo(pipe)
    command = [sys.executable, "-m", "highmem", "replay", "-j", "2", *map(str, pipes)]
    with subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as run:
        ends = [os.open(pipe, os.O_WRONLY) for pipe in pipes]  # returns when it is being read
        try:
            yield run
        finally:
            for end in ends:
                os.close(end)


def group_is_gone(group: int) -> bool:
    for _ in range(300):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return False


@pytest.mark.parametrize("everybody", [True, False], ids=["terminal", "only-the-parent"])
def test_ctrl_c_ends_all(tmp_path: Path, everybody: bool) -> None:
    with reading(tmp_path) as run:
        if everybody:
            os.killpg(run.pid, signal.SIGINT)
        else:
            run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
        assert (run.returncode, out, err) == (130, b"", b"highmem: interrupted\n")
        assert group_is_gone(run.pid)


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    with reading(tmp_path) as run:
        run.kill()
        run.wait(60)
        assert group_is_gone(run.pid)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the worker")
def test_a_worker_that_is_killed_is_a_line_for_each_input(tmp_path: Path) -> None:
    with reading(tmp_path) as run:
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        workers = [p for p in children if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(int(workers[0]), signal.SIGKILL)
        out, err = run.communicate(timeout=60)
        assert (run.returncode, out) == (2, b"")
        lines = err.decode().splitlines()
        assert len(lines) == 2 and all("a worker process was killed" in line for line in lines)
        assert group_is_gone(run.pid)
