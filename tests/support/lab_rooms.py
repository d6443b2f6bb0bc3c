"""A place for machines of the lab whose QEMU is not one, and the proof that nothing is left."""

from __future__ import annotations

import time
from pathlib import Path

from highmem import lab
from support import lab_fake_qemu as fake
from support import lab_files

RAM = 128 << 20


def make_rooms(folder: Path) -> Path:
    """*folder* with a kernel, a busybox and a folder for temporary files."""
    (folder / "temporary").mkdir()
    lab_files.write(folder / "vmlinuz", lab_files.bzimage())
    lab_files.write(folder / "busybox", lab_files.busybox())
    return folder


def a_job(rooms: Path, behaviour: str, **wishes: object) -> lab.Job:
    """A job on a QEMU that behaves so."""
    kernel = lab.own_kernel(rooms / "vmlinuz")
    qemu = str(fake.install(rooms / "qemu", behaviour))
    given = {"timeout": 20.0, "grace": 1.0, "accel": "tcg", "ram": RAM, **wishes}
    return lab.Job(kernel, rooms / "busybox", qemu=qemu, **given)  # type: ignore[arg-type]


def assert_nothing_left(rooms: Path) -> None:
    """No temporary file, no process of it."""
    assert list((rooms / "temporary").iterdir()) == []
    for name in ("pid", "child"):
        place = rooms / "qemu" / name
        if place.exists():
            assert gone(int(place.read_text())), f"{name} still runs"


def gone(pid: int) -> bool:
    """Whether process *pid* ends within five seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":  # dead; whoever inherited it has not looked yet
            return True
        time.sleep(0.05)
    return False
