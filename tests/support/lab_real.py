"""Real kernels for tests: at hand or brought by apt, else the test is skipped with one line."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest

from highmem import lab


@cache
def _kernel(name: str) -> lab.LabKernel | str:
    if shutil.which("qemu-system-i386") is None:
        return "qemu-system-i386 is not installed"
    try:
        return lab.find_kernel(name, progress=lambda line: None)
    except lab.LabError as error:
        return str(error)


@cache
def _busybox() -> Path | str:
    try:
        return lab.find_busybox(progress=lambda line: None)
    except lab.LabError as error:
        return str(error)


def real_kernel(name: str = lab.DEFAULT_KERNEL) -> tuple[lab.LabKernel, Path]:
    """The kernel *name* and a busybox."""
    kernel, busybox = _kernel(name), _busybox()
    if isinstance(kernel, str):
        pytest.skip(kernel)
    if isinstance(busybox, str):
        pytest.skip(busybox)
    return kernel, busybox
