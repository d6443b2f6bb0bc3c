from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from highmem.cli import _group
from support import lab_fake_qemu as fake
from support import lab_files
from support.lab_rooms import assert_nothing_left, make_rooms
from support.tracedat_writer import Machine, Page, call, folder

# What linux-5.10-686.trace.zst, a recording of a real kernel, has for CPU 0: a page in high
# memory and the first window of that CPU.
_PAGE, _WINDOW = 0xF6ADCB00, 0xFFFBB000


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path / 'qemu'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return make_rooms(tmp_path)


def highmem(_rooms: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(_group, ["lab", *map(str, arguments)])


def run(rooms: Path, *arguments: str | Path) -> Result:
    own = ("--kernel", rooms / "vmlinuz", "--busybox", rooms / "busybox", "--accel", "tcg")
    return highmem(rooms, "run", *own, *arguments)


def recorded(rooms: Path, *, odd: int = 0) -> None:
    """Have the guest bring a recording back: thirty windows, one of them *odd* bytes lower."""
    machine, time = Machine(), 10**10
    page = Page(machine, time)
    for number in range(30):
        at = time + 1 + 10 * number
        window = _WINDOW - (odd if number == 20 else 0)
        page.record(at, call(machine, "m", 96, _PAGE))
        page.record(at + 2, call(machine, "r", 96, window))
        page.record(at + 4, call(machine, "u", 96, window))
    for name, content in folder(machine, {0: [page]}).items():
        lab_files.write(rooms / "qemu" / "recording" / name, content)


def cached(rooms: Path, name: str, release: str, version: str) -> None:
    place = rooms / "cache" / "highmem" / "lab" / "kernels" / release
    about = {"name": name, "release": release, "version": version}
    lab_files.write(place / "kernel.json", json.dumps(about).encode())
    lab_files.write(place / "vmlinuz", lab_files.bzimage(release=release))
    for module in ("virtio_pci", "virtio_blk", "virtio_console"):
        lab_files.write(place / "modules" / f"{module}.ko", lab_files.module(magic=release))
    busybox = rooms / "cache" / "highmem" / "lab" / "busybox" / "busybox"
    lab_files.write(busybox, lab_files.busybox())


# -- verdicts ---------------------------------------------------------------------------------


def test_a_verdict_is_the_result_and_the_recording_is_gone(rooms: Path) -> None:
    fake.install(rooms / "qemu", "well")
    recorded(rooms)
    done = run(rooms, "--verdict", "--", "true")
    assert done.exit_code == 0, done.stderr
    assert "addresses  29 of 29 right" in done.stdout and "verdict: clean" in done.stdout
    assert done.stdout.startswith("recording  1.2.3-test (trace.dat)")
    assert done.stderr == "highmem: 90 events\n"
    assert_nothing_left(rooms)


def test_an_address_that_the_model_does_not_predict_is_exit_1(rooms: Path) -> None:
    fake.install(rooms / "qemu", "well")
    recorded(rooms, odd=0x1000)
    out = rooms / "verdict.json"
    done = run(rooms, "--verdict", "--format", "json", "-o", out, "--record", rooms / "out.dat")
    assert done.exit_code == 1, done.stderr
    document = json.loads(out.read_text())
    assert document["schema"] == "highmem.lab.result/1"
    assert document["verdict"]["predictions"]["wrong"] > 0
    assert document["ended"] == "done"
    assert document["recording"] == str(rooms / "out.dat")
    assert (rooms / "out.dat").read_bytes()[:10] == b"\x17\x08\x44tracing"
    assert done.stdout == ""
    assert run(rooms, "--verdict", "--exit-zero", "-q").exit_code == 0


def test_with_a_verdict_what_the_job_prints_goes_to_stderr(rooms: Path) -> None:
    fake.install(rooms / "qemu", "done")
    recorded(rooms)
    done = run(rooms, "--verdict")
    assert "out\n" in done.stderr and not done.stdout.startswith("out")
    assert done.exit_code == 1  # the job's status was 7


def test_no_recording_where_one_was_wanted_is_one_line(rooms: Path) -> None:
    fake.install(rooms / "qemu", "well")
    done = run(rooms, "--record", rooms / "out.dat")
    assert done.exit_code == 2
    assert done.stderr == "highmem: no recording: 90 events\n"
    assert not (rooms / "out.dat").exists()


def test_a_machine_that_did_not_come_to_its_end_has_no_verdict(rooms: Path) -> None:
    fake.install(rooms / "qemu", "panic")
    done = run(rooms, "--verdict")
    assert (done.exit_code, done.stdout) == (3, "")


# -- check ------------------------------------------------------------------------------------


def test_check_goes_over_every_kernel_that_is_here(rooms: Path) -> None:
    fake.install(rooms / "qemu", "well")
    recorded(rooms)
    cached(rooms, "5.10-686", "5.10.0-32-686", "5.10.223-1")
    cached(rooms, "5.10-686", "5.10.0-31-686", "5.10.221-1")
    done = highmem(rooms, "check", "--accel", "tcg", "--keep", rooms / "kept")
    # All were predicted, but a proof needs more of them.
    assert done.exit_code == 3, done.stderr
    assert "29 of 29 (100 %)" in done.stdout
    assert "5.10-686: 90 events are fewer than 200,000" in done.stdout
    assert "5.10.0-31" not in done.stdout
    assert (rooms / "kept" / "linux-5.10-686.dat").exists()
    assert_nothing_left(rooms)


def test_check_fails_where_an_address_is_another(rooms: Path) -> None:
    fake.install(rooms / "qemu", "well")
    recorded(rooms, odd=0x1000)
    cached(rooms, "5.10-686", "5.10.0-32-686", "5.10.223-1")
    done = highmem(rooms, "check", "--accel", "tcg", "--format", "json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["passed"] is False
    assert document["kernels"][0]["verdict"]["predictions"]["wrong"] > 0
    told = highmem(rooms, "check", "--accel", "tcg")
    assert "(100 %)" not in told.stdout and "are not those predicted" in told.stdout


def test_check_tells_of_a_machine_that_did_not_come_to_its_end(rooms: Path) -> None:
    fake.install(rooms / "qemu", "panic")
    cached(rooms, "6.1-686", "6.1.0-50-686", "6.1.176-1")
    done = highmem(rooms, "check", "--accel", "tcg")
    assert done.exit_code == 3
    assert "6.1-686: Kernel panic - not syncing: " in done.stdout and "\x1b" not in done.stdout


def test_check_without_a_kernel_says_how_to_get_one(rooms: Path) -> None:
    done = highmem(rooms, "check")
    assert done.exit_code == 2
    assert done.stderr == (
        "highmem: no kernel is here yet: highmem lab check --fetch downloads them\n"
    )


# -- kernels ----------------------------------------------------------------------------------


def test_kernels_lists_what_is_here(rooms: Path) -> None:
    cached(rooms, "6.1-686", "6.1.0-50-686", "6.1.176-1")
    cached(rooms, "5.10-686-pae", "5.10.0-32-686-pae", "5.10.223-1")
    done = highmem(rooms, "kernels", "--offline")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["kernel", "6.1-686", "5.10-686-pae"]
    assert "the mirror was not asked" in done.stdout
    listed = json.loads(highmem(rooms, "kernels", "--offline", "--format", "json").stdout)
    assert [row["release"] for row in listed["kernels"]] == ["6.1.0-50-686", "5.10.0-32-686-pae"]
    chosen = highmem(rooms, "kernels", "--offline", "5.10-686-pae", "--format", "json")
    assert len(json.loads(chosen.stdout)["kernels"]) == 1


def test_kernels_that_nobody_knows_are_refused(rooms: Path) -> None:
    done = highmem(rooms, "kernels", "7.0")
    assert done.exit_code == 2 and done.stderr.startswith("highmem: 7.0: no such kernel;")
    assert "no kernel is here" in highmem(rooms, "kernels", "--offline").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--modules", "x"), "for a kernel of your own"),
        (("--kernel", "./nothing"), "No such file"),
        (("--kernel", "6.6"), "no such kernel"),
    ],
)
def test_run_says_what_is_wrong_in_one_line(
    rooms: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = highmem(rooms, "run", *arguments)
    assert done.exit_code == 2 and words in done.stderr
    assert done.stderr.count("\n") == 1
