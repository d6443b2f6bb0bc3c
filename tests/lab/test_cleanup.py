from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from highmem import lab
from support import lab_fake_qemu as fake
from support import lab_files
from support.lab_rooms import RAM, assert_nothing_left, gone, make_rooms

_SOURCE = Path(__file__).parents[2] / "src"
_QEMU = shutil.which("qemu-system-i386")


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    return make_rooms(tmp_path)


@contextmanager
def running(rooms: Path, *options: str, command: str = "run") -> Iterator[subprocess.Popen[bytes]]:
    given = []
    if command == "run":
        given = ["--kernel", str(rooms / "vmlinuz"), "--busybox", str(rooms / "busybox")]
        given += ["--accel", "tcg", "--ram", "128M"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(_SOURCE),
        "PATH": f"{rooms / 'qemu'}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(rooms / "temporary"),
        "XDG_CACHE_HOME": str(rooms / "cache"),
    }
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "highmem", "lab", command),
            *given,
            *options,
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_all_and_leaves_nothing(rooms: Path, number: int, status: int) -> None:
    fake.install(rooms / "qemu", "children")
    with running(rooms, "--record", str(rooms / "out.dat")) as process:
        wait_for(rooms / "qemu" / "child")
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == status
    assert b"Traceback" not in said
    assert not (rooms / "out.dat").exists()
    assert_nothing_left(rooms)


def test_a_time_out_ends_all_with_one_line(rooms: Path) -> None:
    fake.install(rooms / "qemu", "obeys")
    with running(rooms, "--timeout", "0.5") as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert said.decode() == "highmem: the job was ended after 0.5 s\n"
    assert_nothing_left(rooms)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here")
def test_qemu_dies_with_a_lab_that_was_killed(rooms: Path) -> None:
    fake.install(rooms / "qemu", "hang")
    with running(rooms) as process:
        qemu = wait_for(rooms / "qemu" / "pid")
        process.kill()
        process.wait(30)
    assert gone(qemu)


def test_the_job_prints_here_and_its_status_counts(rooms: Path) -> None:
    fake.install(rooms / "qemu", "done")
    results = rooms / "results"
    with running(rooms, "--results", str(results)) as process:
        out, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == b"out\n"
    assert said == b"err\nhighmem: the job ended with status 7\n"
    assert (results / "dmesg").read_bytes() == b"log\n"
    assert (results / "meminfo").exists() and (results / "result.json").exists()
    with running(rooms, "--exit-zero") as process:
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_panic_is_one_line_without_its_escapes(rooms: Path) -> None:
    fake.install(rooms / "qemu", "panic")
    with running(rooms, "--exit-zero") as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert said.startswith(b"highmem: Kernel panic - not syncing: ")
    assert said.count(b"\n") == 1 and b"\x1b" not in said


def write_script(path: Path, text: str) -> None:
    lab_files.write(path, f"#!/bin/sh\n{text}\n".encode(), 0o755)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_a_download_leaves_no_part_of_it(
    rooms: Path, number: int, status: int
) -> None:
    tools = rooms / "qemu"
    source = rooms / "sources.list"
    source.write_text("deb http://mirror.example/debian bookworm main\n")
    write_script(tools / "apt-config", f"[ $1 = dump ] || echo \"LIST='{source}'\"")
    stanza = "Package: {0}\\nVersion: 6.1.9-1\\nDepends: linux-image-6.1.0-9-686\\n\\n"
    both = stanza.format("linux-image-686") + stanza.format("linux-image-6.1.0-9-686")
    write_script(tools / "apt-cache", f"printf '{both}'")
    write_script(tools / "dpkg-deb", "exit 1")
    hang = f"printf part >linux.deb; echo $$ >{rooms / 'apt'}; exec sleep 600"
    uri = "\"'http://mirror.example/linux.deb' linux.deb 9999 SHA256:00\""
    write_script(
        tools / "apt-get", f'case "$*" in *print-uris*) echo {uri} ;; *download*) {hang} ;; esac'
    )
    with running(rooms, "--fetch", command="kernels") as process:
        apt = wait_for(rooms / "apt")
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == status
    assert b"Traceback" not in said
    assert gone(apt)
    assert [path for path in (rooms / "cache").rglob("*") if ".new-" in path.name] == []
    assert not list((rooms / "cache").rglob("linux.deb"))


# -- with QEMU itself, and a kernel of a few bytes --------------------------------------------


@pytest.fixture
def real(rooms: Path) -> Path:
    if _QEMU is None:
        pytest.skip("qemu-system-i386 is not installed")
    return rooms


def qemus_using(folder: Path) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes()
        except OSError:
            continue
        if b"qemu-system" in words.split(b"\0")[0] and os.fsencode(folder) in words:
            found.append(int(place.parent.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_real_qemu(real: Path, number: int) -> None:
    with running(real) as process:
        deadline = time.monotonic() + 30
        while not qemus_using(real) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert qemus_using(real), "QEMU did not start"
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert qemus_using(real) == []
    assert_nothing_left(real)


def test_a_real_machine_that_hangs_is_given_up(real: Path) -> None:
    kernel = lab.own_kernel(real / "vmlinuz")
    job = lab.Job(kernel, real / "busybox", timeout=1.0, grace=0.5, ram=RAM, accel="tcg")
    result = lab.do(job)
    assert result.ended is lab.Ended.DEAD
    assert qemus_using(real) == []


def test_a_real_machine_that_panics_is_told(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("highmem.lab.session._AFTER_PANIC", 0.5)
    code = lab_files.printing("[  0.1] Kernel panic - not syncing: of a few bytes\n")
    lab_files.write(real / "vmlinuz", lab_files.bzimage(code))
    kernel = lab.own_kernel(real / "vmlinuz")
    result = lab.do(lab.Job(kernel, real / "busybox", timeout=30.0, ram=RAM, accel="tcg"))
    assert result.ended is lab.Ended.PANIC
    assert result.why == "Kernel panic - not syncing: of a few bytes"
    assert qemus_using(real) == []
