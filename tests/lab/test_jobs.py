from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest

from highmem import lab
from highmem.errors import InputError, UsageError
from support import lab_files
from support.lab_rooms import RAM, a_job, assert_nothing_left, make_rooms


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return make_rooms(tmp_path)


def test_what_the_machine_says_comes_back(rooms: Path) -> None:
    heard: dict[str, bytes] = {"stdout": b"", "stderr": b""}
    lines: list[str] = []

    def hear(name: str, data: bytes) -> None:
        heard[name] += data

    listener = lab.Listener(
        progress=lines.append,
        stdout=lambda data: hear("stdout", data),
        stderr=lambda data: hear("stderr", data),
    )
    result = lab.do(a_job(rooms, "done"), listener)
    assert (result.ended, result.status, result.why) == (lab.Ended.DONE, 7, "")
    assert heard == {"stdout": b"out\n", "stderr": b"err\n"}
    assert result.facts == {"dmesg": b"log\n", "meminfo": b"HighTotal: 1 kB\n"}
    assert result.dmesg == "log\n"
    assert lines[0] == "starting 1.2.3-test (tcg)" and "the job runs" in lines
    assert_nothing_left(rooms)


def test_a_panic_is_told_with_its_line_and_the_console(rooms: Path) -> None:
    result = lab.do(a_job(rooms, "panic"))
    assert result.ended is lab.Ended.PANIC
    assert result.why.startswith("Kernel panic - not syncing: ")
    assert "Rebooting" in result.dmesg and result.facts == {} and result.status is None
    assert_nothing_left(rooms)


def test_a_machine_that_hangs_is_given_up_after_its_grace(rooms: Path) -> None:
    begun = time.monotonic()
    result = lab.do(a_job(rooms, "hang", timeout=0.5, grace=0.5))
    assert result.ended is lab.Ended.DEAD and "no answer" in result.why
    assert time.monotonic() - begun < 15
    assert_nothing_left(rooms)


def test_a_job_that_is_out_of_time_is_ended_and_brought_back(rooms: Path) -> None:
    result = lab.do(a_job(rooms, "obeys", timeout=0.5, grace=20.0))
    assert result.ended is lab.Ended.TIMEOUT and result.status is None
    assert result.facts == {"dmesg": b"killed\n"}
    assert_nothing_left(rooms)


def test_a_job_that_hangs_in_the_kernel_is_brought_back(rooms: Path) -> None:
    result = lab.do(a_job(rooms, "hung", timeout=0.5, grace=20.0))
    assert result.ended is lab.Ended.HUNG and result.status is None
    assert result.dmesg == "task blocked\n"
    assert_nothing_left(rooms)


def test_a_job_whose_end_nobody_saw_did_not_hang(rooms: Path) -> None:
    result = lab.do(a_job(rooms, "lost"))
    assert result.ended is lab.Ended.LOST and result.status is None
    assert "no memory left" in result.why and result.dmesg == "no memory\n"
    assert_nothing_left(rooms)


def test_saving_is_not_cut_off_by_the_time_out_of_the_job(
    rooms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = lab.do(a_job(rooms, "slow", timeout=1.0, grace=0.5))
    assert (result.ended, result.status, result.dmesg) == (lab.Ended.DONE, 3, "late\n")
    monkeypatch.setattr("highmem.lab.session._SAVING", 0.5)
    result = lab.do(a_job(rooms, "slow", timeout=1.0, grace=0.5))
    assert result.ended is lab.Ended.DEAD and "could not save" in result.why
    assert_nothing_left(rooms)


def test_a_kernel_that_never_starts_with_much_ram_is_told_what_may_be_the_reason(
    rooms: Path,
) -> None:
    result = lab.do(a_job(rooms, "silent", timeout=0.5, grace=0.2, ram=6 << 30))
    assert result.ended is lab.Ended.DEAD and "RAM above 4 GiB" in result.why
    result = lab.do(a_job(rooms, "hang", timeout=0.5, grace=0.2, ram=6 << 30))
    assert "RAM above 4 GiB" not in result.why


def test_a_qemu_that_dies_is_told_with_its_last_words(rooms: Path) -> None:
    result = lab.do(a_job(rooms, "dies"))
    assert result.ended is lab.Ended.DEAD and "a part of it fell off" in result.why
    assert_nothing_left(rooms)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("refuses", "no such thing as that"),
        ("nospace", "no space left"),
        ("unfit", "does not fit"),
        ("nodriver", "insmod virtio_pci.ko: bad"),
        ("cut", "not whole"),
    ],
)
def test_what_makes_a_job_impossible_is_one_line(rooms: Path, behaviour: str, words: str) -> None:
    with pytest.raises(lab.LabError, match=words) as raised:
        lab.do(a_job(rooms, behaviour))
    assert "\n" not in str(raised.value)
    assert_nothing_left(rooms)


def test_children_of_qemu_are_ended_too(rooms: Path) -> None:
    lab.do(a_job(rooms, "children", timeout=1.0, grace=0.5))
    assert (rooms / "qemu" / "child").exists()
    assert_nothing_left(rooms)


def test_an_endless_console_is_kept_up_to_a_limit(rooms: Path) -> None:
    result = lab.do(a_job(rooms, "floods", timeout=60.0))
    assert result.ended is lab.Ended.DONE
    assert len(result.console) == 16 << 20
    assert_nothing_left(rooms)


def test_an_exception_in_a_listener_leaves_nothing(rooms: Path) -> None:
    def interrupt(_data: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.do(a_job(rooms, "done"), lab.Listener(stdout=interrupt))
    assert_nothing_left(rooms)


@pytest.mark.parametrize("behaviour", ["kvm-dies", "kvm-hangs"])
def test_auto_falls_back_to_emulation_and_remembers(
    rooms: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    monkeypatch.setattr("highmem.lab.accel._kvm_usable", lambda: True)
    monkeypatch.setattr("highmem.lab.work._KVM_START", 1.0)
    job = a_job(rooms, behaviour, accel="auto")
    lines: list[str] = []
    result = lab.do(job, lab.Listener(progress=lines.append))
    assert (result.ended, result.accel) == (lab.Ended.DONE, "tcg")
    assert "starting 1.2.3-test (kvm)" in lines
    lines.clear()
    lab.do(job, lab.Listener(progress=lines.append))
    assert "starting 1.2.3-test (kvm)" not in lines
    assert_nothing_left(rooms)


def test_kvm_by_name_is_not_replaced(rooms: Path) -> None:
    with pytest.raises(lab.LabError, match="MSR 0x10a"):
        lab.do(a_job(rooms, "kvm-dies", accel="kvm"))
    assert_nothing_left(rooms)


def test_images_are_taken_when_the_guest_the_kernel_or_the_end_asks(rooms: Path) -> None:
    result = lab.do(a_job(rooms, "image", image=rooms / "memory.raw", cpus=2))
    names = [image.path.name for image in result.images]
    # By the job and by the kernel; at the end there was no need for one.
    assert names == ["memory.raw", "memory.1.raw"]
    first = result.images[0]
    assert first.path.stat().st_size == RAM
    assert [path.name for path in first.tlb] == ["memory.raw.tlb", "memory.raw.cpu1.tlb"]
    assert first.tlb[1].read_text() == "info tlb of 1\n"
    assert first.memory[0].read_text() == "info mem of 0\n"
    assert first.registers.read_text() == "info registers -a of 0\n"
    assert not [path for path in rooms.iterdir() if "partial" in path.name]


def test_an_image_that_nobody_wants_is_not_taken(rooms: Path) -> None:
    result = lab.do(a_job(rooms, "image"))
    assert result.images == () and result.ended is lab.Ended.DONE


def test_a_name_with_a_comma_reaches_qemu(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = rooms / "a,b"
    odd.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    assert lab.do(a_job(rooms, "done")).ended is lab.Ended.DONE
    assert list(odd.iterdir()) == []


def test_the_command_line_of_qemu(rooms: Path) -> None:
    lab.do(a_job(rooms, "done", cpus=3, append="highmem=64M"))
    arguments = (rooms / "qemu" / "arguments").read_text().split("\n")
    value = dict(itertools.pairwise(arguments))
    assert (value["-smp"], value["-m"], value["-accel"]) == ("3", "128M", "tcg")
    assert value["-append"].endswith("nokaslr tsc=reliable highmem=64M")
    lab.do(a_job(rooms, "done", kaslr=True))
    assert "nokaslr" not in (rooms / "qemu" / "arguments").read_text()


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"cpus": 0}, "0 CPUs"),
        ({"cpus": 33}, "1 to 32"),
        ({"ram": 1 << 20}, "1 MiB of RAM"),
        ({"accel": "magic"}, "no such acceleration"),
        ({"timeout": 0}, "time-out"),
        ({"command": ("a",), "workload": Path("w")}, "exclude each other"),
    ],
)
def test_jobs_that_make_no_sense(rooms: Path, wishes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        a_job(rooms, "done", **wishes)


def test_what_is_not_there_is_said_before_a_machine_is_started(rooms: Path) -> None:
    for wishes in (
        {"workload": rooms / "none.sh"},
        {"module": rooms / "none.ko"},
        {"image": rooms / "no" / "memory.raw"},
        {"record": rooms / "no" / "out.dat"},
        {"image": rooms / "memory.raw", "ram": 4 << 30},
    ):
        with pytest.raises(UsageError):
            lab.do(a_job(rooms, "done", **wishes))
    assert not (rooms / "qemu" / "pid").exists()


def test_a_module_for_another_kernel_is_refused_with_both_names(rooms: Path) -> None:
    path = lab_files.write(rooms / "m.ko", lab_files.module(magic="6.6.6-other SMP "))
    with pytest.raises(
        UsageError, match=r"built for 6\.6\.6-other, but the kernel is 1\.2\.3-test"
    ):
        lab.do(a_job(rooms, "done", module=path))


def test_a_kernel_for_64_bits_is_refused(rooms: Path) -> None:
    vmlinuz = lab_files.write(rooms / "vmlinuz64", lab_files.bzimage(flags=1))
    with pytest.raises(UsageError, match="64 bits"):
        lab.Job(lab.own_kernel(vmlinuz), rooms / "busybox")


def test_qemu_that_is_not_installed(rooms: Path) -> None:
    job = a_job(rooms, "done")
    (rooms / "qemu" / "qemu-system-i386").unlink()
    with pytest.raises(lab.LabError, match="not installed"):
        lab.do(job)


def test_no_room_for_temporary_files(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(rooms / "nowhere"))
    with pytest.raises(lab.LabError, match="TMPDIR"):
        lab.do(a_job(rooms, "done"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_while_building(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = a_job(rooms, "done")

    def full(_contents: object, _path: Path) -> None:
        with open("/dev/full", "wb", buffering=0) as stream:
            stream.write(b"x")

    monkeypatch.setattr("highmem.lab.work.write_initramfs", full)
    with pytest.raises(lab.LabError, match="No space left"):
        lab.do(job)
    assert_nothing_left(rooms)


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02\x01", b"#!/bin/sh\n"])
def test_a_busybox_that_is_none(rooms: Path, content: bytes) -> None:
    job = a_job(rooms, "done")
    lab_files.write(rooms / "busybox", content)
    with pytest.raises(InputError, match="busybox"):
        lab.do(job)
    assert_nothing_left(rooms)
