"""Whether KVM runs the lab's kernels here.

That ``/dev/kvm`` is there does not say so: a KVM inside a virtual machine may start QEMU and
then not get a 32-bit kernel anywhere.  So it is tried; where it fails, that is remembered until
the host is started again or has another QEMU.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .cache import cache_folder

__all__ = ["choose", "remember_broken"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def choose(wish: str, qemu: str) -> Iterator[tuple[str, bool]]:
    """The ways to try, in their order, and whether each may fail: ``kvm``, ``tcg``."""
    if wish == "kvm" or (wish == "auto" and _kvm_usable() and not _is_broken(qemu)):
        yield "kvm", wish == "auto"
    if wish != "kvm":
        yield "tcg", False


def remember_broken(qemu: str) -> None:
    """From now on ``auto`` does not try KVM here."""
    with contextlib.suppress(OSError):  # then it is tried again
        _mark().write_text(_identity(qemu))


def _kvm_usable() -> bool:
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def _is_broken(qemu: str) -> bool:
    try:
        return _mark().read_text() == _identity(qemu)
    except OSError:
        return False


def _mark() -> Path:
    return cache_folder() / "kvm-does-not-work"


def _identity(qemu: str) -> str:
    try:
        boot = _BOOT_ID.read_text().strip()
        about = os.stat(qemu)
    except OSError:
        return ""
    return f"{boot} {qemu} {about.st_mtime_ns} {about.st_size}\n"
